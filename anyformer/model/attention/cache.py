"""Keys and values of tokens that were read before, for generation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.batch import Batch, Layout
from anyformer.model.attention.places import Places

SPARE = 64
"""Places that a track holds at least before it is looked through for those that are seen no more."""


class Track:
    """Keys and values of the layers that share a pattern, and where they stand."""

    def __init__(self) -> None:
        self.places: Places | None = None
        self._kept: dict[int, Tensor] = {}
        self._full = 2 * SPARE
        self._has_moved = False

    def __len__(self) -> int:
        return 0 if self.places is None else self.places.segment.shape[1]

    def admit(self, places: Places) -> None:
        """Take up places behind the others."""
        self.places = places if self.places is None else self.places.joined(places)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the newest keys and values of a layer, each (b, h, n, d_head); returns those of all places."""
        end = len(self)
        kept = self._kept.get(layer)
        if kept is None or kept.shape[3] < end:
            # Room doubles, so that a token costs its own copy and not that of all before it.
            grown = k.new_empty(2, *k.shape[:2], max(end, 2 * (0 if kept is None else kept.shape[3])), k.shape[3])
            if kept is not None:
                grown[:, :, :, : end - k.shape[2]] = kept[:, :, :, : end - k.shape[2]]
            self._kept[layer] = kept = grown
        kept[0, :, :, end - k.shape[2] : end] = k
        kept[1, :, :, end - k.shape[2] : end] = v
        return kept[0, :, :, :end], kept[1, :, :, :end]

    @classmethod
    def join(cls, parts: Sequence[Track], n: int) -> Track:
        """The rows of several, in n places."""
        joined = cls()

        def stack(*tensors: Tensor | None) -> Tensor | None:
            if tensors[0] is None:
                return None
            return torch.cat([F.pad(each, (0, 0) * (each.ndim - 2) + (0, n - each.shape[1])) for each in tensors])

        joined.places = Places(*map(stack, *(part.places for part in parts)))
        for layer in parts[0]._kept:
            kept = [part._kept[layer][:, :, :, : len(part)] for part in parts]
            joined._kept[layer] = torch.cat([F.pad(each, (0, 0, 0, n - each.shape[3])) for each in kept], 1)
        return joined

    def copy(self) -> Track:
        """Another with the same tensors, which it shares until one of the two changes them."""
        other = Track()
        vars(other).update(vars(self) | {"_kept": dict(self._kept)})
        return other

    def select(self, rows: Tensor) -> None:
        self.places = None if self.places is None else self.places.map(lambda part: part[rows])
        self._kept = {layer: kept.index_select(1, rows) for layer, kept in self._kept.items()}

    def overwrite(self, sources: Sequence[int], targets: Sequence[int], start: int) -> None:
        """See `Cache.copy`."""
        # Where places have moved up, `start` stands elsewhere; what is the same may be copied too.
        start = 0 if self._has_moved else start
        for kept in self._kept.values():
            for source, target in zip(sources, targets, strict=True):
                kept[:, target, :, start : len(self)] = kept[:, source, :, start : len(self)]

    def hide(self, rows: Tensor) -> None:
        self.places = self.places._replace(segment=self.places.segment.index_fill(0, rows, 0))

    def renew(self, rows: Tensor, part: Track) -> None:
        """See `Cache.renew`."""
        segment = self.places.segment[rows]
        real, newest = segment > 0, part.places.segment > 0
        # Real places counted from the end: as many are kept as the other cache has.
        kept = real & (real.flip(1).cumsum(1).flip(1) <= newest.sum(1, keepdim=True))
        row, place = kept.nonzero(as_tuple=True)
        theirs, source = newest.nonzero(as_tuple=True)
        for layer, old in self._kept.items():
            old[:, rows[row], :, place] = part._kept[layer][:, theirs, :, source]
        counted = {
            name: getattr(self.places, name).index_put((rows[row], place), getattr(part.places, name)[theirs, source])
            for name in ("rank", "nth", "step")
            if getattr(self.places, name) is not None
        }
        segment = self.places.segment.index_copy(0, rows, segment.masked_fill(~kept, 0))
        self.places = self.places._replace(segment=segment, **counted)

    def cut(self, start: int, end: int) -> None:
        self.places = self.places.map(lambda part: part[:, start:end])
        self._kept = {layer: kept[:, :, :, start:] for layer, kept in self._kept.items()}

    @property
    def is_full(self) -> bool:
        """Whether there are so many places that it is worth while to look for those that are seen no more."""
        return len(self) >= self._full

    def trim(self, seen: Tensor | None) -> None:
        """Let go of the places that are seen no more. seen: which still are, (b, n) boolean; None: all."""
        self._full = 2 * len(self)
        if seen is None:
            return
        seen = seen & (self.places.segment > 0)
        n = max(int(seen.sum(1).max()), 1)
        # Those that stay first, each row in its own sequence; a row with fewer is padded by what is hidden.
        index = (~seen).long().argsort(dim=1, stable=True)[:, :n]
        real = seen.gather(1, index)
        row = torch.arange(len(index), device=index.device)[:, None]
        self.places = self.places.map(lambda part: part[row, index])
        self.places = self.places._replace(segment=self.places.segment * real)
        self._kept = {
            layer: kept.gather(3, index[None, :, None, :, None].expand(2, -1, kept.shape[2], -1, kept.shape[4]))
            for layer, kept in self._kept.items()
        }
        self._full, self._has_moved = max(2 * n, n + SPARE), True


class Cache:
    """Keys and values of the tokens seen so far, for inference: using it equals not using it.

    New tokens must not be visible to the cached ones, that is, their orders are higher or their samples others. Rows
    keep their place from call to call; ragged rows keep their padding, and the rule hides it, so prompts need no
    padding on the left. Layers of other patterns may come to hold other places: each pattern has a track.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = [Track()]
        """Of each pattern, in the sequence of the stack's."""
        self.memory_layout: Layout | None = None
        self.memory_plain = False
        """Whether every row sees all of its memory, known on the host."""
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}
        self.sharing = 1
        """How many rows, one after another, ask the same row of the memory: the beams of one sample."""
        self._memory_mask: Tensor | None = None
        # Known on the host: whether every cached place is real and of the one sample of its row, and the highest order.
        self._plain, self._highest = True, -1

    def __copy__(self) -> Cache:
        other = Cache()
        vars(other).update(
            vars(self) | {"tracks": [track.copy() for track in self.tracks], "memory": dict(self.memory)}
        )
        return other

    def __len__(self) -> int:
        return max(map(len, self.tracks))

    @property
    def places(self) -> Places | None:
        """Of all that is kept in the layers that keep the most; None at first."""
        return max(self.tracks, key=len).places

    def admit(self, batch: Batch, places: Places, n_patterns: int = 1) -> None:
        """Take up the places of a batch, in the layers of so many patterns."""
        if self.places is None:
            self.tracks = [Track() for _ in range(n_patterns)]
        elif len(places.segment) != len(self.places.segment):
            raise ValueError(f"the cache holds {len(self.places.segment)} rows, got {len(places.segment)}")
        for track in self.tracks:
            track.admit(places)
        self._plain &= batch.one_per_row and not batch.padded
        self._highest = max(self._highest, batch.orders[1])

    def all_visible_to(self, batch: Batch) -> bool:
        """Whether one new token a row sees all keys, known without asking the device."""
        return self._plain and batch.shape[1] == 1 and batch.orders[0] >= self._highest

    def memory_mask(self) -> Tensor:
        """What new tokens, all of them real, see of the memory where a row holds one sample: (b, 1, 1, m) boolean."""
        if self._memory_mask is None:
            self._memory_mask = (self.memory_layout.segment == 1)[:, None, None]
        return self._memory_mask

    @classmethod
    def join(cls, parts: Sequence[Cache]) -> Cache:
        """The rows of several caches without memory, those of the first first; shorter rows are padded at the end."""
        n, joined = max(map(len, parts)), cls()
        joined.tracks = [Track.join(tracks, n) for tracks in zip(*(part.tracks for part in parts), strict=True)]
        joined._plain = all(part._plain and len(part) == n for part in parts)
        joined._highest = max(part._highest for part in parts)
        return joined

    def select(self, rows: Tensor, sharing: int = 1) -> None:
        """Keep these rows only, (r,) int64, in this sequence; a row may be kept several times.

        sharing: so many rows, one after another, are of one row of the memory, which is then held once.
        """
        of_memory = (rows // self.sharing)[::sharing]
        if self.memory_layout is not None:
            self.memory_layout = Layout(*(part[of_memory] for part in self.memory_layout))
        self.memory = {layer: (k[of_memory], v[of_memory]) for layer, (k, v) in self.memory.items()}
        self.sharing, self._memory_mask = sharing, None
        for track in self.tracks:
            track.select(rows)

    def copy(self, sources: Sequence[int], targets: Sequence[int], start: int) -> None:
        """Overwrite rows with others from a place on, where beams of one sample part.

        No target may be a source. Up to `start` the rows of a pair hold the same, and throughout the same layout.
        """
        for track in self.tracks:
            track.overwrite(sources, targets, start)

    def hide(self, rows: Tensor) -> None:
        """What these rows, (r,) int64, hold is seen no more: they begin anew behind it."""
        for track in self.tracks:
            track.hide(rows)
        self._plain = False

    def renew(self, rows: Tensor, part: Cache) -> None:
        """Put the keys and values of another cache, one of its rows for each of these, in the place of the newest that
        they hold; of these rows all else is seen no more.

        The tokens are the same, at the same positions: those that a row has kept, seen without those it has dropped.
        """
        for track, other in zip(self.tracks, part.tracks, strict=True):
            track.renew(rows, other)
        self._plain = False

    def cut(self, start: int, end: int) -> None:
        """Keep the places from one number to another alone."""
        for track in self.tracks:
            track.cut(start, end)

    @property
    def n_hidden(self) -> int:
        """How many of the first places no row sees any more."""
        seen = (self.places.segment > 0).any(0)
        return int(seen.int().argmax()) if seen.any() else len(seen)

    def restart(self) -> None:
        """Forget all places but keep the memory, to begin anew with what is still to be seen."""
        self.tracks, self._plain, self._highest = [Track()], True, -1

"""Keys and values of tokens that were read before, for generation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from anyformer.batch import Batch, Layout


class Cache:
    """Keys and values of the tokens seen so far, for inference: using it equals not using it.

    New tokens must not be visible to the cached ones, that is, their orders are higher or their samples others. Rows
    keep their place from call to call; ragged rows keep their padding, and the rule hides it, so prompts need no
    padding on the left.
    """

    def __init__(self) -> None:
        self.layout: Layout | None = None
        self.memory_layout: Layout | None = None
        self.memory_plain = False
        """Whether every row sees all of its memory, known on the host."""
        self.coordinate: Tensor | None = None
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}
        self.sharing = 1
        """How many rows, one after another, ask the same row of the memory: the beams of one sample."""
        self._memory_mask: Tensor | None = None
        self._kept: dict[int, Tensor] = {}
        # Known on the host: whether every cached place is real and of the one sample of its row, and the highest order.
        self._plain, self._highest = True, -1

    def __len__(self) -> int:
        return 0 if self.layout is None else self.layout.segment.shape[1]

    def admit(self, batch: Batch) -> Layout:
        """Take up the places of a batch; returns the layout of all keys, the new ones last."""
        if self.layout is None:
            self.layout = batch.layout
        else:
            if len(batch.layout.segment) != len(self.layout.segment):
                raise ValueError(f"the cache holds {len(self.layout.segment)} rows, got {len(batch.layout.segment)}")
            self.layout = Layout(*(torch.cat(pair, 1) for pair in zip(self.layout, batch.layout, strict=True)))
        self._plain &= batch.one_per_row and not batch.padded
        self._highest = max(self._highest, batch.orders[1])
        return self.layout

    def place(self, coordinate: Tensor) -> Tensor:
        """Keep where the newest tokens stand, (b, n), for biases by distance; returns that of all keys."""
        old = [] if self.coordinate is None else [self.coordinate]
        self.coordinate = torch.cat([*old, coordinate], 1)
        return self.coordinate

    def all_visible_to(self, batch: Batch) -> bool:
        """Whether one new token a row sees all keys, known without asking the device."""
        return self._plain and batch.shape[1] == 1 and batch.orders[0] >= self._highest

    def memory_mask(self) -> Tensor:
        """What new tokens, all of them real, see of the memory where a row holds one sample: (b, 1, 1, m) boolean."""
        if self._memory_mask is None:
            self._memory_mask = (self.memory_layout.segment == 1)[:, None, None]
        return self._memory_mask

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
    def join(cls, parts: Sequence[Cache]) -> Cache:
        """The rows of several caches without memory, those of the first first; shorter rows are padded at the end."""
        n, joined = max(map(len, parts)), cls()

        def stack(tensors: Sequence[Tensor]) -> Tensor:
            return torch.cat([F.pad(tensor, (0, n - tensor.shape[1])) for tensor in tensors])

        joined.layout = Layout(*map(stack, zip(*(part.layout for part in parts), strict=True)))
        if parts[0].coordinate is not None:
            joined.coordinate = stack([part.coordinate for part in parts])
        for layer in parts[0]._kept:
            kept = [part._kept[layer][:, :, :, : len(part)] for part in parts]
            joined._kept[layer] = torch.cat([F.pad(each, (0, 0, 0, n - each.shape[3])) for each in kept], 1)
        joined._plain = all(part._plain and len(part) == n for part in parts)
        joined._highest = max(part._highest for part in parts)
        return joined

    def select(self, rows: Tensor, sharing: int = 1) -> None:
        """Keep these rows only, (r,) int64, in this sequence; a row may be kept several times.

        sharing: so many rows, one after another, are of one row of the memory, which is then held once.
        """
        of_memory = (rows // self.sharing)[::sharing]
        self.layout, self.memory_layout = (
            None if layout is None else Layout(*(part[index] for part in layout))
            for layout, index in ((self.layout, rows), (self.memory_layout, of_memory))
        )
        self.coordinate = None if self.coordinate is None else self.coordinate[rows]
        self.memory = {layer: (k[of_memory], v[of_memory]) for layer, (k, v) in self.memory.items()}
        self.sharing, self._memory_mask = sharing, None
        self._kept = {layer: kept.index_select(1, rows) for layer, kept in self._kept.items()}

    def copy(self, sources: Sequence[int], targets: Sequence[int], start: int) -> None:
        """Overwrite rows with others from a place on, where beams of one sample part.

        No target may be a source. Up to `start` the rows of a pair hold the same, and throughout the same layout.
        """
        for kept in self._kept.values():
            for source, target in zip(sources, targets, strict=True):
                kept[:, target, :, start : len(self)] = kept[:, source, :, start : len(self)]

    def hide(self, rows: Tensor) -> None:
        """What these rows, (r,) int64, hold is seen no more: they begin anew behind it."""
        segment = self.layout.segment.index_fill(0, rows, 0)
        self.layout, self._plain = self.layout._replace(segment=segment), False

    def renew(self, rows: Tensor, part: Cache) -> None:
        """Put the keys and values of another cache, one of its rows for each of these, in the place of the newest that
        they hold; of these rows all else is seen no more.

        The tokens are the same, at the same positions: those that a row has kept, seen without those it has dropped.
        """
        real, newest = self.layout.segment[rows] > 0, part.layout.segment > 0
        # Real places counted from the end: as many are kept as the other cache has.
        kept = real & (real.flip(1).cumsum(1).flip(1) <= newest.sum(1, keepdim=True))
        row, place = kept.nonzero(as_tuple=True)
        theirs, source = newest.nonzero(as_tuple=True)
        for layer, old in self._kept.items():
            old[:, rows[row], :, place] = part._kept[layer][:, theirs, :, source]
        segment = self.layout.segment.index_copy(0, rows, self.layout.segment[rows].masked_fill(~kept, 0))
        self.layout, self._plain = self.layout._replace(segment=segment), False

    def cut(self, start: int, end: int) -> None:
        """Keep the places from one number to another alone."""
        self.layout = Layout(*(part[:, start:end] for part in self.layout))
        self.coordinate = None if self.coordinate is None else self.coordinate[:, start:end]
        self._kept = {layer: kept[:, :, :, start:] for layer, kept in self._kept.items()}

    @property
    def n_hidden(self) -> int:
        """How many of the first places no row sees any more."""
        seen = (self.layout.segment > 0).any(0)
        return int(seen.int().argmax()) if seen.any() else len(seen)

    def restart(self) -> None:
        """Forget all places but keep the memory, to begin anew with what is still to be seen."""
        self.layout, self.coordinate, self._kept, self._plain, self._highest = None, None, {}, True, -1

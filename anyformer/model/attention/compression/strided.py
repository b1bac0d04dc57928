"""Memory-compressed attention (Liu et al. 2018, "Generating Wikipedia by Summarizing Long Sequences", 4.2.2): a strided
convolution over keys and values leaves one of each for every window of places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from anyformer.model.attention.cache import Track
from anyformer.model.attention.places import Places
from anyformer.model.attention.rotary import Rotation, rotate
from anyformer.model.attention.sight import Sight
from anyformer.model.config import TransformerConfig
from anyformer.model.layers import take


@dataclass(frozen=True)
class Windows:
    """Of the keys those alone are seen that stand at the end of a window, for all of it: the condition of a compressed
    layer.

    Windows join `stride` places of one sample, by `Places.step`: they are counted onwards and backwards from where the
    tokens of its lowest order end, which are given at once. So all of these are in a window, of which the first may
    lack some places, and a later token is in one as soon as that is full. A window is seen by tokens whose order is at
    least that of its last token, the highest in it.
    """

    stride: int

    def __call__(self, query: Places, key: Places) -> Tensor:
        """As a condition of the rule."""
        return self.ends(key)[:, None]

    def ends(self, places: Places) -> Tensor:
        """Which places end a window, (b, n) boolean."""
        return places.step % self.stride == self.stride - 1

    def lay(self, query: Places, key: Places) -> tuple[Tensor, Tensor]:
        """The windows that end among the queries: the places of each among the keys, first to last, (b, m, stride)
        int64, and the last alone, (b, m); -1 where there is none.

        query: (b, n); key: (b, keys), of which the queries are the newest.
        """
        b, n = query.segment.shape
        if not b * n:
            none = torch.full((b, 1), -1, device=query.segment.device)
            return none[..., None].expand(-1, -1, self.stride), none
        n_earlier = key.segment.shape[1] - n
        is_end = self.ends(query) & (query.segment > 0)
        # One at least, though nothing ends: attention needs a key, if one that nobody sees.
        m = max(int(is_end.sum(1).max()), 1)
        index = torch.argsort(~is_end, dim=1, stable=True)[:, :m]
        real = is_end.gather(1, index)
        segment, step = (part.gather(1, index)[..., None] for part in (query.segment, query.step))
        away = torch.arange(1 - self.stride, 1, device=index.device)
        end = index + n_earlier
        if n_earlier:
            found = [self._find(key, segment, step + each) for each in away.tolist()]
            member = torch.cat(found, 2)
        else:
            # In rows that are laid at once a sample's tokens stand one after another.
            place = end[..., None] + away
            held = [part.gather(1, place.clamp(min=0).flatten(1)).view(place.shape) for part in (key.segment, key.step)]
            is_member = (place >= 0) & (held[0] == segment) & (held[1] == step + away)
            member = torch.where(is_member, place, -1)
        return member.masked_fill(~real[..., None], -1), end.masked_fill(~real, -1)

    @staticmethod
    def _find(key: Places, segment: Tensor, step: Tensor) -> Tensor:
        """The places of a segment and step, each (b, m, 1); -1 where there is none."""
        found = (key.segment[:, None] == segment) & (key.step[:, None] == step)
        return torch.where(found.any(2), found.int().argmax(2), -1)[..., None]

    def window_of(self, places: Places) -> Tensor:
        """Of each place the one that its window ends at, (b, n) int64; -1 where it is in none."""
        member, end = self.lay(places, places)
        found = torch.full_like(places.step, -1)
        row, window, slot = (member >= 0).nonzero(as_tuple=True)
        found[row, member[row, window, slot]] = end[row, window]
        return found

    def still_seen(self, newest: Places, key: Places) -> Tensor:
        """As of `Reach`: the ends of windows, and the places of the one that is not full."""
        return self.ends(key) | (key.step // self.stride == newest.step // self.stride)


class CompressedSight(NamedTuple):
    """What queries see of the windows."""

    sight: Sight
    """Of the windows; with a cache of all places, where each window stands at its last."""
    member: Tensor
    """Of windows that are new, as from `Windows.lay`."""
    end: Tensor

    engine = "compressed"

    def at(self, place: Tensor, n: int) -> CompressedSight:
        """As of `Sight`."""
        return self._replace(sight=self.sight.at(place, n))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        """As of `Sight`; k, v: of the windows."""
        return self.sight.attend(q, k, v, **options)


class StridedConvolution(nn.Module):
    """Keys and values of windows out of those of places. Each head has kernels of its own; at first they take the
    mean."""

    def __init__(self, config: TransformerConfig, stride: int) -> None:
        super().__init__()
        self.stride, n_heads = stride, config.kv_heads
        width = n_heads * config.head_width
        self.keys, self.values = (nn.Conv1d(width, width, stride, stride, groups=n_heads) for _ in range(2))
        mean = torch.eye(config.head_width).repeat(n_heads, 1)[..., None] / stride
        with torch.no_grad():
            for convolution in (self.keys, self.values):
                convolution.weight.copy_(mean.expand_as(convolution.weight))
                convolution.bias.zero_()

    def forward(
        self, k: Tensor, v: Tensor, sight: CompressedSight, rotation: Rotation | None, cache: Track | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the newest places, each (b, h, n, d_head), not turned; returns those of windows.

        A window is turned as its last place. With a cache it takes that place of the cache, so that rows are kept,
        chosen and copied by places as ever, and the places before it may leave.
        """
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        keys, values = (
            self._joined(convolution, part, sight.member) for convolution, part in ((self.keys, k), (self.values, v))
        )
        if rotation is not None:
            place = (sight.end - (k.shape[2] - rotation[0].shape[2])).clamp(min=0)
            keys = rotate(keys, tuple(take(part, place, 2) for part in rotation))
        if cache is None:
            return keys, values
        row, window = (sight.end >= 0).nonzero(as_tuple=True)
        place = sight.end[row, window]
        for kept, new in ((k, keys), (v, values)):
            kept[row, :, place] = new[row, :, window].to(kept.dtype)
        return k, v

    def n_keys(self, n: int) -> int:
        """Of so many places."""
        return -(-n // self.stride)

    def n_products(self, n: int) -> int:
        """Of two numbers, that working them out takes, for keys and values together."""
        return self.n_keys(n) * sum(each.weight.numel() for each in (self.keys, self.values))

    def _joined(self, convolution: nn.Conv1d, x: Tensor, member: Tensor) -> Tensor:
        """x: (b, h, n, k). Returns (b, h, m, k); a place without a token counts as 0."""
        index = member.flatten(1)
        gathered = take(x, index.clamp(min=0), 2).masked_fill((index < 0)[:, None, :, None], 0.0)
        joined = convolution(gathered.transpose(2, 3).flatten(1, 2))  # (b, h * k, m)
        # The fast kernels want the features of a key side by side.
        return joined.unflatten(1, (x.shape[1], -1)).transpose(2, 3).contiguous()

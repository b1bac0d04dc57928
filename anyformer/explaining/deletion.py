"""How far a map may be believed: what becomes of the answer when the tokens that it points at are really taken out.

After the deletion curves of Petsiuk et al. 2018 and the perturbation tests of Chefer et al. 2021, with tokens that are
absent in place of a baseline that stands for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anyformer.explaining.asked import Asked
from anyformer.tokens import Sample

SHARES = (0.1, 0.3, 0.5)
"""Of the tokens that are taken out."""
DRAWS = 20
"""Random choices that a map is held against."""
OUTDOING = 0.1
"""The share of the random choices that may outdo a map which is better than they are."""


@dataclass(frozen=True)
class Deletion:
    """The answer to one record with tokens taken out, by a map and at random."""

    whole: float
    """With all tokens."""
    n_tokens: int
    """That may be taken out."""
    shares: tuple[float, ...]
    by_map: dict[str, tuple[float, ...]]
    """By map the answer without the most relevant tokens, at each share."""
    random: np.ndarray
    """(draws, shares): the answer without as many random ones; of a draw the larger shares hold the smaller."""

    def fall(self, name: str) -> float:
        """How far the answer falls without the tokens that a map points at, in the mean of the shares."""
        return self.whole - float(np.mean(self.by_map[name]))

    @property
    def random_falls(self) -> np.ndarray:
        """(draws,), the same of the random choices."""
        return self.whole - self.random.mean(1)

    def outdoing(self, name: str) -> int:
        """The random choices after which the answer falls further than after that of the map, by a twentieth."""
        fall = self.fall(name)
        return int((self.random_falls > fall + abs(fall) / 20).sum())

    def is_better(self, name: str) -> bool:
        """Whether the answer falls further than after random choices in the mean, by a standard deviation of theirs,
        and few of them outdo the map. A random map would pass once in ten times."""
        falls = self.random_falls
        is_further = self.fall(name) > float(falls.mean() + falls.std())
        return is_further and self.outdoing(name) <= OUTDOING * len(falls)

    def verdict(self, name: str, unit: str = "") -> str:
        """What a reader is to make of it, in words."""
        unit, falls = f" {unit}" if unit else "", self.random_falls
        numbers = (
            f"without the tokens that it points at the answer falls by {self.fall(name):.3g}{unit}, without as many "
            f"random ones by {falls.mean():.3g} ± {falls.std():.2g}; {self.outdoing(name)} of {len(falls)} random "
            "choices do more"
        )
        better = "better than random" if self.is_better(name) else "no better than random, so do not go by this map"
        return f"{better}: {numbers}"


def n_passes(n_maps: int) -> int:
    return 1 + (n_maps + DRAWS) * len(SHARES)


def deletion(asked: Asked, sample: Sample, maps: Mapping[str, Mapping[str, Tensor]], seed: int = 0) -> Deletion:
    """maps: by its name and the field, the relevance of each token, (n,). What the model adds, and a text that is
    written, stays. seed: of the random choices."""
    fields = [name for name in sample if name not in asked.kept and len(sample[name])]
    sizes = [len(sample[name]) for name in fields]
    n, generator = sum(sizes), np.random.default_rng(seed)

    def dropped(order: np.ndarray, share: float) -> dict[str, Tensor]:
        gone = torch.zeros(n, dtype=torch.bool)
        # At least one, and never all of several.
        gone[torch.from_numpy(order[: max(1, round(share * n))].copy())] = True
        return dict(zip(fields, gone.split(sizes), strict=True))

    orders = {
        name: np.argsort(-torch.cat([own[field] for field in fields]).double().numpy(), kind="stable")
        for name, own in maps.items()
    }
    drawn = [generator.permutation(n) for _ in range(DRAWS)]
    choices = [dropped(order, share) for order in (*orders.values(), *drawn) for share in SHARES]
    found = asked.values([sample] * (1 + len(choices)), [{}, *choices])
    table = found[1:].reshape(-1, len(SHARES))
    by_map = {name: tuple(row.tolist()) for name, row in zip(orders, table, strict=False)}
    return Deletion(float(found[0]), n, SHARES, by_map, table[len(orders) :])


@dataclass(frozen=True)
class Deletions:
    """Deletion over a data set: at each share how much further the answer falls by a map than at random."""

    n_records: int
    shares: tuple[float, ...]
    mean: dict[str, tuple[float, ...]]
    error: dict[str, tuple[float, ...]]
    """The standard errors of these means."""

    def is_better(self, name: str) -> bool:
        """At 30 %: by more than two standard errors."""
        middle = len(self.shares) // 2
        return self.mean[name][middle] > 2 * self.error[name][middle]


def over_records(found: Sequence[Deletion]) -> Deletions:
    """Of the curves of several records."""
    mean, error = {}, {}
    for name in found[0].by_map:
        further = np.array([each.random.mean(0) - np.array(each.by_map[name]) for each in found])
        mean[name] = tuple(further.mean(0).tolist())
        spread = further.std(0, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.full(len(SHARES), np.nan)
        error[name] = tuple(spread.tolist())
    return Deletions(len(found), found[0].shares, mean, error)

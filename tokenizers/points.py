"""Clouds of points in space as tokens: a set without any order, whose coordinates are what it is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.choices import Values
from anyformer.data.moments import Moments
from anyformer.data.values import is_json, parse_json, to_numbers
from anyformer.errors import InputError
from anyformer.tokenizers.arrays import ARRAYS, COLUMNS, array_shape, read_array, read_columns
from anyformer.tokens import Tokenizer, TokenSet


@dataclass(frozen=True)
class PointsAugmentation(Values):
    """What is drawn for a cloud whenever it comes up in training. Nothing by default."""

    rotate: Literal["up", "any"] | None = None
    """up: it is turned about the third axis, by any angle. any: to any side."""
    jitter: float = 0.0
    """Normal noise of this deviation is added to every coordinate, as they are after `normalize` (Qi et al. 2017, 5.1:
    0.02)."""
    scale: float = 0.0
    """It is made larger or smaller, by a factor from 1 - scale to 1 + scale."""

    def __post_init__(self) -> None:
        if self.jitter < 0:
            raise InputError(f"augment.jitter must be at least 0, got {self.jitter}")
        if not 0 <= self.scale < 1:
            raise InputError(f"augment.scale must be at least 0 and below 1, got {self.scale}")

    def change(self, points: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """(n, 3) to the same."""
        if self.rotate == "up":
            angle = random.uniform(0, 2 * math.pi)
            cos, sin = math.cos(angle), math.sin(angle)
            points = points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        elif self.rotate == "any":
            # The orthogonal part of a normal matrix, its signs made unique, is uniform (Mezzadri 2007, 5).
            matrix, triangle = np.linalg.qr(random.standard_normal((3, 3)))
            matrix = matrix * np.sign(np.diag(triangle))
            points = points @ (matrix * np.linalg.det(matrix))
        if self.scale:
            points = points * random.uniform(1 - self.scale, 1 + self.scale)
        if self.jitter:
            points = points + random.normal(0, self.jitter, points.shape)
        return points


@dataclass(frozen=True)
class Points(Tokenizer):
    """Cuts a cloud of points into a token each, without position or order: the coordinates are the content.

    A record is an array or lists, (n, 3 + features): the coordinates, and perhaps a colour, a normal or a strength of
    each; JSON of them; or the name of a .npy, .npz, .csv or .tsv file. In which sequence the points stand changes
    nothing. The content is (n, 3 + features) float32.
    """

    max_points: int = 1024
    """Of a larger cloud so many are taken: drawn in training, else even over it as its points are sorted."""
    normalize: Literal["cloud", "data", "none"] = "cloud"
    """cloud: each has its middle taken off, and is divided by the distance of its farthest point (Qi et al. 2017, 5.1).
    data: all are moved and divided alike, to mean 0 and deviation 1."""
    n_features: int | None = None
    """Numbers of a point beside its coordinates; as the training records have, when left out. Each is brought to mean 0
    and deviation 1 of the data."""
    augment: PointsAugmentation | None = None
    """What is drawn for a cloud in training; features stay as they are."""
    mean: tuple[float, ...] | None = None
    """What `fit` has learnt: of the coordinates and of each feature."""
    std: tuple[float, ...] | None = None
    """The standard deviations, the same one for the three coordinates; 1 for what never changes."""

    endings: ClassVar[tuple[str, ...]] = ARRAYS + COLUMNS

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.max_points < 1:
            raise InputError(f"max_points must be at least 1, got {self.max_points}")
        if self.n_features is not None and self.n_features < 0:
            raise InputError(f"n_features must be at least 0, got {self.n_features}")

    @property
    def augments(self) -> bool:
        """Of a cloud of more than `max_points` others are taken each time."""
        return True

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: see the class. Raises InputError for another number of columns, no points, and what is not finite."""
        cloud = self._read(record)
        mean, std = self._scaling
        if len(cloud) > self.max_points:
            cloud = cloud[self._choose(cloud, random)]
        points, features = cloud[:, :3], (cloud[:, 3:] - mean[3:]) / std[3:]
        if self.normalize == "data":
            points = (points - mean[:3]) / std[:3]
        elif self.normalize == "cloud":
            points = points - points.mean(0)
            # Of one point alone, or several on one place, there is no size.
            points = points / (np.linalg.norm(points, axis=1).max() or 1)
        if self.augment is not None and random is not None:
            points = self.augment.change(points, random)
        return TokenSet(torch.from_numpy(np.concatenate([points, features], 1).astype(np.float32)))

    def _choose(self, cloud: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
        """Which points of a cloud too large are taken."""
        if random is not None:
            return random.choice(len(cloud), self.max_points, replace=False)
        even = np.linspace(0, len(cloud) - 1, self.max_points).round().astype(int)
        return np.lexsort(cloud.T[::-1])[even]

    def decode(self, tokens: TokenSet) -> np.ndarray:
        """The points with their features, (n, 3 + features) float64; of a cloud normalised by itself as it is then."""
        content, (mean, std) = tokens.content.detach().cpu().double().numpy(), self._scaling
        if self.normalize != "data":
            mean, std = (np.concatenate([[value] * 3, part[3:]]) for value, part in ((0, mean), (1, std)))
        return content * std + mean

    def show(self, tokens: TokenSet) -> np.ndarray:
        """The cloud from its front: the first axis goes right and the third up; what is nearer is darker."""
        points = tokens.content[:, :3].double().numpy()
        low, size = points.min(0), max(float(np.ptp(points, axis=0).max()), 1e-9)
        picture = np.full((96, 96, 3), 255, dtype=np.uint8)
        x, depth, z = ((points - low) / size).T
        for i in np.argsort(-depth, kind="stable"):
            picture[94 - int(z[i] * 93), 1 + int(x[i] * 93)] = int(200 * depth[i])
        return picture

    def count(self, record: Any) -> int:
        is_array = isinstance(record, str) and record.lower().endswith(ARRAYS)
        return min(_check_shape(array_shape(record))[0] if is_array else len(self._read(record)), self.max_points)

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, 3 + self._n_features))

    def lift(self, d_model: int) -> nn.Module:
        return PointsLift(3 + self._n_features, d_model)

    def fit(self, records: Iterable[Any]) -> Self:
        """A copy with the number of features, and the means and deviations of all points of the data."""
        if self.n_features is not None and self.mean is not None and self.std is not None:
            return self
        known, moments = self, Moments()
        for record in records:
            cloud = known._read(record)
            known = replace(known, n_features=cloud.shape[1] - 3)
            moments.add(cloud)
        if not moments.n.any():
            raise InputError("there is no point to learn from: the training records hold none")
        mean, std = moments.mean, moments.std
        # The coordinates are measured alike, and stay so. Those of a map are far from 0: a few metres at 5,000,000 are
        # no noise, so that only what float64 cannot tell is taken for what never changes.
        size = math.sqrt((moments.squares[:3] / moments.n[:3]).mean())
        std[:3] = size if size > 16 * np.finfo(np.float64).eps * np.abs(mean[:3]).max() else 1
        return replace(known, mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def inherit(self, other: Tokenizer) -> Self:
        if not isinstance(other, Points):
            return self
        learnt = ("n_features", "mean", "std")
        return replace(self, **{name: getattr(other, name) for name in learnt if getattr(self, name) is None})

    def agree(self, other: Tokenizer, name: str) -> None:
        if isinstance(other, Points):
            for fact in ("normalize", "n_features", "mean", "std"):
                if getattr(self, fact) != getattr(other, fact):
                    raise InputError(
                        f"{name}: {fact} is {getattr(self, fact)} and {getattr(other, fact)}; set it alike"
                    )

    @property
    def _n_features(self) -> int:
        if self.n_features is None:
            raise InputError("the features of points are not known yet; give n_features, or fit to data first")
        return self.n_features

    @property
    def _scaling(self) -> tuple[np.ndarray, np.ndarray]:
        """What is taken off, and what it is then divided by, (3 + features,) each."""
        if self.normalize != "data" and self.n_features == 0:
            return np.zeros(3), np.ones(3)
        if self.mean is None or self.std is None:
            raise InputError("the means of the points are not known yet; fit to data first")
        return np.array(self.mean), np.array(self.std)

    def _read(self, record: Any) -> np.ndarray:
        """(n, 3 + features) float64."""
        if is_json(record):
            record = parse_json(record)
        elif isinstance(record, str):
            is_columns = record.lower().endswith(COLUMNS)
            record = np.stack(list(read_columns(record).values()), 1) if is_columns else read_array(record)
        cloud = to_numbers(record, "points")
        _check_shape(cloud.shape)
        if self.n_features is not None and cloud.shape[1] != 3 + self.n_features:
            raise InputError(f"points must have {self.n_features} features beside x, y and z, got {cloud.shape[1] - 3}")
        if np.isnan(cloud).any():
            raise InputError(f"point {int(np.isnan(cloud).any(1).argmax())} has a number missing; leave it out")
        return cloud


def _check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 2 or not shape[0] or shape[1] < 3:
        raise InputError(f"points must be (n, 3 + features) with at least one, got {shape}")
    return shape


class PointsLift(nn.Module):
    """Two layers on each point alone (Qi et al. 2017, "PointNet", 4.2): a linear one would make a token a plane."""

    def __init__(self, d_content: int, d_model: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(d_content, d_model), nn.Linear(d_model, d_model)

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total, 3 + features) float. Returns (total, d)."""
        return self.outer(F.gelu(self.inner(content)))

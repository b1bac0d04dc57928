"""A digit as several sensors have it at once, made in the run from real pictures and real recordings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from anyformer.data.source import Source, names_in
from anyformer.errors import InputError
from anyformer.tokenizers.image.sources import PARTS, digits_of


@dataclass(frozen=True)
class DigitSensors(Source):
    """For each recording of a spoken digit, the same digit as a picture and as a radar has it, and who speaks.

    Columns: picture, (8, 8) uint8, a handwritten digit of scikit-learn's; sound, the name of the recording's file;
    radar, (n_ranges, n_angles) float32, a sweep about the strokes of the picture, see `sweep`; speaker, a dict of what
    is known of the speaker: speaker, a name, and seconds, the length of the recording; digit, "0" to "9". The pictures
    of validation, a fifth of each digit's, occur in training nowhere. Which picture a recording has is a function of
    part, seed and number. Raises InputError for other digits, and an unknown part.
    """

    sounds: Source
    """The recordings: a table with the columns file, digit, speaker and seconds, as that of FSDD."""
    part: Literal["train", "validation"] = "train"
    """Which pictures."""
    n_angles: int = 16
    """Directions from which the radar looks, over half a turn."""
    n_ranges: int = 6
    """Distances that it tells apart."""
    speckle: float = 0.5
    """Standard deviation of the factor, about 1, of each echo; a tenth of it that of noise where nothing is."""
    seed: int = 0
    """Draws pictures and noise."""

    def __post_init__(self) -> None:
        for name in ("n_angles", "n_ranges"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.speckle < np.inf:
            raise InputError(f"speckle must be at least 0, got {self.speckle}")

    def __len__(self) -> int:
        return len(self.sounds)

    def __getitem__(self, i: int) -> dict[str, Any]:
        digit, spoken = self._digits[i], self.sounds[i]
        random = np.random.default_rng((self.seed, PARTS.index(self.part), range(len(self))[i]))
        pictures, places = digits_of(self.part)
        own = places[digit]
        picture = pictures[int(own[random.integers(len(own))])]["image"]
        return {
            "picture": picture,
            "sound": spoken["file"],
            "radar": self._noisy(sweep(picture, self.n_angles, self.n_ranges), random),
            "speaker": {name: spoken.get(name) for name in ("speaker", "seconds")},
            "digit": digit,
        }

    def name(self, i: int) -> str:
        return f"digit sensors, {self.sounds.name(i)}"

    @property
    def folder(self) -> str:
        return self.sounds.folder

    def folder_of(self, i: int) -> str:
        return self.sounds.folder_of(i)

    def _noisy(self, echoes: np.ndarray, random: np.random.Generator) -> np.ndarray:
        factors = 1 + self.speckle * random.standard_normal(echoes.shape)
        noise = self.speckle / 10 * random.standard_normal(echoes.shape)
        return (echoes * factors + noise).astype(np.float32)

    @cached_property
    def _digits(self) -> list[str]:
        digits = names_in(self.sounds, "digit")
        for i, digit in enumerate(digits):
            if digit not in digits_of(self.part)[1]:
                raise InputError(
                    f"{self.sounds.name(i)}: the column 'digit' must hold 0 to 9, got {digit or 'nothing'}"
                )
        return digits


def sweep(picture: np.ndarray, n_angles: int, n_ranges: int) -> np.ndarray:
    """What comes back from a picture's strokes, seen from directions over half a turn: at each the sum of what lies
    at each distance (the Radon transform), by linear interpolation between distances.

    picture: (rows, columns), 0 to 255. Returns (n_ranges, n_angles) float64, in units of the average over distances.
    """
    rows, columns = np.indices(picture.shape).reshape(2, -1) - (np.array(picture.shape)[:, None] - 1) / 2
    reach = np.hypot(*picture.shape) / 2
    weights = picture.reshape(-1) / max(picture.sum(), 1) * n_ranges
    echoes = np.zeros((n_ranges, n_angles))
    for k in range(n_angles):
        angle = np.pi * k / n_angles
        place = ((columns * np.cos(angle) + rows * np.sin(angle)) / reach + 1) / 2 * (n_ranges - 1)
        near = np.floor(place).astype(int).clip(0, max(n_ranges - 2, 0))
        far = np.minimum(near + 1, n_ranges - 1)
        share = place - near
        np.add.at(echoes[:, k], near, weights * (1 - share))
        np.add.at(echoes[:, k], far, weights * share)
    return echoes

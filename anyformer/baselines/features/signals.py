"""Sounds and series as statistics of their stretches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anyformer.baselines.features.features import Vectors, segments
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.series.channels import UNNAMED, read_channels
from anyformer.tokenizers.series.series import Series

SOUND_SEGMENTS, SERIES_SEGMENTS = 6, 8


class MelSegments(Vectors):
    """The log-mel spectrogram as the model sees it in 6 stretches: the mean and the most of each band in each, and the
    logarithm of the length."""

    tokenizer: Audio

    def read(self, value: Any) -> np.ndarray:
        mel = self.tokenizer.decode(self.tokenizer.encode(value)).numpy()
        parts = segments(mel, SOUND_SEGMENTS)
        means, most = ([function(0) for part in parts if (function := getattr(part, name))] for name in ("mean", "max"))
        return np.concatenate([*means, *most, [math.log(len(mel))]])


class SeriesSegments(Vectors):
    """Of each channel the mean, the deviation, the least, the most, the first and the last value, the mean change from
    one step to the next, and the means of 8 stretches; and the logarithm of the length."""

    tokenizer: Series

    def read(self, value: Any) -> Any:
        parts, times = read_channels(value, self.tokenizer.times, self.tokenizer.time_first)
        turned = {
            name: part.T if part is not None and self.tokenizer.time_first else part for name, part in parts.items()
        }
        if UNNAMED in turned:
            return turned[UNNAMED]
        return turned if times is None else {**turned, self.tokenizer.times: times}

    def fit(self, kept: Sequence[Any]) -> None:
        # Which channels there are is known once all records are.
        self._series = self.tokenizer.fit(kept)
        super().fit([self._describe(each) for each in kept])

    def transform(self, kept: Sequence[Any]) -> np.ndarray:
        return super().transform([self._describe(each) for each in kept])

    def _describe(self, record: Any) -> np.ndarray:
        steps = _steps(self._series.decode(self._series.encode(record)), self._series)
        with warnings.catch_warnings():
            # Of a stretch in which a channel is missing: it says so by NaN.
            warnings.simplefilter("ignore", RuntimeWarning)
            changes = np.abs(np.diff(steps, axis=0)) if len(steps) > 1 else np.zeros_like(steps)
            statistics = [
                np.nanmean(steps, 0), np.nanstd(steps, 0), np.nanmin(steps, 0), np.nanmax(steps, 0), steps[0],
                steps[-1], np.nanmean(changes, 0),
            ]  # fmt: skip
            means = [np.nanmean(part, 0) for part in segments(steps, SERIES_SEGMENTS)]
        return np.concatenate([*statistics, *means, [math.log(len(steps))]])


def _steps(decoded: np.ndarray | Mapping[str, np.ndarray], series: Series) -> np.ndarray:
    """(steps, channels), NaN where missing."""
    if isinstance(decoded, Mapping):
        parts = [part for name, part in decoded.items() if name != series.times]
        parts = [part if part.ndim == 1 or series.time_first else part.T for part in parts]
        return np.column_stack(parts)
    return decoded if series.time_first else decoded.T

"""Time series: tokens of steps, and augmentation."""

from anyformer.tokenizers.series.augmentation import SeriesAugmentation
from anyformer.tokenizers.series.series import Series

__all__ = ["Series", "SeriesAugmentation"]

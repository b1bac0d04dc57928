"""Pictures: patches, augmentation, and sources."""

from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.digit_questions import DigitQuestions
from anyformer.tokenizers.image.digit_sensors import DigitSensors
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from anyformer.tokenizers.image.reading import open_image
from anyformer.tokenizers.image.sources import Digits, Idx

__all__ = ["Augmentation", "ConvStem", "DigitQuestions", "DigitSensors", "Digits", "Idx", "ImagePatches", "open_image"]

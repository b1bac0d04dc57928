"""Sound: log-mel slices, augmentation, and sources."""

from anyformer.tokenizers.audio.audio import Audio, AudioStem
from anyformer.tokenizers.audio.augmentation import SoundAugmentation, SpecAugment
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.audio.reading import read_sound
from anyformer.tokenizers.audio.sources import LibriSpeech, TorchAudio
from anyformer.tokenizers.audio.spoken_words import SpokenWords

__all__ = [
    "Audio",
    "AudioStem",
    "LibriSpeech",
    "MelConfig",
    "SoundAugmentation",
    "SpecAugment",
    "SpokenWords",
    "TorchAudio",
    "read_sound",
]

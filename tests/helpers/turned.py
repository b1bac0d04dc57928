"""A small language to translate, written and sounded: letters, which come out turned round, and a tone for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from anyformer.data.source import Source
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.audio.audio import Audio, AudioStem
from anyformer.tokenizers.audio.mel import MelConfig
from anyformer.tokenizers.text.text import Text

LETTERS = "abcd"
RATE = 8000
SMALL = TransformerConfig(d_model=16, depth=1, n_heads=2, rotary=RotaryConfig(("word",)))


def sound(letters: str, seconds: float = 0.1) -> np.ndarray:
    """A tone for each letter and a moment of silence, (samples,) float32."""
    time = np.arange(int(RATE * seconds)) / RATE
    gap = np.zeros(int(RATE * seconds / 2), np.float32)
    tones = [np.sin(2 * np.pi * (400 + 700 * LETTERS.index(letter)) * time) for letter in letters]
    return np.concatenate([part for tone in tones for part in (tone, gap)] or [gap]).astype(np.float32) * 0.5


@dataclass(frozen=True)
class Turned(Source):
    """Records {"audio": tones, "text": "abca", "turned": "acba"}."""

    n: int = 60
    seed: int = 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        random = np.random.default_rng((self.seed, range(self.n)[i]))
        text = "".join(random.choice(list(LETTERS), random.integers(1, 7)))
        return {"audio": (sound(text), RATE), "text": text, "turned": text[::-1]}

    def name(self, i: int) -> str:
        return f"turned row {i}"


def audio(**options: Any) -> Audio:
    options = {"stem": AudioStem(d_hidden=8, strides=(2, 2)), "max_seconds": 3.0} | options
    return Audio(mel=MelConfig(rate=RATE, window=200, hop=80, n_mels=20), **options)


def translator(architecture: str = "encoder_decoder", **options: Any) -> SequenceToSequence:
    """Learns to turn texts round."""
    texts = {"text": Text("characters"), "turned": Text("characters")}
    options = {"optimizer": OptimizerConfig(lr=5e-3), "target": "turned"} | options
    return SequenceToSequence(texts, options.pop("transformer", SMALL), architecture=architecture, **options)


def recogniser(architecture: str = "encoder_decoder", **options: Any) -> SequenceToSequence:
    """Learns to write down what it hears."""
    options = {"optimizer": OptimizerConfig(lr=5e-3)} | options
    if architecture == "encoder_decoder":
        options = {"encoder": TransformerConfig(16, depth=1, n_heads=2, rotary=RotaryConfig(("time",)))} | options
        transformer = SMALL
    else:
        axes = ("time",) if architecture == "encoder" else ("time", "word")
        transformer = TransformerConfig(16, depth=1, n_heads=2, rotary=RotaryConfig(axes))
    fields = {"audio": options.pop("audio", audio()), "text": Text("characters")}
    return SequenceToSequence(fields, transformer, architecture=architecture, **options)

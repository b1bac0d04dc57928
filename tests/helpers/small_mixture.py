"""A mixture of four tasks that trains in a second: two share pictures, two share texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import seed_everything

from anyformer.data.source import Source
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.checkpointing import Saving
from anyformer.runs.fit import fit
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.mixture.data import Mixed, Part
from anyformer.tasks.mixture.mixture import Mixture
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text

BATCHES = 12
"""Of an epoch."""
CONTEXT = 12
SAYINGS = ("all is well", "what a joy", "so much fun", "all is lost", "what a bore", "so much woe")
PICTURE = ImagePatches(size=(8, 8), patch=4, channels=1, augment=Augmentation(shift=1.0))
TRANSFORMER = TransformerConfig(d_model=16, depth=1, n_heads=2, dropout=0.1, rotary=RotaryConfig(("word",)))


class Parities(Source):
    """The first digits, as even or odd."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = Digits()[i]
        return {"image": record["image"], "parity": ("even", "odd")[int(record["label"]) % 2]}

    def name(self, i: int) -> str:
        return f"digit {i}"


class Sayings(Source):
    """Short texts that are glad or sad."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"text": SAYINGS[i % 6], "mood": ("glad", "sad")[i % 6 // 3]}

    def name(self, i: int) -> str:
        return f"saying {i}"


def small_tasks() -> dict[str, Task]:
    text = Text("characters", max_len=CONTEXT)
    return {
        "digits": Classify({"image": PICTURE}),
        "parity": Classify({"image": PICTURE}, target="parity"),
        "mood": Classify({"text": text}, target="mood", read="mean"),
        "poet": LanguageModel({"text": text}, context=CONTEXT, example=None),
    }


def small_mixture(**options: Any) -> Mixture:
    given = {
        "transformer": TRANSFORMER,
        "embedding": EmbeddingConfig(dropout=0.1),
        "optimizer": OptimizerConfig("muon", lr=0.01, ema=0.9),
        "weights": {"mood": 0.5},
        "temperature": 2.0,
    }
    return Mixture(small_tasks(), **(given | options))


def small_parts(folder: Path) -> dict[str, Part]:
    """folder: where the text is written that one task learns."""
    path = folder / "verses.txt"
    path.write_text("roses are red, violets are blue; quick is the fox and the dog is too. " * 20)
    return {
        "digits": Part(Digits(), 0.1, 0.1, batch_size=240),
        "parity": Part(Parities(), 0.2, batch_size=60),
        "mood": Part(Sayings(), 0.2, batch_size=16),
        "poet": Part(Corpus(str(path)), 0.1, batch_size=8),
    }


def small_mixed(folder: Path, **options: Any) -> Mixed:
    return Mixed(small_parts(folder), **({"n_batches": BATCHES} | options))


def small_mixed_fit(run: Path, *, task: Mixture | None = None, **options: Any) -> dict[str, float]:
    """Two epochs, in the folder `run`, beside which the data stands."""
    seed_everything(0, verbose=False)
    options = {"max_epochs": 2, "log_every_n_steps": 1, "saving": Saving(every_n_steps=2)} | options
    data = small_mixed(run.parent)
    return fit(task or small_mixture(), data, run, accelerator="cpu", enable_progress_bar=False, **options)

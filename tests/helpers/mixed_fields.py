"""A small world of two inputs, either of which may be absent: the label is the parity of the number that both show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anyformer.data.source import Source
from anyformer.model.config import TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.classify.classify import Classify
from tests.helpers.witnesses import Ids

SMALL = TransformerConfig(d_model=16, depth=1, n_heads=2, dropout=0.1)
LEFT, RIGHT = Ids(8, ("word",)), Ids(5, ("word",), max_len=6)


@dataclass(frozen=True)
class Shown(Source):
    """Records {"left": ids, "right": ids, "size": "few" | "many", "label": "even" | "odd"}."""

    n: int = 24
    both: bool = False
    """Whether no record lacks a field."""

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        number = (range(self.n)[i] ** 2 + i // 4) % 16
        record = {"left": [number % 8] * (1 + i % 3), "right": [number % 5, 0, i % 2]}
        if not self.both and i % 4 < 2:
            record[("left", "right")[i % 4]] = None
        size = None if i % 5 == 4 else "few" if number < 6 else "many"
        return record | {"size": size, "label": "odd" if number % 2 else "even"}

    def name(self, i: int) -> str:
        return f"shown row {i}"


def two_inputs(**options: Any) -> Classify:
    fields = {name: options.pop(name) for name in tuple(options) if name in FieldsConfig.__dataclass_fields__}
    tokenizers = options.pop("tokenizers", {"left": LEFT, "right": RIGHT})
    return Classify(
        tokenizers, SMALL, optimizer=OptimizerConfig(lr=0.01, ema=0.9), fields=FieldsConfig(**fields), **options
    )

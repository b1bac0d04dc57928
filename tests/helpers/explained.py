"""Small models with every parameter redrawn, and what they read, for the tests of explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.explaining.asked import Asked
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.packing import collate
from anyformer.tokens import Sample, Tokenizer
from tests.helpers.witnesses import Ids, Vectors, draw_ids, redraw

WORDS, PICTURE = Ids(11, ("word",), 1024), Vectors(3, ("row", "column"), (4, 4))
FIELDS: dict[str, Tokenizer] = {"left": WORDS, "right": WORDS, "picture": PICTURE, "class": LearnedTokens()}
SIZES = {"d_model": 16, "depth": 3, "n_heads": 4}


def model_of(fields: dict[str, Tokenizer] = FIELDS, **choices: Any) -> Anyformer:
    """Choices named `encoder` or `sees` are the model's; others are of its transformer."""
    own = {name: choices.pop(name) for name in ("encoder", "sees") if name in choices}
    model = Anyformer(fields, TransformerConfig(**{**SIZES, **choices}), **own).eval()
    redraw(model)
    return model


def sample(n_left: int = 5, n_right: int = 3, **others: Any) -> Sample:
    return {
        "left": WORDS.encode(draw_ids(n_left)),
        "right": WORDS.encode(draw_ids(n_right)),
        "picture": PICTURE.encode(torch.randn(2, 3, 3)),
        "class": FIELDS["class"].encode(),
        **others,
    }


class OfClass(Asked):
    """A linear function of the vector of the class token."""

    own = frozenset({"class"})

    def __init__(self, model: Anyformer) -> None:
        super().__init__(model, "a number")
        generator = torch.Generator().manual_seed(5)
        self.direction = torch.randn(model.transformer.config.d_model, generator=generator)

    def lay(self, samples: Sequence[Sample]) -> tuple[Batch, None]:
        return collate(samples, self.model.tokenizers), None

    def score(self, hidden: Tensor, batch: Batch) -> Tensor:
        return hidden.flatten(0, 1)[batch.fields["class"].index] @ self.direction.to(hidden.dtype)

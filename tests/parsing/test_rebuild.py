"""What was written as plain values is the same object again, and nothing is imported for a name in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anyformer.errors import InputError
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.positions import PositionConfig
from anyformer.parsing.plain import plain
from anyformer.parsing.rebuild import rebuild
from anyformer.tokenizers.facets import Facets
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from anyformer.tokenizers.text.ngrams import NGrams
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer

GLOBAL = {"window": {"word": 3.0}, "global": {"class": None, "text": 4}}


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (TransformerConfig(16, depth=2, n_heads=2, rotary=RotaryConfig(("word", "row"))), TransformerConfig),
        (TransformerConfig(16, depth=2, n_heads=2, relative=RelativeConfig("alibi", "word")), TransformerConfig | None),
        (
            EmbeddingConfig(positions=[PositionConfig(("row", "column"), "joint", (2, 3))], axes=("word",)),
            EmbeddingConfig,
        ),
        (ImagePatches((8, 6), 2, mean=(0.5,), stem=ConvStem(3), augment=Augmentation(flip=True)), Tokenizer),
        (Facets({"a": Text("characters").fit(["\u00e9a"]), "b": NGrams()}), Tokenizer),
        ({"x": LearnedTokens(2), "y": Text("bytes")}, dict[str, Tokenizer]),
        (None, Tokenizer | None),
        (GLOBAL, dict[str, Any]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_is_the_same_again(value: Any, hint: Any) -> None:
    again = rebuild(json.loads(json.dumps(plain(value))), hint)
    assert again == value and type(again) is type(value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("os.system", "there is no class 'os.system'"), ("Classify", "there is no class 'Classify' here")],
)
def test_a_class_of_another_kind_is_refused(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        rebuild({"class_path": name, "init_args": {}}, Tokenizer)


def test_a_class_refuses_what_it_always_refuses() -> None:
    with pytest.raises(InputError, match="n_heads"):
        rebuild({"d_model": 16, "n_heads": "two"}, TransformerConfig)

"""A model without a head: what it refuses, and what it says where a head would be needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.parsing.instantiate import instantiate
from anyformer.tasks.embed.embed import Embed
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.text import Text
from tests.helpers.witnesses import redraw

SIZES = TransformerConfig(d_model=12, depth=1, n_heads=3)
TEXT = Text("bytes", max_len=20)


def embed(**options: Any) -> Embed:
    made = Embed({"text": TEXT}, SIZES, **options)
    made.build()
    redraw(made)
    return made.eval()


def test_its_arguments_decide_what_is_read_and_travel_in_its_config() -> None:
    plain = embed()
    given = "a text that is longer than twenty bytes"
    changed = {
        "pool": embed(pool="last"),
        "normalize": embed(normalize=True),
        "causal": embed(causal=True),
        "piece": embed(piece=10),
    }
    for name, other in changed.items():
        other.load_state_dict(plain.state_dict())
        assert np.abs(other.embed(given) - plain.embed(given)).max() > 1e-3, name
        again = instantiate(other.config())
        again.build()
        again.load_state_dict(other.state_dict())
        np.testing.assert_array_equal(again.eval().embed(given), other.embed(given))
    with_class = embed(class_token=True, pool="class")
    np.testing.assert_allclose(with_class.embed("x"), with_class.embed("x", pool="class"), rtol=1e-5, atol=1e-6)
    assert list(with_class.embed("x", pool="tokens")) == ["text"]


def test_in_a_causal_model_a_token_sees_none_behind_it() -> None:
    model = embed(causal=True)
    one, other = (model.embed(text, pool="tokens")["text"] for text in ("abcde", "abcXY"))
    np.testing.assert_allclose(one[:3], other[:3], rtol=1e-5, atol=1e-6)
    assert np.abs(one[3:] - other[3:]).max(1).min() > 1e-3


def test_what_it_cannot_do_is_said() -> None:
    for make, message in (
        (lambda: Embed({"a": TEXT, "b": TEXT}), r"^tokenizers must be of one field, got a, b$"),
        (lambda: embed(piece=21), r"^piece must be from 8 to max_len, and is of a Text, got 21$"),
        (lambda: Embed({"image": ImagePatches()}, piece=9), r"^piece must be from 8"),
        (lambda: embed().embed({"image": 1}), r"^a record needs the field 'text'; it has image$"),
        (lambda: embed().embed({"text": 1}), r"^field 'text': a text must be a string, got int$"),
        (lambda: embed().embed("x", pool="class"), r"^pool: the model has no class token"),
        (lambda: embed().predict([{"text": "x"}]), r"^a model without a head predicts nothing: take its vectors"),
        (lambda: embed().setup("fit"), r"^a model without a head is not trained or evaluated: .* init_from"),
        (lambda: embed().fit_tokenizers(None), r"^a model without a head is not trained"),  # type: ignore[arg-type]
        (lambda: embed().metric, r"^a model without a head is not trained"),
        (lambda: embed().loss(None), r"^a model without a head has no loss"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=message):
            make()
    assert embed().usage is None

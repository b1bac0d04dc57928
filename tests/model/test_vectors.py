"""Vectors of records: the same alone, padded and packed; of any layer, and read as the config says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.model import vectors
from anyformer.model.vectors import VectorConfig, _pool, pooled_vectors, token_vectors
from anyformer.packing import collate
from tests.model.test_anyformer import CLASS, build, picture, text

MODEL = build()
FIELDS = ("picture", "text")


def samples() -> list[dict[str, Any]]:
    own = {"class": CLASS.encode()}
    return [
        {"text": text(3), **own},
        {"picture": picture(2, 4), "text": text(7), **own},
        {"picture": picture(1, 2), **own},
    ]


def config(**choices: Any) -> VectorConfig:
    return VectorConfig(
        **({"layer": -1, "pool": "mean", "fields": FIELDS, "class_field": "class", "normalize": False} | choices)
    )


@pytest.mark.parametrize("pool", ["mean", "class", "last"])
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_padded_packed_and_one_by_one_give_the_same_vectors(
    monkeypatch: pytest.MonkeyPatch, pool: Any, layer: int
) -> None:
    records, choice = samples(), config(pool=pool, layer=layer)
    padded = pooled_vectors(MODEL, [[each] for each in records], choice)
    batch = collate(records, MODEL.tokenizers, rows=[0, 0, 1])
    with torch.inference_mode():
        total, n = _pool(batch, MODEL.hidden_at(batch, choice.n_blocks(MODEL)).flatten(0, 1), choice)
    monkeypatch.setattr(vectors, "AT_ONCE", 1)
    alone = pooled_vectors(MODEL, [[each] for each in records], choice)
    np.testing.assert_allclose(alone, padded, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose((total / n).numpy(), padded, rtol=1e-5, atol=1e-5)
    # What the first block reads of a class token is the same in all.
    assert padded.std(0).max() > 0.1 or (pool, layer) == ("class", 0), "all alike would show nothing"


def test_the_vector_is_read_where_the_config_says() -> None:
    (one,) = samples()[1:2]
    with torch.inference_mode():
        batch = collate([one], MODEL.tokenizers)
        by_field = batch.by_field(MODEL(batch))
    body = torch.cat([by_field["picture"], by_field["text"]])
    wanted = {
        "mean": body.mean(0),
        "class": by_field["class"][0],
        "last": by_field["text"][-1],
    }
    for pool, vector in wanted.items():
        np.testing.assert_allclose(pooled_vectors(MODEL, [[one]], config(pool=pool))[0], vector.numpy(), atol=1e-6)
    only = pooled_vectors(MODEL, [[one]], config(fields=("text",)))[0]
    np.testing.assert_allclose(only, by_field["text"].mean(0).numpy(), atol=1e-6)
    (tokens,) = token_vectors(MODEL, [[one]], config(pool="tokens"))
    assert list(tokens) == ["picture", "text"]
    for name, own in tokens.items():
        np.testing.assert_allclose(own, by_field[name].numpy(), atol=1e-6)


def test_a_record_of_several_samples_is_the_mean_of_all_their_tokens() -> None:
    pieces = [{"text": text(7), "class": CLASS.encode()}, {"text": text(2), "class": CLASS.encode()}]
    first, second = (pooled_vectors(MODEL, [[piece]], config())[0] for piece in pieces)
    whole = pooled_vectors(MODEL, [pieces, pieces[1:]], config())
    np.testing.assert_allclose(whole, [(7 * first + 2 * second) / 9, second], atol=1e-6)
    last = pooled_vectors(MODEL, [pieces], config(pool="last"))
    np.testing.assert_allclose(last, pooled_vectors(MODEL, [pieces[1:]], config(pool="last")), atol=1e-6)
    (tokens,) = token_vectors(MODEL, [pieces], config(pool="tokens"))
    assert tokens["text"].shape == (9, 12) and list(tokens) == ["text"]


def test_layers_are_those_behind_the_blocks() -> None:
    (one,) = samples()[:1]
    seen: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda *given: seen.append(given[2])) for block in MODEL.transformer.blocks]
    with torch.inference_mode():
        MODEL(collate([one], MODEL.tokenizers))
    for hook in hooks:
        hook.remove()
    place = collate([one], MODEL.tokenizers).fields["text"].index
    for layer, hidden in enumerate(seen, 1):
        (tokens,) = token_vectors(MODEL, [[one]], config(pool="tokens", layer=layer, fields=("text",)))
        with torch.inference_mode():
            wanted = hidden if layer < len(seen) else MODEL.transformer.final_norm(hidden)
        np.testing.assert_allclose(tokens["text"], wanted[0, place].numpy(), rtol=1e-5, atol=1e-5)
    for below, above in ((0, -3), (2, -1)):
        one_way, other = (pooled_vectors(MODEL, [[one]], config(layer=layer)) for layer in (below, above))
        assert (one_way == other).all()


def test_an_encoder_is_what_reads() -> None:
    model = build(encoder=True)
    (one,) = samples()[:1]
    batch = collate([one], model.tokenizers)
    with torch.inference_mode():
        wanted = model.encode(batch).flatten(0, 1)[batch.fields["text"].index].mean(0)
    np.testing.assert_allclose(pooled_vectors(model, [[one]], config())[0], wanted.numpy(), atol=1e-6)
    with pytest.raises(InputError, match=r"^layer must be from -2 to 1, got 2; 0 is what the first block reads"):
        config(layer=2).n_blocks(model)


def test_normalised_vectors_have_length_1() -> None:
    records = [[each] for each in samples()]
    found, plain = (pooled_vectors(MODEL, records, config(normalize=normalize)) for normalize in (True, False))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-6)

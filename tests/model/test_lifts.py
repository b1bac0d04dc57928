"""Fields that share a lift."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, Embeddings
from anyformer.packing import collate
from tests.helpers.witnesses import Ids, Vectors, redraw

TEXT, PICTURE = Ids(11, ("word",), max_len=7), Vectors(3, ("row", "column"), (2, 5))
SIZES = TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=10)


def test_fields_of_the_same_ids_may_share_one_table() -> None:
    fields = {name: Ids(3, ("word",)) for name in ("source", "other", "target")}
    embeddings = Embeddings(fields, SIZES, EmbeddingConfig(positions=[]), shared={"target": "source"})
    tables = [name for name, _ in embeddings.named_parameters() if "lifts" in name]
    assert tables == ["lifts.source.table", "lifts.other.table"] == [n for n in embeddings.state_dict() if "lifts" in n]
    sample = {name: tokenizer.encode([1, 2]) for name, tokenizer in fields.items()}
    batch = collate([sample], fields)
    vectors = {name: part - embeddings.types[name] for name, part in batch.by_field(embeddings(batch)).items()}
    torch.testing.assert_close(vectors["source"], embeddings.lifts["source"].table[1:])
    torch.testing.assert_close(vectors["target"], vectors["source"])
    embeddings(batch).sum().backward()
    assert torch.equal(embeddings.lifts["target"].table.grad, 2 * embeddings.lifts["other"].table.grad)
    with pytest.raises(InputError, match="fields 'source' and 'target' cannot share a lift: they have other ids"):
        Embeddings(fields | {"target": Ids(4)}, SIZES, EmbeddingConfig(positions=[]), shared={"target": "source"})


def test_any_lift_may_be_shared_and_the_fields_stay_apart_by_their_types() -> None:
    fields = {"left": PICTURE, "right": PICTURE, "text": TEXT}
    embeddings = Embeddings(fields, SIZES, EmbeddingConfig(), shared={"right": "left"})
    # By nothing else: so they begin far from one another, where that of a field with a lift of its own begins small.
    sizes = {name: vector.abs().mean() for name, vector in embeddings.types.items()}
    assert min(sizes["left"], sizes["right"]) > 5 * sizes["text"]
    redraw(embeddings)
    assert not [name for name, _ in embeddings.named_parameters() if "lifts.right" in name]
    picture = PICTURE.encode(torch.randn(2, 5, 3))
    batch = collate([{"left": picture}, {"right": picture}], fields)
    rows = embeddings(batch)
    types = embeddings.types
    torch.testing.assert_close(rows[0] - types["left"], rows[1] - types["right"])
    # What both fields ask of the weights adds up; where both are absent it is 0.
    (rows[1].sum()).backward()
    alone = embeddings.lifts["left"].linear.weight.grad.clone()
    embeddings.zero_grad()
    embeddings(batch).sum().backward()
    torch.testing.assert_close(embeddings.lifts["left"].linear.weight.grad, 2 * alone)
    embeddings.zero_grad()
    embeddings(collate([{"text": TEXT.encode([1])}], fields)).sum().backward()
    assert not embeddings.lifts["left"].linear.weight.grad.any()

    copied = deepcopy(embeddings)
    with torch.no_grad():
        copied.lifts["left"].linear.weight.zero_()
    assert torch.equal(embeddings(batch), rows)
    one, other = copied(batch)
    torch.testing.assert_close(other - types["right"], one - types["left"])
    for shared, message in (
        ({"right": "text"}, "fields 'text' and 'right' cannot share a lift: they are of other content"),
        ({"text": "right", "right": "left"}, "fields 'right' and 'text' cannot share a lift: that of 'right' is"),
    ):
        with pytest.raises(InputError, match=message):
            Embeddings(fields, SIZES, EmbeddingConfig(), shared=shared)

"""Numbers of samples, and samples without some of their tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyformer.explaining.asked import without_tokens
from anyformer.model.config import RelativeConfig, RotaryConfig
from anyformer.packing import collate
from anyformer.tokens import TokenSet
from tests.helpers import graphs
from tests.helpers.explained import FIELDS, WORDS, OfClass, model_of, sample
from tests.helpers.witnesses import Ids, count, draw_ids


def kept(tokens: TokenSet, which: torch.Tensor) -> TokenSet:
    relation = None if tokens.relation is None else tokens.relation[which][:, which]
    return TokenSet(tokens.content[which], tokens.position[which], tokens.order[which], relation)


CHOICES = {
    "rotary": {"rotary": RotaryConfig(("word",))},
    "t5": {"relative": RelativeConfig("t5", "word", 8, 16)},
    "counted links": {"patterns": ({"random": 1}, {"global": {"left": 1}})},
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_token_that_is_taken_out_leaves_what_would_be_without_it(name: str) -> None:
    model = model_of(**CHOICES[name])
    asked, whole, other = OfClass(model), sample(5, 3), sample(2, 2)
    gone = torch.tensor([True, False, False, True, False])
    less = {**whole, "left": kept(whole["left"], ~gone)}
    found = asked.values([whole, other], [{"left": gone}, {}])
    np.testing.assert_allclose(found, asked.values([less, other]), atol=1e-5)
    assert abs(found[0] - asked.values([whole])[0]) > 1e-3


def test_relations_and_causal_rows_follow() -> None:
    related = {"left": Ids(11, ("word",), 64, n_relations=3), "class": FIELDS["class"]}
    asked = OfClass(model_of(related))
    whole = {"left": related["left"].encode(draw_ids(6)), "class": FIELDS["class"].encode()}
    gone = torch.tensor([False, False, True, False, False, True])
    less = {**whole, "left": kept(whole["left"], ~gone)}
    np.testing.assert_allclose(asked.values([whole], [{"left": gone}]), asked.values([less]), atol=1e-5)

    causal = collate([{"left": count(WORDS.encode([1, 2, 3]))}], FIELDS)
    fewer = without_tokens(causal, [{"left": torch.tensor([False, True, False])}])
    assert fewer.kind == "causal"
    assert fewer.layout.order.tolist()[0][:2] == [1, 3]
    assert fewer.layout.segment.tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("edges_only", [True, False])
def test_edges_follow(edges_only: bool) -> None:
    related = graphs.fields(edges_only)
    asked = OfClass(model_of(related))
    whole = {**graphs.samples()[0], "class": FIELDS["class"].encode()}
    nodes = whole["graph"]
    for name, gone in (("text", torch.arange(6) == 2), ("graph", torch.arange(5) == 1)):
        which, new = torch.arange(len(gone))[~gone], (~gone).cumsum(0) - 1
        if name == "text":
            less = {**whole, "text": kept(whole["text"], ~gone)}
        else:
            stays = ~gone[nodes.edges[:, :2]].any(1)
            edges = torch.cat([new[nodes.edges[stays, :2]], nodes.edges[stays, 2:]], 1)
            less = {**whole, "graph": TokenSet(nodes.content[which], edges=edges)}
        np.testing.assert_allclose(asked.values([whole], [{name: gone}]), asked.values([less]), atol=1e-5)


def test_a_copy_in_float64_leaves_the_model_as_it_is() -> None:
    asked = OfClass(model_of())
    copied = asked.double()
    own = sample()
    np.testing.assert_allclose(copied.values([own]), asked.values([own]), rtol=1e-4)
    assert {p.dtype for p in copied.model.parameters()} == {torch.float64}
    assert {p.dtype for p in asked.model.parameters()} == {torch.float32}

"""Relevance and rollout against the published rules, written out with whole matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.explaining.asked import Asked
from anyformer.explaining.attention import read_attention
from anyformer.explaining.relevance import explain_parts, gradient_maps, read_weights, relevance_of, rollout_of
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from tests.helpers.explained import FIELDS, SIZES, WORDS, OfClass, model_of, sample
from tests.helpers.witnesses import count, draw_ids


class Dense(torch.nn.Module):
    """Attention by plain products, whose weights are in the graph."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.weights = attention, None

    def forward(self, x: Tensor, sight, *rest, **named) -> Tensor:
        q, (k, v) = self.inner._queries(x, None), self.inner._keys_and_values(x, None)
        self.weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return self.inner.o((self.weights @ v).transpose(1, 2).flatten(2))


def test_gradients_of_weights_are_those_of_a_model_that_has_them_in_its_graph() -> None:
    model = model_of()
    asked = OfClass(model)
    batch = collate([sample()], FIELDS)
    hidden, maps = read_attention(model, batch)
    _, cams = gradient_maps(asked.score(hidden, batch).sum(), hidden, maps)
    for block in model.transformer.blocks:
        block.attention = Dense(block.attention)
    total = asked.score(model(batch), batch).sum()
    weights = [block.attention.weights for block in model.transformer.blocks]
    for cam, weight, gradient in zip(cams, weights, torch.autograd.grad(total, weights), strict=True):
        torch.testing.assert_close(cam, (weight * gradient).clamp(min=0).mean(1), atol=1e-4, rtol=1e-4)


def test_self_attention_goes_by_the_rules_of_chefer() -> None:
    model = model_of()
    batch = collate([sample()], FIELDS)
    hidden, maps = read_attention(model, batch)
    of_hidden, cams = gradient_maps(OfClass(model).score(hidden, batch).sum(), hidden, maps)
    relevancy = torch.eye(batch.shape[1])
    for cam in cams:
        relevancy = relevancy + cam[0] @ relevancy
    found, none = relevance_of(maps, cams, read_weights(of_hidden, hidden))
    assert none is None
    by_hand = relevancy[-1].clone()
    by_hand[-1] -= 1
    torch.testing.assert_close(found[0], by_hand)


class OfWords(Asked):
    """A linear function of the vectors of a text, each token one part."""

    written = "left"

    def lay(self, samples):
        text = collate([{"left": each["left"]} for each in samples], FIELDS)
        others = [{name: own for name, own in each.items() if name in ("right", "picture")} for each in samples]
        return text, collate(others, FIELDS)

    def score(self, hidden: Tensor, batch: Batch) -> Tensor:
        return hidden.flatten(0, 1)[batch.fields["left"].index][:, 0].sum()[None]

    def parts(self, hidden: Tensor, batch: Batch) -> list[tuple[str, Tensor]]:
        return [(str(i), hidden[0, i, 0]) for i in range(batch.shape[1])]


def cross_model():
    return model_of(encoder=TransformerConfig(**{**SIZES, "depth": 2}))


def test_cross_attention_goes_by_the_rules_of_chefer() -> None:
    asked = OfWords(cross_model(), "words")
    own = sample(4, 3, left=count(WORDS.encode(draw_ids(4))))
    batch, conditions = asked.lay([own])
    hidden, maps = read_attention(asked.model, batch, conditions)
    of_hidden, cams = gradient_maps(asked.parts(hidden, batch)[2][1], hidden, maps)

    def normalized(r: Tensor) -> Tensor:
        gained = r - torch.eye(len(r))
        sums = gained.sum(-1, keepdim=True)
        return torch.where(sums > 0, gained / sums, 0) + torch.eye(len(r))

    n, m = batch.shape[1], conditions.shape[1]
    own_r, read_r, across = torch.eye(n), torch.eye(m), torch.zeros(n, m)
    for cam in cams[:2]:
        read_r = read_r + cam[0] @ read_r
    for found, cam in zip(maps[2:], cams[2:], strict=True):
        if found.kind == "self":
            across = across + cam[0] @ across
            own_r = own_r + cam[0] @ own_r
        else:
            across = across + normalized(own_r).T @ cam[0] @ normalized(read_r)
    row, memory = relevance_of(maps, cams, read_weights(of_hidden, hidden))
    torch.testing.assert_close(row[0], own_r[2] - torch.eye(n)[2])
    torch.testing.assert_close(memory[0], across[2])
    assert not row[0, 3:].any(), "what is written later"


@pytest.mark.parametrize("has_encoder", [False, True])
def test_rollout_is_the_product_of_attention_with_what_stays(has_encoder: bool) -> None:
    asked = OfWords(cross_model(), "words") if has_encoder else OfClass(model_of())
    batch, conditions = asked.lay([sample()])
    _, maps = read_attention(asked.model, batch, conditions)
    read = torch.zeros(1, batch.shape[1])
    read[0, -1] = 1
    row, memory = rollout_of(maps, read)
    if has_encoder:
        torch.testing.assert_close(row.sum() + memory.sum(), torch.tensor(1.0))
        assert (memory > 0).all()
        return
    product = torch.eye(batch.shape[1])
    for found in maps:
        product = (torch.eye(batch.shape[1]) + found.weights[0].mean(0)) / 2 @ product
    torch.testing.assert_close(row[0], product[-1])


def test_each_written_token_is_explained_apart_and_by_field() -> None:
    asked = OfWords(cross_model(), "words")
    own = sample(4, 3, left=count(WORDS.encode(draw_ids(4))))
    found, maps, *_ = explain_parts(asked, own)
    assert [each.name for each in found] == ["0", "1", "2", "3"]
    for i, each in enumerate(found):
        assert {name: len(values) for name, values in each.relevance.items()} == {"left": 4, "right": 3, "picture": 6}
        assert not each.relevance["left"][i + 1 :].any()
        assert not each.rollout["left"][i + 1 :].any()
    assert not torch.allclose(found[0].relevance["right"], found[3].relevance["right"])
    assert len(maps) == 8


def test_what_the_answer_cannot_see_is_of_no_relevance() -> None:
    asked = OfClass(model_of(sees={"class": ["left", "class"], "left": ["left"]}))
    ((found,), *_) = explain_parts(asked, sample())
    assert not found.relevance["right"].any() and not found.rollout["picture"].any()
    assert found.relevance["left"].any()


def test_what_several_tokens_are_read_for_is_shared_by_gradient_times_vector() -> None:
    gradient = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    hidden = torch.tensor([[[3.0, 5.0], [1.0, 7.0], [9.0, 9.0]]])
    assert read_weights(gradient, hidden).tolist() == [[0.75, 0.25, 0.0]]
    assert read_weights(gradient, -hidden).tolist() == [[0.5, 0.5, 0.0]]

"""Where tokens are heard: dynamic time warping, and the attention that it goes by."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.model.attention.visibility import Sight
from anyformer.model.config import TransformerConfig
from anyformer.model.transformer import Context, Transformer
from anyformer.tasks.sequence.alignment import attention_weights, chosen_heads, token_places, warp


def cheapest(cost: np.ndarray) -> float:
    """By all paths there are."""
    n, m = cost.shape
    if n == m == 1:
        return cost[0, 0]
    before = [(n - 1, m - 1), (n - 1, m), (n, m - 1)]
    return cost[-1, -1] + min(cheapest(cost[:i, :j]) for i, j in before if i and j)


@pytest.mark.parametrize("shape", [*product((1, 2, 5), (1, 3, 6))])
def test_the_path_is_the_cheapest_of_all(shape: tuple[int, int]) -> None:
    for seed in range(5):
        cost = np.random.default_rng(seed).normal(size=shape)
        rows, columns = warp(cost)
        assert cost[rows, columns].sum() == pytest.approx(cheapest(cost))
        steps = {(int(a), int(b)) for a, b in zip(np.diff(rows), np.diff(columns), strict=True)}
        assert steps <= {(1, 0), (0, 1), (1, 1)}
        assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, shape[0] - 1, shape[1] - 1)


def test_tokens_begin_where_the_heads_look() -> None:
    begins, n = [0, 20, 35, 70], 100
    weights = torch.full((2, 3 + len(begins) + 1, n), 1e-3)
    weights += 1e-4 * torch.rand(weights.shape, generator=torch.Generator().manual_seed(0))
    for i, (start, end) in enumerate(zip(begins, [*begins[1:], n], strict=True)):
        weights[:, 3 + i, start:end] += 1
    # Two tokens of the start stand before the one at which the first of the text is predicted.
    weights = weights[:, 1:]
    found = token_places(weights, 2)
    assert np.abs(np.array(found) - begins).max() <= 3 and found[0] == 0


def test_few_places_are_enough() -> None:
    assert token_places(torch.rand(1, 5, 2), 1) == sorted(token_places(torch.rand(1, 5, 2), 1))


@pytest.mark.parametrize("kv_heads", [None, 2])
def test_the_weights_are_those_of_the_cross_attention(kv_heads: int | None) -> None:
    torch.manual_seed(0)
    config = TransformerConfig(d_model=16, depth=3, n_heads=4, n_kv_heads=kv_heads, attention_scale=0.4)
    stack = Transformer(config, has_memory=True).eval()
    memory, x = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    asked: list[torch.Tensor] = []
    stack.blocks[1].cross.o.register_forward_pre_hook(lambda _, given: asked.append(given[0]))
    context = Context([Sight(None, True)], memory=memory, memory_sight=Sight(None, False))
    heads = {1: [3, 0], 2: [1]}
    found = attention_weights(stack, heads, lambda: stack(x, context), [torch.arange(7), torch.tensor([1, 4])])
    assert [tuple(each.shape) for each in found] == [(3, 5, 7), (3, 5, 2)]
    values = stack.blocks[1].cross.v(memory[0]).unflatten(-1, (-1, 4)).transpose(0, 1)
    values = values.repeat_interleave(4 // len(values), 0)
    mixed = (found[0][:2] @ values[[3, 0]]).transpose(0, 1)
    assert torch.allclose(mixed, asked[0][0].unflatten(-1, (4, 4))[:, [3, 0]], atol=1e-6)
    assert torch.allclose(found[1].sum(-1), torch.ones(3, 5))
    assert all(block.cross.record is None for block in stack.blocks)


def test_heads_are_those_given_or_the_upper_half() -> None:
    stack = Transformer(TransformerConfig(d_model=8, depth=4, n_heads=2), has_memory=True)
    assert chosen_heads(stack, ((3, 1), (1, 0), (3, 0))) == {3: [1, 0], 1: [0]}
    assert chosen_heads(stack, ()) == {2: [0, 1], 3: [0, 1]}
    with pytest.raises(InputError, match="names head 2 of layer 3, from 0, and the decoder has 4 layers of 2 heads"):
        chosen_heads(stack, ((3, 2),))

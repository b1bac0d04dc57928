"""The stack of blocks: stochastic depth, dropout, checkpointing and how it starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from anyformer.model.attention.sight import Sight
from anyformer.model.config import TransformerConfig
from anyformer.model.transformer import Context, Transformer
from tests.helpers.witnesses import redraw

SMALL = TransformerConfig(d_model=6, n_heads=2, depth=3, d_ff=10)


def build(**choices) -> Transformer:
    stack = Transformer(replace(SMALL, **choices))
    redraw(stack)
    return stack


# Stochastic depth


def ratios(stack: Transformer, segment: torch.Tensor | None, shape: tuple[int, int]) -> torch.Tensor:
    """What each place got of the one sublayer that adds something, as a multiple of what it gets in evaluation."""
    context = Context(sights=(Sight(),), segment=segment, n_samples=1 if segment is None else int(segment.max()))
    x = torch.ones(*shape, 6)
    with torch.no_grad():
        whole = stack.eval()(x, context) - x
        drawn = stack.train()(x, context) - x
    return (drawn / whole)[..., 0]


def only_mlp_of_the_last_block(**choices) -> Transformer:
    """The others, and attention, add 0."""
    stack = build(final_norm=False, **choices)
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            if (".o." in name or ".down." in name) and not name.startswith("blocks.2.mlp."):
                parameter.zero_()
    return stack


def test_stochastic_depth_keeps_or_drops_whole_samples() -> None:
    drawn = ratios(only_mlp_of_the_last_block(drop_path=0.25), None, (500, 4))
    assert torch.equal(drawn, drawn[:, :1].expand(-1, 4)), "one row, one sample, one draw"
    kept = drawn[:, 0] != 0
    torch.testing.assert_close(drawn[kept, 0], torch.full((int(kept.sum()),), 1 / 0.75))
    assert 0.68 < kept.float().mean() < 0.82


def test_stochastic_depth_draws_for_each_sample_of_a_packed_row() -> None:
    segment = torch.tensor([[1, 1, 2, 2, 2, 3, 0]]).expand(300, -1)
    drawn = ratios(only_mlp_of_the_last_block(drop_path=0.5), segment, (300, 7)) > 0
    first, second, third = drawn[:, 0], drawn[:, 2], drawn[:, 5]
    assert torch.equal(drawn[:, 1], first)
    assert torch.equal(drawn[:, 3:5], second[:, None].expand(-1, 2))
    for one, other in ((first, second), (second, third), (first, third)):
        assert 0.35 < (one == other).float().mean() < 0.65, "independent of each other"


def test_stochastic_depth_knows_samples_without_tokens() -> None:
    # The fifth sample of the row has its only token: four before it have none.
    drawn = ratios(only_mlp_of_the_last_block(drop_path=0.5), torch.full((200, 1), 5), (200, 1))
    assert 0.35 < (drawn > 0).float().mean() < 0.65


def test_stochastic_depth_rises_from_0_to_its_rate() -> None:
    stack = build(depth=4, drop_path=0.3)
    assert [block.mlp_residual.drop_path for block in stack.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [block.attention_residual.drop_path for block in stack.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])


# Dropout


def test_dropout_zeroes_its_share_and_keeps_the_mean() -> None:
    drawn = ratios(only_mlp_of_the_last_block(dropout=0.2), None, (4000, 3))
    dropped = drawn.abs() < 1e-6
    assert 0.18 < dropped.float().mean() < 0.22
    torch.testing.assert_close(drawn[~dropped], torch.full_like(drawn[~dropped], 1 / 0.8), atol=1e-4, rtol=0)


def test_attention_dropout_drops_weights_of_attention_only() -> None:
    stack = build(depth=1, attention_dropout=0.5).train()
    context = Context(sights=(Sight(),))
    assert not torch.equal(*(stack(torch.ones(1, 3, 6).cumsum(1), context) for _ in range(2)))
    with torch.no_grad():
        stack.blocks[0].attention.o.weight.zero_()
    assert torch.equal(*(stack(torch.ones(1, 3, 6).cumsum(1), context) for _ in range(2)))


# Checkpointing


def test_checkpointing_changes_nothing() -> None:
    plain = build(dropout=0.2, drop_path=0.3, attention_dropout=0.1).train()
    again = Transformer(replace(plain.config, checkpointing=True)).train()
    again.load_state_dict(plain.state_dict())
    results = []
    for stack in (plain, again):
        torch.manual_seed(1)
        x = torch.linspace(-1, 1, 60).view(2, 5, 6).requires_grad_()
        out = stack(x, Context(sights=(Sight(causal=True),)))
        out.square().sum().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in stack.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


def test_checkpointing_computes_the_blocks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, calls = build(checkpointing=True).train(), []
    for block in stack.blocks:
        block.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    x, context = torch.randn(2, 5, 6), Context(sights=(Sight(),))
    stack(x, context).sum().backward()
    assert len(calls) == 6, "3 forward, 3 again"
    calls.clear()
    stack.eval()(x, context).sum().backward()
    assert len(calls) == 3


# Start


def test_zero_output_starts_as_the_identity() -> None:
    stack, x = Transformer(replace(SMALL, zero_output=True, final_norm=False)), torch.randn(2, 5, 6)
    assert torch.equal(stack(x, Context(sights=(Sight(),))), x)


def test_layer_scale_starts_at_its_value() -> None:
    stack = Transformer(replace(SMALL, layer_scale=0.1))
    scales = [parameter for name, parameter in stack.named_parameters() if name.endswith(".scale")]
    assert len(scales) == 6 and all((scale == 0.1).all() for scale in scales)


def test_no_blocks_but_norms() -> None:
    x = torch.randn(2, 5, 6)
    stack = Transformer(replace(SMALL, depth=0))
    torch.testing.assert_close(stack(x, Context(sights=(Sight(),))), F.layer_norm(x, (6,)))

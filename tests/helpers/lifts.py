"""What holds for every lift that sees more than one piece of content at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from anyformer.tokens import TokenSet


def assert_lifted_alone(lift: nn.Module, samples: Sequence[TokenSet]) -> None:
    """A batch is lifted as each sample alone is, forward and gradient. lift: to 7 numbers, in float64."""
    contents = [sample.content.double().requires_grad_() for sample in samples]
    weights = torch.randn(sum(map(len, samples)), 7, dtype=torch.float64)

    together = lift(torch.cat(contents), tuple(sample.extent for sample in samples))
    (together * weights).sum().backward()
    gradients = [tensor.grad.clone() for tensor in (*lift.parameters(), *contents)]
    for tensor in (*lift.parameters(), *contents):
        tensor.grad = None

    alone = [lift(content, (sample.extent,)) for content, sample in zip(contents, samples, strict=True)]
    assert [len(part) for part in alone] == [len(sample) for sample in samples]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)
    (torch.cat(alone) * weights).sum().backward()
    for gradient, tensor in zip(gradients, (*lift.parameters(), *contents), strict=True):
        torch.testing.assert_close(gradient, tensor.grad, rtol=0, atol=1e-6)
        assert gradient.abs().sum() > 0

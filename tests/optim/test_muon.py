"""Orthogonal updates, and a step of Muon."""

import math

import torch
from torch import nn

from anyformer.optim.muon import Muon, orthogonalize


def test_orthogonal_updates_have_singular_values_near_one():
    values = torch.linalg.svdvals(orthogonalize(torch.randn(3, 5, 16), steps=5))
    assert values.min() > 0.6 and values.max() < 1.3


def test_orthogonalizing_keeps_the_singular_vectors():
    u, _, v = torch.linalg.svd(torch.randn(4, 4))
    x = u @ torch.diag(torch.tensor([1.0, 0.8, 0.6, 0.4])) @ v
    aligned = u.T @ orthogonalize(x[None])[0] @ v.T
    assert (aligned - torch.diag(aligned.diag())).abs().max() < 1e-4


def test_muon_equals_the_update_written_out_for_one_matrix():
    weight = nn.Parameter(torch.randn(6, 3))
    optimizer = Muon([{"params": [weight], "lr": 0.1, "weight_decay": 0.5}], {weight}, momentum=0.9)
    before, weight.grad = weight.detach().clone(), torch.randn(6, 3)
    optimizer.step()
    average = 0.1 * weight.grad
    update = orthogonalize((0.1 * weight.grad + 0.9 * average)[None])[0]
    expected = before * (1 - 0.1 * 0.5) - 0.1 * math.sqrt(6 / 3) * update
    torch.testing.assert_close(weight.detach(), expected)


def test_with_normalized_gradients_a_step_of_large_ones_counts_as_much_as_any():
    def train(factors, **options):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(6, 3))
        optimizer = Muon([{"params": [weight], "lr": 0.1, "weight_decay": 0.0}], {weight}, **options)
        for factor in factors:
            weight.grad = factor * torch.randn(6, 3)
            optimizer.step()
        return weight.detach()

    even, uneven = (1.0, 1.0, 1.0), (1.0, 100.0, 0.01)
    torch.testing.assert_close(train(even, normalize=True), train(uneven, normalize=True))
    assert not torch.allclose(train(even), train(uneven), atol=1e-2)
    # A gradient of nothing changes nothing.
    assert torch.isfinite(train((1.0, 0.0), normalize=True)).all()

"""Packed products are the usual ones, whatever the weights become."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from anyformer.generation import prepacked as packed
from anyformer.generation.prepacked import PackedLinear, PackedProducts, PackedWeights, for_inference

needs_kernel = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing pays for large matrices only; here small ones are packed."""
    monkeypatch.setattr(packed, "SMALLEST", 6)


@pytest.fixture
def n_packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each matrix that is rearranged."""
    made, rearrange = [], torch.ops.mkldnn._reorder_linear_weight.default

    def count(*given: object) -> torch.Tensor:
        made.append(1)
        return rearrange(*given)

    monkeypatch.setattr(torch.ops.mkldnn._reorder_linear_weight, "default", count)
    return made


@needs_kernel
@pytest.mark.parametrize("rows", [(1,), (4,), (3, 2), (33,)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@torch.inference_mode()
def test_packed_products_are_the_usual_ones(rows: tuple[int, ...], bias: bool, n_packed: list[int]) -> None:
    linear, weights, x = nn.Linear(5, 7, bias=bias), PackedWeights(), torch.randn(*rows, 5)
    for _ in range(2):
        torch.testing.assert_close(weights.linear(x, linear.weight, linear.bias), linear(x))
    assert len(n_packed) == (rows != (33,)), "once, and not for many rows"


@needs_kernel
@torch.no_grad()
def test_a_changed_matrix_is_packed_anew(n_packed: list[int]) -> None:
    linear, weights, x = nn.Linear(5, 7), PackedWeights(), torch.randn(2, 5)
    weights.linear(x, linear.weight)
    linear.weight.mul_(2)
    torch.testing.assert_close(weights.linear(x, linear.weight), F.linear(x, linear.weight))
    linear.weight.data = torch.randn(7, 5)
    torch.testing.assert_close(weights.linear(x, linear.weight), F.linear(x, linear.weight))
    assert len(n_packed) == 3


@torch.no_grad()
def test_other_kinds_of_numbers_and_passing_tensors_take_the_usual_way(n_packed: list[int]) -> None:
    linear, x = nn.Linear(5, 7).double(), torch.randn(2, 5).double()
    assert torch.equal(PackedWeights().linear(x, linear.weight, linear.bias), linear(x))
    assert torch.equal(PackedWeights().linear(x, linear.weight * 2), F.linear(x, linear.weight * 2))
    assert not n_packed


@needs_kernel
@torch.no_grad()
def test_within_it_every_linear_is_packed(n_packed: list[int]) -> None:
    linear, x = nn.Linear(5, 7), torch.randn(2, 5)
    with PackedProducts(PackedWeights()):
        found = linear(x), F.linear(x, linear.weight)
    torch.testing.assert_close(found, (linear(x), F.linear(x, linear.weight)))
    assert len(n_packed) == 1


@needs_kernel
def test_the_module_given_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Dropout(), nn.Sequential(nn.Linear(7, 7), nn.BatchNorm1d(7)))
    model.settings = {"a": []}
    shell, x = for_inference(model, PackedWeights()), torch.randn(2, 5)
    assert shell.settings is model.settings
    assert model.training and not shell.training and type(model[0]) is nn.Linear
    assert {type(shell[0]), type(shell[2][0])} == {PackedLinear}
    theirs = dict(model.state_dict(keep_vars=True))
    assert all(tensor is theirs[name] for name, tensor in shell.state_dict(keep_vars=True).items())
    with torch.no_grad():
        torch.testing.assert_close(shell(x), model.eval()(x))
    assert type(for_inference(model, None)[0]) is nn.Linear


def test_a_copy_packs_matrices_of_its_own() -> None:
    linear, packed = nn.Linear(8, 6), PackedWeights()
    x = torch.randn(2, 8)
    packed.linear(x, linear.weight)
    copied, weights = copy.deepcopy((linear, packed))
    with torch.no_grad():
        linear.weight.zero_()
    torch.testing.assert_close(weights.linear(x, copied.weight), x @ copied.weight.T)

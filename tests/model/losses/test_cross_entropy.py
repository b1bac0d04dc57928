"""The chunked loss is the plain one, with its gradients and without its memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anyformer.model.losses.cross_entropy import MIN_CHUNK, linear_cross_entropy

N, D, V = 23, 6, 17


def draw(dtype: torch.dtype = torch.float64, n: int = N, v: int = V) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden vectors, weight, bias and targets; all but these with gradients."""
    parts = torch.randn(n, D), torch.randn(v, D), torch.randn(v)
    return *(part.to(dtype).requires_grad_() for part in parts), torch.randint(v, (n,))


def plain(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    losses = F.cross_entropy(F.linear(hidden, weight, bias), target, reduction="none", label_smoothing=label_smoothing)
    return (losses if weights is None else losses * weights).sum()


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        sizes = [part.untyped_storage().nbytes() // part.itemsize for part in tree_leaves(out) if torch.is_tensor(part)]
        self.numel = max([self.numel, *sizes])
        return out


@pytest.mark.parametrize("chunk", [None, 1, 5, N, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_the_chunked_loss_is_the_plain_one(chunk: int | None, smoothing: float, weighted: bool, biased: bool) -> None:
    hidden, weight, bias, target = draw()
    inputs = [hidden, weight, bias] if biased else [hidden, weight]
    weights = torch.rand(N, dtype=torch.float64).round(decimals=1) if weighted else None
    given = hidden, weight, bias if biased else None, target
    ours = linear_cross_entropy(*given, label_smoothing=smoothing, weights=weights, chunk=chunk)
    theirs = plain(*given, smoothing, weights)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    # Whatever the loss is multiplied by reaches the gradients.
    expected = torch.autograd.grad(theirs * -0.7, inputs)
    for found, known in zip(torch.autograd.grad(ours * -0.7, inputs), expected, strict=True):
        torch.testing.assert_close(found, known, atol=1e-12, rtol=1e-12)
    with torch.no_grad():
        alone = linear_cross_entropy(*given, label_smoothing=smoothing, weights=weights, chunk=chunk)
    assert not alone.requires_grad
    torch.testing.assert_close(alone, theirs.detach(), atol=1e-12, rtol=1e-12)


def test_in_float32_it_is_as_near_as_the_plain_one() -> None:
    hidden, weight, bias, target = draw(torch.float32)
    ours, theirs = linear_cross_entropy(hidden, weight, bias, target, chunk=5), plain(hidden, weight, bias, target)
    torch.testing.assert_close(ours, theirs)
    inputs = [hidden, weight, bias]
    for found, known in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, known, atol=1e-5, rtol=1e-5)


def test_logits_of_hundreds_lose_nothing() -> None:
    hidden, weight, _, target = draw(torch.float32)
    hidden = hidden.detach() * 100
    theirs = plain(hidden.double(), weight.double(), None, target)
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, None, target).double(), theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", ["autocast", "all bf16"])
def test_under_bf16_the_softmax_and_the_sums_are_float32(kind: str) -> None:
    hidden, weight, bias, target = draw(torch.float32 if kind == "autocast" else torch.bfloat16, n=200)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
        ours = linear_cross_entropy(hidden, weight, bias, target, chunk=7)
    assert ours.dtype == torch.float32
    exact = [part.detach().double().requires_grad_() for part in (hidden, weight, bias)]
    theirs = plain(*exact, target)
    torch.testing.assert_close(ours.double(), theirs, rtol=5e-3, atol=0)
    inputs = [hidden, weight, bias]
    for found, known, part in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, exact), inputs, strict=True
    ):
        assert found.dtype == part.dtype
        assert (found.double() - known).norm() < 0.01 * known.norm()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradients_are_formed_for_what_is_trained_alone(which: int) -> None:
    hidden, weight, bias, target = draw()
    inputs = [hidden.detach(), weight.detach(), bias.detach()]
    inputs[which].requires_grad_()
    with Count() as products:
        linear_cross_entropy(*inputs, target, chunk=100).backward()
    assert products.n == (1 if which == 2 else 2)
    assert [part.grad is not None for part in inputs] == [i == which for i in range(3)]
    expected = torch.autograd.grad(plain(hidden, weight, bias, target), [hidden, weight, bias])[which]
    torch.testing.assert_close(inputs[which].grad, expected)


class Count(TorchDispatchMode):
    """Counts products of matrices."""

    n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.n += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return function(*args, **(kwargs or {}))


def test_training_takes_three_products_a_chunk_and_validation_one() -> None:
    hidden, weight, bias, target = draw()
    with Count() as training:
        linear_cross_entropy(hidden, weight, bias, target, chunk=10).backward()
    with Count() as validation, torch.no_grad():
        linear_cross_entropy(hidden, weight, bias, target, chunk=10)
    assert (training.n, validation.n) == (9, 3)


@pytest.mark.parametrize("trained", [True, False])
def test_all_logits_are_never_held_at_once(trained: bool) -> None:
    n, v = 4 * MIN_CHUNK, 9000
    hidden, weight, bias, target = draw(torch.float32, n, v)
    with Largest() as ours, torch.set_grad_enabled(trained):
        loss = linear_cross_entropy(hidden, weight, bias, target)
        if trained:
            loss.backward()
    assert ours.numel <= n * v / 4
    with Largest() as theirs:
        plain(hidden, weight, bias, target).backward()
    assert theirs.numel >= n * v


def test_chunks_are_no_smaller_than_they_need_be() -> None:
    hidden, weight, bias, target = draw(torch.float32, n=5000, v=65)
    with Count() as products:
        linear_cross_entropy(hidden, weight, bias, target).backward()
    assert products.n == 3


@pytest.mark.parametrize("chunk", [None, 5])
def test_without_targets_the_loss_and_the_gradients_are_zero(chunk: int | None) -> None:
    hidden, weight, bias, target = draw(n=0)
    loss = linear_cross_entropy(hidden, weight, bias, target, chunk=chunk)
    loss.backward()
    assert loss == 0 and hidden.grad.shape == (0, D)
    assert not weight.grad.any() and not bias.grad.any()


def test_a_table_that_is_used_twice_gets_both_gradients() -> None:
    _, weight, _, target = draw()
    ids = torch.randint(V, (N,))

    def gradient(loss, **choices) -> Tensor:
        return torch.autograd.grad(loss(F.embedding(ids, weight).tanh(), weight, None, target, **choices), weight)[0]

    torch.testing.assert_close(gradient(linear_cross_entropy, chunk=5), gradient(plain))


def test_gradients_add_up_over_accumulated_batches() -> None:
    hidden, weight, bias, target = draw()
    for half in (slice(0, 9), slice(9, N)):
        linear_cross_entropy(hidden[half], weight, bias, target[half], chunk=5).backward()
    expected = torch.autograd.grad(plain(hidden, weight, bias, target), [hidden, weight, bias])
    for part, known in zip((hidden, weight, bias), expected, strict=True):
        torch.testing.assert_close(part.grad, known)


def test_a_second_backward_and_a_second_derivative_are_refused() -> None:
    hidden, weight, bias, target = draw()
    loss = linear_cross_entropy(hidden, weight, bias, target, chunk=9)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="has handed its gradients over; call it again"):
        loss.backward()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(linear_cross_entropy(hidden, weight, bias, target, chunk=9), hidden, create_graph=True)

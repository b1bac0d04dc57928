"""The cross-entropy of a linear head in chunks, whose logits are never held whole."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 2**18
"""Logits up to which autograd has them whole: so few that the calls for doing better would cost more."""


MIN_CHUNK = 256
"""Hidden vectors of a chunk at least: each chunk reads the whole weight three times, which fewer would not repay."""


CHUNK_BYTES = {"cpu": 2**23}
"""Size of a chunk's logits in float32, where that is more vectors: on a CPU what its cache holds."""


GPU_CHUNK_BYTES = 2**29


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """The sum of the cross-entropies of targets under the logits `hidden @ weight.T + bias`, in nats.

    The logits of a chunk of the hidden vectors are worked out, turned into their own gradient in place, and multiplied
    into the gradients of the inputs before the next chunk is begun: the three products that training needs anyhow, and
    never (n, v) numbers at once. So `backward` only scales what the forward pass has made; it runs once, and has no
    gradient of its own. Without gradients (validation) the loss alone is worked out, in the same chunks.

    hidden: (n, d). weight: (v, d). bias: (v,) or None. target: (n,) int64.
    label_smoothing: mass taken from the target and spread evenly over all ids.
    weights: (n,) factors on the targets' losses; 0 leaves one out. None: 1 each.
    chunk: hidden vectors a chunk; chosen by the vocabulary's size and the device when left out, and where all logits
        are few, they are worked out at once in the plain way.

    Returns (), float32 at least.
    """
    inputs = hidden, weight, bias
    wanted = tuple(torch.is_grad_enabled() and part is not None and part.requires_grad for part in inputs)
    if chunk is None and len(hidden) * len(weight) <= SMALL:
        logits = F.linear(hidden, weight, bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if weights is None:
            return F.cross_entropy(logits, target, reduction="sum", label_smoothing=label_smoothing)
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing) @ weights
    if chunk is None:
        room = CHUNK_BYTES.get(hidden.device.type, GPU_CHUNK_BYTES)
        chunk = max(MIN_CHUNK, room // (4 * len(weight)))
    if any(wanted):
        return _LinearCrossEntropy.apply(*inputs, target, label_smoothing, weights, chunk, wanted)
    with torch.no_grad():
        return _work_out(*inputs, target, label_smoothing, weights, chunk, wanted)[0]


class _LinearCrossEntropy(torch.autograd.Function):
    """The loss with its gradients, which are kept in place of what they were made of."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        loss, ctx.gradients = _work_out(*arguments)
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("linear_cross_entropy has no second derivative (create_graph=True); use F.cross_entropy")
        if ctx.gradients is None:
            raise RuntimeError(
                "linear_cross_entropy has handed its gradients over; call it again for a second backward"
            )
        gradients, ctx.gradients = ctx.gradients, None
        # In place: a second buffer of the weight's size would be the largest thing here. A GPU is not asked what it is.
        if scale.device.type != "cpu" or scale != 1:
            for part in gradients:
                if part is not None:
                    part.mul_(scale)
        return *gradients, None, None, None, None, None


def _work_out(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    smoothing: float,
    weights: Tensor | None,
    chunk: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """The loss, and the gradients of hidden, weight and bias as far as they are wanted."""
    n, v = len(hidden), len(weight)
    kind = hidden.device.type
    given = hidden, weight, bias
    # What autocast would do to each product is done once here, not once a chunk.
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    wide = torch.promote_types(narrow, torch.float32)
    with torch.autocast(kind, enabled=False):
        hidden, weight, bias = (None if part is None else part.to(narrow) for part in given)
        loss = hidden.new_zeros((), dtype=wide)
        gradients = [
            part.new_zeros(part.shape, dtype=torch.promote_types(part.dtype, torch.float32)) if want else None
            for part, want in zip(given, wanted, strict=True)
        ]
        for_hidden, for_weight, for_bias = gradients
        n_chunks = max(-(-n // chunk), 1)
        size = max(-(-n // n_chunks), 1)
        buffer = hidden.new_empty(min(size, n), v)
        for start in range(0, n, size):
            here = slice(start, start + size)
            x, ids = hidden[here], target[here, None]
            logits = torch.mm(x, weight.T, out=buffer[: len(x)])
            if bias is not None:
                logits += bias
            # In place where the dtype allows; a GPU's kernels have not been tried so.
            logs = torch.log_softmax(logits, -1, wide, out=logits if narrow == wide and kind == "cpu" else None)
            losses = logs.gather(1, ids).squeeze(1) * (smoothing - 1)
            if smoothing:
                losses -= logs.mean(1) * smoothing
            loss += losses.sum() if weights is None else (losses * weights[here]).sum()
            if not any(wanted):
                continue
            gradient = logs.exp_()
            gradient.scatter_add_(1, ids, gradient.new_full(ids.shape, smoothing - 1))
            if smoothing:
                gradient -= smoothing / v
            if weights is not None:
                gradient *= weights[here, None]
            if for_bias is not None:
                for_bias += gradient.sum(0)
            gradient = gradient.to(narrow)
            if for_hidden is not None and for_hidden.dtype == narrow:
                torch.mm(gradient, weight, out=for_hidden[here])
            elif for_hidden is not None:
                for_hidden[here] = gradient @ weight
            if for_weight is not None:
                if for_weight.dtype == narrow:
                    for_weight.addmm_(gradient.T, x)
                else:
                    for_weight += gradient.T @ x
    return loss, [None if made is None else made.to(part.dtype) for made, part in zip(gradients, given, strict=True)]

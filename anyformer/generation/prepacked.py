"""Products of few rows with large matrices on a CPU, at the speed at which the matrices are read.

For up to some 16 rows the usual kernel rearranges the matrix at every call, which costs as much as the product. oneDNN
does that once; at 4 and 8 rows GPT-2's products are then 1.2 to 2 times as fast, and at a single row those of its tall
matrices 1.4 times (torch 2.14). The rearranged copy takes the memory of the matrix again.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

SMALLEST = 2**18
"""Numbers of a matrix from which the copy pays: below, calling the kernel costs more than the product."""
MOST_ROWS = 32
"""Rows up to which it pays."""
OWN = ("_parameters", "_buffers", "_modules")
"""What two modules do not share that share all tensors and settings."""


class PackedWeights:
    """Rearranged copies of matrices, made when they are first asked for and made anew when a matrix has changed.

    That it has is seen by the version that torch counts. Fused steps do not raise it; `make_optimizer` sees to that.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[tuple[Tensor, int, int], Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedWeights:
        """An empty one: a copy of a model has matrices of its own, and what is rearranged cannot be copied."""
        return PackedWeights()

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """As `torch.nn.functional.linear`; for inference."""
        if weight.numel() < SMALLEST or x.numel() > MOST_ROWS * x.shape[-1] or not packable(weight):
            return F.linear(x, weight, bias)
        # The tensor itself is kept too, so that its id is not given to another.
        state = weight, weight.data_ptr(), 0 if weight.is_inference() else weight._version
        kept = self._kept.get(id(weight))
        if kept is None or kept[0][1:] != state[1:]:
            kept = state, torch.ops.mkldnn._reorder_linear_weight.default(weight.detach(), MOST_ROWS // 4)
            self._kept[id(weight)] = kept
        return torch.ops.mkldnn._linear_pointwise.default(x, kept[1], bias, "none", [], "")


def packable(weight: Tensor) -> bool:
    """Whether there is a kernel for it: float32 on a CPU, and torch was built with oneDNN.

    Only parameters stay what they are from call to call; what is computed anew is not worth rearranging.
    """
    is_kept = isinstance(weight, nn.Parameter) and weight.dtype == torch.float32
    return is_kept and weight.device.type == "cpu" and torch.backends.mkldnn.is_available()


class PackedLinear(nn.Module):
    """A linear map that takes its product from packed weights."""

    def __init__(self, linear: nn.Linear, packed: PackedWeights) -> None:
        super().__init__()
        self.weight, self.bias, self._packed = linear.weight, linear.bias, packed

    def forward(self, x: Tensor) -> Tensor:
        return self._packed.linear(x, self.weight, self.bias)


class PackedProducts(TorchFunctionMode):
    """Within it every `torch.nn.functional.linear` is taken from packed weights, whoever calls it.

    Watching all calls costs some microseconds each: for a head, which is few of them, not for the trunk.
    """

    def __init__(self, packed: PackedWeights) -> None:
        super().__init__()
        self._packed = packed

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function is F.linear:
            function = self._packed.linear
        return function(*args, **(kwargs or {}))


def for_inference(model: nn.Module, packed: PackedWeights | None) -> nn.Module:
    """The same module in eval mode, sharing every tensor, with its linear maps packed; the one given stays as it is."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for part in model.modules():
        shared |= {id(value): value for name, value in vars(part).items() if name not in OWN}
    shell = copy.deepcopy(model, shared).eval()
    if packed is not None:
        for owner in list(shell.modules()):
            for name, part in owner.named_children():
                if type(part) is nn.Linear and part.weight.numel() >= SMALLEST and packable(part.weight):
                    setattr(owner, name, PackedLinear(part, packed))
    return shell

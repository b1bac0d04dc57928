"""Muon (Jordan et al. 2024): momentum whose updates are orthogonalised."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz steps (Jordan et al. 2024) for matrices, AdamW for everything else.

    The steps run in float32 on a CPU, where bfloat16 is slow, and in bfloat16 on a GPU; matrices of one shape go
    through them together. An update is scaled by sqrt(max(1, rows / columns)), as its authors do.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        matrices: set[Tensor],
        momentum: float = 0.95,
        nesterov: bool = True,
        normalize: bool = False,
        steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        """groups: each with lr and weight_decay, and either matrices only or none of them.
        normalize: whether the gradient of each matrix is brought to norm 1 before it enters the momentum, so that in a
            mixture, where steps of unlike tasks meet in one momentum, one of small gradients counts as much as others.
        """
        defaults = {"momentum": momentum, "nesterov": nesterov, "normalize": normalize, "steps": steps}
        super().__init__([{**group, "adamw": group["params"][0] not in matrices} for group in groups], defaults)
        rest = [group for group in self.param_groups if group["adamw"]]
        self._adamw = torch.optim.AdamW(rest, betas=tuple(betas), eps=eps, fused=True) if rest else None
        self._link()

    def _link(self) -> None:
        """One list of groups and one state for both, so that schedulers and checkpoints see a single optimiser."""
        if self._adamw is not None:
            theirs = iter(self._adamw.param_groups)
            self.param_groups = [next(theirs) | group if group["adamw"] else group for group in self.param_groups]
            self._adamw.param_groups = [group for group in self.param_groups if group["adamw"]]
            self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            # Of checkpoints from before there was such.
            group.setdefault("normalize", self.defaults["normalize"])
        self._link()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._adamw is not None:
            self._adamw.step()
        for group in self.param_groups:
            if not group["adamw"]:
                self._step(group)
        return loss

    def _step(self, group: dict[str, Any]) -> None:
        alike = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.flatten(1).shape].append(parameter)
        for (rows, columns), parameters in alike.items():
            updates = []
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                gradient = parameter.grad
                if group["normalize"]:
                    gradient = gradient / gradient.norm().clamp(min=1e-12)
                average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
                update = gradient.lerp(average, group["momentum"]) if group["nesterov"] else average
                updates.append(update.flatten(1))
            updates = orthogonalize(torch.stack(updates), group["steps"])
            scale = group["lr"] * max(1, rows / columns) ** 0.5
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.view_as(parameter), alpha=-scale)


def orthogonalize(x: Tensor, steps: int = 5) -> Tensor:
    """Matrices with the singular vectors of x and singular values near 1, by a quintic Newton-Schulz iteration.

    x: (matrices, rows, columns). Returns the same shape. The coefficients are those of Jordan et al. 2024: singular
    values end between about 0.7 and 1.2, which is near enough and takes fewer steps than going to 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    out = x.bfloat16() if x.is_cuda else x.float()
    transposed = out.shape[1] > out.shape[2]
    if transposed:
        out = out.mT
    out = out / (out.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = out @ out.mT
        out = a * out + (b * gram + c * gram @ gram) @ out
    return (out.mT if transposed else out).to(x.dtype)

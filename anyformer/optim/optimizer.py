"""Optimisers by name, which parameters decay, and the learning rate over the run and over the layers."""

from __future__ import annotations

import inspect
import math
import re
import types
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anyformer.choices import Values
from anyformer.errors import InputError, nearest, suggest
from anyformer.model.anyformer import Anyformer
from anyformer.model.by_field import weight_name
from anyformer.optim.muon import Muon

OF_GOING_ON = ("lr", "weight_decay", "adamw_lr", "warmup", "schedule", "final", "hold", "ema")
"""Fields of `OptimizerConfig` that may change when a run goes on; by the others goes the optimiser's state."""


@dataclass(frozen=True)
class Unfreezing(Values):
    """Layers that join the training one after another, from the top (ULMFiT, Howard and Ruder 2018, 3.3)."""

    after: int = 1
    """Epochs in which only what stands behind the blocks is trained, heads and final norms, and what is new beside the
    weights of `init_from`. Then the last block joins."""
    every: int = 1
    """Epochs from a block to the one before it; behind the first block the embeddings join. 0: all at once."""

    def __post_init__(self) -> None:
        if self.after < 1 or self.every < 0:
            raise InputError(
                "optimizer.unfreeze needs after of at least 1 and every of at least 0, "
                f"got {self.after} and {self.every}"
            )

    def first_epoch(self, distance: int) -> int:
        """The epoch, from 0, that a parameter is trained from, which stands `distance` blocks before the end.

        >>> [Unfreezing(after=2, every=3).first_epoch(distance) for distance in range(4)]
        [0, 2, 5, 8]
        """
        return self.after + (distance - 1) * self.every if distance else 0


@dataclass(frozen=True)
class OptimizerConfig(Values):
    """The optimiser and its learning rate over the run."""

    name: str = "adamw"
    """adamw (fused where there is one), muon, or any name of timm's list (`timm.optim.list_optimizers()`)."""
    lr: float = 1e-3
    """Highest learning rate; for muon that of the matrices."""
    weight_decay: float = 0.05
    """Of the weights of linear and convolution layers. Norms, biases, embeddings, tables and adapters (`lora`), whose
    decay would lead back to the base, do not decay."""
    adamw_lr: float = 1e-3
    """With muon, the learning rate of what is not a matrix inside the transformer, by AdamW; of adapters (`lora`) too,
    as an A and a B made orthogonal each would not make their product so."""
    warmup: float = 0.05
    """Part of the run over which the learning rate rises from 0, or, from 1 up, that many steps."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How it falls afterwards: to `final` times the highest by half a cosine or a line, or not at all."""
    final: float = 0.0
    """Where the fall ends, as a factor on the highest."""
    hold: float = 0.0
    """Part of the run, counted from its beginning, during which it does not fall yet."""
    ema: float | None = None
    """Decay of an exponential moving average of the weights, used to validate, test and keep the best; none when left
    out."""
    layer_decay: float | None = None
    """Factor on the learning rate from each block to the one before, for fine-tuning: what stands after the blocks has
    all of it, the last block this part, the embeddings the least (BEiT, Bao et al. 2022); none when left out."""
    lr_mults: dict[str, float] = field(default_factory=dict)
    """Factors on the learning rate, beside that of layer_decay, by patterns of names of parameters as the shell has
    them, as in {"model.encoder.*": 0.1}; the first that a name fits counts."""
    unfreeze: Unfreezing | None = None
    """Layers that join the training one after another; all are trained from the first step on when left out."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the optimiser, by its own names (betas, momentum, of muon also normalize, ...)."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.lr <= 0 or self.adamw_lr <= 0:
            raise InputError(f"optimizer.lr and optimizer.adamw_lr must be above 0, got {self.lr} and {self.adamw_lr}")
        for name in ("warmup", "weight_decay", "final"):
            if getattr(self, name) < 0:
                raise InputError(f"optimizer.{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.hold < 1:
            raise InputError(f"optimizer.hold must be at least 0 and below 1, got {self.hold}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise InputError(f"optimizer.ema must lie between 0 and 1, got {self.ema}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise InputError(f"optimizer.layer_decay must be above 0 and at most 1, got {self.layer_decay}")

        for pattern, factor in self.lr_mults.items():
            if not factor > 0:
                raise InputError(
                    f"optimizer.lr_mults: {pattern} must be above 0, got {factor}; freeze takes out of training"
                )

    def factor(self, step: int, total: int) -> float:
        """The learning rate at a step (0, 1, ...) of a run of `total` steps, as a factor on the highest.

        >>> config = OptimizerConfig(warmup=2, schedule="linear")
        >>> [config.factor(step, 6) for step in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
        """
        warmup = math.ceil(self.warmup if self.warmup >= 1 else self.warmup * total)
        if step < warmup:
            return (step + 1) / warmup
        if self.schedule == "constant":
            return 1.0
        start = max(warmup, self.hold * total)
        done = min(max(step - start, 0) / max(total - start, 1), 1.0)
        fall = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final + (1 - self.final) * fall


OWN = ("adamw", "muon")
"""The optimisers that need no timm."""


def check_name(name: str) -> None:
    """Raise InputError for the name of no optimiser."""
    if name not in OWN:
        from timm.optim import list_optimizers

        known = [*OWN, *list_optimizers()]
        if name.lower().removeprefix("lookahead_") not in known:
            raise InputError(f"optimizer.name: there is no optimiser {name!r}{suggest(name, known)}")


def decaying(module: nn.Module) -> set[Tensor]:
    """The parameters that decay: weights of linear and convolution layers."""
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {layer.weight for layer in module.modules() if isinstance(layer, layers)}


def layer_distances(model: Anyformer, new: Collection[Tensor] = (), behind: int = 0) -> dict[Tensor, int]:
    """How many blocks each parameter of a model stands before the end.

    For n blocks: n + 1 before them, n - i in block i = 0 ... n - 1, and 0 after them. Each of two stacks counts its own
    blocks, and the embeddings stand before the deeper one. An encoder that lifts a field counts its own before all of
    these, or from the end where they are new, as `distances` of a task counts what is new as the end.

    new: parameters beside the weights that training started from. behind: what is added to all.
    """
    stacks = [stack for stack in (model.transformer, model.encoder) if stack is not None]
    first = behind + max(len(stack.blocks) for stack in stacks) + 1
    distances = dict.fromkeys(model.parameters(), first)
    for stack in stacks:
        distances |= dict.fromkeys(stack.final_norm.parameters(), behind)
        for i, block in enumerate(stack.blocks):
            distances |= dict.fromkeys(block.parameters(), behind + len(stack.blocks) - i)
    is_new = all(parameter in new for stack in stacks for parameter in stack.parameters())
    for lift in model.embeddings.lifts.values():
        for inner in lift.children():
            if isinstance(inner, Anyformer):
                distances |= layer_distances(inner, new, behind if is_new else first)
    return distances


def rate_factors(module: nn.Module, distances: Mapping[Tensor, int], config: OptimizerConfig) -> dict[Tensor, float]:
    """The factor on the learning rate of each parameter of a module: layer_decay to the power of its distance from the
    end (BEiT, Bao et al. 2022; timm), times that of the first pattern of lr_mults which its name fits.

    distances: 0 where there is none. Raises InputError for a pattern that no name fits.
    """
    names = [name for name, _ in module.named_parameters()]
    factors_by_pattern = {weight_name(pattern): factor for pattern, factor in config.lr_mults.items()}
    for pattern in factors_by_pattern:
        check_pattern(pattern, names, "optimizer.lr_mults")
    decay = 1.0 if config.layer_decay is None else config.layer_decay
    factors = {}
    for name, parameter in module.named_parameters():
        mults = (factor for pattern, factor in factors_by_pattern.items() if fnmatchcase(name, pattern))
        factors[parameter] = decay ** distances.get(parameter, 0) * next(mults, 1.0)
    return factors


def check_pattern(pattern: str, names: Sequence[str], option: str) -> None:
    """Raise InputError, with the nearest names, for a pattern of names of parameters that is the name of none."""
    if not any(fnmatchcase(name, pattern) for name in names):
        words = [name.split(".") for name in names]
        near = {".".join(parts[:n]) + ".*" for parts in words for n in range(1, len(parts))}
        raise InputError(f"{option}: no parameter is named {pattern!r}{nearest(pattern, sorted({*near, *names}))}")


def make_optimizer(
    module: nn.Module,
    trunk: Iterable[nn.Module],
    config: OptimizerConfig,
    factors: Mapping[Tensor, float] = types.MappingProxyType({}),
) -> torch.optim.Optimizer:
    """The optimiser of a config over the parameters of a module that are to be trained.

    trunk: the transformer stacks within the module, whose matrices are Muon's; all else is AdamW's.
    factors: on the learning rates of parameters; 1 where there is none.
    Raises InputError for a name or an option that does not exist.
    """
    weights = decaying(module)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = _matrices(trunk, config)
    groups = [
        {"params": [p for p in trained if p in matrices], "weight_decay": config.weight_decay, "lr": config.lr},
        {"params": [p for p in trained if p in weights - matrices], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p not in weights], "weight_decay": 0.0},
    ]
    other_lr = config.adamw_lr if config.name == "muon" else config.lr
    groups = [part for group in groups for part in _by_factor({"lr": other_lr} | group, factors)]
    try:
        if config.name == "muon":
            optimizer: torch.optim.Optimizer = Muon(groups, matrices, **config.options)
        elif config.name == "adamw":
            optimizer = torch.optim.AdamW(groups, **({"fused": True} | config.options))
        else:
            from timm.optim import create_optimizer_v2

            optimizer = create_optimizer_v2(groups, opt=config.name, lr=config.lr, **config.options)
        optimizer.register_step_post_hook(_raise_versions)
        return optimizer
    except TypeError as error:
        raise InputError(f"optimizer.options do not fit {config.name}: {error}{_options_like(error, config)}") from None
    except ValueError as error:
        raise InputError(f"optimizer.name {config.name!r} cannot be used: {error}") from None


def base_rates(module: nn.Module, trunk: Iterable[nn.Module], config: OptimizerConfig) -> dict[Tensor, float]:
    """The highest learning rate of each parameter, before any factor on it."""
    matrices, other = _matrices(trunk, config), config.adamw_lr if config.name == "muon" else config.lr
    return {parameter: config.lr if parameter in matrices else other for parameter in module.parameters()}


def _matrices(trunk: Iterable[nn.Module], config: OptimizerConfig) -> set[Tensor]:
    """The parameters that are Muon's."""
    if config.name != "muon":
        return set()
    return {parameter for stack in trunk for parameter in decaying(stack) if parameter.requires_grad}


def _options_like(error: TypeError, config: OptimizerConfig) -> str:
    """The nearest of an optimiser's own options, or all of them, where an error says that it has not one."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is None:
        return ""
    if config.name in OWN:
        cls: Any = {"adamw": torch.optim.AdamW, "muon": Muon}[config.name]
    else:
        from timm.optim import get_optimizer_class

        cls = get_optimizer_class(config.name, bind_defaults=False)
    ours = ("self", "params", "matrices", "lr", "weight_decay")
    return suggest(unknown[1], [name for name in inspect.signature(cls).parameters if name not in ours])


def _raise_versions(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Mark parameters as changed: fused steps do not, and by that mark stale copies are found."""
    torch.autograd.graph.increment_version([p for group in optimizer.param_groups for p in group["params"]])


def _by_factor(group: dict[str, Any], factors: Mapping[Tensor, float]) -> list[dict[str, Any]]:
    """A group of parameters as one for each factor on the learning rate, the highest first."""
    parts = defaultdict(list)
    for parameter in group["params"]:
        parts[factors.get(parameter, 1.0)].append(parameter)
    return [{**group, "params": parts[f], "lr": group["lr"] * f} for f in sorted(parts, reverse=True)]

"""Low-rank adapters (LoRA, Hu et al. 2021) on linear maps: W x becomes W x + scale B A x; A and B alone are trained.

A map that is adapted keeps its place, its name and its W; beside `weight` and `bias` it then has `lora_a` and `lora_b`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.batch import Layout
from anyformer.choices import Values
from anyformer.errors import InputError, nearest

STACKS = ("model.transformer.", "model.encoder.")
"""What the names of the maps begin with that can adapt some samples alone."""


@dataclass(frozen=True)
class LoraConfig(Values):
    """Low-rank adapters on what `init_from` gives, which is not trained itself, nor saved."""

    rank: int = 16
    """Of B A, at most the smaller side of each matrix that it is added to."""
    on: list[str] = field(default_factory=lambda: ["*.q", "*.v"])
    """The linear maps that are adapted, by patterns of their names as the shell has them: `*.q`, `*.mlp.*`,
    `model.encoder.*`; none where it is empty, and then the new parts alone are trained."""
    alpha: float = 16.0
    """The adapter is multiplied by alpha / sqrt(rank)."""
    dropout: float = 0.0
    """On what A is given, in training. It does not act on a layer over a vocabulary or of actions, nor on the router of
    experts, which have no product of their own with A."""
    rank_stabilized: bool = True
    """Whether it is alpha / sqrt(rank) (Kalajdzievski 2023), so that the rate may stay where the rank grows; otherwise
    alpha / rank, as Hu et al. had it."""
    only_with: list[str] = field(default_factory=list)
    """Fields: the adapters then act in samples alone that have one of them, and without them the model is what it was,
    bit for bit; of maps in the transformer and the encoder."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"lora.rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise InputError(f"lora.alpha must be above 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout must be at least 0 and below 1, got {self.dropout}")
        if self.only_with and not self.on:
            raise InputError("lora.only_with is for adapters, and lora.on names no map; leave one of them out")

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


class LoraLinear(nn.Linear):
    """A linear map with an adapter: `adapt` makes it of one in its place."""

    lora_a: nn.Parameter
    """(rank, in)"""
    lora_b: nn.Parameter
    """(out, rank), 0 at first."""
    scale: float
    p: float
    """The dropout on what A is given."""

    def forward(self, x: Tensor, adapts: Tensor | None = None) -> Tensor:
        """x: (..., in). adapts: (...) boolean, where the adapter acts; everywhere when left out. Returns (..., out)."""
        out = super().forward(x)
        inner = F.linear(F.dropout(x, self.p, self.training), self.lora_a)
        adapted = out + self.scale * F.linear(inner, self.lora_b)
        # Not a product with 0 or 1, which would turn -0 into 0.
        return adapted if adapts is None else torch.where(adapts[..., None], adapted, out)


def project(layer: nn.Module, x: Tensor, adapts: Tensor | None = None) -> Tensor:
    """x (..., in) through a linear map, whose adapter, where it has one, acts as `adapts`, (...), says."""
    return layer(x, adapts) if isinstance(layer, LoraLinear) else layer(x)


def full_weight(layer: nn.Linear) -> Tensor:
    """(out, in), the matrix of a linear map, with its adapter where it has one."""
    if not isinstance(layer, LoraLinear):
        return layer.weight
    return layer.weight + layer.scale * layer.lora_b @ layer.lora_a


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is one of an adapter."""
    return name.rpartition(".")[2] in ("lora_a", "lora_b")


def adapters(module: nn.Module) -> dict[str, LoraLinear]:
    """The maps with an adapter, by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, LoraLinear)}


def adapt(module: nn.Module, config: LoraConfig) -> None:
    """Give the linear maps of a task that a config names an adapter, in place. At first they add nothing.

    Raises InputError for a pattern that is the name of none, for a rank above a matrix's width, and where `only_with`
    names no field, or maps that cannot adapt some samples alone.
    """
    linears = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    chosen = [name for name in linears if any(fnmatchcase(name, pattern) for pattern in config.on)]
    for pattern in config.on:
        if not any(fnmatchcase(name, pattern) for name in linears):
            ends = sorted({f"*.{name.rpartition('.')[2]}" for name in linears})
            near = nearest(pattern, [*ends, *linears]) or f"; there are {', '.join(ends)}"
            raise InputError(f"lora.on: no linear map is named {pattern!r}{near}")
    for name in chosen:
        n_out, n_in = linears[name].weight.shape
        if config.rank > min(n_out, n_in):
            raise InputError(
                f"lora.rank is {config.rank}, more than {name} has, a matrix of {n_out} x {n_in}; give at most "
                f"{min(n_out, n_in)}, or name other maps in lora.on"
            )
    if config.only_with:
        _restrict(module.model, chosen, config.only_with)
    for name in chosen:
        _adapt(linears[name], config)


def _adapt(layer: nn.Linear, config: LoraConfig) -> None:
    # In its place, because others may hold it too: its class is all that changes.
    layer.__class__ = LoraLinear
    layer.scale, layer.p = config.scale, config.dropout
    layer.lora_a = nn.Parameter(layer.weight.new_empty(config.rank, layer.in_features))
    layer.lora_b = nn.Parameter(layer.weight.new_zeros(layer.out_features, config.rank))
    nn.init.kaiming_uniform_(layer.lora_a, a=math.sqrt(5))


def _restrict(model: nn.Module, chosen: Sequence[str], only_with: Sequence[str]) -> None:
    """Have the adapters of a model act in samples alone that have one of some fields."""
    fields = list(model.tokenizers)
    for name in only_with:
        if not any(_covers(name, each) for each in fields):
            raise InputError(
                f"lora.only_with: there is no field {name!r}; there are {', '.join(fields)}{nearest(name, fields)}"
            )
    if others := [name for name in chosen if not name.startswith(STACKS)]:
        raise InputError(
            f"lora.only_with: {others[0]} cannot adapt some samples alone, as it is in neither transformer nor "
            "encoder; name others in lora.on"
        )
    covered = [any(_covers(name, each) for name in only_with) for each in fields]
    model.adapts_with = torch.tensor(covered, device=next(model.parameters()).device)


def _covers(name: str, each: str) -> bool:
    """Whether a name means a field, which may be one of several of its record."""
    return each == name or each.startswith(f"{name}.")


def in_samples_with(fields: Tensor, query: Layout, keys: Sequence[Layout]) -> Tensor:
    """Which places are of samples that have one of some fields, (b, n) boolean.

    fields: (fields,) boolean. query: of the places, (b, n). keys: of all tokens of the same rows and samples, each
    (b, m).
    """
    n_segments = 1 + max((int(each.segment.max()) for each in (query, *keys) if each.segment.numel()), default=0)
    found = torch.zeros(len(query.segment), n_segments, dtype=torch.bool, device=query.segment.device)
    for each in keys:
        # What is of another field counts as padding, which is never asked for.
        found.scatter_(1, each.segment * fields[each.field], True)
    found[:, 0] = False
    return found.gather(1, query.segment)


@torch.no_grad()
def merge_adapters(module: nn.Module) -> None:
    """Add the adapters to the matrices that they belong to, in place; what was adapted is a plain linear map then.

    Raises InputError for adapters that act in some samples alone.
    """
    if getattr(getattr(module, "model", None), "adapts_with", None) is not None:
        raise InputError(
            "lora.only_with: adapters that act in some samples alone cannot be merged, as no one matrix does what they "
            "do; use the model as it is"
        )
    for layer in adapters(module).values():
        added = layer.scale * layer.lora_b.double() @ layer.lora_a.double()
        layer.weight.copy_(layer.weight.double() + added)
        del layer.lora_a, layer.lora_b, layer.scale, layer.p
        layer.__class__ = nn.Linear

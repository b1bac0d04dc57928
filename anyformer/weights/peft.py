"""Adapters as peft writes them: adapter_config.json and adapter_model.safetensors, in and out.

Theirs stand on the matrices of transformers, of which one may be several of ours (GPT-2 has q, k and v in one). Which
rows of which of theirs are ours is found out by having a family write a model whose matrices are filled with numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.local_files import read_json
from anyformer.model.lora import LoraConfig, adapters, is_adapter
from anyformer.weights.huggingface import Family, Settings
from anyformer.weights.tensors import read_tensors, rename

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PLAIN = {
    "peft_type": "LORA",
    "bias": "none",
    "use_dora": False,
    "lora_bias": False,
    "layer_replication": None,
    "trainable_token_indices": None,
    "target_parameters": None,
}
"""What adapters must say that are A and B alone."""
INITIAL = (True, False, "gaussian", "eva", "orthogonal")
"""Initial values of A and B that leave the base as it is."""


@dataclass(frozen=True)
class Piece:
    """A matrix of ours within one of theirs."""

    ours: str
    """The name of the linear map."""
    rows: slice
    """Of the matrix, (out, in), that it is part of."""


@dataclass(frozen=True)
class Matrix:
    """A matrix of theirs."""

    n_out: int
    pieces: tuple[Piece, ...]
    is_turned: bool
    """Whether their file has it as (in, out)."""


@dataclass(frozen=True)
class Adapter:
    """What is added to one linear map: scale B A."""

    a: Tensor
    b: Tensor
    scale: float


def matrices(family: Family, task: nn.Module, field: str | None) -> dict[str, Matrix]:
    """The matrices of a family, by the name of their module, as far as linear maps of a task are within them.

    field: of the task's text, see `Family.table`.
    """
    linears = [name for name, part in task.named_modules() if isinstance(part, nn.Linear)]
    state = _whole(task)
    for i, name in enumerate(linears, 1):
        # Of a type that no weight is of.
        state[f"{name}.weight"] = torch.full((len(state[f"{name}.weight"]), 1), float(i), dtype=torch.float64)
    found = {}
    for theirs, tensor in family.unload(task, field, state).items():
        if tensor.dtype != torch.float64 or not theirs.endswith(".weight"):
            continue
        numbers = tensor.flatten().long()
        pieces = []
        for i in numbers.unique().tolist():
            rows = (numbers == i).nonzero().flatten()
            pieces.append(Piece(linears[i - 1], slice(int(rows[0]), int(rows[-1]) + 1)))
        found[theirs.removesuffix(".weight")] = Matrix(len(numbers), tuple(pieces), len(tensor) == 1 < len(numbers))
    return found


def _whole(task: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in task.state_dict().items() if not is_adapter(name)}


# In.


def read_peft(folder: Path) -> tuple[Settings, dict[str, Tensor]]:
    """The config and the tensors of a folder. Raises InputError where one is missing or says more than A and B do."""
    settings = Settings(read_json(folder / CONFIG), str(folder / CONFIG))
    settings.require(**PLAIN)
    if (initial := settings.values.get("init_lora_weights", True)) not in INITIAL:
        raise InputError(
            f"{settings.path}: init_lora_weights: {initial!r} has changed the base too, and cannot be brought in"
        )
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} holds no {WEIGHTS}; save the adapter with safe_serialization=True")
    return settings, read_tensors((folder / WEIGHTS).absolute())


def take_adapters(
    settings: Settings,
    tensors: Mapping[str, Tensor],
    known: Mapping[str, Matrix],
    shapes: Mapping[str, tuple[int, int]],
) -> tuple[dict[str, Adapter], dict[str, Tensor]]:
    """The adapters of a file by our names; and what else was trained, by theirs.

    known: of `matrices`. shapes: (out, in) of our maps. Raises InputError for what the model has not.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    others = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(re.escape(PREFIX) + r"(.+)\.lora_(A|B)\.weight", name):
            parts.setdefault(match[1], {})[match[2]] = tensor.float()
        elif "lora_" in name or not name.startswith(PREFIX):
            raise InputError(f"{settings.path}: {name} is no A or B of a linear map, and cannot be brought in")
        else:
            others[name.removeprefix(PREFIX)] = tensor.float()
    found = {}
    for module, both in parts.items():
        if module not in known:
            raise InputError(
                f"{settings.path} adapts {module}, which the base has not: the adapter is of another architecture; "
                "name the model that it was trained on"
            )
        if both.keys() != {"A", "B"}:
            raise InputError(f"{settings.path}: {module} lacks A or B; copy the folder anew")
        matrix, a, b = known[module], both["A"], both["B"]
        n_in = shapes[matrix.pieces[0].ours][1]
        if a.shape[1] != n_in or b.shape[0] != matrix.n_out or a.shape[0] != b.shape[1]:
            raise InputError(
                f"{settings.path}: A and B of {module} are {_shown(a)} and {_shown(b)}, and the matrix of the base is "
                f"({matrix.n_out}, {n_in}): the adapter is of another architecture"
            )
        scale = _scale(settings, module, len(a))
        # Of q, k and v in one, those that nothing is added to are left alone.
        added = [piece for piece in matrix.pieces if b[piece.rows].any()] or matrix.pieces
        found |= {piece.ours: Adapter(a, b[piece.rows], scale) for piece in added}
    if not found:
        raise InputError(f"{settings.path}: {WEIGHTS} beside it holds no A and B")
    return found, others


def _scale(settings: Settings, module: str, rank: int) -> float:
    alphas = settings.get("alpha_pattern", {})
    own = [alpha for pattern, alpha in alphas.items() if re.match(rf"(.*\.)?({pattern})$", module)]
    alpha = own[0] if own else settings.get("lora_alpha", 8, (int, float))
    return alpha / (math.sqrt(rank) if settings.get("use_rslora", False) else rank)


def shared_config(found: Mapping[str, Adapter], settings: Settings, names: list[str]) -> LoraConfig:
    """One config for adapters of perhaps several ranks: that of the highest. names: of all linear maps."""
    rank = max(len(adapter.a) for adapter in found.values())
    stabilized = settings.get("use_rslora", False)
    first = next(adapter for adapter in found.values() if len(adapter.a) == rank)
    return LoraConfig(
        rank,
        on=_patterns(set(found), names),
        alpha=first.scale * (math.sqrt(rank) if stabilized else rank),
        dropout=settings.get("lora_dropout", 0.0),
        rank_stabilized=stabilized,
    )


def _patterns(chosen: set[str], names: list[str]) -> list[str]:
    """Patterns of names that mean those that were chosen and no others, short ones where there are such."""
    patterns: dict[str, None] = {}
    for name in (each for each in names if each in chosen):
        words = name.split(".")
        ends = [".".join(words[-n:]) for n in (1, 2)]
        fits = (end for end in ends if all(other in chosen for other in names if other.endswith(f".{end}")))
        end = next(fits, None)
        patterns[name if end is None else f"*.{end}"] = None
    return list(patterns)


@torch.no_grad()
def set_adapters(task: nn.Module, found: Mapping[str, Adapter]) -> None:
    """Set the adapters of a task, in place; one of a lower rank than the task's is filled up with 0."""
    for name, layer in adapters(task).items():
        adapter = found[name]
        layer.lora_a.zero_()
        layer.lora_b.zero_()
        layer.lora_a[: len(adapter.a)] = adapter.a
        layer.lora_b[:, : len(adapter.a)] = adapter.b * (adapter.scale / layer.scale)


def other_weights(
    family: Family, task: nn.Module, field: str | None, others: Mapping[str, Tensor], settings: Settings
) -> dict[str, Tensor]:
    """What was trained beside adapters, by our names. Raises InputError for what the base has not."""
    table, found = family.table(task, field), {}
    own = task.state_dict()
    for theirs, tensor in family.apart(others, settings).items():
        ours = rename(theirs, table)
        if ours not in own or own[ours].shape != tensor.shape:
            raise InputError(f"{settings.path}: {theirs} was trained too, and the base has no such tensor of its shape")
        found[ours] = tensor
    return found


# Out.


def peft_files(task: Any, family: Family, field: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """adapter_config.json and the tensors beside it: the adapters of a task, and what else was trained.

    Raises InputError for an adapter on what is no matrix of the family's.
    """
    config, layers = task.lora, adapters(task)
    tensors, modules, ranks, alphas = {}, [], {}, {}
    known = matrices(family, task, field)
    for module, matrix in known.items():
        pieces = [piece for piece in matrix.pieces if piece.ours in layers]
        if not pieces:
            continue
        a, b = _joined(matrix, pieces, layers)
        tensors[f"{PREFIX}{module}.lora_A.weight"], tensors[f"{PREFIX}{module}.lora_B.weight"] = a, b
        modules.append(module)
        if len(a) != config.rank:
            ranks[module] = len(a)
            alphas[module] = config.scale * (math.sqrt(len(a)) if config.rank_stabilized else len(a))
    if lost := layers.keys() - {piece.ours for matrix in known.values() for piece in matrix.pieces}:
        raise InputError(f"peft: {family.model_type} has no matrix for {min(lost)}; export the merged model instead")
    others = _other_tensors(task, family, field)
    tensors |= {f"{PREFIX}{name}": tensor for name, tensor in others.items()}
    values = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilized,
        "target_modules": modules,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "modules_to_save": sorted({name.rpartition(".")[0] for name in others}) or None,
        "fan_in_fan_out": any(known[module].is_turned for module in modules),
        "bias": "none",
        "inference_mode": True,
    }
    return values, tensors


def _joined(matrix: Matrix, pieces: list[Piece], layers: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """A and B of a matrix of theirs: where its parts have an A each, one under the other, B in blocks."""
    every = [layers[piece.ours].lora_a.detach().cpu() for piece in pieces]
    is_one = all(torch.equal(a, every[0]) for a in every)
    a = every[0] if is_one else torch.cat(every)
    b, first = a.new_zeros(matrix.n_out, len(a)), 0
    for piece, own in zip(pieces, every, strict=True):
        b[piece.rows, first : first + len(own)] = layers[piece.ours].lora_b.detach().cpu()
        first += 0 if is_one else len(own)
    return a.contiguous().clone(), b


def _other_tensors(task: Any, family: Family, field: str | None) -> dict[str, Tensor]:
    """What was trained beside adapters, by their names."""
    state = {
        # Of a type by which it is known again.
        name: value if name in task.of_base else value.double()
        for name, value in _whole(task).items()
    }
    found = family.unload(task, field, state)
    return {name: value.float() for name, value in found.items() if value.dtype == torch.float64}


def _shown(tensor: Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"

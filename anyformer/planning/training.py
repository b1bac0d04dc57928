"""Which parts of a model are trained, with what learning rate and from which epoch on."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from anyformer.optim.optimizer import base_rates, rate_factors
from anyformer.tasks.base.task import Task
from anyformer.text_tables import align

ENCODER = re.compile(r".*?model\.embeddings\.lifts\.[^.]+\.encoder(?=\.)")
"""How the names of the weights of a `Pretrained` field begin."""
STACK = re.compile(rf"((?:.*?model|{ENCODER.pattern})\.(?:transformer|encoder))\.blocks\.(\d+)\.")


@dataclass(frozen=True)
class Training:
    """How a part of a model is trained."""

    part: str
    """The beginning of the names of its parameters; of blocks, from the first to the last that are alike."""
    parameters: int
    """Those that are trained, or, of a row without rates, that are not."""
    rates: tuple[float, ...]
    """The highest learning rates, the highest first; () where it is frozen."""
    epoch: int
    """The epoch, from 1, that it is trained from."""


def how_trained(task: Task) -> list[Training]:
    """The parts of a task that is built, which may be on the meta device, in the sequence of its parameters; [] where
    all of it is trained alike: at the rates of the optimiser, from the first step on."""
    config, distances = task.optimizer, task.distances()
    factors = rate_factors(task, distances, config)
    trunk = [stack for model in task.models for stack in (model.transformer, model.encoder) if stack is not None]
    rates = base_rates(task, trunk, config)
    by_part = defaultdict[tuple[str, bool, int], list[Tensor]](list)
    for name, parameter in task.named_parameters():
        begin = 0 if config.unfreeze is None else config.unfreeze.first_epoch(distances.get(parameter, 0))
        by_part[_part(name), parameter.requires_grad, begin].append(parameter)
    rows = [
        Training(
            part,
            sum(p.numel() for p in parameters),
            tuple(sorted({rates[p] * factors[p] for p in parameters}, reverse=True)) if is_trained else (),
            begin + 1,
        )
        for (part, is_trained, begin), parameters in by_part.items()
    ]
    plain = all(row.rates and row.epoch == 1 for row in rows) and len({*factors.values()}) == 1
    return [] if plain else _joined(rows)


def show_training(rows: Sequence[Training]) -> str:
    """A table for the terminal; "" for no rows."""
    if not rows:
        return ""
    several = any(row.epoch > 1 for row in rows)
    lines = [("trained", "parameters", "learning rate", *(["from epoch"] if several else []))]
    for row in rows:
        shown = ", ".join(f"{rate:.3g}" for rate in row.rates) or "frozen"
        lines.append(
            (row.part, f"{row.parameters:,}", shown, *([str(row.epoch) if row.rates else ""] if several else []))
        )
    trained = sum(row.parameters for row in rows if row.rates)
    total = sum(row.parameters for row in rows)
    return "\n".join([*align(lines), f"{trained:,} of {total:,} parameters are trained"])


def _part(name: str) -> str:
    """
    >>> _part("model.transformer.blocks.3.mlp.up.bias"), _part("model.embeddings.lifts.image.linear.bias")
    ('model.transformer.blocks.3', 'model.embeddings.lifts.image')
    >>> _part("model.embeddings.lifts.text.encoder.embeddings.types.text")
    'model.embeddings.lifts.text.encoder.embeddings'
    """
    if match := STACK.match(name):
        return match[0].removesuffix(".")
    if match := ENCODER.match(name):
        return f"{match[0]}.{name[match.end() + 1 :].partition('.')[0]}"
    words = name.split(".")
    return ".".join(words[: max(1, min(len(words) - 1, words.index("model") + 4 if "embeddings" in words else 3))])


def _joined(rows: Sequence[Training]) -> list[Training]:
    """Blocks that stand next to each other and are trained alike as one row."""

    def key(row: Training) -> tuple:
        match = STACK.match(f"{row.part}.")
        return match[1] if match else row.part, row.rates, row.epoch

    joined = []
    for _, group in groupby(rows, key):
        alike = list(group)
        first, last = alike[0].part, alike[-1].part
        part = first if first == last else f"{first}-{last.rpartition('.')[2]}"
        joined.append(Training(part, sum(row.parameters for row in alike), alike[0].rates, alike[0].epoch))
    return joined

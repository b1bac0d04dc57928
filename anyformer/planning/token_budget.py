"""What a step's tokens are spent on: how many each field has in a sample, and how full the rows are.

Counted in batches as the loader makes them; knows no modality, no task and no trainer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from anyformer.batch import Batch
from anyformer.text_tables import align


@dataclass(frozen=True)
class FieldBudget:
    """The tokens of one field."""

    name: str
    present: float
    """Share of the samples that have it."""
    median: float
    """Tokens of a sample that has it."""
    most: int
    """Of all samples seen."""
    longest: float
    """Share of the samples that have it which have the most."""
    share: float
    """Of the tokens of all fields."""
    reach: tuple[float, ...]
    """The highest position on each of its axes."""


@dataclass(frozen=True)
class Budget:
    """The tokens of some batches; as a string a table."""

    fields: tuple[FieldBudget, ...]
    """Those that a sample had."""
    n_samples: int
    n_batches: int
    median: float
    """Tokens of a sample, all fields together."""
    most: int
    fill: float
    """Share of the places in the rows that hold a token; the others are padding."""
    places: int
    """Of the largest batch, padding included: rows x length, of two stacks in sum."""
    packed: bool
    """Whether some row holds several samples."""

    def __str__(self) -> str:
        lines = [("tokens of a sample", "median", "most", "share", "present")]
        for field in self.fields:
            name = f"  {field.name}"
            lines.append((name, f"{field.median:g}", f"{field.most:,}", f"{field.share:.0%}", f"{field.present:.0%}"))
        lines.append(("all", f"{self.median:g}", f"{self.most:,}", "", ""))
        of = f"of {self.n_samples:,} samples in {self.n_batches} batches"
        return "\n".join([*align(lines), f"rows filled {self.fill:.0%}, the rest is padding; {of}"])


def stacks(examples: Any) -> list[Batch]:
    """The batches of tokens that a task's batch holds, itself or in a part of it: one, or one for each of two
    stacks."""
    if isinstance(examples, Batch):
        return [examples]
    parts = [getattr(examples, each.name) for each in fields(examples)] if is_dataclass(examples) else []
    return [batch for part in parts for batch in stacks(part)]


def count_budget(batches: Sequence[Sequence[Batch]]) -> Budget:
    """batches: of each step the batches of its stacks, of the same samples."""
    counts: dict[str, list[np.ndarray]] = defaultdict(list)
    reach: dict[str, tuple[float, ...]] = {}
    total, places = [], []
    for step in batches:
        n = step[0].n_samples
        own: dict[str, np.ndarray] = defaultdict(lambda n=n: np.zeros(n, dtype=np.int64))
        for name, tokens in ((name, tokens) for batch in step for name, tokens in batch.fields.items()):
            own[name] = own[name] + np.bincount(tokens.sample.cpu().numpy(), minlength=n)
            if tokens.reach:
                reach[name] = tuple(map(max, tokens.reach, reach.get(name, tokens.reach)))
        for name, each in own.items():
            counts[name].append(each)
        total.append(sum(own.values()))
        places.append(sum(batch.layout.segment.numel() for batch in step))
    every = np.concatenate(total)
    found = []
    for name, parts in counts.items():
        held = np.concatenate(parts)
        held = held[held > 0]
        if len(held):
            share = float(held.sum() / every.sum())
            present, median = len(held) / len(every), float(np.median(held))
            most, longest = int(held.max()), float((held == held.max()).mean())
            found.append(FieldBudget(name, present, median, most, longest, share, reach.get(name, ())))
    return Budget(
        fields=tuple(found),
        n_samples=len(every),
        n_batches=len(batches),
        median=float(np.median(every)),
        most=int(every.max()),
        fill=float(every.sum() / max(sum(places), 1)),
        places=max(places),
        packed=any(not batch.one_per_row for step in batches for batch in step),
    )

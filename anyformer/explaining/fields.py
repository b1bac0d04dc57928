"""Which field mattered: the answer with fields left out, in all combinations, and over a data set.

A field that is absent is nothing out of the way for a model here, so that no baseline has to be invented for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.explaining.asked import Asked
from anyformer.explaining.shapley import Shapley, shapley
from anyformer.tokens import Sample, TokenSet

Player = dict[str, Tensor | None]
"""Of each field that it has a part in, which tokens are its own, (n,) boolean; None: the whole field."""


@dataclass(frozen=True)
class FieldValues:
    """The Shapley values of the fields of one record, or of other parts of it."""

    names: tuple[str, ...]
    shapley: Shapley


def field_players(asked: Asked, sample: Sample) -> dict[str, Player]:
    """The fields that a record has and that may be left out; those of one input, `state.image` and `state.vector`, as
    one."""
    players: dict[str, Player] = {}
    for name, tokens in sample.items():
        if name not in asked.kept and len(tokens):
            players.setdefault(name.partition(".")[0], {})[name] = None
    return players


def column_players(sample: Sample, name: str, pieces: Sequence[str]) -> dict[str, Player]:
    """The tokens of a row by the names of their columns. pieces: what each says, as `column: value`."""
    columns = [piece.partition(": ")[0] for piece in pieces]
    return {column: {name: torch.tensor([other == column for other in columns])} for column in dict.fromkeys(columns)}


def value_of(asked: Asked, sample: Sample, players: Mapping[str, Player], seed: int = 0) -> FieldValues:
    """The Shapley values of players in the answer to one record. Raises InputError where there is no player."""
    names, every = tuple(players), list(players.values())

    def game(sets: np.ndarray) -> np.ndarray:
        samples, dropped = [], []
        for present in sets:
            gone = [player for player, is_there in zip(every, present, strict=True) if not is_there]
            whole = {name for player in gone for name, which in player.items() if which is None}
            samples.append({name: tokens for name, tokens in sample.items() if name not in whole})
            parts: dict[str, Tensor] = {}
            for name, which in ((n, w) for player in gone for n, w in player.items() if w is not None):
                parts[name] = parts[name] | which if name in parts else which
            dropped.append({name: which for name, which in parts.items() if name not in whole})
        return asked.values(samples, dropped if any(dropped) else None)

    if not names:
        raise InputError(
            f"the record has nothing that could be left out beside {', '.join(sorted(asked.kept & sample.keys()))}"
        )
    return FieldValues(names, shapley(len(names), game, seed))


@dataclass(frozen=True)
class Importance:
    """What a field is worth over a data set."""

    name: str
    n_records: int
    """That have the field."""
    shapley: float
    """The mean of its Shapley values, in the score of the true answer."""
    shapley_error: float
    """The standard error of that mean over the records; NaN of a single one."""
    permuted: float
    """How far the score falls, in the mean, where the field comes from another record (Breiman 2001)."""
    permuted_error: float


def importance(
    ask: Callable[[int], tuple[Asked, Sample]],
    n: int,
    seed: int = 0,
) -> list[Importance]:
    """The importance of the fields of n records, which `ask` gives with the score of the true answer to each.

    Records without a field do not count for it. seed: of which records are put together. Raises InputError where no
    record has a field that could be left out.
    """
    asked = [ask(i) for i in range(n)]
    by_field: dict[str, list[float]] = {}
    fell: dict[str, list[float]] = {}
    whole = []
    for own, sample in asked:
        players = field_players(own, sample)
        if not players:
            whole.append(float("nan"))
            continue
        found = value_of(own, sample, players, seed)
        whole.append(found.shapley.whole)
        for name, value in zip(found.names, found.shapley.values, strict=True):
            by_field.setdefault(name, []).append(float(value))
    if not by_field:
        raise InputError("the records have no field that could be left out beside those that the model needs")
    generator = np.random.default_rng(seed)
    for name in by_field:
        having = [i for i, (own, sample) in enumerate(asked) if name in field_players(own, sample)]
        if len(having) < 2:
            continue
        # Each record is given that of the next in a random ring, so that none keeps its own.
        ring = generator.permutation(having)
        for i, other in zip(ring.tolist(), np.roll(ring, 1).tolist(), strict=True):
            own, sample = asked[i]
            parts = field_players(own, sample)[name]
            given = {each: tokens for each, tokens in asked[other][1].items() if each.partition(".")[0] == name}
            # Links lead to tokens of their own record.
            kept = {each: _unlinked(tokens, parts) for each, tokens in sample.items() if each not in parts}
            mixed = {**kept, **{each: replace(tokens, links=None) for each, tokens in given.items()}}
            fell.setdefault(name, []).append(whole[i] - float(own.values([mixed])[0]))
    return [
        Importance(name, len(values), *_mean_and_error(values), *_mean_and_error(fell.get(name, [])))
        for name, values in by_field.items()
    ]


def _unlinked(tokens: TokenSet, fields: Collection[str]) -> TokenSet:
    """The same without links to these fields."""
    links = {name: edges for name, edges in (tokens.links or {}).items() if name not in fields}
    return replace(tokens, links=links or None)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return float(np.mean(values)), error

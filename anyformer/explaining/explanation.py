"""All that is found out about one answer: who attended to whom, where the model looked, which field mattered, and how
far that may be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.drawing.token_strips import samples_of
from anyformer.errors import InputError
from anyformer.explaining.asked import Asked
from anyformer.explaining.attention import AttentionMap
from anyformer.explaining.deletion import Deletion, deletion
from anyformer.explaining.deletion import n_passes as n_of_deletion
from anyformer.explaining.fields import FieldValues, column_players, field_players, value_of
from anyformer.explaining.flow import Flow, field_flows, places_of_samples, sample_weights, stacks_of
from anyformer.explaining.relevance import MAPS, Relevance, explain_parts, mean_maps
from anyformer.explaining.shapley import EXACT, n_games
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.tokens import Sample, Tokenizer


@dataclass(frozen=True)
class Grid:
    """The weights of one attention between the tokens of a sample."""

    stack: str
    layer: int
    kind: str
    weights: Tensor
    """(h, queries, keys)"""
    seen: Tensor
    """(h, queries, keys) boolean: what the mask lets through."""
    queries: tuple[tuple[str, int], ...]
    """By query its field and the number of the token in it."""
    keys: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Explanation:
    """Of one answer to one record."""

    answer: str
    """What is explained, as the model gives it."""
    what: str
    """The number that says how much the model is for it."""
    unit: str
    value: float
    """That number."""
    sample: Sample
    tokenizers: Mapping[str, Tokenizer]
    own: frozenset[str]
    """The fields that the model adds: class and register tokens."""
    written: str | None
    """The field of a text that is written."""
    parts: list[Relevance]
    """One; of a text one for each token."""
    flows: list[Flow]
    grids: list[Grid]
    fields: FieldValues | None
    """None where the record has no field that could be left out."""
    columns: dict[str, FieldValues]
    """Of each field that is a row of a table."""
    deletion: Deletion | None
    """None where no token could be taken out."""
    pieces: dict[str, list[str]] = field(default_factory=dict)
    """By field what each token says."""

    def whole(self, name: str) -> dict[str, Tensor]:
        """By field the map of the answer as a whole: the mean of those of its parts."""
        return mean_maps(self.parts)[name]

    @property
    def inputs(self) -> list[str]:
        """The fields of the record, in the sequence of the model's."""
        return [name for name in self.tokenizers if name in self.sample and name not in self.own | {self.written}]

    def grid(self, layer: int = -1, head: int | None = None, kind: str = "self", stack: str = "transformer") -> Grid:
        """The grid of one layer, from 1, or counted from the last, -1; of one head, from 1, or of all.

        Raises InputError for a layer or head that there is not.
        """
        found = [grid for grid in self.grids if (grid.kind, grid.stack) == (kind, stack)]
        if not found:
            raise InputError(f"the model has no {kind}-attention in {stack}")
        check_place(layer, head, len(found), len(found[0].weights))
        grid = found[layer - 1 if layer > 0 else layer]
        if head is None:
            return grid
        one = slice(head - 1, head)
        return Grid(grid.stack, grid.layer, grid.kind, grid.weights[one], grid.seen[one], grid.queries, grid.keys)

    def as_dict(self) -> dict[str, Any]:
        """All numbers as plain values, for JSON; weights of attention rounded to 4 digits."""
        return {
            "answer": self.answer,
            "explained": self.what,
            "unit": self.unit,
            "value": plain(self.value),
            "tokens": {name: self.pieces[name] for name in self.pieces},
            "positions": {name: plain(tokens.position) for name, tokens in self.sample.items()},
            "parts": [
                {
                    "name": part.name,
                    "value": plain(part.value),
                    **{name: {each: plain(v) for each, v in getattr(part, name).items()} for name in MAPS},
                }
                for part in self.parts
            ],
            "flow": [
                {
                    "stack": flow.stack,
                    "layer": flow.layer + 1,
                    "kind": flow.kind,
                    "queries": list(flow.queries),
                    "keys": list(flow.keys),
                    "heads": plain(flow.shares, 4),
                }
                for flow in self.flows
            ],
            "fields": None if self.fields is None else _values(self.fields),
            "columns": {name: _values(values) for name, values in self.columns.items()},
            "deletion": None if self.deletion is None else _deletion(self.deletion, self.unit),
        }


def _values(found: FieldValues) -> dict[str, Any]:
    own = found.shapley
    errors = [None] * len(found.names) if own.errors is None else own.errors.tolist()
    return {
        "shapley": dict(zip(found.names, plain(own.values), strict=True)),
        "standard_error": dict(zip(found.names, map(plain, errors), strict=True)),
        "added_last": dict(zip(found.names, plain(own.last), strict=True)),
        "exact": own.errors is None,
        "with_all": plain(own.whole),
        "with_none": plain(own.nothing),
    }


def _deletion(found: Deletion, unit: str) -> dict[str, Any]:
    return {
        "shares": list(found.shares),
        "whole": plain(found.whole),
        **{name: plain(list(values)) for name, values in found.by_map.items()},
        "random_mean": plain(found.random.mean(0)),
        "random_std": plain(found.random.std(0)),
        "better_than_random": {name: found.is_better(name) for name in found.by_map},
        "verdict": {name: found.verdict(name, unit) for name in found.by_map},
    }


def plain(value: Any, digits: int | None = None) -> Any:
    """Numbers as JSON has them: of tensors lists, of what is not finite null; also those within dicts and lists."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: plain(each, digits) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, digits) for each in value]
    if isinstance(value, float):
        return (round(value, digits) if digits else value) if math.isfinite(value) else None
    return value


def check_place(layer: int, head: int | None, n_layers: int, n_heads: int) -> None:
    """Raise InputError for a layer or head that there is not; both from 1, a layer also from the last, -1."""
    if not (1 <= layer <= n_layers or -n_layers <= layer <= -1):
        raise InputError(f"layer must be from 1 to {n_layers}, or -1 for the last, got {layer}")
    if head is not None and not 1 <= head <= n_heads:
        raise InputError(f"head must be from 1 to {n_heads}, got {head}")


def passes(asked: Asked, sample: Sample, n_parts: int = 1) -> dict[str, str]:
    """What each part of an explanation costs, in words. n_parts: answers that are explained one by one."""
    n = len(field_players(asked, sample))
    exactly = "exact" if n <= EXACT else f"sampled, as {n} fields are more than {EXACT}"
    return {
        "attention, relevance": f"1 forward and {n_parts} backward",
        "fields": f"{n_games(n)} forward in float64 ({exactly})" if n else "none, as there is no field to leave out",
        "deletion": f"{n_of_deletion(len(MAPS))} forward",
    }


def explain_sample(
    asked: Asked, sample: Sample, tokenizers: Mapping[str, Tokenizer], answer: str, seed: int = 0
) -> Explanation:
    """
    sample: with the tokens that the model adds. tokenizers: of all fields of the model.
    answer: what is explained, as the model gives it. seed: of what is drawn: random tokens, sequences of fields.
    """
    parts, maps, batch, conditions = explain_parts(asked, sample)
    laid = {**sample, **_written(asked, batch)}
    pieces = {name: pieces_of(tokenizers[name], tokens) for name, tokens in laid.items()}
    players, fields, columns = field_players(asked, sample), None, {}
    if players:
        exact = asked.double()
        fields = value_of(exact, sample, players, seed)
        for name, tokens in sample.items():
            if tokenizers[name].takes_columns and name not in asked.kept and len(tokens) > 1:
                columns[name] = value_of(exact, sample, column_players(sample, name, pieces[name]), seed)
    found = Explanation(
        answer,
        asked.what,
        asked.unit,
        float(asked.values([sample])[0]) if fields is None else fields.shapley.whole,
        laid,
        tokenizers,
        asked.own,
        asked.written,
        parts,
        field_flows(maps, list(asked.model.tokenizers), batch, conditions)[0],
        [_grid(each, list(asked.model.tokenizers), batch, conditions) for each in maps],
        fields,
        columns,
        None,
        pieces,
    )
    n_tokens = sum(len(tokens) for name, tokens in sample.items() if name not in asked.kept)
    if n_tokens < 2:
        return found
    tested = deletion(asked, sample, mean_maps(parts), seed)
    return replace(found, deletion=tested)


def _written(asked: Asked, batch: Batch) -> Sample:
    """The tokens of the text that is written, as the model is fed them."""
    if asked.written is None or not len(batch.fields[asked.written].index):
        return {}
    return {asked.written: samples_of([batch.to("cpu")])[asked.written]}


def _grid(found: AttentionMap, names: Sequence[str], batch: Batch, conditions: Batch | None) -> Grid:
    ((weights, seen),) = sample_weights(found, batch, conditions)
    marks = []
    for part in stacks_of(found, batch, conditions):
        ((row, places),) = places_of_samples(part)
        number = torch.zeros(part.shape[1], dtype=torch.int64)
        for tokens in part.fields.values():
            number[tokens.index.cpu() % part.shape[1]] = torch.arange(len(tokens.index))
        own = places.cpu()
        fields = part.layout.field[row].cpu()[own].tolist()
        marks.append(tuple(zip((names[i] for i in fields), number[own].tolist(), strict=True)))
    return Grid(found.stack, found.layer, found.kind, weights.cpu(), seen.expand_as(weights).cpu(), *marks)


def pieces_of(tokenizer: Tokenizer, tokens: Any) -> list[str]:
    """What each token says; where a person can't read that, where it stands."""
    if isinstance(tokenizer, LearnedTokens):
        return [f"learned {i}" if i else "class" for i in range(len(tokens))]
    pieces = tokenizer.pieces(tokens)
    if pieces is not None and len(pieces) == len(tokens):
        return pieces
    if tokenizer.seconds_per_token is not None:
        return [f"{tokenizer.seconds_per_token * place:.2f} s" for place in tokens.position[:, 0].tolist()]
    places = tokens.position.tolist()
    if len(tokenizer.axes) == 1:
        return [f"{tokenizer.axes[0]} {at:g}" for (at,) in places]
    # r0 c3: row 0, column 3.
    return [" ".join(f"{axis[0]}{at:g}" for axis, at in zip(tokenizer.axes, place, strict=True)) for place in places]

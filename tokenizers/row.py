"""The row of a table as tokens: a column each, numbers and categories, of which any may be missing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.data.moments import Moments
from anyformer.data.values import decoded, is_json, is_missing, name_of, names_of, parse_json, respelt, to_number
from anyformer.errors import InputError, nearest, say
from anyformer.tokens import Tokenizer, TokenSet

OTHER = 0
"""The value of a category that was not seen in training."""


@dataclass(frozen=True)
class Row(Tokenizer):
    """Cuts a row into a token for each column that has a value (Gorishniy et al. 2021, "Revisiting Deep Learning Models
    for Tabular Data", 3.3): of a number the value times a learned vector, of a category its own learned vector, both
    plus a learned vector of the column. What is missing (None, an empty text, NaN) has no token.

    A record is a dict of columns, as `columns: {patient: [age, sex]}` of a Table gives it, or JSON of one; or the value
    of the one column that the field is named like, as `columns: {age: age}` gives it. The tokens are a set without
    positions: the column says what each is. The content is (n, 3) float32: the number of the column; the value, of a
    number standardised, of a category 1; and the number of the vector that it multiplies, of which a column of numbers
    has one, and a column of categories one each and one for those not seen in training.
    """

    columns: dict[str, Literal["number", "category"]] | None = None
    """What each column is, `{age: number, city: category}`; when left out what the training records show: a column in
    which all are numbers is one of numbers, but where zeros lead (007) they are names. Columns that are not named here
    are left out."""
    normalize: bool = True
    """Whether each number has its mean taken off and is divided by its standard deviation, as the data has them."""
    means: dict[str, float] | None = None
    """What `fit` has learnt: the mean of each column of numbers."""
    stds: dict[str, float] | None = None
    """The standard deviations; 1 for what never changes."""
    values: dict[str, tuple[str, ...]] | None = None
    """The values of each column of categories."""
    left_out: tuple[str, ...] | None = None
    """The columns of the training records that `columns` does not name. Others that the model does not know are
    refused."""
    _field: str = field(default="", init=False, repr=False, compare=False)
    """What the field is called, and so the column that a bare value is of."""

    takes_columns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.columns is not None and not self.columns:
            raise InputError("columns must name at least one column, as in {age: number}; or leave it out")
        if self.values is not None:
            values = {name: names_of(known, f"values.{name}") for name, known in self.values.items()}
            object.__setattr__(self, "values", values)
        if (self.means is None) != (self.stds is None):
            raise InputError("means and stds belong together; give both, or leave both out to learn them from the data")
        for fact, kind in (("means", "number"), ("stds", "number"), ("values", "category")):
            known = getattr(self, fact)
            for name, own in (self.columns or {}).items():
                if known is not None and own == kind and name not in known:
                    raise InputError(f"{fact} must have each column that is a {kind}, and has no {name!r}")
        for name, std in (self.stds or {}).items():
            if not std > 0:
                raise InputError(f"stds must be above 0, got {std} of {name!r}")

    def named(self, field: str) -> Self:
        named = replace(self)
        object.__setattr__(named, "_field", field)
        return named

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: the values of the columns. Raises InputError for text in a column of numbers, and for a column that
        the model does not know, unless it was left out in training too."""
        rows = []
        record = self._read(record)
        for name in record.keys() - self._places.keys() - {*(self.left_out or ())}:
            meant = nearest(name, self._places.keys() - record.keys())
            # An empty cell says nothing that could be lost.
            if meant or not is_missing(record[name]):
                there = f"there are {', '.join(self._places)}{meant or '; leave it out'}"
                raise InputError(f"no column {name!r} is known to the model; {there}")
        for column, (name, (first, known)) in enumerate(self._places.items()):
            value = record.get(name)
            if is_missing(value):
                continue
            if known is None:
                number = _to_number(value, name)
                number = (number - self.means[name]) / self.stds[name] if self.normalize else number
                rows.append((column, number, first))
            else:
                rows.append((column, 1, first + known.get(_name(value, name), OTHER)))
        return TokenSet(torch.tensor(rows, dtype=torch.float32).view(-1, 3))

    def decode(self, tokens: TokenSet) -> dict[str, float | str | None]:
        """The columns that have a value: numbers as float, categories as text, None for one not seen in training."""
        places, row = list(self._places.items()), {}
        for column, value, number in tokens.content.double().tolist():
            name, (first, known) = places[int(column)]
            if known is None:
                row[name] = value * self.stds[name] + self.means[name] if self.normalize else value
            else:
                row[name] = None if number - first == OTHER else self.values[name][int(number) - first - 1]
        return row

    def pieces(self, tokens: TokenSet) -> list[str]:
        row = self.decode(tokens).items()
        return [f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}" for name, value in row]

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, 3))

    def lift(self, d_model: int) -> nn.Module:
        n_ids = sum(1 if known is None else 1 + len(known) for _, known in self._places.values())
        return RowLift(len(self._places), n_ids, d_model)

    def count(self, record: Mapping[str, Any]) -> int:
        record = self._read(record)
        return sum(not is_missing(record.get(name)) for name in self._places)

    def fit(self, records: Iterable[Mapping[str, Any]]) -> Self:
        """A copy that knows what each column is, the means and deviations of numbers, and the categories; what was
        given stays."""
        if self.columns is not None and self.values is not None and (not self.normalize or self.means is not None):
            return self
        found: dict[str, list[Any]] = {name: [] for name in self.columns or ()}
        there: dict[str, None] = {}
        for record in records:
            record = self._read(record)
            there |= dict.fromkeys(record)
            for name, value in record.items():
                if (self.columns is None or name in self.columns) and not is_missing(value):
                    found.setdefault(name, []).append(value)
        if lost := next((name for name in self.columns or () if name not in there), None):
            raise InputError(f"columns: no record has {lost!r}; there are {', '.join(there)}{nearest(lost, there)}")
        columns = self.columns or {name: _kind(name, values) for name, values in found.items()}
        if not columns:
            raise InputError("there is no value to learn the columns from: in the training records all are missing")
        numbers = {name: Moments() for name, kind in columns.items() if kind == "number"}
        for name, moments in numbers.items():
            moments.add(np.array([_to_number(value, name) for value in found[name]], dtype=np.float64))
        known = {name: _learnt_names(name, found[name]) for name, kind in columns.items() if kind == "category"}
        means = {name: float(part.mean) for name, part in numbers.items()} | (self.means or {})
        stds = {name: float(part.std) for name, part in numbers.items()} | (self.stds or {})
        scaling = {"means": means, "stds": stds} if self.normalize else {}
        left_out = tuple(sorted(there.keys() - columns.keys())) or None
        fitted = replace(self, columns=columns, values=known | (self.values or {}), left_out=left_out, **scaling)
        return fitted.named(self._field)

    def reads_column(self, name: str) -> bool:
        return self.columns is None or name in self.columns

    def inherit(self, other: Tokenizer) -> Self:
        if not isinstance(other, Row) or self.columns not in (None, other.columns):
            return self
        learnt = ("columns", "means", "stds", "values", "left_out")
        facts = {name: getattr(other, name) for name in learnt if getattr(self, name) is None}
        return replace(self, **facts).named(self._field)

    def agree(self, other: Tokenizer, name: str) -> None:
        if isinstance(other, Row):
            for fact in ("columns", "values", "means", "stds"):
                if getattr(self, fact) != getattr(other, fact):
                    raise InputError(f"{name}: {fact} are not the same as the model was trained with; set them alike")

    def _read(self, record: Any) -> Mapping[str, Any]:
        """The columns of a record: of a bare value that of the field."""
        record = parse_json(record) if is_json(record) else record
        if isinstance(record, Mapping):
            return record
        if self._field and not isinstance(record, list | tuple) and getattr(record, "ndim", 0) == 0:
            return {self._field: record}
        raise InputError(
            f"a row must be a dict of columns, or one value, got {record!r:.60}; give the field a list of columns in a "
            "config, as in columns: {patient: [age, sex]}, and on the command line JSON, as in patient='{\"age\": 60}'"
        )

    @cached_property
    def _places(self) -> dict[str, tuple[int, dict[str, int] | None]]:
        """Of each column its first number among those of all columns, and the values behind it: OTHER stands first."""
        if self.columns is None or self.values is None or (self.normalize and self.means is None):
            raise InputError("the columns of the row are not known yet; fit to data first")
        places, first = {}, 0
        for name, kind in self.columns.items():
            known = None if kind == "number" else {value: i for i, value in enumerate(self.values[name], start=1)}
            places[name] = first, known
            first += 1 if known is None else 1 + len(known)
        return places


class RowLift(nn.Module):
    """The vector of a column plus its value times the vector of a number or, where the value is 1, of a category."""

    def __init__(self, n_columns: int, n_ids: int, d_model: int) -> None:
        super().__init__()
        # As in their code: of the same size for every width.
        bound = d_model**-0.5
        self.bias = nn.Parameter(torch.empty(n_columns, d_model).uniform_(-bound, bound))
        self.table = nn.Parameter(torch.empty(n_ids, d_model).uniform_(-bound, bound))

    def forward(self, content: Tensor, extents: Sequence[tuple[int, ...]] = ()) -> Tensor:
        """content: (total, 3) float. Returns (total, d)."""
        column, number = content[:, 0].long(), content[:, 2].long()
        return F.embedding(column, self.bias) + content[:, 1:2] * F.embedding(number, self.table)


def _to_number(value: Any, name: str) -> float:
    """Raises InputError for what is no number, infinity and the text "nan"."""
    mend = "correct it, leave the cell empty where there is none, or say that it is a category"
    number = to_number(value, f"column {name!r}", mend)
    if math.isnan(number):
        raise InputError(f"column {name!r} must hold a number, got {value}; leave the cell empty instead")
    return number


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or (isinstance(value, str) and "_" in value):
        return False  # Python reads 1_2 as 12.
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    except OverflowError:
        return True
    return True


def _kind(name: str, values: Sequence[Any]) -> Literal["number", "category"]:
    """What a column is whose values are all numbers, or none; or whose zeros lead, as those of numbers never do."""
    values = [decoded(value, f"column {name!r}") for value in values]
    if any(isinstance(value, str) and re.match(r"\s*[+-]?0[0-9]", value) for value in values):
        return "category"
    are_numbers = [_is_number(value) for value in values]
    if all(are_numbers):
        return "number"
    if any(are_numbers):
        raise InputError(
            f"column {name!r} holds numbers and text, as {str(values[are_numbers.index(False)])!r:.60}; correct it, or "
            f"say in the tokenizer which it is, columns: {{{name}: category, ...}}"
        )
    return "category"


def _name(value: Any, column: str) -> str:
    return name_of(value, f"column {column!r}", "correct it, leave the cell empty, or leave the column out")


def _learnt_names(column: str, values: Sequence[Any]) -> tuple[str, ...]:
    """The categories of a column. Spellings that are changed are said."""
    names = [_name(value, column) for value in values]
    if changed := respelt(values, names):
        say(f"column {column!r}: {changed}")
    return tuple(sorted(set(names)))

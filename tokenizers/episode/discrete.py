"""Values of an episode as ids, one token an element: discrete choices, numbers in bins, letters.

Several elements of a step stand on the axis `element`. An action of several is generated one after another, each with
the ones before it in sight (Reed et al. 2022, "A Generalist Agent", 2.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.lifts import Lookup
from anyformer.model.lora import full_weight
from anyformer.model.losses.cross_entropy import linear_cross_entropy
from anyformer.tokenizers.episode.steps import StepTokenizer, Stretch, ValueHead, box_bounds, check_box
from anyformer.tokens import Tokenizer, TokenSet

MU, M = 100, 256
"""Of the companding (Reed et al. 2022, 2.1)."""
END = 0
"""The id of the end of a text among letters."""


@dataclass(frozen=True)
class Categories(StepTokenizer):
    """Discrete, MultiDiscrete or MultiBinary: one id an element, those of each element behind those of the one before.

    Content (t * elements,) int64. Its head chooses among an element's own ids alone.
    """

    counts: tuple[int, ...] | None = None
    """How many values each element has; what the space says when left out."""
    starts: tuple[int, ...] | None = None
    """The lowest value of each."""

    spaces: ClassVar[tuple[str, ...]] = ("Discrete", "MultiDiscrete", "MultiBinary")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_lengths("element", "counts", "starts")
        if self.counts is not None and min(self.counts, default=1) < 1:
            raise InputError(f"counts must be at least 1, got {min(self.counts)}")

    @property
    def n_each(self) -> int:
        return self.n_values

    @property
    def n_ids(self) -> int:
        """Ids of all elements."""
        return sum(self._counts)

    @property
    def _counts(self) -> tuple[int, ...]:
        if self.counts is None:
            raise InputError("Categories know no space yet; give shape and counts, or learn from episodes first")
        return self.counts

    @property
    def _starts(self) -> np.ndarray:
        return np.array(self.starts if self.starts is not None else [0] * self.n_values, dtype=np.int64)

    @property
    def _offsets(self) -> np.ndarray:
        return np.cumsum([0, *self._counts[:-1]])

    def cut(self, values: np.ndarray) -> Tensor:
        ids = np.asarray(values).reshape(len(values), self.n_values).astype(np.int64) - self._starts
        if ids.size and (ids.min() < 0 or (ids >= self._counts).any()):
            self.check(values, "values")
        return torch.from_numpy((ids + self._offsets).reshape(-1))

    def decode(self, tokens: TokenSet) -> np.ndarray:
        ids = tokens.content.cpu().numpy().reshape(-1, self.n_values) - self._offsets
        values = np.clip(ids, 0, np.array(self._counts) - 1) + self._starts
        return values.astype(self.dtype or "int64").reshape(-1, *self.shape)

    def check(self, values: np.ndarray, place: str) -> None:
        flat = np.asarray(values).reshape(len(values), self.n_values)
        check_box(flat, np.stack([self._starts, self._starts + self._counts - 1]).astype(np.float64), place)
        if (broken := flat != np.round(flat)).any():
            step, i = np.argwhere(broken)[0]
            raise InputError(f"{place}, step {step}: must be whole numbers, got {flat[step, i]:g}; mend the data")

    def lift(self, d_model: int) -> nn.Module:
        return Lookup(self.n_ids, d_model)

    def head(self, d_model: int) -> ValueHead:
        return Choice(self._counts, d_model)

    def agree(self, other: Tokenizer, name: str) -> None:
        if isinstance(other, Categories) and (self.counts, self.starts) != (other.counts, other.starts):
            raise InputError(f"{name}: other values than the model was trained with, {other.counts} for {self.counts}")


@dataclass(frozen=True)
class Bins(StepTokenizer):
    """A Box as one id a number: its bin (Reed et al. 2022, 2.1).

    Numbers of a space within -1 to 1 go into even bins. All others are companded before, by a mu-law,
    sign(x) log(100 |x| + 1) / log(100 * 256 + 1), which is -1 to 1 for -256 to 256; what lies beyond is in the last
    bins. The middles of the outermost bins stand at -1 and 1, so that a bound comes back as it was. Content
    (t * numbers,) int64.
    """

    n_bins: int = 1024
    """How many, the same for all numbers."""
    low: tuple[float | None, ...] | None = None
    """The lowest of each number, null where there is none; what the space says when left out."""
    high: tuple[float | None, ...] | None = None
    """The highest."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_bins < 2:
            raise InputError(f"n_bins must be at least 2, got {self.n_bins}")
        self._check_lengths("value", "low", "high")

    @property
    def n_each(self) -> int:
        return self.n_values

    @property
    def bounds(self) -> np.ndarray:
        """(2, numbers) float64, infinite where there is none."""
        return box_bounds(self.low, self.high, self.n_values)

    @property
    def _is_even(self) -> bool:
        return bool((np.abs(self.bounds) <= 1).all())

    def cut(self, values: np.ndarray) -> Tensor:
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        if not np.isfinite(flat).all():
            self.check(values, "values")
        if not self._is_even:
            flat = np.sign(flat) * np.log(MU * np.abs(flat) + 1) / math.log(MU * M + 1)
        bins = np.round((np.clip(flat, -1, 1) + 1) / 2 * (self.n_bins - 1))
        return torch.from_numpy(bins.astype(np.int64))

    def decode(self, tokens: TokenSet) -> np.ndarray:
        flat = tokens.content.cpu().numpy() / (self.n_bins - 1) * 2 - 1
        if not self._is_even:
            flat = np.sign(flat) * ((MU * M + 1) ** np.abs(flat) - 1) / MU
        dtype = np.dtype(self.dtype or "float32")
        flat = np.round(flat) if dtype.kind in "iu" else flat
        return np.clip(flat.reshape(-1, self.n_values), *self.bounds).astype(dtype).reshape(-1, *self.shape)

    def check(self, values: np.ndarray, place: str) -> None:
        check_box(values, self.bounds, place)

    def lift(self, d_model: int) -> nn.Module:
        return Lookup(self.n_bins, d_model)

    def head(self, d_model: int) -> ValueHead:
        return Choice((self.n_bins,), d_model)

    def agree(self, other: Tokenizer, name: str) -> None:
        if isinstance(other, Bins) and (self.n_bins, self._is_even) != (other.n_bins, other._is_even):
            raise InputError(f"{name}: other bins than the model was trained with, {other.n_bins} for {self.n_bins}")


@dataclass(frozen=True)
class Letters(StepTokenizer):
    """A Text as one id a character, and one for its end: so a step without a character has a token too.

    Content (characters + steps,) int64, a text's number of tokens its own.
    """

    characters: str | None = None
    """All that there are; what the space says when left out."""
    max_len: int | None = None
    """Characters of a text at most; what the space says when left out."""

    spaces: ClassVar[tuple[str, ...]] = ("Text",)
    axes: ClassVar[tuple[str, ...]] = ("step", "element")

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", ())
        super().__post_init__()

    @property
    def n_each(self) -> None:
        return None

    @property
    def sizes(self) -> dict[str, int]:
        steps = {} if self.max_steps is None else {"step": self.max_steps}
        return steps | ({} if self.max_len is None else {"element": self.max_len + 1})

    @property
    def _letters(self) -> str:
        if self.characters is None:
            raise InputError("Letters know no space yet; give characters, or learn from episodes first")
        return self.characters

    def encode(self, record: Stretch, random: np.random.Generator | None = None) -> TokenSet:
        values, steps = np.asarray(record.values), torch.as_tensor(record.steps, dtype=torch.int64)
        if values.shape != (len(steps),):
            raise InputError(f"values must be {len(steps)} texts, one a step, got {values.shape}")
        content = self.cut(values)
        lengths = torch.tensor([len(text) + 1 for text in values.tolist()], dtype=torch.int64)
        starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        element = torch.arange(len(content)) - starts
        return TokenSet(content, torch.stack([steps.repeat_interleave(lengths), element], 1), element)

    def cut(self, values: np.ndarray) -> Tensor:
        known = {character: i for i, character in enumerate(self._letters, start=1)}
        try:
            ids = [number for text in values.tolist() for number in (*(known[c] for c in text), END)]
        except (KeyError, TypeError):
            self.check(values, "values")
            raise
        return torch.tensor(ids, dtype=torch.int64)

    def decode(self, tokens: TokenSet) -> np.ndarray:
        """The texts, (t,) objects. What follows the last end is a text that has not ended, and is left out."""
        texts, letters = [""], self._letters
        for number in tokens.content.tolist():
            if number == END:
                texts.append("")
            else:
                texts[-1] += letters[number - 1]
        made = np.empty(len(texts) - 1, dtype=object)
        made[:] = texts[:-1]
        return made

    def pieces(self, tokens: TokenSet) -> list[str]:
        return ["end" if i == END else self._letters[i - 1] for i in tokens.content.tolist()]

    def check(self, values: np.ndarray, place: str) -> None:
        for step, text in enumerate(np.asarray(values).tolist()):
            if not isinstance(text, str):
                raise InputError(f"{place}, step {step}: must be a text, got {type(text).__name__}; mend the data")
            if unknown := sorted(set(text) - set(self._letters)):
                raise InputError(f"{place}, step {step}: the space has no character {unknown[0]!r}; mend the data")
            if self.max_len is not None and len(text) > self.max_len:
                raise InputError(
                    f"{place}, step {step}: a text of {len(text)} characters, and the space holds {self.max_len}; "
                    "mend the data or the space"
                )

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        return Lookup(len(self._letters) + 1, d_model)

    def agree(self, other: Tokenizer, name: str) -> None:
        if isinstance(other, Letters) and self.characters != other.characters:
            raise InputError(f"{name}: other characters than the model was trained with")


class Choice(ValueHead):
    """Predicts ids by a linear map, `output`, among the ranges of ids that follow one another: one a token's element.

    With a single range all elements share it.
    """

    metric_name = "accuracy"

    def __init__(self, counts: tuple[int, ...], d_model: int) -> None:
        super().__init__()
        self.counts = counts
        self.output = nn.Linear(d_model, sum(counts))
        nn.init.trunc_normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)
        range_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts), output_size=sum(counts))
        self.register_buffer("range_of", range_of, persistent=False)

    def forward(self, hidden: Tensor, content: Tensor) -> Tensor:
        """The logits of all ids, (n, ids); minus infinity for those not of the range of the id in `content`, (n,)."""
        logits = self.output(hidden)
        if len(self.counts) == 1:
            return logits
        return logits.masked_fill(self.range_of != self.range_of[content][:, None], -math.inf)

    def loss(self, hidden: Tensor, content: Tensor) -> Tensor:
        """The sum of the cross-entropies, in nats."""
        if len(self.counts) == 1:
            return linear_cross_entropy(hidden, full_weight(self.output), self.output.bias, content)
        return F.cross_entropy(self(hidden, content).float(), content, reduction="sum")

    def choose(
        self, hidden: Tensor, random: torch.Generator | None = None, temperature: float = 1.0, *, element: int = 0
    ) -> Tensor:
        own = element if len(self.counts) > 1 else 0
        first = sum(self.counts[:own])
        ids = slice(first, first + self.counts[own])
        logits = F.linear(hidden, full_weight(self.output)[ids], self.output.bias[ids])
        if random is not None:
            # The largest of logits with Gumbel noise is a draw from them, by a generator of any device.
            noise = torch.empty(logits.shape, device=random.device).exponential_(generator=random).to(logits)
            logits = logits / temperature - noise.log()
        return first + logits.argmax(-1)

    def metric(self, hidden: Tensor, content: Tensor) -> tuple[Tensor, int]:
        return (self(hidden, content).argmax(-1) == content).sum(), len(content)

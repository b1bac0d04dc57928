"""Windows of episodes as samples: what a step consists of, in which order its tokens stand, and batches of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor

from anyformer.batch import Batch, read_before
from anyformer.data.chopper import Chopper
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.packing import lay
from anyformer.tasks.base.examples import Examples
from anyformer.tokenizers.episode.continuous import Returns
from anyformer.tokenizers.episode.episode import Episode, lengths, take
from anyformer.tokenizers.episode.spaces import check, split
from anyformer.tokenizers.episode.steps import StepTokenizer, Stretch
from anyformer.tokens import Sample, Tokenizer, TokenSet

RETURN, STATE, ACTION = "return", "state", "action"
"""What the fields of a step are called; leaves of nested spaces follow behind a dot."""
REWARD = "reward"
"""The rewards beside them, which are no field."""
KEPT = 2**30
"""Bytes of episodes, cut into fields, that are kept in memory."""


def kind(name: str) -> str:
    """Whether a field is the return, a leaf of the state or one of the action."""
    return name.partition(".")[0]


class Steps(NamedTuple):
    """Values of one field at steps of several samples, one sample after another."""

    values: np.ndarray
    """(total, *shape)"""
    steps: np.ndarray
    """(total,) int64: the timesteps in their episodes."""
    owner: np.ndarray
    """(total,) int64: the sample of each, which does not fall."""
    number: np.ndarray
    """(total,) int64: the steps as orders count them."""


class StepFields:
    """The fields of a step, and the order of their tokens.

    Step i takes 2 + a consecutive orders, where an action has a tokens, generated one after another: the return stands
    at (2 + a) i, all tokens of the state at the next, and those of the action at the ones behind. Without returns
    (behaviour cloning) their order stays free.
    """

    def __init__(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        """tokenizers: by the names of the fields, leaves of the action in the sequence in which they are generated.

        Raises InputError for an action whose number of tokens varies.
        """
        self.tokenizers: dict[str, StepTokenizer] = dict(tokenizers)  # type: ignore[arg-type]
        self.states = [name for name in tokenizers if kind(name) == STATE]
        self.actions = [name for name in tokenizers if kind(name) == ACTION]
        self.offsets = {name: 0 if kind(name) == RETURN else 1 for name in tokenizers}
        self.n_action = 0
        for name in self.actions:
            self.offsets[name] = 2 + self.n_action
            n = self.tokenizers[name].n_each
            if n is None:
                raise InputError(
                    f"field {name!r}: a {type(tokenizers[name]).__name__} can be seen and not done, as its number of "
                    "tokens varies; use an environment whose actions are numbers or choices"
                )
            self.n_action += n

    @property
    def stride(self) -> int:
        """Orders of a step."""
        return 2 + self.n_action

    def order(self, name: str, number: Tensor, within: Tensor) -> Tensor:
        """The orders of tokens of a field. number: of their steps; within: theirs in the step. Each (n,) int64."""
        order = self.stride * number + self.offsets[name]
        return order + within if kind(name) == ACTION else order

    def lay(self, fields: Mapping[str, Steps], n_samples: int, rows: Sequence[int] | None = None) -> Batch:
        """A batch of steps, each sample's in its row; `rows` as in `packing.collate`."""
        given = {}
        for name, part in fields.items():
            tokens, step = self._encode(name, part)
            given[name] = [tokens], part.owner[step.numpy()]
        return lay(given, self.tokenizers, n_samples, rows)

    def sample(self, fields: Mapping[str, Steps]) -> Sample:
        """The steps of one sample as token sets."""
        return {name: self._encode(name, part)[0] for name, part in fields.items()}

    def _encode(self, name: str, part: Steps) -> tuple[TokenSet, Tensor]:
        """The tokens of steps, and which of the steps each is of, (n,) int64."""
        tokens = self.tokenizers[name].encode(Stretch(part.values, part.steps))
        # Tokens are numbered within their step, and 0 begins another.
        step = (tokens.order == 0).cumsum(0) - 1
        return tokens.at(self.order(name, torch.from_numpy(part.number)[step], tokens.order)), step


class CutEpisodes(Sequence[dict[str, np.ndarray]]):
    """The episodes of a source as `cut` makes them; as many as fit are kept in memory."""

    def __init__(self, source: Source, observation_space: Space, action_space: Space) -> None:
        self.source, self.observation_space, self.action_space = source, observation_space, action_space
        self.lengths = lengths(source)
        self._kept: dict[int, dict[str, np.ndarray]] = {}
        self._room = KEPT

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:  # type: ignore[override]
        if i not in self._kept:
            arrays = cut(self.source[i]["episode"], self.observation_space, self.action_space)
            size = sum(array.nbytes for array in arrays.values())
            if size > self._room:
                return arrays
            self._kept[i], self._room = arrays, self._room - size
        return self._kept[i]


def cut(episode: Episode, observation_space: Space, action_space: Space) -> dict[str, np.ndarray]:
    """An episode as arrays (t, *shape) by field, the rewards beside them.

    What was seen after the last step is left out. Raises InputError for an episode that is not of the spaces.
    """
    seen = take(episode.observations, slice(len(episode)))
    check(observation_space, STATE, seen, episode.name, seen=True)
    check(action_space, ACTION, episode.actions, episode.name)
    states, actions = split(observation_space, STATE, seen), split(action_space, ACTION, episode.actions)
    return {RETURN: episode.returns_to_go(), REWARD: episode.rewards, **states, **actions}


class Window(NamedTuple):
    """Consecutive steps of an episode."""

    values: Mapping[str, np.ndarray]
    """(t, *shape) by field, and the rewards."""
    start: int
    """The timestep of the first."""
    with_returns: bool
    """Whether the model is told the returns."""


@dataclass(frozen=True, eq=False)
class EpisodeWindows(Source):
    """Windows of at most `context` steps.

    For evaluation they lie end to end. In training a window begins at any step of any episode, drawn when it is asked
    for, and its number says nothing; an epoch has as many as would lie end to end if all episodes were one.
    """

    episodes: CutEpisodes
    context: int
    training: bool

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.episodes.lengths if self.training else -(-self.episodes.lengths // self.context))

    def __len__(self) -> int:
        return math.ceil(int(self._ends[-1]) / self.context) if self.training else int(self._ends[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"windows": self, "number": range(len(self))[i]}

    def window(self, number: int, random: np.random.Generator | None) -> tuple[dict[str, np.ndarray], int]:
        """The fields of a window and the timestep it begins at."""
        episode, start = self._place(int(random.integers(self._ends[-1])) if self.training else number)
        stop = start + self.context
        return {name: values[start:stop] for name, values in self.episodes[episode].items()}, start

    def _place(self, number: int) -> tuple[int, int]:
        episode = int(np.searchsorted(self._ends, number, "right"))
        within = number - (int(self._ends[episode - 1]) if episode else 0)
        return episode, within if self.training else within * self.context

    def name(self, i: int) -> str:
        if self.training:
            return f"drawn window {i}"
        episode, start = self._place(i)
        return f"{self.episodes.source.name(episode)} from step {start}"


@dataclass
class WindowExamples(Examples):
    """Windows as tokens; `target` is (steps, 2), the scaled reward of each step and return after it; (steps, 0) where
    nothing is to predict them.

    Where something is predicted is worked out on the host, so that no step waits for a device.
    """

    read: Tensor = None  # type: ignore[assignment]
    """(rows, r) int64: the places of every row whose hidden vectors are wanted; where a row has fewer, any others too.
    The others name these, row by row: 0 ... rows * r - 1."""
    before: Tensor = None  # type: ignore[assignment]
    """(tokens,) int64: where each token of the action is predicted, field after field."""
    done: Tensor = None  # type: ignore[assignment]
    """(steps,) int64: where the last token of each step's action stands; (0,) where nothing is read at it."""
    followed: Tensor = None  # type: ignore[assignment]
    """(n,) int64: the steps of which the next is in the same window; (0,) likewise."""


@dataclass(frozen=True)
class WindowChopper(Chopper):
    """Windows to batches of them."""

    context: int
    return_dropout: float = 0.0
    """The share of training windows that are without return tokens."""
    predicts_returns: bool = False
    predicts_states: bool = False
    fields: StepFields = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", StepFields(self.tokenizers))

    def __call__(self, record: Mapping[str, Any], random: np.random.Generator | None = None) -> Window:
        values, start = record["windows"].window(record["number"], random)
        return Window(values, start, random is None or random.random() >= self.return_dropout)

    def count(self, record: Mapping[str, Any]) -> int:
        """Tokens of a window; of one that is yet to be drawn, what it comes to at most."""
        windows: EpisodeWindows = record["windows"]
        each = [tokenizer.n_each for tokenizer in self.fields.tokenizers.values()]
        if None in each:
            raise InputError("data.max_tokens: a field has no fixed number of tokens a step; give data.batch_size")
        if windows.training:
            return min(self.context, int(windows.episodes.lengths.max())) * sum(each)
        values, _ = windows.window(record["number"], None)
        return len(values[REWARD]) * sum(each)

    def collate(self, items: Sequence[Window], rows: Sequence[int] | None = None) -> WindowExamples:
        fields = {}
        for name in self.tokenizers:
            owners = [i for i, item in enumerate(items) if kind(name) != RETURN or item.with_returns]
            if owners:
                fields[name] = _join([items[i] for i in owners], name, owners)
        target = torch.zeros(sum(len(item.values[REWARD]) for item in items), 0)
        if self.predicts_returns:
            returns: Returns = self.fields.tokenizers[RETURN]  # type: ignore[assignment]
            target = returns.targets(*(np.concatenate([item.values[n] for item in items]) for n in (REWARD, RETURN)))
        tokens = self.fields.lay(fields, len(items), rows)
        # A step has a state at least, so that every action has something before it.
        before = torch.cat([read_before(tokens, name)[0] for name in self.fields.actions])
        done = followed = torch.zeros(0, dtype=torch.int64)
        if self.predicts_returns or self.predicts_states:
            name = self.fields.actions[-1]
            ends = slice(self.fields.tokenizers[name].n_each - 1, None, self.fields.tokenizers[name].n_each)
            done, sample = tokens.fields[name].index[ends], tokens.fields[name].sample[ends]
            followed = (sample[1:] == sample[:-1]).nonzero().squeeze(1)
        read, where = _by_row(torch.cat([before, done]), tokens.shape)
        before, done = where.split([len(before), len(done)])
        return WindowExamples(tokens, target, read=read, before=before, done=done, followed=followed)


def _by_row(places: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Places in a flattened (rows, length) layout as places of every row, (rows, r), and where each stands in these."""
    rows, length = shape
    wanted = torch.zeros(rows, length, dtype=torch.bool)
    wanted.view(-1)[places] = True
    n = int(wanted.sum(1).max()) if rows else 0
    # Those of a row first; where it has fewer than another, some that are not wanted.
    read = wanted.byte().argsort(dim=1, descending=True, stable=True)[:, :n]
    where = wanted.cumsum(1) - 1 + n * torch.arange(rows)[:, None]
    return read, where.flatten()[places]


def _join(items: Iterable[Window], name: str, owners: Sequence[int]) -> Steps:
    """One field of several windows, whose samples are `owners`."""
    parts = [(item.values[name], item.start) for item in items]
    number = np.concatenate([np.arange(len(values)) for values, _ in parts])
    n_each = [len(values) for values, _ in parts]
    return Steps(
        np.concatenate([values for values, _ in parts]),
        number + np.repeat([start for _, start in parts], n_each),
        np.repeat(owners, n_each),
        number,
    )

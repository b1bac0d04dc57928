"""Acting: a learned policy in many environments at once, on cached keys and values.

The tokens of a step are read in one pass: the last action, the new return, the new state. Past the context the oldest
half of a row's steps is dropped, and its others are computed anew without them, in one pass for all rows that are full;
what a row is likeliest to do therefore never hangs on the rows beside it. What is drawn does: one generator serves all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import Space
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.model.attention.cache import Cache
from anyformer.model.by_field import FieldModules
from anyformer.packing import lay
from anyformer.tasks.decide.batch import ACTION, RETURN, STATE, StepFields, Steps
from anyformer.tokenizers.episode.discrete import Categories, Letters
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Nested
from anyformer.tokenizers.episode.spaces import join, nest, split
from anyformer.tokenizers.episode.steps import StepTokenizer
from anyformer.tokens import TokenSet


@dataclass(frozen=True)
class PlayOptions(Values):
    """What is said of playing a policy, in a config and to `run`."""

    option: ClassVar[str] = ""
    """What stands before a name where it is given, for messages."""

    episodes: int = 100
    """How many; of a sweep, for each target return."""
    n_environments: int | None = None
    """Environments that are stepped together; as many as episodes, and at most 128, when left out."""
    past_context: Literal["halve", "exact"] = "halve"
    """Past the context: halve drops the older half of the steps and goes on with cached keys and values; exact
    computes the last `context` steps anew at every step."""
    temperature: float = 0.0
    """0: the most likely action, or the mean. Above: actions are drawn, at this temperature."""
    seed: int = 0
    """Decides the environments' beginnings and what is drawn. `run` takes the config's plus 1 when left out: other
    beginnings than those of validation."""

    def __post_init__(self) -> None:
        for name in ("episodes", "n_environments"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{self.option}{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"{self.option}temperature must be a number from 0, got {self.temperature}")
        if self.seed < 0:
            raise InputError(f"{self.option}seed must not be negative, got {self.seed}")

    @property
    def shared(self) -> dict[str, Any]:
        """The values of what all such configs have, by name."""
        return {each.name: getattr(self, each.name) for each in fields(PlayOptions)}


@dataclass(frozen=True)
class PlayConfig(PlayOptions):
    """How a policy is played: at every validation and test, and in use unless `predict` is given options."""

    option: ClassVar[str] = "play."

    target_return: float | None = None
    """The target return; the best of the data when left out."""


@dataclass(frozen=True)
class ActingModel:
    """A trained model, as far as acting goes."""

    model: nn.Module
    tokenizers: Mapping[str, StepTokenizer]
    heads: FieldModules
    spaces: tuple[Space, Space]
    """Of observations and of actions."""
    context: int
    """Steps that the model sees at once."""
    returns: bool
    """Whether it takes a target return."""
    known_returns: tuple[float, float] | None
    """The lowest and the highest of the training episodes."""
    weights: Mapping[str, float]
    """What it was trained with: state_loss, return_loss, return_dropout."""
    environment: EnvironmentConfig | None
    reference: tuple[float, float] | None
    """The returns that a normalised score takes as 0 and as 100."""
    play: PlayConfig | None
    """How it is played at every validation, if it is."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def head(self, name: str) -> Any:
        """The `ValueHead` of a field."""
        return self.heads[name]


def choose_target_return(acting: ActingModel, given: float | None = None) -> float:
    """The target return: the best of the training episodes, where none is given.

    Raises InputError where one is given to a model that knows no returns.
    """
    if given is not None and not acting.returns:
        raise InputError("the model was trained without returns and takes no target return; leave it out")
    if given is not None and not math.isfinite(given):
        raise InputError(f"the target return must be finite, got {given}")
    return acting.known_returns[1] if given is None and acting.known_returns else given or 0.0


class History:
    """The last steps of every row, as arrays by field."""

    def __init__(self, n_kept: int) -> None:
        self.n_kept = n_kept
        self.step = np.zeros(0, dtype=np.int64)
        """(rows,): the timestep of each row's newest step; -1 before the first."""
        self.first = np.zeros(0, dtype=np.int64)
        """(rows,): of the oldest that is in its context."""
        self._values: dict[str, np.ndarray] = {}

    def arrange(self, rows: Sequence[int | None]) -> None:
        """Keep these rows, in this sequence; None is a new one."""
        index = np.array([0 if row is None else row for row in rows], dtype=np.int64)
        new = np.array([row is None for row in rows], dtype=bool)
        if not len(self.step):
            self.step, self.first, self._values = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64), {}
        else:
            self.step, self.first = self.step[index], self.first[index]
            self._values = {name: values[index] for name, values in self._values.items()}
        self.step[new], self.first[new] = -1, 0

    def put(self, name: str, rows: np.ndarray, values: np.ndarray, back: int = 0) -> None:
        """Write one field of the newest step of rows, or of that so many steps back. values: (rows, *shape)."""
        if name not in self._values:
            shape = (len(self.step), self.n_kept, *values.shape[1:])
            self._values[name] = np.zeros(shape, dtype=values.dtype if values.dtype.kind != "U" else object)
        self._values[name][rows, (self.step[rows] - back) % self.n_kept] = values

    def get(self, name: str, rows: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Steps:
        """One field of rows, each from a timestep to before another; rows are samples 0, 1, ..."""
        counts = np.maximum(stops - starts, 0)
        owner = np.repeat(np.arange(len(rows)), counts)
        steps = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        values = self._values[name][rows[owner], steps % self.n_kept] if len(steps) else self._values[name][:0, 0]
        return Steps(values, steps, owner, steps)


class LearnedActor:
    """A trained policy as an `Actor` of rollout.py."""

    def __init__(self, acting: ActingModel, target_return: float | None = None, play: PlayConfig | None = None) -> None:
        """
        target_return: the target return; that of `play`, or else the best of the data, when left out.
        play: as at every validation when left out.
        """
        play = play or acting.play or PlayConfig()
        self.acting, self.model, self.context = acting, acting.model, acting.context
        self.fields = StepFields(acting.tokenizers)
        self.told = RETURN in self.fields.tokenizers
        """Whether the model is told the returns."""
        self.exact, self.temperature = play.past_context == "exact", play.temperature
        self.target_return = choose_target_return(
            acting, play.target_return if target_return is None else target_return
        )
        self.random = torch.Generator().manual_seed(play.seed) if play.temperature else None
        self.cache: Cache | None = None
        self.history = History(self.context + 1)
        self.numbers: list[int] = []
        """Of the rows, ascending."""
        self._begun: set[int] = set()
        self._left = np.zeros(0)

    # As an actor.

    def begin(self, rows: Sequence[int]) -> None:
        new = sorted({*self.numbers, *rows})
        if new != self.numbers:
            # Rows that are new take a place among the others, which are then read again.
            self._arrange(new)
            self.cache = None
        self._begun |= set(rows)

    def leave(self, rows: Sequence[int]) -> None:
        stay = [number for number in self.numbers if number not in set(rows)]
        if self.cache is not None and self.cache.places is not None:
            places = torch.tensor([self.numbers.index(number) for number in stay], dtype=torch.int64)
            self.cache.select(places.to(self.cache.places.segment.device))
        self._arrange(stay)
        self._begun -= set(rows)

    def _arrange(self, numbers: list[int]) -> None:
        places = {number: i for i, number in enumerate(self.numbers)}
        rows = [places.get(number) for number in numbers]
        self._left = np.array([0.0 if row is None else self._left[row] for row in rows])
        self.history.arrange(rows)
        self.numbers = numbers

    @torch.inference_mode()
    def act(self, observations: Nested, rewards: np.ndarray, taken: Nested | None) -> Nested:
        begun = self._take_in(observations, rewards, taken)
        hidden, cache = self._read(begun)
        arrays = self._choose(hidden, cache)
        return nest(self.acting.spaces[1], ACTION, arrays)

    # What has come.

    def _take_in(self, observations: Nested, rewards: np.ndarray, taken: Nested | None) -> np.ndarray:
        """Write the new step into the history. Returns which rows begin with it, (rows,) boolean."""
        observation_space, action_space = self.acting.spaces
        seen = split(observation_space, STATE, observations)
        done = {} if taken is None else split(action_space, ACTION, taken)
        for name, values in seen.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise InputError(f"{name}: what is seen must be finite, got {values[~np.isfinite(values)][0]}")
            if isinstance(self.fields.tokenizers[name], Categories | Letters):
                try:
                    self.fields.tokenizers[name].check(values, name)
                except InputError as error:
                    # The number that it names is that of a row.
                    raise InputError(re.sub(r", step \d+", "", str(error))) from None
        # What cannot be used has been refused by now, and nothing has been changed.
        begun = np.array([number in self._begun for number in self.numbers])
        self._begun.clear()
        history, every, going = self.history, np.arange(len(self.numbers)), np.flatnonzero(~begun)
        history.step[begun] = -1
        history.step += 1
        history.first[begun] = 0
        self._left = np.where(begun, self.target_return, self._left - np.asarray(rewards, dtype=np.float64))
        for name, values in seen.items():
            history.put(name, every, values)
        if self.told:
            history.put(RETURN, every, self._left)
        if len(going):
            for name, values in done.items():
                history.put(name, going, values[going], back=1)
        return begun

    def _fields(self, rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, first_action: np.ndarray) -> dict:
        """What stands from one step to before another; of the actions, from `first_action` to before the last."""
        fields = {}
        for name in self.fields.tokenizers:
            if name == RETURN and not self.told:
                continue
            is_action = name in self.fields.actions
            ends = stops - 1 if is_action else stops
            begins = first_action if is_action else starts
            if (ends > begins).any():
                fields[name] = self.history.get(name, rows, begins, ends)
        return fields

    def _read(self, begun: np.ndarray) -> tuple[Tensor, Cache]:
        """The hidden vectors of the newest states, (rows, d), and the cache that holds all up to them."""
        history, every = self.history, np.arange(len(self.numbers))
        full = np.flatnonzero(history.step - history.first >= self.context)
        if self.exact:
            history.first[full] = history.step[full] - self.context + 1
            self.cache = None
        else:
            n_dropped = max(self.context // 2, 1)
            history.first[full] += n_dropped
        if self.cache is None:
            self.cache = Cache()
            fields = self._fields(every, history.first, history.step + 1, history.first)
            return self.feed(self.fields.lay(fields, len(every)), self.cache), self.cache
        if begun.any():
            self.cache.hide(self._index(np.flatnonzero(begun)))
        if len(full):
            self._renew(full)
        if begun.any() or len(full):
            self.cache.cut(self.cache.n_hidden, len(self.cache))
        # A row that begins has no action behind it.
        fields = self._fields(every, history.step, history.step + 1, np.where(begun, history.step, history.step - 1))
        return self.feed(self.fields.lay(fields, len(every)), self.cache), self.cache

    def _renew(self, rows: np.ndarray) -> None:
        """Compute what these rows keep anew, without what they have dropped."""
        history, part = self.history, Cache()
        first, step = history.first[rows], history.step[rows]
        if first[0] == step[0]:
            self.cache.hide(self._index(rows))
        else:
            self.feed(self.fields.lay(self._fields(rows, first, step, first), len(rows)), part)
            self.cache.renew(self._index(rows), part)

    def _index(self, rows: np.ndarray) -> Tensor:
        return torch.from_numpy(rows).to(self.cache.places.segment.device)

    def feed(self, batch: Batch, cache: Cache) -> Tensor:
        """Read a batch, a sample a row, behind what is cached; the hidden vector of each row's end, (rows, d)."""
        last = (batch.layout.segment > 0).sum(1, keepdim=True) - 1
        device = self.acting.device
        return self.model(batch.to(device), cache=cache, read=last.to(device))[:, 0]

    # What is done.

    def _choose(self, hidden: Tensor, cache: Cache) -> dict[str, np.ndarray]:
        """The actions that follow on what is cached, (rows, *shape) by field. The cache stays as it is."""
        length = len(cache)
        content = self.generate(hidden, cache, self.history.step, self.random)
        # What is really done may be something else: it is read with the next step.
        cache.cut(0, length)
        return {name: self._decode(name, parts) for name, parts in content.items()}

    def _decode(self, name: str, content: Tensor) -> np.ndarray:
        """Values of a field, (rows, *shape), of their tokens, (rows, n_each, *feature)."""
        return self.fields.tokenizers[name].decode(TokenSet(content.flatten(0, 1).cpu()))

    def generate(
        self, hidden: Tensor, cache: Cache, step: np.ndarray, random: torch.Generator | None
    ) -> dict[str, Tensor]:
        """The tokens of an action, one after another, by field (rows, n_each, *feature); all but the last are read.

        hidden: (rows, d), where the first is predicted. step: (rows,), the timesteps.
        """
        content: dict[str, list[Tensor]] = {name: [] for name in self.fields.actions}
        todo = [(name, i) for name in self.fields.actions for i in range(self.fields.tokenizers[name].n_each)]
        for number, (name, i) in enumerate(todo):
            chosen = self.acting.head(name).choose(hidden, random, self.temperature or 1.0, element=i)
            content[name].append(chosen)
            if number + 1 < len(todo):
                hidden = self.feed(self.tokens({name: chosen[:, None]}, step, {name: i}), cache)
        return {name: torch.stack(parts, 1) for name, parts in content.items()}

    def tokens(
        self, content: Mapping[str, Tensor], step: np.ndarray, element: Mapping[str, int] | None = None
    ) -> Batch:
        """A batch of one step a row from content, (rows, tokens, *feature) by field.

        step: (rows,), the timesteps. element: the number of a field's first token within its step, 0 if not given.
        """
        given, n = {}, len(step)
        for name, values in content.items():
            within = (element or {}).get(name, 0) + torch.arange(values.shape[1]).repeat(n)
            number = torch.from_numpy(step).repeat_interleave(values.shape[1])
            position = torch.stack([number, within][: len(self.fields.tokenizers[name].axes)], 1)
            tokens = TokenSet(values.flatten(0, 1).cpu(), position, self.fields.order(name, number, within))
            given[name] = [tokens], np.repeat(np.arange(n), values.shape[1])
        return lay(given, self.fields.tokenizers, n)


class Policy:
    """A trained policy for one environment, in anyone's loop.

        policy = anyformer.load("runs/cartpole").policy()
        observation, _ = environment.reset()
        while not over:
            action = policy(observation, reward)

    An episode ends with `reset`.
    """

    def __init__(self, actor: LearnedActor) -> None:
        self.actor = actor
        self._taken: Nested | None = None
        self.reset()

    def reset(self) -> None:
        """A new episode begins with the next observation."""
        self.actor.begin([0])
        self._taken = None

    def __call__(self, observation: Any, reward: float | None = None) -> Any:
        """The action, as the environment takes it.

        reward: of the last step; nothing for the first of an episode. A policy with a target return counts it.
        """
        reward = np.array([0.0 if reward is None else float(reward)])
        if not np.isfinite(reward).all():
            raise InputError(f"the reward must be finite, got {reward[0]}")
        self._taken = self.actor.act(_single(observation), reward, self._taken)
        space = self.actor.acting.spaces[1]
        return join(space, ACTION, split(space, ACTION, self._taken))[0]


def _single(value: Any) -> Nested:
    """A value as a nested batch of it alone."""
    if isinstance(value, Mapping):
        return {name: _single(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_single(part) for part in value)
    return np.asarray(value)[None]

"""Planning: a policy that looks ahead with what the model has learned of its world.

Some first actions are tried, what follows is imagined with the head of the next state, and the one is done whose
imagined rewards, with the return that is predicted after them, are the highest. The model is told no return while it
imagines: it then expects what the players of the episodes came to, whoever they were, and a plan is better than they by
its first action.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.attention.cache import Cache
from anyformer.tasks.decide.actor import ActingModel, LearnedActor, PlayConfig
from anyformer.tasks.decide.batch import ACTION, RETURN
from anyformer.tokenizers.episode.continuous import VectorHead
from anyformer.tokenizers.episode.discrete import Categories
from anyformer.tokenizers.episode.episode import stack
from anyformer.tokenizers.episode.spaces import split


class Planner(LearnedActor):
    """A trained policy that looks ahead, as an `Actor` of rollout.py."""

    def __init__(
        self, acting: ActingModel, play: PlayConfig = PlayConfig(), n_candidates: int = 16, horizon: int = 4
    ) -> None:
        """
        n_candidates: first actions that are tried: all, where there are no more; else they are drawn from the policy,
            or from the space where the policy is a mean alone.
        horizon: steps that are imagined, the first action's included.
        Raises InputError for a model that lacks what a plan needs.
        """
        lacks = [name for name, weight in acting.weights.items() if not weight]
        if lacks:
            raise InputError(f"a plan needs a model that was trained with {' and '.join(lacks)} above 0")
        super().__init__(acting, None, play)
        self.told = False
        self.horizon, self.random = horizon, torch.Generator().manual_seed(play.seed)
        self._all = self._enumerate(n_candidates)
        self.n_candidates = n_candidates if self._all is None else len(next(iter(self._all.values())))
        # A space of its own, whose draws the seed decides.
        self._space = copy.deepcopy(acting.spaces[1])
        self._space.seed(play.seed)

    def _enumerate(self, most: int) -> dict[str, Tensor] | None:
        """The tokens of all actions, (candidates, n_each) by field; None where there are more than can be tried."""
        cutters = [self.fields.tokenizers[name] for name in self.fields.actions]
        if not all(isinstance(cutter, Categories) for cutter in cutters):
            return None
        counts = [count for cutter in cutters for count in cutter.counts]
        if np.prod(counts, dtype=np.float64) > most:
            return None
        every = np.stack([axis.reshape(-1) for axis in np.indices(counts)], -1)
        parts = np.split(every, np.cumsum([len(cutter.counts) for cutter in cutters])[:-1], axis=1)
        return {
            name: torch.from_numpy(part + np.cumsum([0, *cutter.counts[:-1]]))
            for name, cutter, part in zip(self.fields.actions, cutters, parts, strict=True)
        }

    def _choose(self, hidden: Tensor, cache: Cache) -> dict[str, np.ndarray]:
        n, c, step = len(hidden), self.n_candidates, np.repeat(self.history.step, self.n_candidates)
        branch = copy.copy(cache)
        branch.select(torch.arange(n, device=hidden.device).repeat_interleave(c))
        content = self._candidates(hidden.repeat_interleave(c, 0), branch, step, n)
        worth = self._worth(content, branch, step).view(n, c)
        best = torch.arange(n, device=worth.device) * c + worth.argmax(1)
        return {name: self._decode(name, parts[best.to(parts.device)]) for name, parts in content.items()}

    def _candidates(self, hidden: Tensor, branch: Cache, step: np.ndarray, n: int) -> dict[str, Tensor]:
        """First actions, (rows * candidates, n_each, *feature) by field. The branch stays as it is."""
        if self._all is not None:
            return {name: part.repeat(n, 1).to(hidden.device) for name, part in self._all.items()}
        length = len(branch)
        content = self.generate(hidden, branch, step, self.random)
        branch.cut(0, length)
        drawn = split(self._space, ACTION, stack(self._space, [self._space.sample() for _ in step]))
        for name, parts in content.items():
            head = self.acting.head(name)
            if isinstance(head, VectorHead) and not head.gaussian:
                # The first candidate is the policy's own.
                others = torch.arange(len(parts), device=parts.device) % self.n_candidates > 0
                cut = self.fields.tokenizers[name].cut(drawn[name]).view(parts.shape).to(parts)
                parts[others] = cut[others]
        return content

    def _worth(self, content: dict[str, Tensor], branch: Cache, step: np.ndarray) -> Tensor:
        """The imagined return of every row after a first action, (rows,), in units of the scale."""
        hidden = self.feed(self.tokens(content, step), branch)
        last = self.fields.actions[-1]
        limits = [cutter.max_steps for cutter in self.fields.tokenizers.values() if cutter.max_steps is not None]
        worth = hidden.new_zeros(len(hidden))
        for ahead in range(1, self.horizon + 1):
            reward, after = self.acting.head(RETURN).choose(hidden).float().unbind(1)
            worth = worth + reward
            if ahead == self.horizon:
                break
            # The last steps of an episode look beyond it, to where a table of positions may have no place.
            then = np.minimum(step + ahead, min(limits, default=np.inf) - 1).astype(np.int64)
            seen = {name: self.acting.head(name).choose(hidden)[:, None] for name in self.fields.states}
            hidden = self.feed(self.tokens(seen, then), branch)
            acted = self.generate(hidden, branch, then, None)[last][:, -1:]
            element = {last: self.fields.tokenizers[last].n_each - 1}
            hidden = self.feed(self.tokens({last: acted}, then, element), branch)
        return worth + after

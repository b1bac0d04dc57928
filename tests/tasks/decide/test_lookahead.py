"""Planning: what is tried, what is imagined, and that it is better than those it has learned from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.model.attention.cache import Cache
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.fit import fit
from anyformer.tasks.base.records import Records
from anyformer.tasks.decide.actor import PlayConfig
from anyformer.tasks.decide.batch import RETURN, STATE, Steps, cut
from anyformer.tasks.decide.collect import Collected
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.decide.lookahead import Planner
from anyformer.tasks.decide.play import episodes
from anyformer.tasks.decide.rollout import play
from anyformer.tokenizers.episode.continuous import Vector
from anyformer.tokenizers.episode.discrete import Bins
from anyformer.tokens import TokenSet
from tests.helpers.worlds import decider, walks, world

FULL: dict[str, Any] = {"state_loss": 0.5, "return_loss": 0.5, "return_dropout": 0.5}


def test_all_actions_are_tried_where_they_are_few() -> None:
    task = decider(walks("pair"), **(FULL | {"state_loss": 0.0}))
    # Its state has several tokens, which are not imagined one step ahead.
    task.state_loss = 1.0
    planner = Planner(task.acting_model(), n_candidates=8, horizon=1)
    ids = torch.cat([planner._all["action.hands"], planner._all["action.way"]], 1)
    assert {tuple(each) for each in ids.tolist()} == set(itertools.product((0, 1), (2, 3), (0, 1)))
    assert len(ids) == planner.n_candidates == 8
    assert Planner(task.acting_model(), n_candidates=7)._all is None


@torch.no_grad()
def test_what_is_imagined_is_what_the_heads_say_one_after_another() -> None:
    """Step by step, each time in one pass over all that was seen and imagined."""
    task = decider(walks("box"), **FULL, tokenizers={"action": Bins(n_bins=5)})
    noted: list[dict[str, Any]] = []

    class Noting(Planner):
        def _choose(self, hidden: torch.Tensor, cache: Any) -> dict[str, np.ndarray]:
            chosen = super()._choose(hidden, cache)
            noted.append({"chosen": chosen["action"].copy(), "step": self.history.step.copy()})
            return chosen

        def _worth(self, content: Any, branch: Any, step: Any) -> torch.Tensor:
            worth = super()._worth(content, branch, step)
            noted.append({"content": content["action"].clone(), "worth": worth.clone(), "step": step.copy()})
            return worth

    (episode,) = play(
        world("box"), Noting(task.acting_model(), PlayConfig(temperature=9.0), n_candidates=3, horizon=3), 1, 0
    )
    arrays = cut(episode, *task.spaces)
    tokenizers, fields = task.tokenizers, task.step_fields
    for t, (imagined, done) in enumerate(zip(noted[::2], noted[1::2], strict=True)):
        if t == 5:
            break
        values = {name: list(arrays[name][: t + (name == STATE)]) for name in (STATE, "action")}
        worths = []
        for candidate in imagined["content"]:
            states = [*values[STATE]]
            acts = [*values["action"], tokenizers["action"].decode(_tokens(candidate))[0]]
            worth = 0.0
            for ahead in range(3):
                hidden = _read(task, fields, states, acts)
                reward, after = task.head(RETURN).choose(hidden)[0].tolist()
                worth += reward
                if ahead < 2:
                    # As it is predicted, be it within the space or not.
                    mean, std = np.array(tokenizers[STATE].mean), np.array(tokenizers[STATE].std)
                    states.append(task.head(STATE).choose(hidden)[0].numpy() * std + mean)
                    acts.append(_most_likely(task, fields, states, acts))
            worths.append(worth + after)
        assert len(set(imagined["content"][:, 0].tolist())) > 1
        assert imagined["worth"].tolist() == pytest.approx(worths, abs=1e-4)
        best = imagined["content"][int(np.argmax(worths))]
        assert np.array_equal(done["chosen"][0], tokenizers["action"].decode(_tokens(best))[0])


def _tokens(content: torch.Tensor) -> TokenSet:
    return TokenSet(content)


def _read(task: Decide, fields: Any, states: list, acts: list) -> torch.Tensor:
    given = {}
    for name, values in ((STATE, states), ("action", acts)):
        steps = np.arange(len(values))
        if len(values):
            given[name] = Steps(np.stack(values), steps, 0 * steps, steps)
    return task.model(fields.lay(given, 1))[:, -1]


def _most_likely(task: Decide, fields: Any, states: list, acts: list) -> np.ndarray:
    """The two bins of an action, the second in sight of the first."""
    head, cutter = task.head("action"), task.tokenizers["action"]
    first = head.choose(_read(task, fields, states, acts), element=0)
    # Whatever the second is, the first is read in front of it.
    both = [*acts, cutter.decode(_tokens(torch.cat([first, first])))[0]]
    given = {}
    for name, values in ((STATE, states), ("action", both)):
        steps = np.arange(len(values))
        given[name] = Steps(np.stack(values), steps, 0 * steps, steps)
    hidden = task.model(fields.lay(given, 1))[:, -2]
    second = head.choose(hidden, element=1)
    return cutter.decode(_tokens(torch.cat([first, second])))[0]


def test_actions_are_drawn_from_the_policy_or_the_space() -> None:
    mean = decider(walks("box"), **FULL)
    planner = Planner(mean.acting_model(), PlayConfig(seed=1), n_candidates=4)
    hidden = torch.randn(6, 16)
    content = planner._candidates(hidden.repeat_interleave(4, 0), _empty(planner), np.zeros(24, np.int64), 6)
    own = mean.head("action").choose(hidden)
    candidates = content["action"].view(6, 4, 2)
    torch.testing.assert_close(candidates[:, 0], own)
    assert len(candidates[:, 1:].reshape(-1, 2).unique(dim=0)) == 18
    drawn = Planner(
        decider(walks("box"), **FULL, tokenizers={"action": Vector(loss="gaussian")}).acting_model(), n_candidates=4
    )
    content = drawn._candidates(hidden.repeat_interleave(4, 0), _empty(drawn), np.zeros(24, np.int64), 6)
    assert len(content["action"].view(24, 2).unique(dim=0)) == 24


def _empty(planner: Planner) -> Cache:
    cache = Cache()
    planner.feed(planner.tokens({STATE: torch.zeros(24, 1, 2)}, np.zeros(24, np.int64)), cache)
    return cache


def test_a_plan_is_better_than_those_it_has_learned_from(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = Collected(world("box"), ("random",), 80)
    task = Decide(
        {"action": Bins(n_bins=4)},
        TransformerConfig(d_model=16, depth=1, n_heads=2, rotary=RotaryConfig(axes=("step",))),
        optimizer=OptimizerConfig("muon", lr=0.02, adamw_lr=0.01),
        context=5,
        play=None,
        **FULL,
    )
    data = Records(source, batch_size=16)
    fit(task, data, tmp_path, max_epochs=16, accelerator="cpu", enable_progress_bar=False)
    acting = task.acting_model()
    planned = [episode.total for episode in episodes(acting, Planner(acting, horizon=2), PlayConfig(20))]
    played = [source.episode(i).total for i in range(80)]
    assert np.mean(planned) > np.mean(played) + 2


def test_a_model_that_cannot_plan_says_what_it_lacks() -> None:
    with pytest.raises(InputError, match="a plan needs a model that was trained with state_loss and return_dropout"):
        Planner(decider(walks("box"), return_loss=1.0).acting_model())

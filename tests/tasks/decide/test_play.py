"""Performances: metrics of episodes, what is played for `run`, and target against achieved return."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from PIL import Image

from anyformer.errors import InputError
from anyformer.tasks.decide.actor import LearnedActor, PlayConfig
from anyformer.tasks.decide.play import N_TARGET_RETURNS, RolloutConfig, draw_sweep, return_metrics, rollout, summarize
from anyformer.tasks.decide.rollout import play
from anyformer.tokenizers.episode.episode import Episode
from tests.helpers.worlds import decider, walks, world


def episode(rewards: list[float], success: bool | None = None) -> Episode:
    n = len(rewards)
    seen, done = np.zeros((n, 2), np.float32), np.zeros(n, np.int64)
    return Episode(seen, done, np.array(rewards), Box(-1, 1, (2,)), Discrete(2), success=success)


def test_figures_are_means_over_episodes() -> None:
    some = [episode([1, 2, 3]), episode([2])]
    assert return_metrics(some) == {"return": 4.0, "length": 2.0}
    told = [episode([1, 2, 3], True), episode([2], False), episode([4])]
    assert return_metrics(told, (2.0, 6.0)) == {
        "return": 4.0,
        "length": pytest.approx(5 / 3),
        "success": 0.5,
        "score": 50.0,
    }


def test_what_is_played_is_what_an_actor_plays() -> None:
    task = decider(walks("box"), reference=(-6.0, 6.0))
    results = list(rollout(task.acting_model(), RolloutConfig(episodes=5, target_return=2.0, seed=3), None))
    expected = list(play(world("box"), LearnedActor(task.acting_model(), 2.0), 5, 3))
    assert [result["return"] for result in results] == [each.total for each in expected]
    assert [result["length"] for result in results] == [len(each) for each in expected]
    assert results[1] == {
        "episode": 1,
        "target_return": 2.0,
        "return": expected[1].total,
        "length": len(expected[1]),
        "score": pytest.approx(100 * (expected[1].total + 6) / 12),
    }
    cloned = decider(walks("box"), returns=False)
    assert next(rollout(cloned.acting_model(), RolloutConfig(episodes=1), None))["target_return"] is None


def test_a_sweep_asks_for_all_that_was_seen_and_draws_it(tmp_path: Path) -> None:
    task = decider(walks("box"))
    results = list(rollout(task.acting_model(), RolloutConfig(episodes=2, sweep=True), tmp_path))
    low, high = task.known_returns
    target_return = sorted({result["target_return"] for result in results})
    assert target_return == pytest.approx(np.linspace(low, high, N_TARGET_RETURNS))
    assert len(results) == 2 * N_TARGET_RETURNS
    assert [result["episode"] for result in results] == list(range(2 * N_TARGET_RETURNS))
    with Image.open(tmp_path / "sweep.png") as drawing:
        assert drawing.size == (500, 450)


def test_what_the_config_asks_for_is_asked_for_where_nothing_else_is(tmp_path: Path) -> None:
    task = decider(walks("box"), play=PlayConfig(episodes=1, target_return=3.0, seed=4))
    assert task.options.seed == 5, "other beginnings than those of validation"
    assert [result["target_return"] for result in rollout(task.acting_model(), task.options, None)] == [3.0]
    assert len(list(rollout(task.acting_model(), replace(task.options, sweep=True), tmp_path))) == N_TARGET_RETURNS
    alike = decider(walks("box"), known_returns=(2.0, 2.0))
    assert len(list(rollout(alike.acting_model(), RolloutConfig(episodes=1, sweep=True), tmp_path))) == 1


def test_how_a_rollout_is_asked_for_is_how_it_is_played() -> None:
    asked = RolloutConfig(episodes=3, n_environments=2, past_context="exact", temperature=0.5, seed=7)
    assert asked.play(2.0) == PlayConfig(3, 2, "exact", 0.5, 7, target_return=2.0)


def test_the_worst_known_return_scores_0_and_the_best_1() -> None:
    task = decider(walks("box"), environment=world("box"), known_returns=(-6.0, 4.0))
    assert [task.score(value) for value in (-6.0, -1.0, 4.0)] == [0.0, 0.5, 1.0]


def test_the_points_of_the_drawing_are_the_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn = []
    monkeypatch.setattr(Axes, "errorbar", lambda self, *args, **options: drawn.append(args))
    results = [{"target_return": a, "return": r} for a, r in ((1.0, 2.0), (1.0, 4.0), (5.0, 6.0))]
    draw_sweep(results, tmp_path / "sweep.png", (0.0, 5.0))
    ((target_return, means, deviations),) = drawn
    assert (target_return, means, deviations) == ([1.0, 5.0], [3.0, 6.0], [1.0, 0.0])


def test_results_come_to_a_line_for_each_return_asked_for() -> None:
    rows: list[dict[str, Any]] = [
        {"target_return": 500.0, "return": 400.0, "length": 400, "success": True},
        {"target_return": 500.0, "return": 500.0, "length": 500, "success": False},
        {"target_return": 50.0, "return": 60.0, "length": 60, "success": False},
    ]
    assert summarize(rows, (9.0, 500.0)).splitlines() == [
        "target  return    +-  lowest  highest  length  success  episodes",
        "   500   450.0  50.0   400.0    500.0   450.0     0.50         2",
        "    50    60.0   0.0    60.0     60.0    60.0     0.00         1",
        "The training episodes returned 9.0 to 500.0.",
    ]
    assert summarize([{"target_return": None, "return": 1.0, "length": 1}], None).splitlines()[1].split() == [
        "-",
        *("1.0", "0.0", "1.0", "1.0", "1.0", "1"),
    ]
    rows = [
        {"target_return": 1.0, "return": 1.0, "length": 1},
        {"target_return": 2.0, "return": 1.0, "length": 1, "success": True},
    ]
    assert [line.split()[-2] for line in summarize(rows, None).splitlines()] == ["success", "-", "1.00"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sweep": True, "target_return": 1.0}, "sweep asks for many returns by itself"),
        ({"sweep": True, "plan": True}, "sweep asks for many returns by itself"),
        ({"plan": True, "target_return": 1.0}, "plan asks for no return"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"temperature": -1.0}, "^temperature must be a number from 0, got -1"),
    ],
)
def test_what_contradicts_itself_says_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RolloutConfig(**options)


def test_what_the_model_has_not_learned_cannot_be_performed() -> None:
    cloned = decider(walks("box"), returns=False)
    with pytest.raises(InputError, match="sweep: the model was trained without returns"):
        list(rollout(cloned.acting_model(), RolloutConfig(sweep=True), None))
    with pytest.raises(InputError, match="takes no target return"):
        list(rollout(cloned.acting_model(), RolloutConfig(target_return=3.0), None))
    with pytest.raises(InputError, match=r"video must end in \.mp4, got x\.avi"):
        list(rollout(cloned.acting_model(), RolloutConfig(video="x.avi"), None))

"""Playing: every environment its share, the ends right, one error for what breaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import tests.helpers.small_environments  # noqa: F401  registers them
from anyformer.errors import InputError
from anyformer.tasks.decide.rollout import Noisy, RandomActor, episode_seed, play
from anyformer.tasks.decide.scripted import Scripted
from anyformer.tokenizers.episode.environments import make
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Nested

COUNTER = EnvironmentConfig("Counter-v0")


class Watcher:
    """Always does 1, and keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.calls: list[tuple[list[int], np.ndarray, np.ndarray, Any]] = []

    def begin(self, rows: Sequence[int]) -> None:
        self.rows = sorted({*self.rows, *rows})

    def act(self, observations: Nested, rewards: np.ndarray, taken: Nested | None) -> Nested:
        self.calls.append((list(self.rows), observations, rewards, taken))
        return np.ones(len(self.rows), dtype=np.int64)

    def leave(self, rows: Sequence[int]) -> None:
        self.rows = [row for row in self.rows if row not in rows]


def actions(name: str, **kwargs: Any) -> Any:
    env = make(EnvironmentConfig(name, kwargs))
    env.close()
    return env.action_space


@pytest.mark.parametrize("n", [1, 3, 7, 20])
def test_every_episode_is_played_once_in_sequence_whatever_the_number_of_environments(n: int) -> None:
    episodes = list(play(COUNTER, Watcher(), 10, 5, n))
    assert [episode.name for episode in episodes] == [f"Counter-v0 episode {k}" for k in range(10)]
    for k, episode in enumerate(episodes):
        length = int(np.random.default_rng(np.random.PCG64(episode_seed(5, k))).integers(1, 10))
        assert len(episode) == length
        assert episode.observations.tolist() == [[step] for step in range(length + 1)]
        assert episode.actions.tolist() == [1] * length
        assert episode.total == length
        assert (episode.terminated, episode.truncated, episode.success) == (True, False, None)
        assert episode.environment == COUNTER


def test_no_episode_of_a_seed_begins_as_one_of_another_seed() -> None:
    """Neither episode k of seed s as k - 1 of s + 1, nor any two that are near."""
    seeds = [episode_seed(seed, number) for seed in range(30) for number in range(30)]
    assert len(set(seeds)) == 900 and seeds == [episode_seed(s, k) for s in range(30) for k in range(30)]
    lengths = [[len(episode) for episode in play(COUNTER, Watcher(), 40, seed, 3)] for seed in (0, 1)]
    for shift in range(-2, 3):
        pairs = [(lengths[0][k + shift], lengths[1][k]) for k in range(2, 38)]
        assert sum(a == b for a, b in pairs) < 20


@pytest.mark.parametrize("name", ["success", "is_success"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_an_episode_that_reached_its_goal_once_is_a_success_and_no_other(name: str, n: int) -> None:
    config = EnvironmentConfig("Passing-v0", {"name": name})
    played = list(play(config, Watcher(), 8, 2, n))
    starts = [int(episode.observations[0, 0]) for episode in played]
    assert {*starts} == {0, 1}, "some pass by the goal in the middle, and some never do"
    assert [episode.success for episode in played] == [start == 1 for start in starts]


def test_success_is_what_the_environment_says_where_it_does_and_else_its_end() -> None:
    (told,) = play(EnvironmentConfig("Passing-v0", {"name": "other"}), Watcher(), 1, 0)
    assert told.success is None, "nothing is said, and to end is no goal"
    car = EnvironmentConfig("MountainCar-v0")
    assert next(play(car, Scripted(car), 1, 0)).success is True


def test_an_actor_is_told_what_is_so_in_the_rows_that_play() -> None:
    watcher = Watcher()
    episodes = list(play(COUNTER, watcher, 7, 0, 3))
    lengths = [len(episode) for episode in episodes]
    assert len(watcher.calls) == max(sum(lengths[row::3]) for row in range(3))
    # What each row must have seen: its episodes, one after another.
    expected = {row: [float(step) for k in range(row, 7, 3) for step in range(lengths[k])] for row in range(3)}
    for rows, seen, rewards, taken in watcher.calls:
        assert len(seen) == len(rewards) == len(rows)
        for row, value, reward in zip(rows, seen[:, 0], rewards, strict=True):
            assert value == expected[row].pop(0)
            assert reward == (value > 0)
        assert (taken is None) == (not seen.any())
        assert taken is None or taken.tolist() == [1] * len(rows)
    assert not any(expected.values())
    assert watcher.rows == []


def test_a_limit_of_steps_truncates() -> None:
    config = EnvironmentConfig("Counter-v0", {"longest": 9}, max_episode_steps=4)
    episodes = list(play(config, Watcher(), 12, 0))
    assert {(len(e) == 4, e.terminated) for e in episodes} >= {(True, False), (False, True)}
    assert all(episode.truncated == (len(episode) == 4) for episode in episodes)


def test_nested_values_come_out_as_they_went_in() -> None:
    space = actions("Parts-v0")
    (first, second) = play(EnvironmentConfig("Parts-v0"), RandomActor(space, 3), 2, 0)
    number, word = first.observations
    assert number.tolist() == [0, 1, 2, 0]
    assert word.tolist() == ["a", "b", "aa", "bbb"]
    assert first.actions["move"].shape == (3, 2)
    assert first.actions["force"].shape == (3, 1)
    np.testing.assert_array_equal(first.rewards, first.actions["force"][:, 0])
    assert first.success is True
    assert not np.array_equal(first.actions["force"], second.actions["force"])


def test_a_dict_of_a_picture_and_a_vector() -> None:
    (episode,) = play(EnvironmentConfig("Lights-v0"), RandomActor(actions("Lights-v0")), 1, 0)
    assert episode.observations["image"].shape == (9, 8, 8, 1)
    assert episode.observations["image"].dtype == np.uint8
    assert episode.observations["vector"].shape == (9, 2)


def test_the_goal_of_a_mountain_car_is_its_success() -> None:
    (episode,) = play(EnvironmentConfig("MountainCar-v0", max_episode_steps=5), Watcher(), 1, 0)
    assert episode.success is False


@pytest.mark.parametrize(
    "how, message",
    [
        ("raise", "environment Broken-v0 raised in episode 3, in step 2: RuntimeError: the motor is stuck"),
        ("nan", "environment Broken-v0, episode 3, in step 2: the reward must be a finite number, got nan"),
        ("none", "environment Broken-v0, episode 3, in step 2: the reward must be a finite number, got None"),
        ("array", "environment Broken-v0, episode 3, in step 2: the reward must be a finite number, got [1.]"),
        (
            "shape",
            "environment Broken-v0, episode 3, in step 2: observation: must be ('n', 1) for n values, got (1, 2, 1)",
        ),
        ("screen", "environment Broken-v0 raised in episode 3, in step 2: OSError: no screen"),
        ("dark", "environment Broken-v0, episode 3, in step 2: it must draw pictures (rows, columns, 3), got None"),
        ("reset", "environment Broken-v0 raised in episode 3, when it was reset: OSError: no such level"),
    ],
)
def test_what_breaks_is_named(how: str, message: str) -> None:
    config = EnvironmentConfig("Broken-v0", {"how": how, "after": 1})
    with pytest.raises(InputError) as caught:
        list(play(config, Watcher(), 9, 0, 3, lambda picture: None))
    assert str(caught.value) == message


def test_an_action_outside_the_space_is_named() -> None:
    class Wrong(Watcher):
        def act(self, observations: Nested, rewards: np.ndarray, taken: Nested | None) -> Nested:
            return super().act(observations, rewards, taken) + 3

    with pytest.raises(InputError, match=r"^Counter-v0 episode \d: action, step 0: .*4"):
        list(play(COUNTER, Wrong(), 2, 0))


def test_the_first_environment_is_drawn() -> None:
    frames: list[np.ndarray] = []
    episodes = list(play(COUNTER, Watcher(), 4, 0, 2, frames.append))
    assert [frame[0, 0, 0] // 20 for frame in frames] == [s for k in (0, 2) for s in range(len(episodes[k]) + 1)]


def test_random_actions_follow_their_seed() -> None:
    space = actions("Parts-v0")
    played = [next(play(EnvironmentConfig("Parts-v0"), RandomActor(space, seed), 1, 0)) for seed in (1, 1, 2)]
    force = [episode.actions["force"].tolist() for episode in played]
    assert force[0] == force[1] != force[2]


def test_noise_replaces_its_share_of_the_actions() -> None:
    config = EnvironmentConfig("Counter-v0", {"longest": 200})
    for epsilon, share in ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5)):
        noisy = Noisy(Watcher(), epsilon, actions("Counter-v0"), 0)
        done = np.concatenate([episode.actions for episode in play(config, noisy, 40, 0)])
        assert len(done) > 2000
        assert abs((done == 0).mean() - share) < 0.04


def test_a_nested_actor_is_replaced_by_whole_actions() -> None:
    space = actions("Parts-v0")
    mixed = Noisy(RandomActor(space, 1), 0.5, space, 2)
    for episode in play(EnvironmentConfig("Parts-v0"), mixed, 5, 0):
        assert len(episode) == 3


@pytest.mark.parametrize("epsilon", [-0.1, 1.1])
def test_a_share_is_from_0_to_1(epsilon: float) -> None:
    with pytest.raises(InputError, match="from 0 to 1, got"):
        Noisy(Watcher(), epsilon, actions("Counter-v0"))


@pytest.mark.parametrize("n_episodes, n", [(0, None), (3, 0)])
def test_at_least_one_of_each(n_episodes: int, n: int | None) -> None:
    with pytest.raises(InputError, match="at least 1 episode and 1 environment"):
        next(play(COUNTER, Watcher(), n_episodes, 0, n))

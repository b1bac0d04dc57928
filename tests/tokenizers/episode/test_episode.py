"""Episodes: what is checked when one is made, what is left of the return, and parts of a source of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import Space, spaces

from anyformer.data.splits import split
from anyformer.errors import InputError
from anyformer.tokenizers.episode.episode import (
    Episode,
    EpisodeSource,
    as_arrays,
    lengths,
    origin,
    stack,
    take,
    transform,
)
from anyformer.tokenizers.image.sources import Digits

BOX, CHOICE = spaces.Box(-np.inf, np.inf, (3,), np.float32), spaces.Discrete(2)


def episode(t: int = 4, **changes: Any) -> Episode:
    values = {
        "observations": np.zeros((t + 1, 3), np.float32),
        "actions": np.zeros(t, np.int64),
        "rewards": np.ones(t),
        "observation_space": BOX,
        "action_space": CHOICE,
        "name": "demos.npz episode 7",
    }
    return Episode(**values | changes)


class Five(EpisodeSource):
    """Episodes of 1 to 5 steps."""

    lengths = np.arange(1, 6)
    spaces = BOX, CHOICE
    played_in = None

    def episode(self, i: int) -> Episode:
        return episode(int(self.lengths[i]))

    def name(self, i: int) -> str:
        return f"episode {i}"


def test_the_return_to_go_is_the_sum_of_what_is_still_to_come() -> None:
    one = episode(rewards=np.array([1, -2, 3, 0.5]))
    assert one.returns_to_go().tolist() == [2.5, 1.5, 3.5, 0.5]
    assert one.returns_to_go().dtype == one.rewards.dtype == np.float32
    assert one.total == 2.5
    assert len(one) == 4
    assert repr(one) == "<demos.npz episode 7: 4 steps, return 2.5>"


def test_the_return_to_go_of_many_small_rewards_is_exact() -> None:
    one = episode(rewards=np.full(100_000, 0.1), observations=np.zeros((100_000, 3)), actions=np.zeros(100_000, int))
    np.testing.assert_allclose(one.returns_to_go(), np.float32(0.1) * np.arange(100_000, 0, -1.0), rtol=1e-6)


def test_what_was_seen_last_may_be_known_or_not() -> None:
    assert len(episode(observations=np.zeros((4, 3))).observations) == 4
    assert len(episode().observations) == 5


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"actions": np.zeros(5, int)}, "5 of action and 4 rewards"),
        (
            {"observations": np.zeros((6, 3))},
            "6 of observation and 4 rewards; there must be 4, or 5 with what was seen",
        ),
        ({"observations": np.zeros((3, 3))}, "3 of observation and 4 rewards"),
        ({"observations": np.zeros((4, 2))}, r"observation: must be \('n', 3\).*got \(4, 2\)"),
        ({"rewards": np.zeros(0), "actions": np.zeros(0, int)}, "has no step"),
        ({"rewards": np.zeros((4, 1))}, r"rewards must be one number a step, got \(4, 1\)"),
        ({"rewards": np.array([0, 1, np.nan, np.inf])}, "reward, step 2: must be finite, got nan; mend the data"),
        ({"rewards": np.array([0, 1, 2, -np.inf])}, "reward, step 3: must be finite, got -inf"),
        (
            {"observations": np.array([[0, 0, 0]] * 3 + [[0, np.nan, 1]])},
            r"observation, step 3: .* got \[ 0. nan 1.\]",
        ),
        ({"actions": np.array([0, 1, 2, 0])}, "action, step 2: is 2, and the space is from 0 to 1"),
        ({"actions": np.array([0, 0.5, 1, 0])}, "action, step 1: must be whole numbers, got 0.5"),
        (
            {"action_space": spaces.Box(-1, 1, (1,)), "actions": np.array([[0], [1], [-1], [1.5]])},
            "action, step 3: is 1.5, and the space is from -1 to 1",
        ),
        (
            {"action_space": spaces.Box(-1, 1, (1,)), "actions": np.array([[0], [1], [-1], [np.nan]])},
            "action, step 3: must be finite, got",
        ),
    ],
)
def test_an_episode_that_cannot_be_one(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        episode(**changes)
    assert str(caught.value).startswith("demos.npz episode 7")
    assert "\n" not in str(caught.value)


def test_nested_parts_are_checked_each() -> None:
    space = spaces.Dict({"image": spaces.Box(0, 255, (2, 2), np.uint8), "vector": BOX})
    seen = {"image": np.zeros((4, 2, 2), np.uint8), "vector": np.zeros((4, 3))}
    assert len(episode(observation_space=space, observations=seen)) == 4
    with pytest.raises(InputError, match=r"episode 7: observation.vector: the data lacks it; there are image"):
        episode(observation_space=space, observations={"image": seen["image"]})
    with pytest.raises(InputError, match=r"observation.vector and observation.image have different numbers of steps"):
        episode(observation_space=space, observations=seen | {"vector": np.zeros((5, 3))})
    seen["vector"][2, 1] = np.inf
    with pytest.raises(InputError, match=r"episode 7: observation.vector, step 2: must be finite"):
        episode(observation_space=space, observations=seen)


def test_records_are_episodes_and_parts_know_their_lengths() -> None:
    source = Five()
    assert len(source) == 5
    assert len(source[4]["episode"]) == len(source[-1]["episode"]) == 5
    with pytest.raises(IndexError):
        source[5]
    left, parts = split(source, {"validation": 0.4}, seed=1)
    part = parts["validation"].take([1, 0])
    for one in (source, left, part):
        assert lengths(one).tolist() == [len(one[i]["episode"]) for i in range(len(one))]
        assert origin(one) is source
    assert source.reference is None


def test_another_source_has_no_episodes() -> None:
    for source in (Digits(), Digits().take([0])):
        with pytest.raises(InputError, match="Digits has no episodes; give Episodes with the path"):
            lengths(source)


@pytest.mark.parametrize(
    "space",
    [
        BOX,
        spaces.Discrete(5, start=-1),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary((2, 2)),
        spaces.Text(3, charset="ab"),
        spaces.Dict({"a": BOX, "b": spaces.Tuple((CHOICE, spaces.Dict({"c": CHOICE})))}),
        spaces.Tuple((spaces.Text(4, charset="xy"), BOX)),
    ],
    ids=str,
)
def test_single_values_are_stacked_and_taken(space: Space) -> None:
    space.seed(0)
    values = [space.sample() for _ in range(6)]
    nested = stack(space, values)

    def first(array: np.ndarray) -> int:
        assert isinstance(array, np.ndarray)
        return len(array)

    transform(first, nested)
    for i, value in enumerate(values):
        again = stack(space, [value])
        transform(np.testing.assert_array_equal, take(nested, slice(i, i + 1)), again)
    assert_same = transform(np.array_equal, take(nested, np.array([3, 1])), stack(space, [values[3], values[1]]))
    transform(lambda same: np.testing.assert_(same), assert_same)
    transform(np.testing.assert_array_equal, as_arrays(space, nested), nested)

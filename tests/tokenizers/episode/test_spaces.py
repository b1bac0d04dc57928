"""Every space of gymnasium gets its tokenizer; nested values are split into fields and joined again."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple
from gymnasium.vector.utils import batch_space
from minari.serialization import deserialize_space, serialize_space

from anyformer.errors import InputError
from anyformer.tokenizers.episode.continuous import Returns, Vector
from anyformer.tokenizers.episode.discrete import Bins, Categories, Letters
from anyformer.tokenizers.episode.frames import Frames
from anyformer.tokenizers.episode.spaces import (
    check,
    compare,
    join,
    leaves,
    nest,
    plain,
    read_space,
    split,
    step_tokenizer,
)
from anyformer.tokenizers.episode.steps import StepTokenizer, Stretch
from anyformer.tokenizers.image.patches import ConvStem

LEAVES: dict[str, tuple[Space, StepTokenizer]] = {
    "vector": (
        Box(np.float32([-2, -np.inf]), np.float32([2, np.inf])),
        Vector(shape=(2,), dtype="float32", low=(-2.0, None), high=(2.0, None)),
    ),
    "number": (Box(0, 1, (), np.float64), Vector(shape=(), dtype="float64", low=(0.0,), high=(1.0,))),
    "integers": (Box(0, 9, (2,), np.int32), Vector(shape=(2,), dtype="int32", low=(0, 0), high=(9, 9))),
    "table": (Box(-np.inf, np.inf, (2, 3)), Vector(shape=(2, 3), dtype="float32", low=(None,) * 6, high=(None,) * 6)),
    "bytes": (Box(0, 255, (3,), np.uint8), Vector(shape=(3,), dtype="uint8", low=(0,) * 3, high=(255,) * 3)),
    "picture": (Box(0, 255, (5, 7, 3), np.uint8), Frames(shape=(5, 7, 3), dtype="uint8")),
    "grey": (Box(0, 255, (5, 7), np.uint8), Frames(shape=(5, 7), dtype="uint8")),
    "discrete": (Discrete(3, start=2), Categories(shape=(), dtype="int64", counts=(3,), starts=(2,))),
    "choices": (
        MultiDiscrete([2, 5, 3], start=[0, 1, -2]),
        Categories(shape=(3,), dtype="int64", counts=(2, 5, 3), starts=(0, 1, -2)),
    ),
    "choices of two axes": (
        MultiDiscrete(np.array([[2, 3], [4, 5]])),
        Categories(shape=(2, 2), dtype="int64", counts=(2, 3, 4, 5), starts=(0,) * 4),
    ),
    "switches": (MultiBinary(3), Categories(shape=(3,), dtype="int8", counts=(2,) * 3, starts=(0,) * 3)),
    "switches of two axes": (
        MultiBinary((2, 3)),
        Categories(shape=(2, 3), dtype="int8", counts=(2,) * 6, starts=(0,) * 6),
    ),
    "text": (Text(4, charset="abc"), Letters(characters="abc", max_len=4)),
}
NESTED = Dict(
    {
        "image": LEAVES["grey"][0],
        "arm": Tuple([LEAVES["vector"][0], Dict({"grip": Discrete(2), "word": LEAVES["text"][0]})]),
        "flags": LEAVES["switches"][0],
    }
)
SPACES = {name: space for name, (space, _) in LEAVES.items()} | {"nested": NESTED, "pair": Tuple([NESTED, Discrete(5)])}
every_leaf = pytest.mark.parametrize(("space", "expected"), LEAVES.values(), ids=LEAVES)
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def draw(space: Space, n: int = 4) -> Any:
    """A nested batch of samples, as a vector environment returns it."""
    batch = batch_space(space, n)
    batch.seed(1)
    return batch.sample()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(np.all(one == other))


# Tokenizers


@every_leaf
def test_a_space_gets_its_tokenizer_by_itself(space: Space, expected: StepTokenizer) -> None:
    assert step_tokenizer(space) == expected
    assert step_tokenizer(space, expected, "state") == expected, "that of a run is as it was"


@every_leaf
def test_what_a_space_holds_comes_back_from_its_tokens(space: Space, expected: StepTokenizer) -> None:
    values = split(space, "state", draw(space))["state"]
    tokenizer = step_tokenizer(space).fit([values[:2], values[2:]])
    check(space, "state", draw(space), "here")
    again = tokenizer.decode(tokenizer.encode(Stretch(values, np.arange(4))))
    for one, value in zip(join(space, "state", {"state": again}), values, strict=True):
        assert space.contains(one)
        assert one == value if isinstance(space, Text) else np.allclose(one, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("space", "given", "expected"),
    [
        (LEAVES["vector"][0], Bins(64), Bins(64, shape=(2,), dtype="float32", low=(-2.0, None), high=(2.0, None))),
        (
            LEAVES["vector"][0],
            Vector(loss="gaussian", low=(-1.0, -1.0), tanh=True, high=(1.0, 1.0)),
            Vector(loss="gaussian", tanh=True, shape=(2,), dtype="float32", low=(-1.0, -1.0), high=(1.0, 1.0)),
        ),
        (LEAVES["picture"][0], Frames(4, ConvStem(8)), Frames(4, ConvStem(8), shape=(5, 7, 3), dtype="uint8")),
        (LEAVES["bytes"][0], Bins(), Bins(shape=(3,), dtype="uint8", low=(0,) * 3, high=(255,) * 3)),
        (
            Discrete(3),
            Categories(max_steps=9),
            Categories(shape=(), dtype="int64", counts=(3,), starts=(0,), max_steps=9),
        ),
    ],
)
def test_what_a_yaml_leaves_open_is_filled_in(space: Space, given: StepTokenizer, expected: StepTokenizer) -> None:
    assert step_tokenizer(space, given) == expected


@pytest.mark.parametrize(
    ("space", "given", "message"),
    [
        (Discrete(3), Bins(), r"tokenizers\.action: Bins is for Box, and the space is a Discrete; leave it out"),
        (
            Box(-1, 1, (2,)),
            Categories(),
            "Categories is for Discrete, MultiDiscrete, MultiBinary, and the space is a Box",
        ),
        (Box(-1, 1, (2,)), Returns(), "Returns is for no space, and the space is a Box"),
        (Box(-1, 1, (2, 5)), Frames(), "action: pictures are uint8, got a space of float32; use Vector for it"),
        (Box(-1, np.inf, (2,)), Vector(tanh=True), "action: tanh needs a space with bounds, and this one is open"),
        (Box(-1, 1, (2,)), Vector(shape=(3,)), r"action: shape is \(3,\), and the space says \(2,\); leave it out"),
        (Discrete(3), Categories(counts=(4,)), r"action: counts is \(4,\), and the space says \(3,\); leave it out"),
        (Box(-1, 1, (2,)), Vector(mean=(0.0,), std=(1.0,)), "action: mean must have 2 numbers"),
    ],
)
def test_a_tokenizer_that_is_not_for_the_space_is_refused(space: Space, given: StepTokenizer, message: str) -> None:
    with pytest.raises(InputError, match=message):
        step_tokenizer(space, given, "action")


# Nested spaces


def test_leaves_are_named_by_all_their_keys() -> None:
    assert list(leaves(NESTED, "state")) == [
        f"state.{key}" for key in ("arm.0", "arm.1.grip", "arm.1.word", "flags", "image")
    ]
    assert leaves(Discrete(2), "action") == {"action": Discrete(2)}
    with pytest.raises(InputError, match=r"state\.a\.b: two parts of the space have this name; rename a key"):
        leaves(Dict({"a": Dict({"b": Discrete(2)}), "a.b": Discrete(3)}), "state")


@pytest.mark.parametrize("space", [Graph(Discrete(2), None), Sequence(Discrete(2)), Dict({"x": Sequence(Discrete(2))})])
def test_a_space_without_a_tokenizer_is_named(space: Space) -> None:
    with pytest.raises(
        InputError, match=r"a space of kind (Graph|Sequence) has no tokenizer; there are some for Box, "
    ):
        leaves(space, "state")


@every_space
def test_nested_values_are_split_and_put_together_again(space: Space) -> None:
    values = draw(space)
    arrays = split(space, "state", values)
    assert arrays.keys() == leaves(space, "state").keys()
    for name, leaf in leaves(space, "state").items():
        assert len(arrays[name]) == 4
        assert isinstance(leaf, Text) or arrays[name].shape == (4, *leaf.shape)
    assert same(nest(space, "state", arrays), values)
    singles = join(space, "state", arrays)
    assert len(singles) == 4 and all(space.contains(one) for one in singles)


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0", "Blackjack-v1"])
def test_environments_give_and_take_what_is_split_and_put_together(name: str) -> None:
    vector = gymnasium.make_vec(name, 3, vectorization_mode="sync")
    observations, _ = vector.reset(seed=1)
    arrays = split(vector.single_observation_space, "state", observations)
    for leaf, space in leaves(vector.single_observation_space, "state").items():
        tokenizer = step_tokenizer(space).fit([arrays[leaf]])
        again = tokenizer.decode(tokenizer.encode(Stretch(arrays[leaf], np.arange(3))))
        np.testing.assert_allclose(again, arrays[leaf], rtol=1e-5, atol=1e-6)
    space = vector.single_action_space
    taken = split(space, "action", vector.action_space.sample())
    together = vector.step(nest(space, "action", taken))[1]
    with closing(gymnasium.make(name)) as alone:
        alone.reset(seed=1)
        assert alone.step(join(space, "action", taken)[0])[1] == together[0]
    vector.close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2], r"state: must be a dict of arrays, got list"),
        ({"hand": [0, 1]}, r"state\.arm: the data lacks it; there are hand"),
        ({"arm": {"x": 1}, "ham": 1, "end": 2}, r"state\.arm: must be a tuple of arrays, got dict"),
        ({"arm": ([0, 1, 1], [[0.0]]), "end": [0]}, r"state\.arm\.1: must be \('n', 2\) for n values, got \(1, 1\)"),
        ({"arm": ([0, 1, 1], [["a", "b"]]), "end": [0]}, r"state\.arm\.1: must be numbers, got text"),
        ({"arm": ([0, 1, 1], [[0.0, 1.0]]), "ende": [0]}, r"state\.end: the data lacks it; .*; did you mean 'ende'\?"),
    ],
)
def test_values_without_the_parts_of_the_space_are_refused(values: Any, message: str) -> None:
    space = Dict({"arm": Tuple([Discrete(2), Box(0, 1, (2,))]), "end": Discrete(2)})
    with pytest.raises(InputError, match=message):
        split(space, "state", values)


def test_values_outside_a_part_are_named_with_place_leaf_and_step() -> None:
    space = Dict({"arm": Box(0, 1, (2,)), "end": Discrete(2)})
    values = {"arm": np.zeros((3, 2)), "end": np.array([0, 1, 2])}
    with pytest.raises(
        InputError, match=r"cart\.npz episode 3: action\.end, step 2: is 2, and the space is from 0 to 1"
    ):
        check(space, "action", values, "cart.npz episode 3")
    with pytest.raises(InputError, match=r"cart\.npz episode 3: action\.end: must be \('n',\) for n values"):
        check(space, "action", values | {"end": 1}, "cart.npz episode 3")


def test_tables_are_no_texts() -> None:
    with pytest.raises(InputError, match=r"state: must be one text for each of n values, got \(2, 1\)"):
        split(Text(3), "state", np.array([["a"], ["b"]]))


@pytest.mark.parametrize(
    ("space", "values", "message"),
    [
        (Discrete(3), np.array([0, 2, 3]), "step 2: is 3, and the space is from 0 to 2"),
        (MultiBinary(2), np.array([[0, 1], [0, 2]]), "step 1: value 1 is 2, and the space is from 0 to 1"),
        (Text(3, charset="ab"), np.array(["a", "xa"]), "step 1: the space has no character 'x'"),
        (Box(0, 255, (2, 2), np.uint8), np.full((3, 2, 2), 256), "step 0: value 0 is 256, and the space is from 0 to"),
        (Box(0, 255, (2, 2), np.uint8), np.ones((3, 2, 2), np.float32), "the space is of uint8, 0 to 255, got float32"),
        (Box(0, 9, (2,), np.uint8), np.ones((3, 2)), "the space is of uint8, 0 to 9, got float64; give whole numbers"),
    ],
)
def test_what_is_seen_is_checked_but_for_the_bounds_of_vectors(space: Space, values: np.ndarray, message: str) -> None:
    nested = Dict({"eye": space, "arm": Box(0, 1, (2,))})
    with pytest.raises(InputError, match=f"cart.npz episode 3: state.eye.*{message}"):
        check(nested, "state", {"eye": values, "arm": np.full((len(values), 2), 7.0)}, "cart.npz episode 3", seen=True)


# As text


@every_space
def test_a_space_is_read_again_from_its_text_and_from_minaris(space: Space) -> None:
    assert read_space(plain(space)) == space
    assert read_space(serialize_space(space)) == space
    assert json.loads(plain(space))["type"] == type(space).__name__


def test_a_picture_is_a_short_text() -> None:
    assert plain(Box(0, 255, (210, 160, 3), np.uint8)) == (
        '{"type": "Box", "dtype": "uint8", "shape": [210, 160, 3], "low": 0, "high": 255}'
    )
    bounds = Box(np.float32([0, 1]), np.float32([2, 2]))
    assert json.loads(plain(bounds))["low"] == [0.0, 1.0] and deserialize_space(serialize_space(bounds)) == bounds


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"type": "Ball"}', '{"type": "Box", "shape": [2], "low": [0, 1, 2]}']
)
def test_a_text_that_is_no_space_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="a space must be the JSON that Minari writes, got '"):
        read_space(text)


# The space of a model


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (Box(-1, 1, (3,)), r"action: the action space had shape \(2,\) in training, and it is \(3,\) now; play the"),
        (
            Box(-1, 2, (2,)),
            r"action: the action space had high \(1\.0, 1\.0\) in training, and it is \(2\.0, 2\.0\) now",
        ),
        (Box(-1, 1, (2,), np.int8), "action: the action space had dtype float32 in training, and it is int8 now"),
        (Discrete(2), "action: the action space had kind Box in training, and it is Discrete now"),
        (Dict({"x": Box(-1, 1, (2,))}), r"action: training had this part of the action space"),
    ],
)
def test_the_first_difference_of_another_space_is_named(now: Space, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(now, Box(-1, 1, (2,)), "action")


def test_what_formats_do_not_tell_is_no_difference() -> None:
    bounds = Box(np.array([-4.8, -np.inf]), np.array([4.8, np.inf]), dtype=np.float64)
    compare(bounds, Box(-np.inf, np.inf, (2,)), "observation")
    compare(Box(-np.inf, np.inf, (2,)), bounds, "observation")
    compare(Box(-1, 1 + 1e-7, (2,), np.float64), Box(-1, 1, (2,), np.float64), "action")
    for space in SPACES.values():
        compare(space, read_space(plain(space)), "observation")


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (Box(-1, 1.01, (2,)), Box(-1, 1, (2,)), r"had high \(1\.0, 1\.0\) in training, and it is \(1\.0099"),
        (Box(-1, 1, (2,)), Box(-1.0001, 1, (2,)), r"had low \(-1\.00010"),
        (Discrete(2), Discrete(3), r"had counts \(3,\) in training, and it is \(2,\) now"),
        (Discrete(2), Discrete(2, start=1), r"had starts \(1,\) in training, and it is \(0,\) now"),
        (Text(3, charset="ab"), Text(3, charset="abc"), r"had characters abc in training, and it is ab now"),
        (NESTED, Dict(dict(NESTED.spaces) | {"new": Discrete(2)}), r"observation\.new: training had this part"),
        (Dict(dict(NESTED.spaces) | {"new": Discrete(2)}), NESTED, r"observation\.new: training had not this part"),
    ],
)
def test_parts_of_a_space_are_compared(one: Space, other: Space, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(one, other, "observation")

"""Files that hold all episodes one after another: every format gives the same, and one line says what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces

from anyformer.errors import InputError
from anyformer.tokenizers.episode.array_files import infer
from anyformer.tokenizers.episode.environments import make
from anyformer.tokenizers.episode.episode import EnvironmentConfig
from anyformer.tokenizers.episode.files import Episodes

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))
LENGTHS = np.array([3, 1, 4])
TERMINATED = np.array([True, False, True])


def arrays() -> dict[str, np.ndarray]:
    """The steps of three episodes, one after another."""
    random = np.random.default_rng(0)
    return {
        "observations": random.normal(size=(8, 2)).astype(np.float32),
        "actions": np.array([0, 2, 1, 0, 1, 2, 2, 0]),
        "rewards": random.normal(size=8).astype(np.float32),
    }


def write_npz(path: Path, **changes: Any) -> None:
    content = arrays() | {"episode_lengths": LENGTHS, "terminated": TERMINATED.astype(np.int8)} | changes
    with open(path, "wb") as file:
        np.savez(file, **{name: values for name, values in content.items() if values is not None})


def write_hdf5(path: Path, **changes: Any) -> None:
    stops = np.cumsum(LENGTHS) - 1
    terminals = np.zeros(8, bool)
    terminals[stops] = TERMINATED
    timeouts = np.zeros(8, bool)
    timeouts[stops] = ~TERMINATED
    content = arrays() | {"terminals": terminals, "timeouts": timeouts} | changes
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if values is not None:
                file[name] = values
        file["infos/qpos"] = np.zeros((8, 1))
        file["metadata/algorithm"] = "none"


def write_steps(path: Path, **changes: Any) -> None:
    """Parquet, a row a step."""
    content = arrays()
    ended = np.repeat(TERMINATED, LENGTHS)
    columns = {
        "episode": np.repeat([4, 2, 9], LENGTHS),
        "observation": list(content["observations"]),
        "action": content["actions"],
        "reward": content["rewards"],
        "terminated": ended,
        "truncated": ~ended,
    } | changes
    pq.write_table(pa.table({name: values for name, values in columns.items() if values is not None}), path)


def write_rows(path: Path, **changes: Any) -> None:
    """Parquet, a row an episode."""
    cut = {name: [part.tolist() for part in np.split(v, np.cumsum(LENGTHS)[:-1])] for name, v in arrays().items()}
    columns = cut | {"terminated": TERMINATED, "truncated": ~TERMINATED} | changes
    pq.write_table(pa.table({name: values for name, values in columns.items() if values is not None}), path)


FORMATS = {"npz": write_npz, "hdf5": write_hdf5, "steps.parquet": write_steps, "rows.parquet": write_rows}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_episodes(tmp_path: Path, kind: str) -> None:
    # The ending says nothing: what a file is decides its content.
    path = tmp_path / "demos.bin"
    FORMATS[kind](tmp_path / f"demos.{kind}")
    (tmp_path / f"demos.{kind}").rename(path)
    source = Episodes(str(path))
    assert source.lengths.tolist() == [3, 1, 4]
    start = 0
    for i, length in enumerate(LENGTHS):
        one = source.episode(i)
        for name in ("observations", "actions", "rewards"):
            np.testing.assert_allclose(getattr(one, name), arrays()[name][start : start + length], rtol=1e-6)
        assert (one.terminated, one.truncated) == (TERMINATED[i], not TERMINATED[i])
        assert one.name == source.name(i) == f"{path} episode {i}"
        assert one.success is None
        assert one.environment is None
        start += length
    seen, done = source.spaces
    assert (seen.shape, seen.high.max(), done) == ((2,), np.inf, spaces.Discrete(3))


@pytest.mark.parametrize("kind", FORMATS)
def test_parts_are_named_with_dots(tmp_path: Path, kind: str) -> None:
    seen = {"image": np.arange(8 * 2 * 3, dtype=np.uint8).reshape(8, 2, 3), "vector": np.eye(8, 2)}
    name = "observation" if kind == "steps.parquet" else "observations"
    changes: dict[str, Any] = {name: None}
    for part, values in seen.items():
        if kind.endswith("parquet"):
            at = np.cumsum(LENGTHS)[:-1] if kind.startswith("rows") else range(1, 8)
            pieces = [
                piece.tolist() if kind.startswith("rows") else piece[0].tolist() for piece in np.split(values, at)
            ]
            kind_of = pa.list_(pa.list_(pa.uint8()) if part == "image" else pa.float64())
            values = pa.array(pieces, pa.list_(kind_of) if kind.startswith("rows") else kind_of)
        changes[f"{name}.{part}"] = values
    if kind == "hdf5":
        changes = {name.replace(".", "/"): values for name, values in changes.items()}
    path = tmp_path / f"demos.{kind}"
    FORMATS[kind](path, **changes)
    source = Episodes(str(path))
    assert source.spaces[0] == spaces.Dict(
        {"image": spaces.Box(0, 255, (2, 3), np.uint8), "vector": spaces.Box(-np.inf, np.inf, (2,), np.float64)}
    )
    np.testing.assert_array_equal(source.episode(2).observations["image"], seen["image"][4:])
    np.testing.assert_array_equal(source.episode(2).observations["vector"], seen["vector"][4:])


def test_the_columns_of_lerobot_are_known(tmp_path: Path) -> None:
    """Its names, and its flag of a success at the last step."""
    path, content = tmp_path / "demos.parquet", arrays()
    columns = {
        "observation.state": list(content["observations"]),
        "action": list(content["observations"]),
        "episode_index": np.repeat([0, 1, 2], LENGTHS),
        "frame_index": np.concatenate([np.arange(length) for length in LENGTHS]),
        "next.reward": content["rewards"],
        "next.success": np.array([0, 0, 1, 0, 0, 0, 0, 0], bool),
    }
    pq.write_table(pa.table(columns), path)
    source = Episodes(str(path))
    assert source.lengths.tolist() == [3, 1, 4]
    assert [source.episode(i).success for i in range(3)] == [True, False, False]
    np.testing.assert_array_equal(source.episode(0).observations["state"], content["observations"][:3])
    assert source.spaces[1] == spaces.Box(-np.inf, np.inf, (2,), np.float32)


@pytest.mark.parametrize("kind", ["large", "fixed"])
def test_lists_of_every_kind_are_read(tmp_path: Path, kind: str) -> None:
    """Polars writes large ones."""
    steps = (lambda inner: pa.list_(inner, 4)) if kind == "fixed" else pa.large_list
    content = {name: values.reshape(2, 4, *values.shape[1:]).tolist() for name, values in arrays().items()}
    of = {"observations": pa.large_list(pa.float32()), "actions": pa.int64(), "rewards": pa.float32()}
    path = tmp_path / "demos.parquet"
    pq.write_table(pa.table({name: pa.array(rows, steps(of[name])) for name, rows in content.items()}), path)
    source = Episodes(str(path))
    assert source.lengths.tolist() == [4, 4]
    for name, values in arrays().items():
        np.testing.assert_array_equal(getattr(source.episode(1), name), values[4:])


def test_a_named_environment_gives_the_spaces(tmp_path: Path) -> None:
    write_npz(tmp_path / "demos.npz", observations=np.zeros((8, 4), np.float32), actions=np.tile([0, 1], 4))
    config = EnvironmentConfig("CartPole-v1")
    source = Episodes(str(tmp_path / "demos.npz"), config)
    env = make(config)
    assert source.spaces == (env.observation_space, env.action_space)
    assert source.played_in == source.episode(0).environment == config
    write_npz(tmp_path / "demos.npz", observations=np.zeros((8, 4), np.float32))
    with pytest.raises(InputError, match=r"demos.npz episode 0: action, step 1: is 2, and the space is from 0 to 1"):
        Episodes(str(tmp_path / "demos.npz"), config).episode(0)


def test_d4rl_leaves_out_steps_behind_the_last_end(tmp_path: Path) -> None:
    terminals = np.zeros(8, bool)
    terminals[[2, 3]] = True
    write_hdf5(tmp_path / "demos.hdf5", terminals=terminals, timeouts=np.zeros(8, bool))
    assert Episodes(str(tmp_path / "demos.hdf5")).lengths.tolist() == [3, 1]


def test_d4rl_without_timeouts_ends_where_the_next_observation_does_not_follow(tmp_path: Path) -> None:
    seen = arrays()["observations"]
    following = np.concatenate([seen[1:], seen[:1]])
    following[3] += 1
    terminals = np.zeros(8, bool)
    terminals[[2, 7]] = True
    write_hdf5(tmp_path / "demos.hdf5", terminals=terminals, timeouts=None, next_observations=following)
    source = Episodes(str(tmp_path / "demos.hdf5"))
    assert source.lengths.tolist() == [3, 1, 4]
    assert [source.episode(i).truncated for i in range(3)] == [False, True, False]


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "npz without lengths": (lambda p: write_npz(p, episode_lengths=None), "holds no 'episode_lengths'; there are obs"),
    "npz without rewards": (lambda p: write_npz(p, rewards=None), "holds no 'rewards'; there are observations"),
    "npz misspelt": (
        lambda p: write_npz(p, actions=None, action=np.zeros(8, int)),
        "holds no 'actions'; .*did you mean 'action'",
    ),
    "npz of other lengths": (
        lambda p: write_npz(p, actions=np.zeros(7, int)),
        "the episodes have 8 steps together, and actions has 7",
    ),
    "npz with one reward": (lambda p: write_npz(p, rewards=1.0), "demos: rewards must be an array .* a single value"),
    "npz with one length": (
        lambda p: write_npz(p, episode_lengths=8),
        "demos: episode_lengths must be an array .*, got a single value",
    ),
    "npz with broken lengths": (
        lambda p: write_npz(p, episode_lengths=np.array([3.5, 0.5, 4])),
        "demos: episode_lengths must be whole numbers, got float64",
    ),
    "npz with a table of lengths": (
        lambda p: write_npz(p, episode_lengths=np.array([[3, 1], [2, 2]]), terminated=None),
        r"demos: episode_lengths must have one axis, got \(2, 2\)",
    ),
    "npz with rewards of text": (
        lambda p: write_npz(p, rewards=np.array(["1"] * 8)),
        "demos: rewards must be numbers, got text",
    ),
    "npz with actions of text": (
        lambda p: write_npz(p, actions=np.array(["left"] * 8)),
        "demos: actions must be numbers, got text",
    ),
    "npz with tables of text": (
        lambda p: write_npz(p, observations=np.array([["a", "b"]] * 8)),
        r"demos: observations must be one text a step, got \(8, 2\)",
    ),
    "npz with complex parts": (
        lambda p: write_npz(p, observations=None, **{"observations.a": np.ones(8, complex)}),
        "demos: observations.a must be numbers or text, got complex128",
    ),
    "npz with an empty episode": (
        lambda p: write_npz(p, episode_lengths=np.array([3, 0, 5])),
        "demos episode 1 has no step; leave it out",
    ),
    "npz with too few ends": (lambda p: write_npz(p, terminated=np.ones(2)), "3 episode_lengths and 2 of terminated"),
    "npz of no episode": (
        lambda p: write_npz(
            p, **{name: values[:0] for name, values in arrays().items()}, episode_lengths=LENGTHS[:0], terminated=None
        ),
        "there is no episode",
    ),
    "npz with pickles": (
        lambda p: write_npz(p, observations=np.array([{}] * 8, dtype=object)),
        "cannot be read as npz: Object arrays cannot be loaded",
    ),
    "npz cut off": (lambda p: (write_npz(p), p.write_bytes(p.read_bytes()[:200]))[0], "cannot be read as npz"),
    "NaN rewards": (
        lambda p: write_npz(p, rewards=np.array([1, 2, 3, 4, 5, 6, np.nan, 8])),
        "demos episode 2: reward, step 2: must be finite, got nan; mend the data",
    ),
    "hdf5 without ends": (lambda p: write_hdf5(p, terminals=None), "holds no 'terminals'"),
    "hdf5 that never ends": (
        lambda p: write_hdf5(p, terminals=np.zeros(8, bool), timeouts=np.zeros(8, bool)),
        "there is no episode",
    ),
    "hdf5 of other lengths": (
        lambda p: write_hdf5(p, observations=np.zeros((5, 2))),
        "demos: 8 terminals and 5 of observations",
    ),
    "hdf5 of other timeouts": (lambda p: write_hdf5(p, timeouts=np.zeros(7, bool)), "8 terminals and 7 of timeouts"),
    "hdf5 without observations": (
        lambda p: write_hdf5(p, observations=None, timeouts=None, next_observations=np.zeros((8, 2))),
        "demos: holds no 'observations'; there are actions",
    ),
    "hdf5 of other next observations": (
        lambda p: write_hdf5(p, timeouts=None, next_observations=np.zeros((7, 2))),
        r"demos: observations are \(8, 2\), and next_observations are \(7, 2\)",
    ),
    "hdf5 of nothing": (
        lambda p: write_hdf5(
            p,
            **{name: values[:0] for name, values in arrays().items()},
            terminals=np.zeros(0, bool),
            timeouts=None,
            next_observations=np.zeros((0, 2), np.float32),
        ),
        "there is no episode",
    ),
    "hdf5 of one reward": (lambda p: write_hdf5(p, rewards=1.0), "demos: rewards must be an array .* a single value"),
    "hdf5 of bytes": (
        lambda p: write_hdf5(p, observations=np.array([b"a"] * 8)),
        "must be numbers or text, got bytes8",
    ),
    "hdf5 cut off": (lambda p: (write_hdf5(p), p.write_bytes(p.read_bytes()[:900]))[0], "cannot be read as HDF5"),
    "parquet without episodes": (lambda p: write_steps(p, episode=None), "holds no 'episode'"),
    "parquet without rewards": (lambda p: write_steps(p, reward=None), "holds no 'reward'"),
    "parquet in pieces": (
        lambda p: write_steps(p, episode=np.array([1, 1, 1, 2, 1, 1, 1, 1])),
        "demos row 4: episode 1 goes on after another one",
    ),
    "parquet with a hole": (
        lambda p: write_steps(p, reward=[1.0, 2.0, None, 4.0, 5.0, 6.0, 7.0, 8.0]),
        "column 'reward' has rows without a value",
    ),
    "parquet with ragged lists": (
        lambda p: write_steps(p, observation=[[1.0, 2.0]] * 7 + [[1.0]]),
        "column 'observation' has lists of 1, 2 numbers; all must have the same",
    ),
    "parquet rows of other lengths": (
        lambda p: write_rows(p, actions=[[0, 1], [0], [0, 1, 2, 0]]),
        "demos episode 0: 2 of action and 3 rewards; each step needs one of both",
    ),
    "parquet rows whose parts differ": (
        lambda p: write_rows(
            p,
            observations=None,
            **{
                "observation.a": [[0.0, 1.0, 2.0], [3.0], [4.0, 5.0, 6.0, 7.0]],
                "observation.b": [[0.0, 1.0, 2.0], [3.0, 4.0], [5.0, 6.0, 7.0]],
            },
        ),
        "demos row 1: column 'observation.b' has 2 steps, and 'observation.a' has 1",
    ),
    "parquet rows of single numbers": (
        lambda p: write_rows(p, observations=[1.0, 2.0, 3.0]),
        "demos: column 'observations' must have a list of steps in each row, as 'rewards' has",
    ),
    "parquet with structs": (
        lambda p: write_steps(p, observation=[{"bytes": b"x", "path": "a"}] * 8),
        "demos: column 'observation' must be numbers, text or lists of them, got struct<",
    ),
    "parquet with rewards of text": (lambda p: write_steps(p, reward=["1"] * 8), "rewards must be numbers, got text"),
    "parquet with a hole in a list": (
        lambda p: write_steps(p, observation=[[True, None]] * 8),
        "demos: column 'observation' has lists in which a value is missing",
    ),
    "parquet rows without a step": (
        lambda p: write_rows(p, **dict.fromkeys(arrays(), pa.array([[]] * 3, pa.list_(pa.list_(pa.int64()))))),
        "demos episode 0 has no step",
    ),
    "parquet with an empty row": (
        lambda p: write_rows(p, rewards=[[1.0, 2.0, 3.0], [], [1.0, 2.0, 3.0, 4.0]]),
        "demos episode 1 has no step",
    ),
    "parquet of nothing": (lambda p: pq.write_table(pa.table({"reward": pa.array([], pa.float32())}), p), "no episode"),
    "text": (lambda p: p.write_text("a,b\n1,2\n"), "no file of episodes; those are .npz, Parquet, HDF5"),
    "an empty file": (lambda p: p.touch(), "no file of episodes"),
    "an empty folder": (lambda p: p.mkdir(), "no data set of Minari's"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_said_in_one_line(tmp_path: Path, kind: str) -> None:
    write, message = BAD[kind]
    path = tmp_path / "demos"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        source = Episodes(str(path))
        for i in range(len(source)):
            source.episode(i)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"rl_demos/none.npz: no such file"):
        len(Episodes("rl_demos/none.npz"))


def test_infinite_and_whole_numbers_are_told_apart() -> None:
    assert infer(np.array([-1, 3])) == spaces.Discrete(5, start=-1)
    assert infer(np.array([True, False])) == spaces.Discrete(2)
    assert infer(np.array([[True, False]])) == spaces.MultiBinary((2,))
    assert infer(np.array([[0, 3], [1, 0]])) == spaces.MultiDiscrete([2, 4])
    assert infer(np.array([[0, -3], [1, 0]])) == spaces.Box(-3, 1, (2,), np.int64)
    assert infer(np.array(["ab", "c"])) == spaces.Text(2, min_length=0, charset="abc")
    assert infer(np.zeros((5, 4, 4, 3), np.uint8)) == spaces.Box(0, 255, (4, 4, 3), np.uint8)


# Real files


@pytest.mark.skipif(not (DATA / "rl_demos").is_dir(), reason="needs rl_demos")
@pytest.mark.parametrize(
    "name, environment, n, steps, mean",
    [
        ("cartpole_sb_train", "CartPole-v1", 70, 34_527, 493.24),
        ("pendulum_sb_train", "Pendulum-v1", 70, 14_000, -151.48),
        ("cartpole_imitation_val", "CartPole-v1", 6, None, None),
        ("adroit_door_human_train", None, 18, 4_830, 820.16),
    ],
)
def test_the_demonstrations_are_read(
    name: str, environment: str | None, n: int, steps: int | None, mean: float | None
) -> None:
    source = Episodes(f"rl_demos/{name}.npz", environment and EnvironmentConfig(environment))
    episodes = [source.episode(i) for i in range(len(source))]
    assert len(episodes) == n
    if steps is not None:
        assert source.lengths.sum() == steps
        assert np.mean([one.total for one in episodes]) == pytest.approx(mean, abs=0.01)
    returns = np.load(DATA / "rl_demos" / f"{name}.npz")["returns"]
    np.testing.assert_allclose([one.returns_to_go()[0] for one in episodes], returns, rtol=1e-4, atol=1e-3)

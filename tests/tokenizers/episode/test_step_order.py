"""Steps that are numbered come in the sequence of their numbers, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.episode.files import Episodes
from anyformer.tokenizers.episode.step_order import INDICES

EPISODES = np.repeat([7, 3], [4, 3])
STEPS = np.array([0, 1, 2, 3, 0, 1, 2])
SHUFFLED = np.array([2, 0, 3, 1, 6, 4, 5])
INTERLEAVED = np.array([0, 6, 2, 4, 1, 5, 3])


def write_steps(path: Path, rows: np.ndarray, **columns: Any) -> Episodes:
    """Parquet, a row a step, the rows in this sequence; the observation is the number of the step."""
    whole = {"episode": EPISODES, "observation": 1.0 * STEPS, "action": STEPS % 2, "reward": 10.0 * STEPS} | columns
    pq.write_table(pa.table({name: np.asarray(values)[rows] for name, values in whole.items()}), path)
    return Episodes(str(path))


def order(source: Episodes) -> list[list[float]]:
    episodes = [source.episode(i) for i in range(len(source.lengths))]
    assert all((10 * episode.observations == episode.rewards).all() for episode in episodes)
    return [episode.observations.reshape(-1).tolist() for episode in episodes]


@pytest.mark.parametrize("rows", [SHUFFLED, INTERLEAVED])
@pytest.mark.parametrize("name", INDICES)
def test_rows_are_sorted_by_whatever_numbers_them(tmp_path: Path, name: str, rows: np.ndarray, capsys: Any) -> None:
    source = write_steps(tmp_path / "a.parquet", rows, **{name: STEPS})
    assert order(source) == [[0, 1, 2, 3], [0, 1, 2]]
    assert (
        capsys.readouterr().err == f"{tmp_path}/a.parquet: the rows are not in the sequence of {name!r}; sorted by it\n"
    )


@pytest.mark.parametrize(
    "values",
    [
        STEPS.astype(np.uint8),
        1.6e9 + 0.02 * STEPS,
        np.datetime64("2024-01-01T00:00:00", "us") + STEPS * np.timedelta64(20, "ms"),
        np.arange(7) + 100,
    ],
)
def test_numbers_and_times_of_every_type_will_do(tmp_path: Path, values: np.ndarray) -> None:
    assert order(write_steps(tmp_path / "a.parquet", SHUFFLED, timestamp=values)) == [[0, 1, 2, 3], [0, 1, 2]]


def test_the_number_of_a_step_goes_before_its_time(tmp_path: Path, capsys: Any) -> None:
    source = write_steps(tmp_path / "a.parquet", np.arange(7), frame_index=STEPS, timestamp=STEPS[::-1], index=SHUFFLED)
    assert order(source) == [[0, 1, 2, 3], [0, 1, 2]]
    assert not capsys.readouterr().err


def test_rows_in_any_sequence_without_a_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 2: episode 7 goes on after another one; .* in a column 'frame_index'"):
        order(write_steps(tmp_path / "a.parquet", INTERLEAVED))


def test_what_cannot_be_a_sequence_is_refused(tmp_path: Path, capsys: Any) -> None:
    for values, message in (
        ([0, 1, 1, 2, 0, 1, 2], "episode 7 has step 1 twice; leave out what stands there twice"),
        ([0, 1, 2, 3, 0, 0, 1], "episode 3 has step 0 twice"),
        (list("0123012"), "'step', by which steps are sorted, must be numbers or times, got object"),
        ([0.0, 1.0, np.nan, 3.0, 0.0, 1.0, 2.0], "'step', by which steps are sorted, must be numbers"),
    ):
        with pytest.raises(InputError, match=rf"a.parquet: {message}"):
            order(write_steps(tmp_path / "a.parquet", SHUFFLED, step=values))
    # Times that are rounded may be equal, but then nothing says how to sort.
    equal = [0, 0, 1, 1, 0, 0, 1]
    assert order(write_steps(tmp_path / "a.parquet", np.arange(7), timestamp=equal)) == [[0, 1, 2, 3], [0, 1, 2]]
    with pytest.raises(InputError, match="episode 7 has timestamp 0 twice"):
        order(write_steps(tmp_path / "a.parquet", SHUFFLED, timestamp=equal))


def test_missing_steps_are_said(tmp_path: Path, capsys: Any) -> None:
    source = write_steps(tmp_path / "a.parquet", np.arange(7), timestep=[0, 1, 2, 5, 0, 3, 4])
    assert order(source) == [[0, 1, 2, 3], [0, 1, 2]]
    said = "2 of 2 episodes lack steps: in episode 7 timestep 5 comes after 2\n"
    assert capsys.readouterr().err == f"{tmp_path}/a.parquet: {said}"
    # Every other one is nothing of the kind.
    assert order(write_steps(tmp_path / "b.parquet", np.arange(7), step=2 * STEPS))
    assert not capsys.readouterr().err


@pytest.mark.parametrize("kind", ["npz", "hdf5", "lists"])
def test_other_files_are_refused_where_steps_are_in_another_sequence(tmp_path: Path, kind: str) -> None:
    def write(name: str, index: np.ndarray) -> Episodes:
        path = tmp_path / name
        arrays = {"observations": 1.0 * STEPS, "actions": STEPS % 2, "rewards": 1.0 * STEPS, "timesteps": index}
        if kind == "npz":
            with open(path, "wb") as file:
                np.savez(file, **arrays, episode_lengths=[4, 3])
        elif kind == "hdf5":
            with h5py.File(path, "w") as file:
                for key, values in arrays.items():
                    file[key] = values
                file["terminals"] = [0, 0, 0, 1, 0, 0, 1]
                file["t"] = 3
        else:
            columns = {key: [values[:4].tolist(), values[4:].tolist()] for key, values in arrays.items()}
            pq.write_table(pa.table(columns), path)
        return Episodes(str(path))

    assert write("right", STEPS).lengths.tolist() == [4, 3]
    assert [len(write("right", STEPS).episode(i).rewards) for i in range(2)] == [4, 3]
    with pytest.raises(
        InputError, match=r"wrong: the steps of episode 1 are not in the sequence of 'timesteps', 1 comes after 2; sort"
    ):
        len(write("wrong", np.array([0, 1, 2, 3, 0, 2, 1])).lengths)

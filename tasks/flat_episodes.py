"""Episodes as arrays that hold all of them one after another: npz, D4RL's HDF5 and Parquet files, read into memory."""

from __future__ import annotations

import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from anyformer.errors import InputError
from anyformer.files import nearest
from anyformer.tasks.environments import make
from anyformer.tokenizers.episodes import EnvironmentConfig, Nested, take, transform


class Opened:
    """A file or folder of episodes that has been opened."""

    lengths: np.ndarray
    spaces: tuple[Space, Space]
    environment: EnvironmentConfig | None = None
    reference: tuple[float, float] | None = None

    @abstractmethod
    def read(self, i: int) -> dict[str, Any]:
        """Observations, actions, rewards and how episode i ended, as `Episode` takes them."""


@dataclass
class Flat(Opened):
    """Episodes as arrays of all their steps, one after another."""

    observations: Nested
    actions: Nested
    rewards: np.ndarray
    starts: dict[str, np.ndarray]
    """(n + 1,) of observations, actions and rewards: where in them each episode begins."""
    ends: dict[str, np.ndarray]
    """`terminated`, `truncated`, `success` of each episode, (n,) bool, as far as they are known."""

    def __post_init__(self) -> None:
        self.lengths = np.diff(self.starts["rewards"])

    def read(self, i: int) -> dict[str, Any]:
        record = {
            name: take(getattr(self, name), slice(*starts[i : i + 2].tolist())) for name, starts in self.starts.items()
        }
        return record | {name: bool(values[i]) for name, values in self.ends.items()}


def with_spaces(opened: Flat, environment: EnvironmentConfig | None) -> Flat:
    """The same, which knows its spaces: those of the environment, or else what the values are."""
    if environment is not None:
        env = make(environment)
        opened.spaces = env.observation_space, env.action_space
        env.close()
    else:
        opened.spaces = infer(opened.observations), infer(opened.actions)
    return opened


def infer(values: Nested) -> Space:
    """The space of nested arrays (t, ...): Box of any numbers, uint8 pictures, or as many choices as there occur."""
    if isinstance(values, Mapping):
        return spaces.Dict({key: infer(value) for key, value in values.items()})
    if values.dtype.kind == "U":
        letters = "".join(sorted(set("".join(values.tolist()))))
        return spaces.Text(max(values.dtype.itemsize // 4, 1), min_length=0, charset=letters or " ")
    shape = values.shape[1:]
    if values.dtype.kind == "b":
        return spaces.MultiBinary(shape) if shape else spaces.Discrete(2)
    if values.dtype == np.uint8 and len(shape) > 1:
        return spaces.Box(0, 255, shape, np.uint8)
    if values.dtype.kind in "iu":
        low = min(int(values.min(initial=0)), 0)
        if not shape:
            return spaces.Discrete(int(values.max(initial=0)) - low + 1, start=low)
        if low == 0:
            return spaces.MultiDiscrete(values.max(0, initial=0).astype(np.int64) + 1)
        return spaces.Box(low, int(values.max()), shape, values.dtype.type)
    return spaces.Box(-np.inf, np.inf, shape, values.dtype.type)


def _all_from(place: str, arrays: Mapping[str, np.ndarray], name: str) -> Nested:
    """The array of a name, or the parts of it, `name.part` or `name/part`, as a dict."""
    if name in arrays:
        return arrays[name]
    parts = {}
    for key in arrays:
        if key.startswith((f"{name}.", f"{name}/")):
            head = key[len(name) + 1 :].replace("/", ".").partition(".")[0]
            parts[head] = _all_from(place, arrays, f"{key[: len(name) + 1]}{head}")
    if not parts:
        raise _lacks(place, name, arrays)
    return parts


def _lacks(place: str, name: str, there: Collection[str]) -> InputError:
    return InputError(f"{place}: holds no {name!r}; there are {', '.join(there) or 'no arrays'}{nearest(name, there)}")


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _flat(place: str, arrays: Mapping[str, np.ndarray], lengths: np.ndarray, ends: dict[str, np.ndarray]) -> Flat:
    """Episodes of these lengths out of arrays that all have the same steps."""
    seen, done = (_all_from(place, arrays, name) for name in ("observations", "actions"))
    if "rewards" not in arrays:
        raise _lacks(place, "rewards", arrays)
    total = int(lengths.sum())
    if not len(lengths):
        raise InputError(f"{place}: there is no episode")
    if (lengths < 1).any():
        raise InputError(f"{place} episode {int((lengths < 1).argmax())} has no step; leave it out")

    def count(name: str, values: Nested) -> None:
        def fail(array: np.ndarray) -> None:
            if len(array) != total:
                raise InputError(f"{place}: the episodes have {total} steps together, and {name} has {len(array)}")

        transform(fail, values)

    for name, values in (("observations", seen), ("actions", done), ("rewards", arrays["rewards"])):
        count(name, values)
    starts = _starts(lengths)
    return Flat(seen, done, arrays["rewards"], dict.fromkeys(("observations", "actions", "rewards"), starts), ends)


def read_npz(path: str) -> Flat:
    try:
        # Never with pickles, which can run anything.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as npz: {' '.join(str(error).split())}") from None
    if "episode_lengths" not in arrays:
        raise _lacks(path, "episode_lengths", arrays)
    lengths = arrays["episode_lengths"].astype(np.int64)
    ends = {name: arrays[name].astype(bool) for name in ("terminated", "truncated", "success") if name in arrays}
    if "terminated" in ends and "truncated" not in ends:
        ends["truncated"] = ~ends["terminated"]
    for name, values in ends.items():
        if len(values) != len(lengths):
            raise InputError(f"{path}: {len(lengths)} episode_lengths and {len(values)} of {name}")
    return _flat(path, arrays, lengths, ends)


def read_hdf5(path: str) -> Flat:
    import h5py

    arrays: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            if "episode_0" in file:
                raise InputError(f"{path}: the data of a Minari set; give its folder, {Path(path).parent}")

            def visit(name: str, item: Any) -> None:
                wanted = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
                if isinstance(item, h5py.Dataset) and item.shape and name.partition("/")[0] in wanted:
                    arrays[name] = item[()]

            file.visititems(visit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as HDF5: {' '.join(str(error).split())}") from None
    if "terminals" not in arrays:
        raise _lacks(path, "terminals", arrays)
    terminals = arrays["terminals"].astype(bool).reshape(-1)
    if "timeouts" in arrays:
        timeouts = arrays["timeouts"].astype(bool).reshape(-1)
    else:
        # The first files of D4RL do not mark where an episode was cut off: there the next observation does not follow.
        timeouts = np.zeros_like(terminals)
        if "next_observations" in arrays:
            jumps = (arrays["next_observations"][:-1] != arrays["observations"][1:]).reshape(len(terminals) - 1, -1)
            timeouts[:-1] = jumps.any(1)
    if len(timeouts) != len(terminals):
        raise InputError(f"{path}: {len(terminals)} terminals and {len(timeouts)} timeouts")
    stops = np.flatnonzero(terminals | timeouts) + 1
    total = stops[-1] if len(stops) else 0
    arrays = {name: values[:total] if len(values) == len(terminals) else values for name, values in arrays.items()}
    ends = {"terminated": terminals[stops - 1], "truncated": (timeouts & ~terminals)[stops - 1]}
    return _flat(path, arrays, np.diff(stops, prepend=0), ends)


NAMES = {
    "episode": ("episode", "episode_index", "episode_id"),
    "observations": ("observations", "observation"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward", "next.reward"),
    "terminated": ("terminated", "next.terminated"),
    "truncated": ("truncated", "next.truncated"),
    "success": ("success", "next.success"),
}
"""How columns of a Parquet file are called, LeRobot's names among them."""


def read_parquet(path: str) -> Flat:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from None
    if not table.num_rows:
        raise InputError(f"{path}: there is no episode")
    columns: dict[str, Any] = {}
    for column in table.column_names:
        for name, known in NAMES.items():
            for other in known:
                if column == other or (column.startswith(f"{other}.") and name in ("observations", "actions")):
                    columns.setdefault(name + column[len(other) :], column)
    if "rewards" not in columns:
        raise _lacks(path, "reward", table.column_names)

    def chunk(name: str) -> Any:
        values = table[columns[name]].combine_chunks()
        if values.null_count:
            raise InputError(f"{path}: column {columns[name]!r} has rows without a value")
        return values

    if pa.types.is_list(table.schema.field(columns["rewards"]).type):
        return _read_rows(path, {name: chunk(name) for name in columns if name != "episode"})
    if "episode" not in columns:
        raise _lacks(path, "episode", table.column_names)
    names = chunk("episode").to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    _, first = np.unique(names[starts], return_index=True)
    if len(first) != len(starts):
        again = int(np.setdiff1d(np.arange(len(starts)), first)[0])
        raise InputError(
            f"{path} row {starts[again]}: episode {names[starts[again]]} goes on after another one; its rows must "
            "follow each other"
        )
    arrays = {name: _numpy(path, columns[name], chunk(name)) for name in columns if name != "episode"}
    ends = {
        name: np.logical_or.reduceat(arrays[name].astype(bool), starts)
        for name in ("terminated", "truncated", "success")
        if name in arrays
    }
    return _flat(path, arrays, np.diff(starts, append=len(names)), ends)


def _read_rows(path: str, columns: Mapping[str, Any]) -> Flat:
    """Episodes that are a row each, with lists of their steps."""
    arrays, starts, ends = {}, {}, {}
    for name, values in columns.items():
        if name in ("terminated", "truncated", "success"):
            flags = values.to_pylist()
            ends[name] = np.array([any(flag) if isinstance(flag, list) else bool(flag) for flag in flags])
            continue
        arrays[name] = _numpy(path, name, values.flatten())
        # Where several parts are named, the first decides, and Episode sees whether the others fit.
        starts.setdefault(name.partition(".")[0], _starts(values.value_lengths().to_numpy(zero_copy_only=False)))
    seen, done = (_all_from(path, arrays, name) for name in ("observations", "actions"))
    return Flat(seen, done, arrays["rewards"], starts, ends)


def _numpy(path: str, name: str, values: Any) -> np.ndarray:
    """A column as an array; lists in it, which must all be of one length, as further axes."""
    import pyarrow as pa

    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type) or pa.types.is_fixed_size_list(values.type):
        lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1 or values.null_count:
            raise InputError(
                f"{path}: column {name!r} has lists of {', '.join(map(str, lengths[:5]))} numbers; all must have the "
                "same number"
            )
        inner = _numpy(path, name, values.flatten())
        return inner.reshape(len(values), -1, *inner.shape[1:])
    array = values.to_numpy(zero_copy_only=False)
    return array.astype(np.str_) if array.dtype == object else array

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

from anyformer.errors import InputError, nearest
from anyformer.local_files import check_archive, check_unpacked, open_file
from anyformer.tokenizers.episode.environments import make
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Nested, take, transform
from anyformer.tokenizers.episode.step_order import INDICES, check_steps, find_index, sort_steps

ENDS = "terminated", "truncated", "success"
"""How an episode ended."""
FLAGS = "episode_lengths", *ENDS, "terminals", "timeouts"
"""Arrays of one axis."""
READ = "observations", "actions", "rewards", "next_observations", *FLAGS
"""The arrays of a file that are read, or what the names of their parts begin with; others may be anything."""


MOST_PACKED = 1100
"""Bytes that one byte of a compressed file may stand for: deflate comes to 1,032."""


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


def _same_starts(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Of observations, actions and rewards, of which each step has one."""
    return dict.fromkeys(("observations", "actions", "rewards"), _starts(lengths))


def _check(place: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise InputError for an array of a file that cannot be what its name says."""
    for name, values in arrays.items():
        whole = name.replace("/", ".").partition(".")[0]
        if whole not in READ:
            continue
        may_be_text = whole == "observations"
        if values.dtype.kind not in ("biufU" if may_be_text else "biuf"):
            got = "text" if values.dtype.kind == "U" else values.dtype.name
            raise InputError(f"{place}: {name} must be numbers{' or text' if may_be_text else ''}, got {got}")
        if not values.ndim:
            raise InputError(f"{place}: {name} must be an array whose first axis is the step, got a single value")
        if values.dtype.kind == "U" and values.ndim > 1:
            raise InputError(f"{place}: {name} must be one text a step, got {values.shape}")
        if name in FLAGS and values.size != len(values):
            raise InputError(f"{place}: {name} must have one axis, got {values.shape}")
        if name == "episode_lengths" and values.dtype.kind not in "iu":
            raise InputError(f"{place}: {name} must be whole numbers, got {values.dtype}")


def _flat(
    place: str, arrays: Mapping[str, np.ndarray], starts: dict[str, np.ndarray], ends: dict[str, np.ndarray]
) -> Flat:
    """Episodes that begin at `starts` of arrays that have been checked; see `Flat`."""
    seen, done = (_all_from(place, arrays, name) for name in ("observations", "actions"))
    if "rewards" not in arrays:
        raise _lacks(place, "rewards", arrays)
    lengths = np.diff(starts["rewards"])
    if not len(lengths):
        raise InputError(f"{place}: there is no episode")
    if (lengths < 1).any():
        raise InputError(f"{place} episode {int((lengths < 1).argmax())} has no step; leave it out")

    def count(name: str, values: Nested) -> None:
        def fail(array: np.ndarray) -> None:
            if len(array) != (total := starts[name][-1]):
                raise InputError(f"{place}: the episodes have {total} steps together, and {name} has {len(array)}")

        transform(fail, values)

    for name, values in (("observations", seen), ("actions", done), ("rewards", arrays["rewards"])):
        count(name, values)
    index = find_index(arrays)
    if index is not None and arrays[index].shape in ((total := starts["rewards"][-1],), (total, 1)):
        check_steps(place, index, arrays[index].reshape(-1), starts["rewards"])
    return Flat(seen, done, arrays["rewards"], starts, ends)


def read_npz(path: str) -> Flat:
    try:
        # Never with pickles, which can run anything.
        check_archive(path)
        with open_file(path) as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as npz: {' '.join(str(error).split())}") from None
    if "episode_lengths" not in arrays:
        raise _lacks(path, "episode_lengths", arrays)
    _check(path, arrays)
    lengths = arrays["episode_lengths"].astype(np.int64).reshape(-1)
    ends = {name: arrays[name].astype(bool).reshape(-1) for name in ENDS if name in arrays}
    if "terminated" in ends and "truncated" not in ends:
        ends["truncated"] = ~ends["terminated"]
    for name, values in ends.items():
        if len(values) != len(lengths):
            raise InputError(f"{path}: {len(lengths)} episode_lengths and {len(values)} of {name}")
    return _flat(path, arrays, _same_starts(lengths), ends)


def read_hdf5(path: str) -> Flat:
    # Each of these libraries is imported where a file of its format is read: together they take a fifth of a second.
    import h5py

    arrays: dict[str, np.ndarray] = {}
    try:
        with h5py.File(path, "r") as file:
            if "episode_0" in file:
                raise InputError(f"{path}: the data of a Minari set; give its folder, {Path(path).parent}")

            def visit(name: str, item: Any) -> None:
                wanted = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
                is_wanted = name.partition("/")[0] in wanted or (name in INDICES and getattr(item, "shape", ()))
                if isinstance(item, h5py.Dataset) and item.shape is not None and is_wanted:
                    held = item.id.get_storage_size()
                    check_unpacked(f"{path}: {name}", held, item.nbytes)
                    if item.nbytes > MOST_PACKED * max(held, 1):
                        raise InputError(
                            f"{path}: damaged: {name} is to have {item.nbytes:,} bytes of numbers, and the file holds "
                            f"{held:,} of it"
                        )
                    arrays[name] = item[()]

            file.visititems(visit)
    except InputError:
        raise
    # Of a damaged file the library raises whatever comes to it.
    except Exception as error:
        raise InputError(f"{path}: cannot be read as HDF5: {' '.join(str(error).split())}") from None
    if "terminals" not in arrays:
        raise _lacks(path, "terminals", arrays)
    _check(path, arrays)
    for name, values in arrays.items():
        if len(values) != len(arrays["terminals"]) and not name.startswith("next_") and name not in INDICES:
            raise InputError(f"{path}: {len(arrays['terminals'])} terminals and {len(values)} of {name}")
    terminals = arrays["terminals"].astype(bool).reshape(-1)
    if "timeouts" in arrays:
        timeouts = arrays["timeouts"].astype(bool).reshape(-1)
    else:
        # The first files of D4RL do not mark where an episode was cut off: there the next observation does not follow.
        timeouts = np.zeros_like(terminals)
        if (following := arrays.get("next_observations")) is not None:
            if (seen := arrays.get("observations")) is None:
                raise _lacks(path, "observations", arrays)
            if following.shape != seen.shape:
                raise InputError(f"{path}: observations are {seen.shape}, and next_observations are {following.shape}")
            timeouts[:-1] = (following[:-1] != seen[1:]).any(axis=tuple(range(1, seen.ndim)))
    stops = np.flatnonzero(terminals | timeouts) + 1
    total = stops[-1] if len(stops) else 0
    arrays = {name: values[:total] for name, values in arrays.items()}
    ends = {"terminated": terminals[stops - 1], "truncated": (timeouts & ~terminals)[stops - 1]}
    return _flat(path, arrays, _same_starts(np.diff(stops, prepend=0)), ends)


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
        values = table[columns.get(name, name)].combine_chunks()
        if values.null_count:
            raise InputError(f"{path}: column {columns.get(name, name)!r} has rows without a value")
        return values

    index = find_index(table.column_names)
    if _is_list(table.schema.field(columns["rewards"]).type):
        kind = None if index is None else table.schema.field(index).type
        if (
            kind is not None
            and _is_list(kind)
            and (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type))
        ):
            columns[index] = index
        return _read_rows(path, {name: (column, chunk(name)) for name, column in columns.items() if name != "episode"})
    if "episode" not in columns:
        raise _lacks(path, "episode", table.column_names)
    names = chunk("episode").to_numpy(zero_copy_only=False)
    if index is not None:
        order = sort_steps(path, index, chunk(index).to_numpy(zero_copy_only=False), names)
        if order is not None:
            table, names = table.take(order), names[order]
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]]))
    _, first = np.unique(names[starts], return_index=True)
    if len(first) != len(starts):
        again = int(np.setdiff1d(np.arange(len(starts)), first)[0])
        raise InputError(
            f"{path} row {starts[again]}: episode {names[starts[again]]} goes on after another one; its rows must "
            "follow each other, or have their numbers in a column 'frame_index'"
        )
    arrays = {name: _numpy(path, columns[name], chunk(name)) for name in columns if name != "episode"}
    _check(path, arrays)
    flags = {name: arrays[name].astype(bool).reshape(-1) for name in ENDS if name in arrays}
    ends = {name: np.logical_or.reduceat(values, starts) for name, values in flags.items()}
    return _flat(path, arrays, _same_starts(np.diff(starts, append=len(names))), ends)


def _read_rows(path: str, columns: Mapping[str, tuple[str, Any]]) -> Flat:
    """Episodes that are a row each, with lists of their steps. columns: how each is called, and its values."""
    arrays, starts, ends, first = {}, {}, {}, {}
    for name, (column, values) in columns.items():
        if name in ENDS:
            arrays[name] = _numpy(path, column, values.flatten() if _is_list(values.type) else values)
            ends[name] = np.array([bool(np.any(flags)) for flags in values.to_pylist()])
            continue
        if not _is_list(values.type):
            raise InputError(
                f"{path}: column {column!r} must have a list of steps in each row, as {columns['rewards'][0]!r} has"
            )
        arrays[name] = _numpy(path, column, values.flatten())
        begin = _starts(values.value_lengths().to_numpy(zero_copy_only=False))
        whole = "rewards" if name in INDICES else name.partition(".")[0]
        if (other := (begin != starts.setdefault(whole, begin))).any():
            row = int(other.argmax()) - 1
            n, m = (np.diff(each)[row] for each in (begin, starts[whole]))
            raise InputError(f"{path} row {row}: column {column!r} has {n} steps, and {first[whole]!r} has {m}")
        first.setdefault(whole, column)
    _check(path, arrays)
    return _flat(path, arrays, starts, ends)


def _is_list(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _numpy(path: str, column: str, values: Any) -> np.ndarray:
    """A column as an array; lists in it, which must all be of one length, as further axes."""
    import pyarrow.types as types

    if values.null_count:
        raise InputError(f"{path}: column {column!r} has lists in which a value is missing")
    if _is_list(values.type):
        lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) > 1:
            raise InputError(
                f"{path}: column {column!r} has lists of {', '.join(map(str, lengths[:5]))} numbers; all must have the "
                "same number"
            )
        inner = _numpy(path, column, values.flatten())
        return inner.reshape(len(values), lengths[0] if len(lengths) else 0, *inner.shape[1:])
    text = types.is_string(values.type) or types.is_large_string(values.type)
    if not (text or types.is_boolean(values.type) or types.is_integer(values.type) or types.is_floating(values.type)):
        raise InputError(f"{path}: column {column!r} must be numbers, text or lists of them, got {values.type}")
    array = values.to_numpy(zero_copy_only=False)
    return array.astype(np.str_) if text else array

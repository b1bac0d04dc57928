"""Parquet: what its types are spelt as, and what is refused."""

from __future__ import annotations

import datetime
import pickle
import resource
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest

from anyformer.data.rows.arrow_rows import ParquetRows, text_of
from anyformer.data.rows.csv_rows import CsvRows
from anyformer.errors import InputError
from anyformer.faults import MachineError, WriteError
from tests.helpers.small_run import in_a_fork


def column(path: Path, values: Any, kind: Any = None) -> list[Any]:
    pyarrow.parquet.write_table(pa.table({"x": pa.array(values, kind)}), path)
    rows = ParquetRows(str(path), [str(path)])
    read = [value for (value,) in rows.select(["x"], 0, len(rows))]
    assert read == [rows[i]["x"] for i in range(len(rows))]
    return read


UTC = datetime.UTC
NOON = datetime.datetime(2024, 1, 1, 12)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([b"cat", None, "né".encode(), b"\xff"], pa.binary(), ["cat", None, "né", b"\xff"]),
        ([b"cat", b"dog"], pa.binary(3), ["cat", "dog"]),
        ([[b"a"], None, [None]], pa.list_(pa.binary()), [["a"], None, [None]]),
        ([0.1, 1e30, None], pa.float32(), [0.1, 1e30, None]),
        ([1, None], pa.int8(), [1, None]),
        ([2**64 - 1], pa.uint64(), [2**64 - 1]),
        ([True, None], pa.bool_(), [True, None]),
        ([None, None], pa.null(), [None, None]),
        (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()), ["a", "b", "a"]),
        ([Decimal("1.50")], pa.decimal128(5, 2), ["1.50"]),
        ([datetime.time(9, 30)], pa.time64("us"), ["09:30:00"]),
        ([NOON.replace(tzinfo=UTC)], pa.timestamp("us", "UTC"), ["2024-01-01 12:00:00+00:00"]),
        ([{"day": NOON.date(), "n": 1}, None], None, [{"day": "2024-01-01", "n": 1}, None]),
        ([[("a", 1)]], pa.map_(pa.string(), pa.int64()), [{"a": 1}]),
        ([[[0, 1], [2, 3]]], pa.list_(pa.list_(pa.uint8())), [[[0, 1], [2, 3]]]),
        ([[0.5, 1]], pa.list_(pa.float32(), 2), [[0.5, 1]]),
    ],
)
def test_a_value_is_spelt_as_in_a_text_file(tmp_path: Path, values, kind, expected) -> None:
    read = column(tmp_path / "t.parquet", values, kind)
    assert read == expected
    assert list(map(type, read)) == list(map(type, expected))


@pytest.mark.parametrize(
    "times",
    [
        ["2024-01-01", "1969-12-31", None],
        ["2024-01-01", "2024-01-01 09:30"],
        ["2024-01-01 09:30:00.5", "1960-01-01 00:00:00.25"],
        ["2024-01-01 09:30:00.000001"],
        ["2024-01-01 09:30:00.000000001"],
    ],
)
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_are_spelt_as_pandas_spells_them_in_a_csv(tmp_path: Path, times: list[str], unit: str) -> None:
    frame = pandas.DataFrame(
        {"time": pandas.to_datetime(pandas.Series(times), format="mixed").astype(f"M8[{unit}]"), "x": 1}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    tables = ParquetRows("t", [str(tmp_path / "t.parquet")]), CsvRows(str(tmp_path / "t.csv"))
    assert [tables[0][i]["time"] for i in range(len(times))] == [tables[1][i]["time"] for i in range(len(times))]


def test_pictures_and_sounds_stay_bytes_even_where_they_could_be_text() -> None:
    silence = b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00" + bytes(60)
    assert silence.decode() and text_of(silence) == silence
    assert text_of(b"BMW") == "BMW" and text_of(b"\0") == "\0"


def test_only_the_columns_that_are_wanted_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"x": [1], "a.b": [2], "big": [b"x"]}), path)
    assert ParquetRows("t", [str(path)], ["a.b"])[0] == {"a.b": 2}
    with pytest.raises(InputError, match=r"t: no column 'bi'; there are x, a.b, big"):
        ParquetRows("t", [str(path)], ["bi"])


def test_another_process_opens_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"x": np.arange(5), "y": np.arange(5)}), path)
    again = pickle.loads(pickle.dumps(ParquetRows("t", [str(path)], ["x"])))
    assert again[3] == {"x": 3}


def test_parts_may_differ_in_the_width_of_their_numbers_and_not_in_kind(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i}.parquet") for i in range(2)]
    pyarrow.parquet.write_table(pa.table({"x": pa.array([1], pa.int32())}), files[0])
    pyarrow.parquet.write_table(pa.table({"x": [2.5]}), files[1])
    rows = ParquetRows("t", files)
    assert [rows[i] for i in range(2)] == [{"x": 1.0}, {"x": 2.5}]
    pyarrow.parquet.write_table(pa.table({"x": ["2"]}), files[1])
    with pytest.raises(InputError, match=r"^t: cannot be read as PARQUET: .*x"):
        ParquetRows("t", files)


def test_what_is_damaged_or_has_a_name_twice_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table([[1], [2]], ["x", "x"]), path)
    with pytest.raises(InputError, match=r"t.parquet: several columns are called 'x'"):
        ParquetRows("t", [str(path)])
    path.write_bytes(path.read_bytes()[:-9] + b"\xff" * 9)
    with pytest.raises(InputError, match=r"^t: cannot be read as PARQUET: ") as caught:
        ParquetRows("t", [str(path)])
    assert "\n" not in str(caught.value)
    text = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    )
    pyarrow.parquet.write_table(pa.table({"x": text}), path)
    with pytest.raises(InputError, match=r"t row 0: holds a text that is no UTF-8"):
        ParquetRows("t", [str(path)])[0]


def test_damage_and_a_full_disk_are_told_apart_where_a_file_is_unpacked(tmp_path: Path) -> None:
    """In a process of its own, that cannot write files of more than 4,000 bytes."""
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pa.table({"x": np.random.default_rng(0).normal(size=5000)}), path, compression="gzip")

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        with pytest.raises(WriteError, match=r"t.parquet, unpacked, cannot be written: .*; TMPDIR names the folder$"):
            ParquetRows(str(path), [str(path)])

    assert in_a_fork(fill) == 0
    content = bytearray(path.read_bytes())
    content[100:4000] = bytes(3900)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t.parquet: cannot be read as PARQUET: ") as caught:
        ParquetRows("t", [str(path)])
    assert not isinstance(caught.value, MachineError)

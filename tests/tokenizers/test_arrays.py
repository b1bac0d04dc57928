"""Arrays and columns of numbers come out of files whole, or one line says why not."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pandas
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers import arrays
from anyformer.tokenizers.arrays import array_shape, read_array, read_columns


def test_an_array_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", array)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.npy", "in/a.npy")
    for path in ("a.npy", "a.npz", "all.zip/in/a.npy"):
        assert np.array_equal(read_array(str(tmp_path / path)), array)
        assert array_shape(str(tmp_path / path)) == (2, 3)


def test_nothing_pickled_is_run_and_damage_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"objects.npy: must hold numbers, and holds object"):
        read_array(str(tmp_path / "objects.npy"))
    np.save(tmp_path / "long.npy", np.zeros(100))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "long.npy").read_bytes()[:-8])
    with pytest.raises(InputError, match=r"cut.npy: the file is cut off: its header says 800 bytes .* it has 792"):
        read_array(str(tmp_path / "cut.npy"))
    (tmp_path / "text.npy").write_text("no numbers")
    with pytest.raises(InputError, match=r"text.npy: no array that numpy can read"):
        array_shape(str(tmp_path / "text.npy"))
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    with pytest.raises(InputError, match=r"two.npz: must hold one array, and holds a, b"):
        read_array(str(tmp_path / "two.npz"))
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"no.npz: damaged or truncated"):
        read_array(str(tmp_path / "no.npz"))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3), }", r"its header says the shape \(-2, -3\)"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3", "no array that numpy can read"),
        ("(" * 5000, "no array that numpy can read"),
        ("(" * 20_000, "no array that numpy can read"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2**3), }", "no array that numpy can read"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (99, 99999999), }", "the file is cut off"),
    ],
)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, header: str, message: str, ending: str) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(96)
    path = tmp_path / f"bad.{ending}"
    if ending == "npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", content)
    else:
        path.write_bytes(content)
    for read in (read_array, array_shape):
        with pytest.raises(InputError, match=rf"bad.{ending}.*{message}") as refused:
            read(str(path))
        assert "\n" not in str(refused.value)


def test_a_packed_array_is_not_unpacked_before_its_header_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, n = tmp_path / "zeros.npz", 2**25
    words = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}"
    header = b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header + bytes(n))
    tracemalloc.start()
    assert array_shape(str(path)) == (3,) and read_array(str(path)).tolist() == [0, 0, 0]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < n / 8
    monkeypatch.setattr(arrays, "MAX_BYTES", 2)
    with pytest.raises(InputError, match=r"zeros.npz: a.npy: its header says 3 bytes .* more than 2; not unpacked"):
        read_array(str(path))


def test_columns_have_the_names_of_the_first_line_or_numbers(tmp_path: Path) -> None:
    (tmp_path / "named.csv").write_text("\ufefft, x\n0,1.5\n1,\n", encoding="utf-8")
    named = read_columns(str(tmp_path / "named.csv"))
    assert list(named) == ["t", "x"]
    assert np.array_equal(named["x"], [1.5, np.nan], equal_nan=True)
    (tmp_path / "plain.csv").write_text("0,1\n2,3\n")
    assert {name: part.tolist() for name, part in read_columns(str(tmp_path / "plain.csv")).items()} == {
        "0": [0, 2],
        "1": [1, 3],
    }


def test_the_index_that_pandas_writes_is_no_column(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"x": [5, 6], "y": [7.5, None]})
    frame.to_csv(tmp_path / "one.csv")
    frame.to_csv(tmp_path / "one.tsv", sep="\t")
    for name in ("one.csv", "one.tsv"):
        columns = read_columns(str(tmp_path / name))
        assert list(columns) == ["x", "y"]
        assert np.array_equal(columns["y"], [7.5, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.csv: the file is empty"),
        ("x,y\n1,2\n3\n", r"bad.csv line 3: 1 cells, and the first line has 2"),
        ("x,y\n1,2\n3,low\n", r"bad.csv line 3: must be numbers, got 'low'; leave a cell empty"),
        ("x,y, x\n1,2,3\n", r"bad.csv: several columns are called 'x'; give each a name of its own"),
        (",,t\n1,2,3\n", r"bad.csv: several columns are called ''"),
        (",t\n0,2\n2,3\n", r"bad.csv line 1: column 1 has no name; give it one"),
        ("t,\n0,\n1,\n", r"bad.csv line 1: column 2 has no name; give it one"),
        ('t,x\n0,1\n"2,3\n', r"bad.csv line 3: no CSV: unexpected end of data"),
        ("1,2\n3,low\n", r"bad.csv line 2: must be numbers, got 'low'"),
    ],
)
def test_a_file_of_columns_that_cannot_be_used_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_columns(str(tmp_path / "bad.csv"))

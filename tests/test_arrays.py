"""Arrays and columns of numbers come out of files whole, or one line says why not."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.arrays import array_shape, is_json, read_array, read_columns, read_json, to_numbers


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "bad.csv: the file is empty"),
        ("x,y\n1,2\n3\n", r"bad.csv line 3: 1 cells, and the first line has 2"),
        ("x,y\n1,2\n3,low\n", r"bad.csv line 3: must be numbers, got 'low'; leave a cell empty"),
        ("1,2\n3,low\n", r"bad.csv line 2: must be numbers, got 'low'"),
    ],
)
def test_a_file_of_columns_that_cannot_be_used_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_columns(str(tmp_path / "bad.csv"))


def test_a_text_may_spell_a_list_or_a_dict() -> None:
    assert [is_json(text) for text in (" [1]", '{"a": 1}', "a.npy", "", 3)] == [True, True, False, False, False]
    assert read_json("[[1, null], [2, 3]]") == [[1, None], [2, 3]]
    with pytest.raises(InputError, match=r"'\[1, x\]' stands in brackets as JSON does, and is none: "):
        read_json("[1, x]")


def test_lists_become_numbers_and_none_is_missing() -> None:
    assert np.array_equal(to_numbers([[1, None], [2, 3]], "a series"), [[1, np.nan], [2, 3]], equal_nan=True)
    with pytest.raises(
        InputError, match=r"a series must be numbers in lists of equal length, got '\[\[1\], \[2, 3\]\]'"
    ):
        to_numbers([[1], [2, 3]], "a series")
    with pytest.raises(InputError, match=r"a series must be numbers in lists of equal length, got"):
        to_numbers(["high"], "a series")
    with pytest.raises(InputError, match=r"must be finite, or NaN where a number is missing, got -inf"):
        to_numbers([1, -np.inf], "a series")

"""Aligned text files."""

from __future__ import annotations

import gzip
import os
import pickle
import zipfile
from pathlib import Path

import pytest

from anyformer.data.files import read_lines
from anyformer.data.splits import split
from anyformer.errors import InputError
from anyformer.tokenizers.text.aligned import Aligned

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


def two(folder: Path, en: bytes, de: bytes) -> Aligned:
    (folder / "t.en").write_bytes(en)
    (folder / "t.de.gz").write_bytes(gzip.compress(de))
    return Aligned({"en": str(folder / "t.en"), "de": str(folder / "t.de.gz")})


def test_line_i_of_one_file_goes_with_line_i_of_the_other(tmp_path):
    pairs = two(tmp_path, b"One dog.\nTwo cats.\n", "Ein Hund.\nZwei Kätzchen.".encode())
    assert list(map(pairs.__getitem__, range(len(pairs)))) == [
        {"en": "One dog.", "de": "Ein Hund."},
        {"en": "Two cats.", "de": "Zwei Kätzchen."},
    ]
    assert pairs.column("de") == ["Ein Hund.", "Zwei Kätzchen."]
    assert pairs.name(1) == f"{tmp_path}/t.en, {tmp_path}/t.de.gz line 2"
    with pytest.raises(IndexError):
        pairs[2]
    assert pickle.loads(pickle.dumps(pairs))[1] == pairs[1]


def test_a_line_ends_in_a_line_feed_and_nothing_else_ends_one(tmp_path):
    text = "a\u2028b\x0bc\x85d\re\r\n\r\n f \n"
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read_lines(str(tmp_path / "t"))) == ["a\u2028b\x0bc\x85d\re", "", " f "]
    (tmp_path / "t").write_bytes(b"")
    assert list(read_lines(str(tmp_path / "t"))) == []
    (tmp_path / "t").write_bytes(b"\n")
    assert list(read_lines(str(tmp_path / "t"))) == [""]


def test_an_empty_line_is_a_field_that_is_not_there(tmp_path):
    pairs = two(tmp_path, b"a\n\nc\n", b"x\ny\n\n")
    assert pairs[1] == {"en": None, "de": "y"}
    assert pairs.column("de") == ["x", "y", None]


def test_files_are_found_in_the_data_folder_and_read_in_a_zip(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("t.en", "a\nb\n")
    assert Aligned({"en": "t.zip/t.en"}).column("en") == ["a", "b"]


def test_files_of_different_lengths_are_named_with_their_lines(tmp_path):
    with pytest.raises(InputError, match=r"^\S+/t.en has 3 lines and \S+/t.de.gz has 2; aligned files have a line for"):
        len(two(tmp_path, b"a\nb\nc", b"x\ny\n"))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"t.en line 2: is no UTF-8 \(invalid start byte\); convert the file$"):
        len(two(tmp_path, b"a\n\xff\n", b"x\ny\n"))
    pairs = two(tmp_path, b"a\n", b"x\n")
    packed = (tmp_path / "t.de.gz").read_bytes()
    (tmp_path / "t.de.gz").write_bytes(packed[:-3])
    with pytest.raises(InputError, match=r"t.de.gz: damaged or truncated: "):
        len(pairs)
    with pytest.raises(InputError, match=r"t.en: the file is empty$"):
        len(two(tmp_path, b"", b""))
    with pytest.raises(InputError, match=r"absent.en: no such file; looked for absent.en and "):
        len(Aligned({"en": "absent.en"}))
    with pytest.raises(InputError, match=r"no column 'fr'; there are en, de$"):
        two(tmp_path, b"a", b"b").column("fr")
    with pytest.raises(InputError, match=r"files must name at least one file by its field"):
        Aligned({})


@pytest.mark.skipif(not (DATA / "multi30k").exists(), reason="needs the multi30k set")
def test_a_real_corpus_is_aligned_and_divided():
    pairs = Aligned({"en": "multi30k/train.en.gz", "de": "multi30k/train.de.gz"})
    assert len(pairs) == 29_000
    assert pairs[0]["en"] == "Two young, White males are outside near many bushes."
    assert pairs[0]["de"].startswith("Zwei junge weiße Männer")
    left, parts = split(pairs, {"validation": 0.1})
    assert (len(left), len(parts["validation"])) == (26_100, 2_900)


def test_other_files_are_given_by_their_fields_or_the_one_that_is_needed(tmp_path):
    pairs = two(tmp_path, b"One dog.\nTwo cats.\n", b"Ein Hund.\nZwei Katzen.\n")
    new = str(tmp_path / "t.en")
    assert pairs.at([new], ["en"]) == pairs.at([f"en={new}"], ["en"]) == Aligned({"en": new})
    assert pairs.at([f"de={new}", f"en={new}"], ["en"]) == Aligned({"de": new, "en": new})
    assert [pairs.id_of(i) for i in range(2)] == [1, 2] and pairs.id_name == "line"
    assert pairs.read_from() == list(pairs.files.values())
    with pytest.raises(InputError, match=r"fr=x: aligned files are given by their fields, as in en=FILE de=FILE"):
        pairs.at(["fr=x"], ["en"])
    with pytest.raises(InputError, match="the file of the field 'en' is missing; give en=FILE too"):
        pairs.at([f"de={new}"], ["en"])

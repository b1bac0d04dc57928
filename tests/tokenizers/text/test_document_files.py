"""Where the documents of a file begin and end, and files that cannot be read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.tokenizers.text import document_files
from anyformer.tokenizers.text.corpus import Corpus
from tests.helpers.documents import set_block, texts, write


def test_row_groups_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", [{"text": str(i)} for i in range(11)], row_group_size=3)
    read: list[int] = []
    inner = document_files._read_group.__wrapped__
    monkeypatch.setattr(document_files, "_read_group", lambda *a: read.append(a[2]) or inner(*a))
    assert Corpus(path)[7] == {"text": "7"} and read == [2]
    assert list(Corpus(path).texts()) == [str(i) for i in range(11)]


@pytest.mark.parametrize(
    ("split", "documents"),
    [
        (None, ["a b\r\n\r\nc\n \t\n\nd<|e|>e"]),
        ("line", ["a b", "c", " \t", "d<|e|>e"]),
        ("paragraph", ["a b", "c", "d<|e|>e"]),
        ("<|e|>", ["a b\r\n\r\nc\n \t\n\nd", "e"]),
    ],
)
def test_what_parts_documents(tmp_path: Path, split: str | None, documents: list[str]) -> None:
    for ending in ("txt", "txt.gz"):
        path = write(tmp_path / f"a.{ending}", documents_text := "a b\r\n\r\nc\n \t\n\nd<|e|>e")
        assert texts(Corpus(path, split=split)) == documents
    assert Corpus(path, split="line").name(1) == f"{path} from byte {documents_text.index('c')}"


@given(st.lists(st.sampled_from(["a", "bé", " ", "\n", "\r\n", "\t", "<>", "<"])).map("".join), st.integers(4, 9))
def test_documents_do_not_depend_on_the_size_of_blocks(
    tmp_path_factory: pytest.TempPathFactory, text: str, block: int
) -> None:
    path = write(tmp_path_factory.mktemp("corpus") / "a.txt", "x" + text + "x")
    found = []
    for size in (2**20, block):
        with pytest.MonkeyPatch.context() as patch:
            set_block(patch, size)
            found.append([texts(Corpus(path, split=split)) for split in (None, "line", "paragraph", "<>")])
    assert found[0] == found[1]
    assert found[0][0] == ["x" + text + "x"]
    assert found[0][1] == [line for line in ("x" + text + "x").replace("\r\n", "\n").split("\n") if line]
    assert found[0][3] == [part for part in ("x" + text + "x").split("<>") if part]


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    assert texts(Corpus(write(tmp_path / "a.txt", "\ufeffab\n"), split="line")) == ["ab"]
    assert texts(Corpus(write(tmp_path / "a.jsonl", '\ufeff{"text": "ab"}'))) == ["ab"]


def test_folders_globs_and_lists_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "d/b.txt", "B")
    write(tmp_path / "d/a/z.txt.gz", "Z")
    write(tmp_path / "d/c.jsonl", [{"text": "C"}, {"text": "D"}])
    write(tmp_path / "d/e.parquet", [{"text": "E"}])
    write(tmp_path / "d/empty.txt", "")
    write(tmp_path / "d/.hidden.txt", "H")
    write(tmp_path / "d/f.py", "F")
    every = Corpus(str(tmp_path / "d"))
    assert texts(every) == ["Z", "B", "C", "D", "E"]
    assert every.name(3) == str(tmp_path / "d/c.jsonl row 1")
    assert texts(Corpus(str(tmp_path / "d/**/*[yt]"))) == ["B", "E", "F"]
    assert texts(Corpus([str(tmp_path / "d/f.py"), str(tmp_path / "d/*.txt"), str(tmp_path / "d/f.py")])) == ["F", "B"]
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    assert texts(Corpus("d/*.txt")) == texts(Corpus("d/b.txt")) == ["B"]


@pytest.mark.parametrize("name", ["a.txt.gz", "b.txt.gz", "a.parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    data = gzip.compress(bytes(range(100)) * 9)[:-20] if name[0] == "a" else b"no gzip"
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: cannot be read: .*\S$") as caught:
        texts(Corpus(str(tmp_path / name)))
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        texts(Corpus(str(tmp_path / "none.txt")))
    with pytest.raises(InputError, match=r"\*.txt: no file matches"):
        texts(Corpus(str(tmp_path / "*.txt")))
    write(tmp_path / "d/a.md", "a")
    with pytest.raises(InputError, match=r"d: no file in this folder ends in .txt, .*; name others by a glob$"):
        texts(Corpus(str(tmp_path / "d")))

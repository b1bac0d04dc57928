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


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.TSV", "a.json.gz", "a.csv.gz"])
def test_a_table_is_no_plain_text(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "text\nab\n")
    for asked in (path, [path], str(tmp_path / "a.*")):
        with pytest.raises(
            InputError, match=rf"{name}: is no plain text.* class_path: Table, init_args: {{path: .*{name}"
        ):
            texts(Corpus(asked))


def test_lines_of_json_have_two_names(tmp_path: Path) -> None:
    for name in ("a.ndjson", "a.jsonl", "a.NDJSON.gz"):
        assert texts(Corpus(write(tmp_path / name, '{"text": "a"}\n{"text": "b"}'))) == ["a", "b"]


def test_what_a_folder_holds_besides_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.txt", "b.json", "c.json", "d.md", ".e.txt"):
        write(tmp_path / "d" / name, "text")
    write(tmp_path / "d" / "empty.txt", "")
    assert texts(Corpus(str(tmp_path / "d"))) == ["text"]
    place = tmp_path / "d"
    said = capsys.readouterr().err
    assert said == f"{place}: left out: .json (2), hidden (1), .md (1)\n{place}: left out: empty files (1)\n"
    assert texts(Corpus(str(tmp_path / "d/a.txt"))) == ["text"] and not capsys.readouterr().err


@pytest.mark.parametrize(
    ("train", "other"),
    [("train.txt", "val.txt"), ("train/a.txt", "test/a.txt"), ("train-00000-of-00002.jsonl", "validation-00.jsonl")],
)
def test_the_parts_of_a_data_set_are_not_read_as_one(tmp_path: Path, train: str, other: str) -> None:
    for name in (train, other):
        write(tmp_path / "d" / name, '{"text": "ab"}')
    with pytest.raises(
        InputError, match=rf"d: holds parts of a data set, as .*{train} and .*{other}; give each as the"
    ):
        texts(Corpus(str(tmp_path / "d")))
    assert len(texts(Corpus([str(tmp_path / "d" / name) for name in (train, other)]))) == 2


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named_and_never_replaced(tmp_path: Path, name: str, encoding: str) -> None:
    path = write(tmp_path / name, '{"text": "abcdefgh"}'.encode(encoding))
    for errors in ("strict", "replace"):
        with pytest.raises(InputError, match=rf"{name}: byte 0 begins a text in UTF-16, .* by iconv -f UTF-16"):
            texts(Corpus(path, errors=errors))


def test_latin_1_is_named_with_its_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "Gr\u00fc\u00dfe an alle".encode("latin-1"))
    with pytest.raises(InputError, match=r"a.txt: byte 2 is no UTF-8 .*; convert the file, or give errors: replace"):
        texts(Corpus(path))


@pytest.mark.parametrize("name", ["a.txt.gz", "b.txt.gz", "a.parquet"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    data = gzip.compress(bytes(range(100)) * 9)[:-20] if name[0] == "a" else b"no gzip"
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: (cannot be read|damaged or truncated): .*\S$") as caught:
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

"""Corpora: text files, JSON lines and Parquet, folders and globs of them, and the text that comes with Python."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.tokenizers.text.corpus import Corpus, PythonDocs
from tests.helpers.documents import set_block, texts, write

ROWS = [{"text": text, "n": i} for i, text in enumerate(["one", "zwei\n", "", "trois é"])]


# Files


@pytest.mark.parametrize("ending", ["txt", "txt.gz", "md"])
def test_a_plain_text_is_one_document(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"a.{ending}", "\n\nhé\r\n\0\n")
    assert texts(Corpus(path)) == ["\n\nhé\r\n\0\n"] and Corpus(path).name(0) == path


def test_whole_files_are_told_apart_by_their_names_and_parts_by_numbers(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, "one\ntwo") for name in ("a.txt", "b.txt")]
    whole, lines = Corpus(tuple(paths)), Corpus(tuple(paths), split="line")
    assert (whole.id_name, [whole.id_of(i) for i in range(2)]) == ("file", paths)
    assert (lines.id_name, lines.id_of(3)) == ("row", 3)
    rows = Corpus(write(tmp_path / "a.jsonl", ROWS))
    assert (rows.id_name, rows.id_of(2)) == ("row", 2)
    docs = PythonDocs()
    assert docs.id_name == "topic" and docs.id_of(0) in docs.name(0)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_a_row_is_a_document(tmp_path: Path, ending: str) -> None:
    corpus = Corpus(write(tmp_path / f"a.{ending}", ROWS))
    assert texts(corpus) == [row["text"] for row in ROWS] and corpus.name(3) == f"{corpus.path} row 3"
    with pytest.raises(IndexError):
        corpus[4]
    assert corpus[-1] == {"text": "trois é"}


def test_another_column_and_missing_values(tmp_path: Path) -> None:
    for ending in ("jsonl", "parquet"):
        path = write(tmp_path / f"a.{ending}", [{"body": "x"}, {"body": None}])
        assert texts(Corpus(path, column="body")) == ["x", ""]


def test_a_long_document_comes_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_block(monkeypatch, 10)
    corpus = Corpus(write(tmp_path / "a.txt", "é€😀" * 50))
    assert texts(corpus) == ["é€😀" * 50]
    assert max(len(text.encode()) for text in corpus.texts()) <= 10 + 3


def test_a_corpus_travels_to_a_worker(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path / "a.txt.gz", "a\nb\nc"), split="line")
    assert texts(corpus) == ["a", "b", "c"]
    again = pickle.loads(pickle.dumps(corpus))
    assert again == corpus and [again[i]["text"] for i in (2, 0, 1)] == ["c", "a", "b"]


def test_the_fingerprint_changes_with_the_files_and_the_options(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "abc")
    seen = {Corpus(path).fingerprint()}
    assert Corpus(path).fingerprint() in seen
    for other in (Corpus(path, split="line"), Corpus(path, part=(0, 0.5)), Corpus(path, errors="replace")):
        assert other.fingerprint() not in seen
        seen.add(other.fingerprint())
    stat = os.stat(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert Corpus(path).fingerprint() not in seen


# Parts


@given(st.text(min_size=1).filter(lambda text: text[0] != "\ufeff"), st.floats(0.01, 0.99))
def test_two_parts_of_a_text_are_the_whole(tmp_path_factory: pytest.TempPathFactory, text: str, share: float) -> None:
    path = write(tmp_path_factory.mktemp("corpus") / "a.txt", text)
    found = []
    for part in ((0, share), (share, 1)):
        try:
            found += texts(Corpus(path, part=part))
        except InputError as error:
            assert "holds no character" in str(error)
    assert "".join(found) == text


def test_a_single_text_is_cut_at_its_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "0123456789")
    assert texts(Corpus(path, part=(0, 0.9))) == ["012345678"] and texts(Corpus(path, part=(0.9, 1))) == ["9"]
    path = write(tmp_path / "a.txt", "ab€cd")
    assert texts(Corpus(path, part=(0, 0.5))) == ["ab€"] and texts(Corpus(path, part=(0.5, 1))) == ["cd"]


@pytest.mark.parametrize("ending", ["txt", "jsonl", "parquet"])
def test_documents_belong_to_the_part_that_their_middle_lies_in(tmp_path: Path, ending: str) -> None:
    documents = [f"{i:03}" for i in range(20)]
    rows = "\n".join(documents) if ending == "txt" else [{"text": text} for text in documents]
    path, split = write(tmp_path / f"a.{ending}", rows), "line"
    assert texts(Corpus(path, split=split, part=(0, 0.9))) == documents[:18]
    assert texts(Corpus(path, split=split, part=(0.9, 1))) == documents[18:]
    assert Corpus(path, split=split, part=(0.9, 1)).name(0) == Corpus(path, split=split).name(18)


def test_long_documents_weigh_more(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a\nb\n" + "c" * 10)
    assert texts(Corpus(path, split="line", part=(0, 0.4))) == ["a", "b"]
    assert texts(Corpus(path, split="line", part=(0.4, 1))) == ["c" * 10]


def test_the_docs_of_python_need_no_file() -> None:
    from pydoc_data.topics import topics

    every = texts(PythonDocs())
    assert every == [topics[name] for name in sorted(topics)] and PythonDocs().name(0) == "pydoc topic 'assert'"
    train, last = PythonDocs((0, 0.9)), PythonDocs((0.9, 1))
    assert texts(train) + texts(last) == every
    assert 0.05 < sum(map(len, texts(last))) / sum(map(len, every)) < 0.2
    assert len({PythonDocs().fingerprint(), train.fingerprint(), last.fingerprint()}) == 3


# Errors


@pytest.mark.parametrize(("ending", "split"), [("txt", None), ("txt.gz", "line"), ("jsonl", None)])
def test_bytes_that_are_no_utf_8_are_named_or_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, split: str | None
) -> None:
    set_block(monkeypatch, 16)
    row = b'{"text": "%s"}' if ending == "jsonl" else b"%s"
    data = row % b"0123456789\xc3\xa9" + b"\n" + row % b"012345678\xe2\x82"
    path = write(tmp_path / f"a.{ending}", data)
    with pytest.raises(InputError, match=rf"a.{ending}: byte {data.index(0xE2)} is no UTF-8 \(.*\); convert the file"):
        texts(Corpus(path, split=split))
    assert "".join(texts(Corpus(path, split=split, errors="replace"))).endswith("012345678\ufffd")


def test_a_parquet_string_that_is_no_utf_8_names_its_row(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")]
    )
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet row 1 is no UTF-8"):
        texts(Corpus(str(tmp_path / "a.parquet")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", r"a.txt: there is no text in it$"),
        ("a.jsonl", "\n\n", r"a.jsonl: there is no text in it$"),
        ("a.jsonl", '{"text": 1}', r"a.jsonl row 0: column 'text' must hold text, got int$"),
        ("a.jsonl", '{"text": "a"}\n\n[1]', r"a.jsonl row 1 must be a JSON object, got list$"),
        ("a.jsonl", '{"texts": "a"}', r"a.jsonl row 0: no column 'text'; there are texts; did you mean 'texts'\?$"),
        ("a.jsonl", "{", r"a.jsonl row 0 is no JSON: "),
        ("a.jsonl", '{"text": "a"}\n{"text": ' + "[" * 100_000, r"a.jsonl row 1 is nested too deeply$"),
        ("a.jsonl.gz", '{"text": "a", "n": {"b": 1, "b": 2}}', r"a.jsonl.gz row 0 has 'b' twice; give each value a "),
        ("a.parquet", [{"texts": "a"}], r"a.parquet: no column 'text'; there are texts; did you mean 'texts'\?$"),
        ("a.parquet", [{"text": 1}], r"a.parquet row 0: column 'text' must hold text, got int$"),
        ("a.parquet", [], r"a.parquet: no column 'text'; there are $"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        texts(Corpus(write(tmp_path / name, content)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ()}, "path must name at least one file"),
        ({"split": ""}, "split must be line, paragraph or the characters between documents; it is empty"),
        ({"part": (0.5, 0.5)}, r"part must be two shares of the whole, as in \[0, 0.9\], got \[0.5, 0.5\]"),
        ({"part": (0.0, 1.1)}, "part must be two shares"),
        ({"part": (0.5,)}, r"Corpus.part must be \(float, float\), got \(0.5,\)"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Corpus(**({"path": "a.txt"} | options))


def test_a_part_without_a_document_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "ab\ncd\nef")
    with pytest.raises(InputError, match=r"a.txt: part \[0.9, 1\] holds none of the 3 documents; take a larger one"):
        texts(Corpus(path, split="line", part=(0.9, 1)))
    with pytest.raises(InputError, match=r"a.txt: part \[0.9, 0.95\] of its 8 bytes holds no character$"):
        texts(Corpus(path, part=(0.9, 0.95)))


def test_a_text_is_hashed_whatever_holds_it_and_however_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Corpus(write(tmp_path / "a.txt", "é€\nb"), split="line")
    same = [
        Corpus(write(tmp_path / "b.txt.gz", "é€\nb"), split="line"),
        Corpus(write(tmp_path / "c.jsonl", [{"text": "é€"}, {"text": "b"}])),
    ]
    assert {corpus.sha256() for corpus in same} == {whole.sha256()}
    other = Corpus(write(tmp_path / "d.txt", "é€\nc"), split="line")
    joined = Corpus(write(tmp_path / "e.jsonl", [{"text": "é€b"}]))
    assert len({whole.sha256(), other.sha256(), joined.sha256()}) == 3
    set_block(monkeypatch, 2)
    assert Corpus(whole.path, split="line").sha256() == whole.sha256()


def test_shares_of_a_part_lie_within_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "".join(f"line {i:02}\n" for i in range(40)))
    whole = Corpus(path, split="line", part=(0.25, 0.75))
    left, parts = whole.divide({"test": 0.2, "validation": 0.3})
    texts = ["".join(part.texts()) for part in (left, parts["validation"], parts["test"])]
    assert [text[:7] for text in texts] == ["line 10", "line 20", "line 26"]
    assert "".join(texts) == "".join(whole.texts())


def test_a_single_text_elsewhere_is_read_by_lines_where_nothing_else_parts_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be\n\nor not\n")
    (tmp_path / "b.jsonl").write_text('{"text": "to be\\nor not"}\n')
    (tmp_path / "c.csv").write_text("text\nto be\n")
    before = Corpus("play.txt", part=(0.0, 0.5))
    assert texts(before.at([str(tmp_path / "a.txt")], ["text"])) == ["to be", "or not"]
    assert texts(before.at([str(tmp_path / "b.jsonl")], ["text"])) == ["to be\nor not"]
    several = before.at([str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")], ["text"])
    assert len(several) == 2 and several.read_from() == [str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")]
    assert Corpus("play.txt", split="paragraph").at([str(tmp_path / "a.txt")], ["text"]).split == "paragraph"
    assert before.at([str(tmp_path / "c.csv")], ["text"]) is None

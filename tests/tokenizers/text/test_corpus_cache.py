"""What is made of a corpus is made once, whole or not at all."""

from __future__ import annotations

import gzip
import os
import resource
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.faults import WriteError
from anyformer.tokenizers.text.corpus import Corpus, PythonDocs
from anyformer.tokenizers.text.corpus_cache import learn_once, numbers_with_text
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.token_stream import TokenStream, token_stream
from tests.helpers.damage import cut, flip
from tests.helpers.documents import refuse, stream, write
from tests.helpers.small_run import in_a_fork
from tests.helpers.vocabularies import BYTES


def test_the_same_text_and_tokenizer_find_the_stream_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one two")
    first = stream(Corpus(path), BYTES, tmp_path / "cache")
    again = stream(Corpus(path), BYTES, tmp_path / "cache", refuse)
    assert again == first and again.ids.tolist() == first.ids.tolist()
    other = Text("characters").fit(["one tw"])
    assert stream(Corpus(path), other, tmp_path / "cache") != first
    write(tmp_path / "a.txt", "one twos")
    assert stream(Corpus(path), BYTES, tmp_path / "cache").ids.tolist()[-2] == ord("s")
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_documents_without_a_character_are_counted_and_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": text} for text in ("", "a", None, "", "b", "")])
    for source in (Corpus(path), Table(path)):
        assert numbers_with_text(source, "text") == [1, 4]


def test_the_same_characters_with_other_document_ends_are_another_stream(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    tables = [Table(write(tmp_path / f"{i}.jsonl", [{"text": t} for t in texts])) for i, texts in enumerate(ENDS)]
    found = [stream(table, BYTES, cache) for table in tables]
    expected = [[i for text in texts for i in (*text.encode(), BYTES.eos_id)] for texts in ENDS]
    assert [each.ids.tolist() for each in found] == expected
    path = write(tmp_path / "a.txt", "ab c\nd\n\nabc")
    found = [stream(Corpus(path, split=split), BYTES, cache) for split in ("none", "line", "paragraph")]
    assert [len(each.ends) for each in found] == [1, 3, 2]
    parts = [stream(Corpus(path, split="line", part=part), BYTES, cache) for part in ((0, 0.5), (0.5, 1))]
    assert parts[0].ids.tolist() + parts[1].ids.tolist() == found[1].ids.tolist()


ENDS = (["abc"], ["ab", "c"], ["a", "bc"], ["a", "b", "c"])


def test_ids_are_kept_apart_by_the_end_of_text_and_by_how_many_there_are(tmp_path: Path) -> None:
    """One key may stand for tokenizers that differ in these alone."""
    corpus = Corpus(write(tmp_path / "a.txt", "ab"))

    def ids(n_ids: int, eos_id: int) -> np.ndarray:
        options = {"key": "bytes", "n_ids": n_ids, "eos_id": eos_id, "cache": str(tmp_path / "cache")}
        return token_stream(corpus, BYTES.encode_batch, **options).ids

    assert ids(258, 256).tolist() == [97, 98, 256] and ids(258, 257).tolist() == [97, 98, 257]
    assert (ids(2**16, 256).dtype, ids(2**16 + 1, 256).dtype) == (np.uint16, np.uint32)
    assert ids(2**16, 2**16 - 1).tolist() == [97, 98, 2**16 - 1] and ids(2**16 + 1, 2**16).tolist() == [97, 98, 2**16]


def test_the_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(write(tmp_path / "a.txt", "ab"))
    options = {"key": "", "n_ids": 258, "eos_id": 256}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert Path(token_stream(corpus, BYTES.encode_batch, **options).path).parent == tmp_path / "x" / "anyformer"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "h"))
    found = Path(token_stream(corpus, BYTES.encode_batch, **options).path)
    assert found.parent == tmp_path / "h" / ".cache" / "anyformer"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(texts: Sequence[str]) -> list[np.ndarray]:
        raise InputError("no more")

    corpus = Corpus(write(tmp_path / "a.txt", "ab"))
    with pytest.raises(InputError, match=r"^no more$"):
        stream(corpus, BYTES, tmp_path / "cache", fail)
    assert not list((tmp_path / "cache").iterdir())
    assert stream(corpus, BYTES, tmp_path / "cache").ids.tolist() == [97, 98, 256]


def test_two_at_once_do_not_break_each_other(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path / "a.txt", "ab"))
    meet = threading.Barrier(2)

    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        meet.wait(10)
        return BYTES.encode_batch(texts)

    found: list[TokenStream] = []
    both = [
        threading.Thread(target=lambda: found.append(stream(corpus, BYTES, tmp_path / "cache", encode)))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [one.ids.tolist() for one in found] == [[97, 98, 256]] * 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_what_the_killed_left_is_swept_after_a_day(tmp_path: Path) -> None:
    old, long, new = (tmp_path / f"{name}.part" for name in "abc")
    for part in (old, long, new):
        part.mkdir()
        (part / "ids.bin").touch()
    # Of the second the last write is hours ago; into the third something has just been written.
    for hours, path in ((25, old), (25, old / "ids.bin"), (23, long), (23, long / "ids.bin"), (25, new)):
        then = time.time() - hours * 3600
        os.utime(path, (then, then))
    stream(Corpus(write(tmp_path / "a.txt", "ab")), BYTES, tmp_path)
    assert not old.exists() and long.exists() and new.exists()


def test_a_vocabulary_is_learnt_once(tmp_path: Path) -> None:
    text, docs = Text(vocab_size=300), PythonDocs((0.9, 1))

    def learn(texts: Any) -> str:
        return text.fit(texts).vocabulary

    first = learn_once(docs, text.key, learn, str(tmp_path))
    assert first == text.fit(docs.texts()).vocabulary
    assert learn_once(docs, text.key, refuse, str(tmp_path)) == first
    other = learn_once(docs, "characters", lambda texts: Text("characters").fit(texts).vocabulary, str(tmp_path))
    assert other == "".join(sorted(set("".join(docs.texts()))))


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path / "a.txt", "ab"))
    with pytest.raises(
        WriteError, match=r"a.txt/x/what is made of the corpus cannot be written: Not a directory; .*XDG_CACHE_HOME"
    ):
        stream(corpus, BYTES, tmp_path / "a.txt" / "x")


@pytest.mark.parametrize("of", ["the cache", "what is unpacked"])
def test_a_full_disk_is_the_machines_and_leaves_nothing(tmp_path: Path, of: str) -> None:
    """In a process of its own, that cannot write files of more than 400 bytes."""
    cache, table = tmp_path / "cache", tmp_path / "t.csv.gz"
    table.write_bytes(gzip.compress(b"text\n" + b"ab cd\n" * 500))
    source = Table(str(table))
    assert len(source) == 500 if of == "the cache" else True
    name = {"the cache": "what is made of the corpus", "what is unpacked": "t.csv.gz, unpacked,"}[of]

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))
        with pytest.raises(WriteError, match=rf"{name} cannot be written: File too large; .*make room"):
            stream(source, BYTES, cache)
        assert not list(cache.glob("*"))

    assert in_a_fork(fill) == 0


HARMS = {
    "flipped": flip,
    "cut": cut,
    "emptied": lambda path: path.write_bytes(b""),
    "lost": os.unlink,
    "replaced by a folder": lambda path: (path.unlink(), path.mkdir()),
    "replaced by a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["ids.bin", "ends.npy", "stream.json", "manifest.jsonl", "vocabulary"])
def test_a_damaged_cache_is_made_anew_with_a_line(
    tmp_path: Path, name: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, corpus = tmp_path / "cache", Corpus(write(tmp_path / "a.txt", "to be or not to be"))

    def use() -> tuple[list[int], list[int], int, str]:
        learn = lambda texts: Text("characters").fit(texts).vocabulary  # noqa: E731
        made = stream(corpus, BYTES, cache)
        return made.ids.tolist(), made.ends.tolist(), made.n_bytes, learn_once(corpus, "k", learn, str(cache))

    before = use()
    assert not capsys.readouterr().err
    for path in cache.glob(f"*/{name}"):
        HARMS[harm](path)
    assert use() == before
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(list(cache.glob(f"*/{name}")))
    assert all("the cache is damaged (" in line and line.endswith("it is made anew") for line in said)
    assert use() == before and not capsys.readouterr().err
    assert not list(cache.glob("*.part"))


def test_a_file_of_the_cache_that_no_line_lists_is_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = Corpus(write(tmp_path / "a.txt", "ab"))
    manifest = Path(stream(corpus, BYTES, tmp_path / "cache").path) / "manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(True)[1:]))
    assert stream(corpus, BYTES, tmp_path / "cache").ids.tolist() == [97, 98, 256]
    assert "(a file is not listed)" in capsys.readouterr().err


def test_what_does_not_stay_as_it_was_just_written_is_refused(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path / "a.txt", "ab"))
    for _ in range(2):
        flip(Path(stream(corpus, BYTES, tmp_path / "cache").path) / "ids.bin")
    with pytest.raises(InputError, match=r"damaged again after it was made anew .*; set XDG_CACHE_HOME to a folder"):
        stream(corpus, BYTES, tmp_path / "cache")


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("kind", ["a.txt", "a.csv"])
def test_the_same_size_and_time_with_other_text_is_another_entry(tmp_path: Path, kind: str, replaces: bool) -> None:
    path = tmp_path / kind

    def source() -> Any:
        return Table(str(path)) if path.suffix == ".csv" else Corpus(str(path))

    path.write_text("text\nab\n")
    times = os.stat(path)
    first = stream(source(), BYTES, tmp_path / "cache")
    other = tmp_path / f"other{path.suffix}"
    (other if replaces else path).write_text("text\nba\n")
    os.utime(other if replaces else path, ns=(times.st_atime_ns, times.st_mtime_ns))
    if replaces:
        os.replace(other, path)
    assert stream(source(), BYTES, tmp_path / "cache") != first


def test_a_table_in_the_cache_is_found_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("text\nab\n")
    first = stream(Table(str(tmp_path / "a.csv")), BYTES, tmp_path / "cache")
    monkeypatch.setattr(Table, "__getitem__", refuse)
    monkeypatch.setattr(Table, "__len__", refuse)
    assert stream(Table(str(tmp_path / "a.csv")), BYTES, tmp_path / "cache", refuse) == first

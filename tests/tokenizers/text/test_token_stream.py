"""The stream of ids: the ids of the whole however it is cut, made once, whole or absent."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Package

from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.tokenizers.text import token_stream as streams
from anyformer.tokenizers.text.corpus import Corpus, PythonDocs
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.token_stream import token_stream
from tests.helpers.documents import refuse, set_block, stream, write
from tests.helpers.vocabularies import BYTES
from tests.helpers.witnesses import Numbers

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything happens at the size of a test."""
    set_block(monkeypatch, 100)
    for name, size in {"PIECE": 64, "BATCH": 200, "LONGEST": 1000, "CONTEXT": 16}.items():
        monkeypatch.setattr(streams, name, size)


# The ids of the whole


def wordpiece() -> Text:
    words = ["[UNK]", "[SEP]", "th", "##e", "qu", "##ick", "brown", "fox", "##es", "'", ",", ".", "s", "don", "t", "n"]
    package = Package(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    package.normalizer, package.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return Text(vocabulary=package.to_str())


def digits_and_line_ends() -> Text:
    """A BPE that parts words by its own pattern, with line ends going with the signs before them."""
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    package = Package(models.BPE())
    package.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    package.train_from_iterator([(word + gap) * 9 for word in WORDS for gap in GAPS], trainer)
    package.add_special_tokens(["<eos>"])
    return Text(vocabulary=package.to_str())


WORDS = [
    "the",
    "quick",
    "fox",
    "don't",
    "we'll",
    "x1y2",
    "über",
    "cafe\u0301",
    "ΟΔΟΣ",
    "中文",
    "😀",
    "...",
    "-_-",
    "\u0301a",
]
GAPS = [" ", "  ", "   ", "\n", "\n\n", " \n ", "\r\n", ", ", "\t", "\x85", "\xa0", "\x1c", "'s ", " <eos> ", ".\n"]
TRAINED = [
    Text(vocab_size=400, normalize=kind).fit([(word + gap) * 9 for word in WORDS for gap in GAPS])
    for kind in ("none", "nfc", "nfkc", "lowercase")
]


@pytest.mark.parametrize(
    "text",
    [*TRAINED, digits_and_line_ends(), wordpiece(), BYTES],
    ids=["bpe", "nfc", "nfkc", "lowercase", "own pattern", "wordpiece", "bytes"],
)
@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), min_size=50, max_size=80), st.data())
def test_a_text_cut_into_pieces_has_the_ids_of_the_whole(text: Text, parts: Any, data: Any) -> None:
    whole = "".join(word + gap for word, gap in parts)
    bounds = [0, *sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3))), len(whole)]
    blocks = [(whole[a:b], b == len(whole)) for a, b in pairwise(bounds)]
    blocks = [block for i, block in enumerate(blocks) if not any(is_end for _, is_end in blocks[:i])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "PIECE", 64)
        pieces = list(streams._pieces(blocks, text.encode_batch))
    assert "".join(piece for piece, _ in pieces) == whole
    assert len(pieces) > 1 and [is_end for _, is_end in pieces] == [False] * (len(pieces) - 1) + [True]
    cut = np.concatenate(text.encode_batch([piece for piece, _ in pieces]))
    assert cut.tolist() == text.encode_batch([whole])[0].tolist()


def test_a_cut_that_would_change_the_ids_is_not_made(tmp_path: Path, small: None) -> None:
    text, lines = digits_and_line_ends(), "fox...\n" * 100
    found = stream(Corpus(write(tmp_path / "a.txt", lines)), text, tmp_path)
    assert found.ids[:-1].tolist() == text.encode_batch([lines])[0].tolist()


@pytest.mark.parametrize("kind", ["bpe", "bytes", "characters"])
def test_a_stream_is_each_document_and_its_end(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = PythonDocs((0.7, 1))
    text = Text(kind, vocab_size=600).fit(docs.texts())
    monkeypatch.setattr(streams, "PIECE", 200)
    found = stream(docs, text, tmp_path)
    alone = [np.append(ids, text.eos_id) for ids in text.encode_batch(list(docs.texts()))]
    assert (found.ids == np.concatenate(alone)).all() and len(found) == len(found.ids)
    assert found.ends.tolist() == np.cumsum([len(ids) for ids in alone]).tolist()
    assert found.n_bytes == sum(len(doc.encode()) for doc in docs.texts())
    assert found.ids.dtype == np.uint16 and isinstance(found.ids, np.memmap)


@pytest.mark.skipif(not (DATA / "tiny_shakespeare").exists(), reason="needs tiny_shakespeare in ANYFORMER_DATA")
def test_a_real_text_cut_into_pieces_has_the_ids_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(str(DATA / "tiny_shakespeare" / "val.txt"))
    text = Text(vocab_size=1000).fit(corpus.texts())
    monkeypatch.setattr(streams, "PIECE", 500)
    set_block(monkeypatch, 30_011)
    found = stream(corpus, text, tmp_path)
    assert found.ids[:-1].tolist() == text.encode_batch([corpus[0]["text"]])[0].tolist()


def test_many_ids_take_four_bytes(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path / "a.txt", "ab"))
    found = token_stream(
        corpus, lambda texts: [np.array([70_000])] * len(texts), key="", n_ids=70_001, eos_id=5, cache=str(tmp_path)
    )
    assert found.ids.dtype == np.uint32 and found.ids.tolist() == [70_000, 5]


def test_a_text_without_a_space_or_an_end_is_cut_anyway(tmp_path: Path, small: None) -> None:
    dna = "".join("ACGT"[i] for i in np.random.default_rng(0).integers(0, 4, 5000))
    found = stream(Corpus(write(tmp_path / "a.txt", dna)), BYTES, tmp_path)
    assert BYTES.decode(found.ids[:-1]) == dna
    text = Text(vocab_size=300).fit([dna[:300]])
    longest = 0

    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        nonlocal longest
        longest = max(longest, *map(len, texts))
        return text.encode_batch(texts)

    found = stream(Corpus(str(tmp_path / "a.txt")), text, tmp_path, encode)
    assert text.decode(found.ids) == dna and longest <= 200


def test_a_tokenizer_that_needs_the_whole_text_says_so(tmp_path: Path, small: None) -> None:
    def count(texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([len(text)]) for text in texts]

    short = write(tmp_path / "a.txt", "one two " * 100)
    assert stream(Corpus(short), BYTES, tmp_path, count).ids.tolist() == [800, 256]
    with pytest.raises(InputError, match=r"^a document holds 1,000 characters that this tokenizer cannot encode part"):
        stream(Corpus(write(tmp_path / "b.txt", "one two " * 1000)), BYTES, tmp_path, count)


def test_no_more_than_a_few_pieces_are_held_at_a_time(tmp_path: Path, small: None) -> None:
    """Of a text of 100,000 characters."""
    begun, longest, done = 0, 0, 0
    lock = threading.Lock()

    def encode(texts: Sequence[str]) -> list[np.ndarray]:
        nonlocal longest, done
        if len(texts) > 1:
            with lock:
                longest = max(longest, sum(map(len, texts)))
                done += sum(map(len, texts))
        return BYTES.encode_batch(texts)

    corpus = Corpus(write(tmp_path / "a.txt", "many words " * 9091))
    blocks = type(corpus).blocks

    def watch(self: Corpus, *args: int) -> Any:
        nonlocal begun
        for text, is_end in blocks(self, *args):
            begun += len(text)
            # Three batches wait or are at work, and one is being filled, from a block.
            assert begun - done < 4 * 400 + 300
            yield text, is_end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Corpus, "blocks", watch)
        assert len(stream(corpus, BYTES, tmp_path, encode)) == 11 * 9091 + 1
    assert longest < 400


def test_empty_documents_leave_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": ""}\n{"text": null}\n{"text": "b"}')
    found = stream(Corpus(path), BYTES, tmp_path)
    assert found.ids.tolist() == [97, 256, 98, 256] and found.ends.tolist() == [2, 4] and found.n_bytes == 2


def test_a_lone_surrogate_counts_as_what_it_becomes(tmp_path: Path) -> None:
    found = stream(Corpus(write(tmp_path / "a.jsonl", '{"text": "\\ud800"}')), BYTES, tmp_path)
    assert found.ids.tolist() == [0xEF, 0xBF, 0xBD, 256] and found.n_bytes == 3


def test_any_source_of_texts_will_do(tmp_path: Path) -> None:
    table = Table(write(tmp_path / "a.csv", "text,label\nhé,1\nb,2\n"))
    assert stream(table, BYTES, tmp_path).ids.tolist() == [104, 0xC3, 0xA9, 256, 98, 256]
    assert stream(table, BYTES, tmp_path, refuse).n_bytes == 4
    write(tmp_path / "a.csv", "text,label\nhé,1\nc,2\n")
    assert stream(replace(table), BYTES, tmp_path).ids[-2] == 99
    with pytest.raises(InputError, match=r"^numbers row 0: text must be a string, got int$"):
        stream(Renamed(3), BYTES, tmp_path)


class Renamed(Numbers):
    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"text": i}


# Windows


def test_a_window_is_the_ids_from_a_place_on(tmp_path: Path) -> None:
    found = stream(Corpus(write(tmp_path / "a.txt", "abcde")), BYTES, tmp_path)
    assert found.window(1, 3).tolist() == [98, 99, 100] and found.window(0, 6).tolist()[-1] == 256
    for start, n in ((0, 7), (4, 3), (-1, 2)):
        with pytest.raises(IndexError, match=f"^the stream has 6 ids, none from {start} to {start + n}$"):
            found.window(start, n)


def test_a_stream_travels_by_its_place(tmp_path: Path) -> None:
    found = stream(Corpus(write(tmp_path / "a.txt", "abcde" * 1000)), BYTES, tmp_path)
    assert found.window(0, 2).tolist() == [97, 98]
    packed = pickle.dumps(found)
    assert len(packed) < 500 and pickle.loads(packed).window(5, 2).tolist() == [97, 98]


# Errors


def test_a_corpus_without_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^the corpus is empty: none of its documents holds any text$"):
        stream(Corpus(write(tmp_path / "a.jsonl", '{"text": ""}')), BYTES, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_an_error_of_the_corpus_keeps_its_words(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with pytest.raises(InputError, match=r"a.txt: byte 3 is no UTF-8"):
        stream(Corpus(str(tmp_path / "a.txt")), BYTES, tmp_path)

"""Vocabularies of bytes, characters and BPE: what is learnt, what ids mean, and which make up a word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.vocabulary import LEAST
from tests.helpers.vocabularies import BPE, BYTES, CHARACTERS, TEXTS, unigram, whole_words, wordpiece


@pytest.mark.parametrize("text", [BPE, BYTES, CHARACTERS], ids=["bpe", "bytes", "characters"])
def test_a_lone_surrogate_is_the_replacement_character(text: Text) -> None:
    assert text.decode(text.encode("h\ud83d")) == text.decode(text.encode("h\ufffd")) == "h\ufffd"
    assert [text.decode(ids) for ids in text.encode_batch(["h", "\udc80", ""])] == ["h", "\ufffd", ""]


@given(st.text(alphabet="helowrd\n\0\U0001f600"))
def test_known_characters_come_back(string: str) -> None:
    assert CHARACTERS.decode(CHARACTERS.encode(string)) == string


def test_a_character_is_the_number_of_its_place_among_the_sorted_ones() -> None:
    text = Text("characters").fit(["cab", "d"])
    assert text.encode("abcd").content.tolist() == [0, 1, 2, 3]
    assert (text.n_ids, text.eos_id, text.mask_id, text.special_ids) == (7, 5, 6, (5, 6))


def test_a_character_that_was_not_in_training_is_unknown() -> None:
    text = Text("characters").fit(["bd"])
    assert text.encode("abcd\U0010ffff").content.tolist() == [2, 0, 2, 1, 2]
    assert text.decode([2, 0, text.eos_id, text.mask_id]) == "\ufffdb"


def test_a_byte_is_its_own_number() -> None:
    assert BYTES.encode("é!").content.tolist() == [0xC3, 0xA9, 0x21]
    assert (BYTES.n_ids, BYTES.eos_id, BYTES.mask_id, BYTES.fit([])) == (258, 256, 257, BYTES)
    assert BYTES.decode([0xC3, 0x21, 256, 257]) == "\ufffd!"


def test_bpe_learns_what_comes_often_and_keeps_to_its_size() -> None:
    assert BPE.n_ids <= 300 and (BPE.eos_id, BPE.mask_id) == (BPE.n_ids - 2, BPE.n_ids - 1)
    assert len(BPE.encode(" the cat")) < len(BYTES.encode(" the cat"))
    assert Text(vocab_size=LEAST + 3).fit(TEXTS).n_ids == LEAST + 3
    assert Text(vocab_size=1000).fit(["x"]).n_ids == LEAST and BPE.pad_id is None
    assert Text(vocab_size=1000).fit(["quick lamp"]).n_ids == LEAST, "a pair that comes once is not merged"
    assert Text(vocab_size=400).fit(["<eos><eos><eos>"] * 9).encode("<eos>").content.max() < 400 - 2


def test_the_records_pass_by_one_after_another() -> None:
    alive = 0

    def records() -> Iterator[str]:
        nonlocal alive
        for _ in range(10):
            alive += 1
            yield "some words"

    assert Text(vocab_size=LEAST).fit(records()).n_ids == LEAST and alive == 10
    with pytest.raises(ZeroDivisionError):
        Text(vocab_size=LEAST).fit(str(1 // i) for i in (1, 0))


def test_padding_and_truncation_of_a_file_are_left_out(load: Any) -> None:
    package = wordpiece()
    package.enable_padding(length=9)
    package.enable_truncation(1)
    text = load(package)
    assert [len(ids) for ids in text.encode_batch(["to to to", "to"])] == [3, 1]


def test_special_tokens_spelt_out_are_text(load: Any) -> None:
    assert load(wordpiece()).encode("[CLS]").content.tolist() == [8, 10, 9]
    assert load(whole_words()).encode("a [CLS] b").content.tolist() == [2, 0, 3]
    found = load(unigram()).encode("a </s>").content.tolist()
    assert 1 not in found and 0 in found
    with pytest.raises(InputError, match=r"^the text holds '\[CLS\]', for which the tokenizer.json has a special tok"):
        load(whole_words(unk=None)).encode("a [CLS] b")


def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    for content in (b'{"a": 1}', b"\xff", b""):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(InputError, match=r"x.json: is no tokenizer.json: .*\S$"):
            Text(file=str(tmp_path / "x.json")).fit([])
    with pytest.raises(InputError, match="no such file"):
        Text(file="none.json").fit([])


def test_pieces_of_a_word_belong_together() -> None:
    text = Text("bytes")
    assert text.words(text.encode("ab, é1 c").content).tolist() == [0, 0, 1, 2, 3, 3, 3, 4, 5]
    assert text.words([97, 256, 97, 257, 257]).tolist() == [0, 1, 2, 3, 4]
    assert text.words([]).tolist() == []
    characters = Text("characters").fit(["ab é"])
    assert characters.words(characters.encode("aé?b ba").content).tolist() == [0, 0, 1, 2, 3, 4, 4]


def test_a_word_of_bpe_begins_at_its_space() -> None:
    ids = BPE.encode("the catalogue, naïve").content
    assert BPE.decode(ids) == "the catalogue, naïve"
    spelt = [BPE.decode(ids[BPE.words(ids) == word]) for word in range(int(BPE.words(ids)[-1]) + 1)]
    assert spelt == ["the", " catalogue", ",", " naïve"]
    assert len(ids) > len(spelt)


def test_words_of_wordpiece_and_of_whole_words(load: Any) -> None:
    text = load(wordpiece())
    assert text.words([1, 5, 6, 11, 12, 7, 0, 2]).tolist() == [0, 1, 1, 1, 2, 3, 4, 5]
    assert load(whole_words()).words([2, 3, 3]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_there_must_be_text_to_learn_from(kind: str) -> None:
    with pytest.raises(InputError, match=r"^there is no text to learn a vocabulary from"):
        Text(kind).fit(["", ""])
    with pytest.raises(InputError, match=r"^a text must be a string, got int$"):
        Text(kind).fit(["a", 3])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_encodes_without_a_word_and_the_environment_stays(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    wanted = [ids.tolist() for ids in BPE.encode_batch(TEXTS)]
    child = os.fork()
    if child == 0:
        os._exit([ids.tolist() for ids in BPE.encode_batch(TEXTS)] != wanted)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert capfd.readouterr().err == ""
    assert "TOKENIZERS_PARALLELISM" not in os.environ
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


@pytest.mark.parametrize("text", [BPE, BYTES, CHARACTERS], ids=["bpe", "bytes", "characters"])
def test_what_ids_add_to_a_text_makes_it_whole(text: Text) -> None:
    string = "helloworld" if text is CHARACTERS else "the naïve cat, 中\n"
    contents = text.contents
    assert b"".join(contents[i] for i in text.encode_batch([string])[0]) == string.encode()
    assert len(contents) == text.n_ids and all(contents[i] is None for i in text.special_ids)


def test_pieces_of_sentencepiece_say_their_bytes_and_those_of_wordpiece_do_not(load: Any) -> None:
    assert load(unigram()).contents == [None, None, b"a", b" "]
    for package in (wordpiece(), whole_words()):
        with pytest.raises(InputError, match=r"cannot be held to a grammar with this tokenizer\.json"):
            _ = load(package).contents

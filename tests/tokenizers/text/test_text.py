"""A text as tokens: there and back, the special tokens, and a tokenizer.json that was read."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Package

from anyformer.errors import InputError
from anyformer.packing import collate
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.vocabulary import open_vocabulary
from anyformer.tokens import TokenSet
from tests.helpers.vocabularies import BPE, BYTES, CHARACTERS, TEXTS, whole_words, wordpiece

SPECIAL = ["<eos>", "<mask>", "<unk>", "<pad>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "</s>", "<|endoftext|>"]

anything = st.lists(
    st.text() | st.sampled_from([*SPECIAL, " ", "  ", "\r\n", "\n\n", "\0", "'s", "the", "e\u0301", "\ufeff", "\x85"])
).map("".join)


# There and back


@pytest.mark.parametrize("text", [BPE, BYTES], ids=["bpe", "bytes"])
@given(anything)
def test_every_text_comes_back(text: Text, string: str) -> None:
    tokens = text.encode(string)
    assert text.decode(tokens) == text.decode(tokens.content) == text.decode(tokens.content.tolist()) == string
    assert not set(tokens.content.tolist()) & set(text.special_ids)


@pytest.mark.parametrize(
    ("kind", "ours"), [("nfc", "caf\xe9 \ufb01 A"), ("nfkc", "caf\xe9 fi A"), ("lowercase", "cafe\u0301 \ufb01 a")]
)
@pytest.mark.parametrize("cut", ["bpe", "bytes", "characters"])
def test_a_text_is_normalised_as_asked(cut: str, kind: str, ours: str) -> None:
    string = "cafe\u0301 \ufb01 A"
    text = Text(cut, normalize=kind).fit([string])
    assert text.decode(text.encode(string)) == ours != string
    assert Text(cut).fit([string]).decode(Text(cut).fit([string]).encode(string)) == string


# What the tokens are


def test_tokens_are_counted_from_0_and_all_at_order_0() -> None:
    tokens = BYTES.encode("abc")
    assert tokens.position.tolist() == [[0], [1], [2]] and tokens.order.tolist() == [0, 0, 0]
    assert BYTES.axes == ("word",) and BYTES.sizes == {} and Text("bytes", max_len=7).sizes == {"word": 7}
    empty, none = BPE.encode(""), BPE.empty()
    assert empty.content.dtype == none.content.dtype == torch.int64
    assert empty.position.shape == none.position.shape == (0, 1)


def test_the_lift_has_a_vector_for_every_id_special_ones_included() -> None:
    lift = BPE.lift(5)
    batch = collate([{"text": BPE.encode("the cat")}, {"text": BPE.encode("mat")}], {"text": BPE})
    assert lift(batch.fields["text"].content, ()).shape == (len(batch.fields["text"].content), 5)
    assert lift(torch.tensor([BPE.eos_id, BPE.mask_id]), ()).shape == (2, 5)


def test_a_batch_is_each_text_alone() -> None:
    texts = [*TEXTS, "", "<eos> x", "\r\n 'll"]
    for text in (BPE, BYTES, CHARACTERS):
        assert [ids.tolist() for ids in text.encode_batch(texts)] == [text.encode(s).content.tolist() for s in texts]
        assert text.encode_batch([]) == []


def test_a_text_that_has_learnt_stays_as_it_is_and_travels() -> None:
    assert BPE.fit(["other words"]) == BPE
    again = pickle.loads(pickle.dumps(BPE))
    assert again == BPE and again.key == BPE.key != CHARACTERS.key
    assert again.encode("the cat").content.tolist() == BPE.encode("the cat").content.tolist()
    assert open_vocabulary("bpe", BPE.vocabulary, "none") is open_vocabulary("bpe", BPE.vocabulary, "none")
    assert json.loads(BPE.vocabulary)["model"]["type"] == "BPE"


# The tokenizer.json of others


def test_a_file_is_read_once_and_kept(load: Any, tmp_path: Path) -> None:
    text = load(wordpiece())
    (tmp_path / "tokenizer.json").unlink()
    assert text.encode("unable to").content.tolist() == [5, 6, 12] and text.decode([5, 6, 12]) == "unable to"
    assert (text.n_ids, text.eos_id, text.mask_id, text.pad_id) == (13, 2, 4, 3)
    assert text.special_ids == (1, 2, 3, 4)


def test_a_file_trained_here_is_what_was_trained(load: Any) -> None:
    text = load(Package.from_str(BPE.vocabulary))
    assert text.vocabulary == BPE.vocabulary and text.eos_id == BPE.eos_id


def test_what_the_file_puts_around_a_text_is_put_there_when_asked(load: Any) -> None:
    text = load(wordpiece(), wrap=True)
    assert text.encode("to").content.tolist() == [1, 12, 2]
    assert text.encode("").content.tolist() == [1, 2]
    assert text.encode_batch(["to"])[0].tolist() == [12]
    short = load(wordpiece(), wrap=True, max_len=4, truncate=True)
    assert short.encode("to unable to").content.tolist() == [1, 12, 5, 2] and len(short.encode("to")) == 3
    assert (text.around, short.can_wrap, load(whole_words()).can_wrap) == (([1], [2]), True, False)
    # The vocabulary that a run brings is as good as the file.
    again = Text(vocabulary=text.vocabulary, wrap=True)
    assert again.encode("to").content.tolist() == [1, 12, 2]
    assert replace(again, wrap=False).around == ([], [])
    with pytest.raises(InputError, match=r"^wrap: the tokenizer.json puts nothing around a text"):
        load(whole_words(), wrap=True).encode("a")


def test_nothing_is_put_around_texts_of_a_vocabulary_that_is_learned() -> None:
    with pytest.raises(InputError, match=r"^wrap puts in what a tokenizer.json says; give file, or leave wrap out"):
        Text(wrap=True).fit(["to be"])


def test_special_tokens_stand_behind_a_vocabulary_and_in_no_text(tmp_path: Path) -> None:
    plain = Text(vocab_size=270).fit(["to be or not to be"])
    more = Text(vocab_size=270, special_tokens=("<|an4|>", "<eos>")).inherit(plain)
    assert more.n_ids == plain.n_ids + 1 and more.ids_of(["<|an4|>", "<eos>"]) == [plain.n_ids, plain.eos_id]
    assert (more.encode("<|an4|> to be").content < plain.n_ids).all()
    assert more.fit(()).vocabulary == more.vocabulary and more.inherit(plain) is more
    (tmp_path / "tokenizer.json").write_text(plain.vocabulary)
    assert Text(file=str(tmp_path / "tokenizer.json"), special_tokens=("<|an4|>",)).fit(()).n_ids == more.n_ids
    with pytest.raises(InputError, match=r"^special_tokens are spellings, for kind: bpe, got \['x'\]"):
        Text("bytes", special_tokens=("x",))


def test_rows_of_another_vocabulary_go_by_what_tokens_are_spelt_as() -> None:
    one, other = (Text("characters").fit([text]) for text in ("abc", "cd"))
    rows = other.rows_from(one)
    assert [one.spellings[row] if row >= 0 else None for row in rows.tolist()] == [
        "c",
        None,
        "<unk>",
        "<eos>",
        "<mask>",
    ]
    assert one.rows_from(one) is None and one.rows_from(Text("characters")) is None


def test_a_role_that_no_token_of_the_file_has_is_an_error(load: Any) -> None:
    text = load(whole_words())
    with pytest.raises(InputError, match=r"tokenizer.json: has no end-of-text token; one of <eos>, .* is needed$"):
        _ = text.eos_id
    with pytest.raises(InputError, match=r"tokenizer.json: has no mask token; one of <mask>, \[MASK\] is needed$"):
        _ = text.mask_id


def test_a_file_of_another_vocabulary_than_the_checkpoints_is_an_error(load: Any, tmp_path: Path) -> None:
    text = load(wordpiece())
    assert text.fit([]) == text
    whole_words().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match=r"not the vocabulary .*: token 2 was '\[SEP\]' and is 'a'$"):
        text.fit([])
    with pytest.raises(InputError, match=r"^the tokenizer: not the vocabulary .*: token 1 was 'b' and is '<unk>'$"):
        Text("characters").fit(["ab"]).check_vocabulary("a")


def test_each_token_says_its_piece_of_the_text() -> None:
    for text in (Text("bytes"), Text("characters").fit(["ab é"]), BPE):
        tokens = text.encode("ab a")
        assert "".join(text.pieces(tokens)) == "ab a" and len(text.pieces(tokens)) == len(tokens)
        special = TokenSet(torch.tensor([text.eos_id, text.mask_id]))
        assert text.pieces(special) == [text.specials["end-of-text"], text.specials["mask"]]
    assert Text("bytes").pieces(Text("bytes").encode("é")) == ["\ufffd", "\ufffd"]


# Errors


def test_a_text_longer_than_max_len_is_an_error_or_cut_off_when_asked() -> None:
    assert len(Text("bytes", max_len=3).encode("abc")) == 3
    with pytest.raises(InputError, match=r"^the text has 4 tokens, more than max_len=3; raise max_len, or give trunc"):
        Text("bytes", max_len=3).encode("abcd")
    assert Text("bytes", max_len=3, truncate=True).encode("abcd").content.tolist() == [97, 98, 99]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 257}, "vocab_size must be at least 258 for the 256 bytes, <eos> and <mask>, got 257"),
        ({"kind": "bytes", "file": "x.json"}, "file is a tokenizer.json, which kind: bytes has no use for"),
        ({"file": "x.json", "normalize": "nfc"}, "a tokenizer.json brings its own normalisation"),
        ({"max_len": 0}, "max_len must be at least 1, got 0"),
        ({"truncate": True}, "truncate cuts texts off at max_len; give that too"),
        ({"wrap": True, "kind": "bytes"}, "wrap puts in what a tokenizer.json says; give file"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        Text(**options)


def test_ids_past_the_vocabulary_stand_for_nothing() -> None:
    """Tables of other models are rounder than their vocabularies."""
    n = BPE.n_ids
    text = replace(BPE, least_ids=n + 7)
    assert text.n_ids == len(text.lift(4).table) == n + 7
    assert replace(BPE, least_ids=n - 1).n_ids == n
    ids = text.encode(TEXTS[0]).content
    assert torch.equal(ids, BPE.encode(TEXTS[0]).content)
    assert text.decode([*ids, n + 6, n]) == TEXTS[0]


def test_a_text_without_a_vocabulary_says_so() -> None:
    with pytest.raises(InputError, match=r"^the text has no vocabulary yet: fit it to the training records first$"):
        Text().encode("a")


def test_what_is_no_text_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^a text must be a string, got float$"):
        BPE.encode(1.5)

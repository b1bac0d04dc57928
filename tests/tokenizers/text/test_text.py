"""Text: byte-level BPE, bytes, characters, and the tokenizer.json of others."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Package
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from anyformer.errors import InputError
from anyformer.packing import collate
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.vocabulary import LEAST, open_vocabulary
from anyformer.tokens import TokenSet

SPECIAL = ["<eos>", "<mask>", "<unk>", "<pad>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "</s>", "<|endoftext|>"]
TEXTS = ["the cat sat on the mat, and the hat sat on the cat", "naïve café, naïve café; Straße 12 12 12"] * 2
BPE = Text(vocab_size=300).fit(TEXTS)
BYTES = Text("bytes")
CHARACTERS = Text("characters").fit(["hello", "world\n\0\U0001f600"])

anything = st.lists(
    st.text() | st.sampled_from([*SPECIAL, " ", "  ", "\r\n", "\n\n", "\0", "'s", "the", "e\u0301", "\ufeff", "\x85"])
).map("".join)


def wordpiece(**options: Any) -> Package:
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "un", "##able", "able", "[", "]", "cls", "##s", "to"]
    package = Package(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    package.normalizer, package.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    package.decoder = decoders.WordPiece()
    package.add_special_tokens(words[:5])
    package.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return package


def whole_words(unk: str | None = "[UNK]") -> Package:
    words = [*([unk] if unk else []), "[CLS]", "a", "b"]
    package = Package(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=unk or "a"))
    package.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    package.add_special_tokens(["[CLS]"])
    return package


def unigram() -> Package:
    package = Package(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0), ("▁", -2.0)], 0))
    package.pre_tokenizer, package.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    package.add_special_tokens(["</s>"])
    return package


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(package: Package, **options: Any) -> Text:
        package.save(str(tmp_path / "tokenizer.json"))
        return Text(file=str(tmp_path / "tokenizer.json"), **options).fit([])

    return load


# There and back


@pytest.mark.parametrize("text", [BPE, BYTES], ids=["bpe", "bytes"])
@given(anything)
def test_every_text_comes_back(text: Text, string: str) -> None:
    tokens = text.encode(string)
    assert text.decode(tokens) == text.decode(tokens.content) == text.decode(tokens.content.tolist()) == string
    assert not set(tokens.content.tolist()) & set(text.special_ids)


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


def test_bpe_learns_what_comes_often_and_keeps_to_its_size() -> None:
    assert BPE.n_ids <= 300 and (BPE.eos_id, BPE.mask_id) == (BPE.n_ids - 2, BPE.n_ids - 1)
    assert len(BPE.encode(" the cat")) < len(BYTES.encode(" the cat"))
    assert Text(vocab_size=LEAST + 3).fit(TEXTS).n_ids == LEAST + 3
    assert Text(vocab_size=1000).fit(["x"]).n_ids == LEAST and BPE.pad_id is None
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


def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path: Path) -> None:
    for content in (b'{"a": 1}', b"\xff", b""):
        (tmp_path / "x.json").write_bytes(content)
        with pytest.raises(InputError, match=r"x.json: is no tokenizer.json: .*\S$"):
            Text(file=str(tmp_path / "x.json")).fit([])
    with pytest.raises(InputError, match="no such file"):
        Text(file="none.json").fit([])


# Words


def test_pieces_of_a_word_belong_together() -> None:
    text = Text("bytes")
    assert text.words(text.encode("ab, é1 c").content).tolist() == [0, 0, 1, 2, 3, 3, 3, 4, 5]
    assert text.words([97, 256, 97, 257, 257]).tolist() == [0, 1, 2, 3, 4]
    assert text.words([]).tolist() == []
    characters = Text("characters").fit(["ab é"])
    assert characters.words(characters.encode("aé?b ba").content).tolist() == [0, 0, 1, 2, 3, 4, 4]


def test_each_token_says_its_piece_of_the_text() -> None:
    for text in (Text("bytes"), Text("characters").fit(["ab é"]), BPE):
        tokens = text.encode("ab a")
        assert "".join(text.pieces(tokens)) == "ab a" and len(text.pieces(tokens)) == len(tokens)
        special = TokenSet(torch.tensor([text.eos_id, text.mask_id]))
        assert text.pieces(special) == [text.specials["end-of-text"], text.specials["mask"]]
    assert Text("bytes").pieces(Text("bytes").encode("é")) == ["\ufffd", "\ufffd"]


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
        ({"wrap": True}, "wrap puts in what a tokenizer.json says; give file"),
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


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_there_must_be_text_to_learn_from(kind: str) -> None:
    with pytest.raises(InputError, match=r"^there is no text to learn a vocabulary from"):
        Text(kind).fit(["", ""])
    with pytest.raises(InputError, match=r"^a text must be a string, got int$"):
        Text(kind).fit(["a", 3])


def test_what_is_no_text_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^a text must be a string, got float$"):
        BPE.encode(1.5)


# Processes


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

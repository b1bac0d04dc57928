"""Files of SentencePiece become a tokenizer.json that cuts texts as SentencePiece and transformers do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("sentencepiece")
pytest.importorskip("transformers")

import sentencepiece
from transformers import MarianTokenizer

from anyformer.errors import InputError
from anyformer.tasks.convert.huggingface import from_transformers, to_transformers
from anyformer.tokenizers.text.sentencepiece import marian_vocabularies, read_pieces, t5_vocabulary
from anyformer.tokenizers.text.text import Text
from tests.helpers.transformers_folders import LINES, marian

GERMAN = ["sein oder nicht sein, das ist hier die Frage", "ob es edler im Gemüt ist zu dulden"]
WIDE = "\uff26\uff55\uff4c\uff4c \ufb01"
"""What is written otherwise before it is cut."""
TEXTS = [*LINES, *GERMAN, "  two  spaces ", WIDE, "\u6771\u4eac 🙂", "", "to\tbe\nor"]


def train(path: Path, lines: list[str], kind: str = "unigram", **options: object) -> Path:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 5),
        model_prefix=str(path.with_suffix("")),
        vocab_size=60,
        hard_vocab_limit=False,
        model_type=kind,
        minloglevel=2,
        **options,
    )
    path.with_suffix(".model").rename(path)
    return path


def opus(folder: Path) -> Path:
    """source.spm, target.spm and vocab.json, which has the pieces of both."""
    folder.mkdir(exist_ok=True)
    found = {"</s>": 0, "<unk>": 1, ">>de<<": 2}
    for side, lines in {"source": LINES, "target": GERMAN}.items():
        for name in read_pieces(train(folder / f"{side}.spm", lines)).scores:
            if name not in ("<s>", "</s>", "<unk>"):
                found.setdefault(name, len(found))
    found["<pad>"] = len(found)
    (folder / "vocab.json").write_text(json.dumps(found))
    return folder


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marian_cuts_as_transformers_does(tmp_path: Path) -> None:
    opus(tmp_path)
    # Its tidying of punctuation is a step of its own, which is not in the file.
    theirs = MarianTokenizer(*(str(tmp_path / name) for name in ("source.spm", "target.spm", "vocab.json")))
    theirs.punc_normalizer = lambda text: text
    source, target = (Text(vocabulary=each) for each in marian_vocabularies(tmp_path))
    assert (source.n_ids, source.pad_id, source.eos_id) == (len(theirs.encoder), theirs.pad_token_id, 0)
    for text in [*LINES, "  two  spaces ", WIDE, "", "to\tbe\nor", ">>de<< to be"]:
        assert source.encode_batch([text])[0].tolist() == theirs(text)["input_ids"][:-1], text
    for text in [*GERMAN, "sein  oder"]:
        ids = target.encode_batch([text])[0]
        assert ids.tolist() == theirs(text_target=text)["input_ids"][:-1], text
        assert target.decode(ids) == source.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_t5_cuts_as_sentencepiece_does(tmp_path: Path) -> None:
    path = train(tmp_path / "spiece.model", TEXTS, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    theirs = sentencepiece.SentencePieceProcessor(str(path))
    text = Text(vocabulary=t5_vocabulary(tmp_path))
    n = theirs.get_piece_size()
    assert text.n_ids == n + 100
    assert text.ids_of(["<extra_id_0>", "<extra_id_99>", "</s>"]) == [n + 99, n, 1]
    for line in TEXTS:
        ids = text.encode_batch([line])[0].tolist()
        assert ids == theirs.encode(line), line
        assert text.decode(ids) == theirs.decode(ids)


def test_a_folder_of_opus_comes_in_and_out(tmp_path: Path) -> None:
    opus(tmp_path / "hub")
    tokenizer = MarianTokenizer(*(str(tmp_path / "hub" / name) for name in ("source.spm", "target.spm", "vocab.json")))
    marian(tmp_path / "hub", tokenizer, max_position_embeddings=80)
    task = from_transformers(tmp_path / "hub")
    source, target = task.tokenizers["text"], task.text
    assert source.vocabulary != target.vocabulary and source.wrap and not target.wrap
    assert source.encode("to be").content[-1] == target.eos_id
    to_transformers(task, tmp_path / "out")
    again = from_transformers(tmp_path / "out")
    for text in [*LINES, *GERMAN]:
        for name, tokenizer in task.tokenizers.items():
            assert again.tokenizers[name].encode(text).content.tolist() == tokenizer.encode(text).content.tolist()
    assert again.predict([{"text": "to be"}]) == task.predict([{"text": "to be"}])


def cut_off(folder: Path) -> None:
    path = folder / "source.spm"
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, r"source\.spm is damaged, or no SentencePiece model"),
        (lambda folder: (folder / "target.spm").unlink(), r"target\.spm is damaged"),
        (
            lambda folder: (folder / "source.spm").write_bytes(b""),
            r"source\.spm: only SentencePiece models of the kind",
        ),
        (lambda folder: train(folder / "source.spm", LINES, "bpe"), r"only .* of the kind unigram can be brought in"),
        (lambda folder: (folder / "vocab.json").write_text('{"</s>": 0, "<unk>": 2}'), r"must give its pieces the ids"),
    ],
    ids=["cut", "missing", "empty", "bpe", "gaps"],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    opus(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as raised:
        marian_vocabularies(tmp_path)
    assert "\n" not in str(raised.value)

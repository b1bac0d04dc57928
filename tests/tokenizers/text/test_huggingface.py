"""The vocabularies of transformers' folders, new and old."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from anyformer.errors import InputError
from anyformer.tokenizers.text.huggingface import read_vocabulary, write_vocabulary
from anyformer.tokenizers.text.text import Text

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "to", "be", "##e", "To", "!"]


def text_of(folder: Path, **options: object) -> Text:
    return Text(vocabulary=read_vocabulary(folder), **options)


@pytest.mark.parametrize(
    ("told", "ids"),
    [(None, [5, 6, 7, 9]), ({}, [5, 6, 7, 9]), ({"do_lower_case": False}, [8, 6, 7, 9])],
    ids=["nothing", "empty", "cased"],
)
def test_words_of_a_list_are_lowered_unless_told_otherwise(tmp_path: Path, told: dict | None, ids: list[int]) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    if told is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    text = text_of(tmp_path, wrap=True)
    assert text.encode("To bee!").content.tolist() == [2, *ids, 3]
    assert text.encode("[MASK]").content.tolist() == [2, 1, 1, 1, 3]
    assert (text.mask_id, text.pad_id, text.n_ids) == (4, 0, len(WORDS))
    assert text.decode(text.encode("to bee!")) == "to bee!"


@pytest.mark.parametrize("told", [{}, {"add_prefix_space": True}], ids=str)
def test_pairs_of_bytes_come_from_their_two_files(tmp_path: Path, told: dict) -> None:
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "to", "Ġb", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(letters)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt o\nĠ b\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    text = text_of(tmp_path)
    spellings = [letters[i] for i in text.encode_batch(["to be<|endoftext|>"])[0]]
    assert spellings[: 4 + len(told)] == [*(["Ġ"] * len(told)), "to", "Ġb", "e", "<"]
    assert (text.eos_id, text.n_ids) == (258, 259)


def test_a_tokenizer_json_comes_before_the_older_files(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    assert text_of(tmp_path).n_ids == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no tokenizer: neither tokenizer.json, nor vocab.json with merges.txt, nor vocab.txt is there"),
        ({"vocab.json": "{}"}, "holds no tokenizer"),
        ({"vocab.json": "{", "merges.txt": ""}, "its vocabulary cannot be read"),
        ({"vocab.txt": "a\nb\n"}, "its vocabulary cannot be read"),
        ({"tokenizer.json": "{}"}, "tokenizer.json: is no tokenizer.json"),
        ({"vocab.txt": "a\n", "tokenizer_config.json": "["}, "tokenizer_config.json is damaged or no JSON"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_a_folder_without_a_vocabulary_is_told_so(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_vocabulary(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_vocabulary_that_is_written_reads_the_same(tmp_path: Path) -> None:
    text = Text(vocab_size=280, max_len=9).fit(["to be or not to be"] * 3)
    write_vocabulary(text, tmp_path)
    assert read_vocabulary(tmp_path) == text.vocabulary
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (told["eos_token"], told["bos_token"], told["mask_token"]) == ("<eos>", "<eos>", "<mask>")
    assert told["model_max_length"] == 9


def test_a_kind_that_no_tokenizer_json_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a text of kind: bytes has no tokenizer\.json; train a model with"):
        write_vocabulary(Text("bytes"), tmp_path)

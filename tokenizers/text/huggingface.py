"""Vocabularies as transformers' folders hold them: a tokenizer.json, or the older files that one is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from anyformer.errors import InputError
from anyformer.local_files import read_json
from anyformer.tokenizers.text.text import Text

END = "<|endoftext|>"
SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}

ROLES = {"end-of-text": "eos", "mask": "mask", "padding": "pad", "unknown": "unk"}
"""Our names of special tokens and those of transformers."""


def read_vocabulary(folder: str | Path) -> str:
    """The text of a folder's tokenizer.json; made of vocab.json and merges.txt (byte-level BPE, GPT-2) or of vocab.txt
    (WordPiece, BERT) where there is none.

    Raises InputError if there is neither, or they cannot be read.
    """
    folder = Path(folder).absolute()
    names = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
    there = {name for name in names if (folder / name).is_file()}
    if "tokenizer.json" in there:
        return Text(file=str(folder / "tokenizer.json")).fit(()).vocabulary
    told = read_json(path) if (path := folder / "tokenizer_config.json").is_file() else {}
    try:
        if {"vocab.json", "merges.txt"} <= there:
            return _byte_level(folder, told)
        if "vocab.txt" in there:
            return _word_pieces(folder, told)
    except Exception as error:  # The package raises this very class.
        raise InputError(f"{folder}: its vocabulary cannot be read: {' '.join(str(error).split())}") from None
    raise InputError(
        f"{folder} holds no tokenizer: neither tokenizer.json, nor vocab.json with merges.txt, nor vocab.txt is there"
    )


def _byte_level(folder: Path, told: Mapping[str, Any]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    package = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    package.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(told.get("add_prefix_space", False)))
    package.decoder = decoders.ByteLevel()
    package.add_special_tokens([END])
    return package.to_str()


def _word_pieces(folder: Path, told: Mapping[str, Any]) -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = models.WordPiece.read_file(str(folder / "vocab.txt"))
    package = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIALS["unk"]))
    package.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=told.get("tokenize_chinese_chars", True),
        strip_accents=told.get("strip_accents"),
        lowercase=told.get("do_lower_case", True),
    )
    package.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    package.decoder = decoders.WordPiece()
    package.post_processor = processors.BertProcessing(
        *((SPECIALS[role], vocabulary[SPECIALS[role]]) for role in ("sep", "cls"))
    )
    package.add_special_tokens([token for token in SPECIALS.values() if token in vocabulary])
    return package.to_str()


def sized_text(vocabulary: str, max_len: int | None, n_rows: int, place: str) -> Text:
    """The tokenizer of a vocabulary, for a table of so many rows, which may be more than ids: models round it up.

    place: the file that says how many, for the message. Raises InputError where the vocabulary has more ids.
    """
    text = Text(vocabulary=vocabulary, max_len=max_len)
    if text.n_ids > n_rows:
        raise InputError(
            f"{place}: vocab_size is {n_rows}, and the tokenizer of the folder has {text.n_ids} tokens; take both from "
            "one model"
        )
    return text if text.n_ids == n_rows else replace(text, least_ids=n_rows)


def write_vocabulary(text: Text, folder: Path, **others: str) -> None:
    """Write a text's tokenizer.json, and a tokenizer_config.json by which transformers takes it as it stands.

    others: what tokenizer_config.json says beside or otherwise.
    Raises InputError for a kind that has none.
    """
    if text.kind != "bpe":
        raise InputError(f"a text of kind: {text.kind} has no tokenizer.json; train a model with kind: bpe")
    (folder / "tokenizer.json").write_text(text.vocabulary, encoding="utf-8")
    from tokenizers import Tokenizer

    names = {ROLES[role]: spelling for role, spelling in text.specials.items()}
    before, after = ([Tokenizer.from_str(text.vocabulary).id_to_token(i) for i in ids] for ids in text.around)
    # What begins a text and what ends it are called otherwise where they are put around it.
    if before and after:
        names |= {"cls": before[0], "sep": after[-1]}
    elif "eos" in names:
        names["bos"] = names["eos"]
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": text.max_len,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{f"{role}_token": spelling for role, spelling in names.items()},
    }
    told |= others
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

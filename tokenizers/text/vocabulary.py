"""Vocabularies of bytes, characters and BPE: trained, read, and what their tokens spell."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anyformer.data.files import find_file, read_file
from anyformer.errors import InputError

EOS, MASK, UNK = "<eos>", "<mask>", "<unk>"
NAMES = {
    "end-of-text": (EOS, "</s>", "<|endoftext|>", "<|end_of_text|>", "[SEP]"),
    "mask": (MASK, "[MASK]"),
    "padding": ("<pad>", "[PAD]"),
    "unknown": (UNK, "[UNK]"),
}
"""What special tokens are called in the tokenizer.json of others; the first that is there counts."""


LEAST = 256 + 2
"""Ids of a byte-level BPE without a merge: the bytes, `<eos>` and `<mask>`."""


NORMALIZERS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "nfc": lambda text: unicodedata.normalize("NFC", text),
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "lowercase": str.lower,
}

MAX_GAP = 2**16
"""Ids that a vocabulary may leave out beside as many as it has."""


def clean(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def read_texts(records: Iterable[str]) -> Iterator[str]:
    """The records that hold text, cleaned. Raises InputError where none does."""
    found = False
    for text in records:
        if not isinstance(text, str):
            raise InputError(f"a text must be a string, got {type(text).__name__}")
        if text:
            found = True
            yield text if text.isascii() else clean(text)
    if not found:
        raise InputError("there is no text to learn a vocabulary from: the training records are empty")


def learn_characters(texts: Iterable[str], normalize: str, vocab_size: int) -> str:
    characters: set[str] = set()
    for text in texts:
        characters |= set(NORMALIZERS[normalize](text))
    return "".join(sorted(characters))


def train_bpe(texts: Iterable[str], normalize: str, vocab_size: int) -> str:
    from tokenizers import Tokenizer as Package
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    package = Package(models.BPE())
    package.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    package.decoder = decoders.ByteLevel()
    if normalize != "none":
        kinds = {"nfc": normalizers.NFC, "nfkc": normalizers.NFKC, "lowercase": normalizers.Lowercase}
        package.normalizer = kinds[normalize]()
    _keep_forks_quiet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - (LEAST - 256),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    package.train_from_iterator(texts, trainer)
    # Beside the vocabulary of the model and not in it, so that nothing in a text can be cut into them.
    package.add_special_tokens([EOS, MASK])
    return package.to_str()


def read_vocabulary(file: str) -> str:
    """The JSON of a tokenizer.json. What it says of padding and cutting off is left out: neither is done here."""
    from tokenizers import Tokenizer as Package

    try:
        package = Package.from_str(read_file(find_file(file)).decode())
    except InputError:
        raise
    except Exception as error:  # The package raises this very class.
        raise InputError(f"{file}: is no tokenizer.json: {' '.join(str(error).split())}") from None
    package.no_padding()
    package.no_truncation()
    return package.to_str()


def add_specials(vocabulary: str, spellings: Sequence[str]) -> str:
    """The JSON of a tokenizer.json with further special tokens behind its ids, those that it lacks."""
    from tokenizers import Tokenizer as Package

    package = Package.from_str(vocabulary)
    return package.to_str() if package.add_special_tokens(list(spellings)) else vocabulary


@lru_cache(maxsize=1)
def _keep_forks_quiet() -> None:
    """Let processes forked from this one use the package in one thread.

    Its threads are not there in a fork. Up to 0.22 it notices and says so in four lines, unless the environment settles
    it; so it does for the moment of the fork.
    """
    key = "TOKENIZERS_PARALLELISM"
    ours: list[str] = []

    def before() -> None:
        if key not in os.environ:
            os.environ[key] = "false"
            ours.append(key)

    def after() -> None:
        if ours:
            os.environ.pop(ours.pop(), None)

    os.register_at_fork(before=before, after_in_parent=after)


@lru_cache(maxsize=16)
def count_ids(vocabulary: str) -> int:
    """How many ids a tokenizer.json has, the numbers that it leaves out included: a tenth of the work of opening it."""
    content = json.loads(vocabulary)
    model, added = content["model"]["vocab"], (token["id"] for token in content["added_tokens"])
    # That of Unigram is a list of pairs.
    inner = max(model.values(), default=-1) if isinstance(model, dict) else len(model) - 1
    top = max([inner, *added])
    _check_ids(top, len(model) + len(content["added_tokens"]))
    return top + 1


def _check_ids(top: int, n: int) -> None:
    """Raise InputError where most numbers are no ids: for every one up to the greatest there is an embedding."""
    if top > 2 * n + MAX_GAP:
        raise InputError(f"the tokenizer.json has {n:,} tokens and ids up to {top:,}; number them anew")


@lru_cache(maxsize=16)
def open_vocabulary(kind: str, vocabulary: str, normalize: str) -> Bytes | Characters | Package:
    if kind == "bpe":
        return Package(vocabulary)
    return Bytes(normalize) if kind == "bytes" else Characters(vocabulary, normalize)


def _joints(spellings: Sequence[str], special_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(v,) bool each: whether a token begins, and whether it ends, in a letter, a digit or a part of a character."""
    # A byte that is no character by itself has come as a surrogate, of category Cs.
    inner = [[unicodedata.category(c)[0] in "LMN" or unicodedata.category(c) == "Cs" for c in s] for s in spellings]
    begins, ends = (torch.tensor([bool(part) and part[i] for part in inner]) for i in (0, -1))
    begins[list(special_ids)] = ends[list(special_ids)] = False
    return begins, ends


class Bytes:
    def __init__(self, normalize: str) -> None:
        self.normalize = NORMALIZERS[normalize]
        self.spellings = [bytes([i]).decode("utf-8", "surrogateescape") for i in range(256)] + [EOS, MASK]
        self.specials = {"end-of-text": 256, "mask": 257}
        self.special_ids = (256, 257)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(self.normalize(text).encode(), np.uint8).astype(np.int64) for text in texts]

    def decode(self, ids: np.ndarray) -> str:
        return ids[ids < 256].astype(np.uint8).tobytes().decode("utf-8", "replace")

    @property
    def contents(self) -> list[bytes | None]:
        """What each id adds to a text; None for special ones."""
        return [*(bytes([i]) for i in range(256)), None, None]

    @cached_property
    def joints(self) -> tuple[Tensor, Tensor]:
        return _joints(self.spellings, self.special_ids)


class Characters:
    def __init__(self, characters: str, normalize: str) -> None:
        self.normalize = NORMALIZERS[normalize]
        n = len(characters)
        self.spellings = [*characters, UNK, EOS, MASK]
        self.specials = {"unknown": n, "end-of-text": n + 1, "mask": n + 2}
        self.special_ids = (n + 1, n + 2)
        # U+FFFD is what an unknown character is shown as.
        self.codes = np.frombuffer((characters + "\ufffd").encode("utf-32-le"), np.uint32)
        self.ids = np.full(max(map(ord, characters)) + 2, n)
        self.ids[self.codes[:n]] = np.arange(n)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        codes = [np.frombuffer(self.normalize(text).encode("utf-32-le"), np.uint32) for text in texts]
        return [self.ids[np.minimum(part, len(self.ids) - 1)] for part in codes]

    def decode(self, ids: np.ndarray) -> str:
        return self.codes[ids[ids < len(self.codes)]].tobytes().decode("utf-32-le")

    @property
    def contents(self) -> list[bytes | None]:
        return [*(character.encode() for character in self.spellings[:-3]), None, None, None]

    @cached_property
    def joints(self) -> tuple[Tensor, Tensor]:
        return _joints(self.spellings, (*self.special_ids, self.specials["unknown"]))


class Package:
    """A tokenizer of the `tokenizers` package."""

    def __init__(self, vocabulary: str) -> None:
        from tokenizers import Tokenizer as Package

        _keep_forks_quiet()
        try:
            self.package = Package.from_str(vocabulary)
        except Exception as error:  # The package raises this very class.
            raise InputError(f"vocabulary: is no tokenizer.json: {' '.join(str(error).split())}") from None
        # Or special tokens spelt out in a text would be found there. It is not among what the JSON holds.
        self.package.encode_special_tokens = True
        self.vocabulary = vocabulary
        ids = self.package.get_vocab()
        _check_ids(max(ids.values(), default=0), len(ids))
        self.spellings: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
        for spelling, i in ids.items():
            self.spellings[i] = spelling
        self.specials = {
            role: next(ids[name] for name in names if name in ids)
            for role, names in NAMES.items()
            if any(name in ids for name in names)
        }
        added = {i for i, token in self.package.get_added_tokens_decoder().items() if token.special}
        self.special_ids = tuple(sorted((added | set(self.specials.values())) - {self.specials.get("unknown")}))
        self.is_special = np.zeros(len(self.spellings), dtype=bool)
        self.is_special[list(self.special_ids)] = True

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        if len(texts) == 1:
            # Without its threads, which would only be in each other's way: in data workers, or beside a batch.
            found = [self.package.encode(texts[0], add_special_tokens=False)]
        else:
            found = self.package.encode_batch_fast(texts, add_special_tokens=False)
        # By way of an array, which takes a list three times as fast as numpy does.
        return [self._without_specials(np.array(array("I", encoding.ids)).astype(np.int64)) for encoding in found]

    def _without_specials(self, ids: np.ndarray) -> np.ndarray:
        """Ids of a text. Models of whole words and of Unigram may look a special token up as any other word."""
        if not (wrong := self.is_special[ids]).any():
            return ids
        if "unknown" not in self.specials:
            spelling = self.spellings[ids[wrong][0]]
            raise InputError(f"the text holds {spelling!r}, for which the tokenizer.json has a special token only")
        return np.where(wrong, self.specials["unknown"], ids)

    def decode(self, ids: np.ndarray) -> str:
        return self.package.decode(ids.tolist(), skip_special_tokens=True)

    @property
    def contents(self) -> list[bytes | None]:
        """Raises InputError where what a token adds depends on those beside it, as in WordPiece."""
        parts: dict[str, Any] = json.loads(self.vocabulary)
        decoder = json.dumps(parts["decoder"])
        known = [kind for kind in ("ByteLevel", "Metaspace", "\\u2581") if kind in decoder]
        if not known:
            raise InputError(
                "texts cannot be held to a grammar with this tokenizer.json: its tokens are neither of bytes nor of "
                "SentencePiece; take a model of another vocabulary"
            )
        spell = _bytes_of_level if known == ["ByteLevel"] else _bytes_of_piece
        unknown = self.specials.get("unknown")
        return [
            None if spelling is None or self.is_special[i] or i == unknown else spell(spelling)
            for i, spelling in enumerate(self.spellings)
        ]

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids put before and after a text."""
        inner, outer = (self.package.encode("a", add_special_tokens=whole).ids for whole in (False, True))
        before = next(i for i in range(len(outer)) if outer[i : i + len(inner)] == inner)
        return outer[:before], outer[before + len(inner) :]

    @cached_property
    def joints(self) -> tuple[Tensor, Tensor]:
        parts: dict[str, Any] = json.loads(self.vocabulary)
        special = [*self.special_ids, *(i for i, s in enumerate(self.spellings) if i == self.specials.get("unknown"))]
        spellings = [spelling or "" for spelling in self.spellings]
        if parts["model"]["type"] == "WordLevel":
            return torch.zeros(2, len(spellings), dtype=torch.bool).unbind()
        if prefix := parts["model"].get("continuing_subword_prefix"):
            begins = torch.tensor([spelling.startswith(prefix) for spelling in spellings])
            return begins, torch.from_numpy(~self.is_special)
        if '"ByteLevel"' in json.dumps(parts["decoder"]):
            spellings = [_from_byte_level(spelling) for spelling in spellings]
        return _joints(spellings, special)


def _from_byte_level(spelling: str) -> str:
    """What a token of a byte-level BPE stands for; bytes that are no character as surrogates."""
    return _bytes_of_level(spelling).decode("utf-8", "surrogateescape")


def _bytes_of_level(spelling: str) -> bytes:
    """The bytes of a token of a byte-level BPE; of one that is added to it its spelling."""
    table = _byte_alphabet()
    return bytes(table[c] for c in spelling) if all(c in table for c in spelling) else spelling.encode()


def _bytes_of_piece(spelling: str) -> bytes:
    """The bytes of a piece of SentencePiece, of which some stand for one byte."""
    if byte := re.fullmatch(r"<0x([0-9A-F]{2})>", spelling):
        return bytes.fromhex(byte[1])
    return spelling.replace("\u2581", " ").encode()


@lru_cache(maxsize=1)
def _byte_alphabet() -> dict[str, int]:
    """The byte of each character that byte-level BPE writes it as: its own where that shows, else from U+0100 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}

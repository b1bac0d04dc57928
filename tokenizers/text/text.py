"""Text as tokens: byte-level BPE, bytes, or characters.

What a user writes is always text: nothing in it becomes a special token, however it is spelt. Special tokens are put in
by code, which takes their ids from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.errors import InputError, nearest
from anyformer.model.lifts import Lookup
from anyformer.tokenizers.text.vocabulary import (
    EOS,
    LEAST,
    MASK,
    NAMES,
    Bytes,
    Characters,
    Package,
    add_specials,
    clean,
    count_ids,
    learn_characters,
    open_vocabulary,
    read_texts,
    read_vocabulary,
    train_bpe,
)
from anyformer.tokens import Tokenizer, TokenSet

NO_WRAP = "wrap puts in what a tokenizer.json says; give file, or leave wrap out"
SPACES = "\u0120\u2581"
"""How a BPE of bytes and SentencePiece spell the space that a word begins with."""


@dataclass(frozen=True)
class Text(Tokenizer):
    """Cuts a text into tokens, one after another on the axis `word`; the order is 0 for all.

    bpe: pieces of words, learnt by byte-level BPE (Sennrich et al. 2016; the bytes: Radford et al. 2019) on the
    training records, or read from any tokenizer.json. bytes: UTF-8. characters: those of the training records, and
    `<unk>` for all others. `decode(encode(s)) == s` for every text with bytes and with a BPE trained here, and for
    known characters, as far as `normalize` leaves it; lone surrogates, which no UTF-8 can hold, become U+FFFD.
    """

    kind: Literal["bpe", "bytes", "characters"] = "bpe"
    """What a token is."""
    vocab_size: int = 4096
    """Of a BPE that is trained: ids at the most, the 256 bytes and 2 special tokens among them. Merges of pairs seen
    once are not made, so that a small corpus gives fewer."""
    file: str | None = None
    """A tokenizer.json to use: from the current folder, else inside $ANYFORMER_DATA. It is read once, in `fit`."""
    normalize: Literal["none", "nfc", "nfkc", "lowercase"] = "none"
    """What is done to a text before it is cut. A tokenizer.json brings its own."""
    max_len: int | None = None
    """How many places a learned table of positions has. A longer text is an error."""
    truncate: bool = False
    """Cut a text off at max_len instead."""
    wrap: bool = False
    """Put around each record what the tokenizer.json puts there: `[CLS]` and `[SEP]` for BERT."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens to add behind the vocabulary of a bpe, by their spelling, for what a task says by them, as in the
    `start` of a target. Those that it has already stay as they are."""
    least_ids: int | None = None
    """Ids at the least. Those past the vocabulary stand for nothing; models have them to make their tables round."""
    vocabulary: str | None = None
    """What `fit` has learnt: the JSON of the BPE, or the characters. It travels in the config of a run."""

    axes: ClassVar[tuple[str, ...]] = ("word",)
    together: ClassVar[tuple[tuple[str, ...], ...]] = (("kind", "file", "normalize", "vocabulary", "least_ids"),)

    def __post_init__(self) -> None:
        if self.file is not None and self.kind != "bpe":
            raise InputError(f"file is a tokenizer.json, which kind: {self.kind} has no use for; leave one of them out")
        if self.file is not None and self.normalize != "none":
            raise InputError("a tokenizer.json brings its own normalisation; leave normalize out, or file")
        if self.kind == "bpe" and self.vocab_size < LEAST:
            raise InputError(
                f"vocab_size must be at least {LEAST} for the 256 bytes, {EOS} and {MASK}, got {self.vocab_size}"
            )
        if self.max_len is not None and self.max_len < 1:
            raise InputError(f"max_len must be at least 1, got {self.max_len}")
        if self.special_tokens and (self.kind != "bpe" or not all(self.special_tokens)):
            raise InputError(f"special_tokens are spellings, for kind: bpe, got {list(self.special_tokens)}")
        if self.truncate and self.max_len is None:
            raise InputError("truncate cuts texts off at max_len; give that too")
        if self.wrap and self.kind != "bpe":
            raise InputError(NO_WRAP)

    # The tokenizer.

    @property
    def sizes(self) -> dict[str, int]:
        return {} if self.max_len is None else {"word": self.max_len}

    def encode(self, record: str, random: np.random.Generator | None = None) -> TokenSet:
        ids = self.encode_batch([record])[0]
        before, after = self.around
        n = len(before) + len(ids) + len(after)
        if self.max_len is not None and n > self.max_len:
            if not self.truncate:
                raise InputError(
                    f"the text has {n} tokens, more than max_len={self.max_len}; "
                    "raise max_len, or give truncate: true to cut it off"
                )
            ids = ids[: max(self.max_len - len(before) - len(after), 0)]
        if before or after:
            ids = np.concatenate([before, ids, after]).astype(np.int64)
        content = torch.from_numpy(ids)
        return TokenSet(content, torch.arange(len(content))[:, None])

    def encode_pieces(
        self, record: str, length: int, around: tuple[list[int], list[int]] | None = None
    ) -> list[TokenSet]:
        """A text of any length in pieces of at most so many tokens, one after another; of an empty text one.

        around: the ids that are put before and after each; as around a record when left out.
        """
        (ids,) = self.encode_batch([record])
        before, after = self.around if around is None else around
        n = length - len(before) - len(after)
        pieces = [ids[start : start + n] for start in range(0, max(len(ids), 1), n)]
        contents = [torch.from_numpy(np.concatenate([before, piece, after]).astype(np.int64)) for piece in pieces]
        return [TokenSet(content, torch.arange(len(content))[:, None]) for content in contents]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, (n,) int64, as they stand: nothing put around, nothing cut off. Runs in parallel.

        Raises InputError for what is no text, and before `fit`.
        """
        for text in texts:
            if not isinstance(text, str):
                raise InputError(f"a text must be a string, got {type(text).__name__}")
        try:
            return self._table.encode(texts)
        except (UnicodeEncodeError, TypeError):
            # The package says TypeError. Looked for only now, because it takes time and hardly ever happens.
            return self._table.encode([clean(text) for text in texts])

    def encode_known(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode_batch`. Raises InputError for a text of which something is not in the vocabulary."""
        several = self.encode_batch(texts)
        for text, ids in zip(texts, several, strict=True):
            if self.unk_id is not None and (ids == self.unk_id).any():
                raise InputError(f"{text!r} holds what is not in the vocabulary of the model")
        return several

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1, dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        return Lookup(self.n_ids, d_model)

    def decode(self, tokens: TokenSet | Tensor | np.ndarray | Sequence[int]) -> str:
        """The text of token sets or ids, without special tokens. Bytes that are no UTF-8 become U+FFFD."""
        ids = np.asarray(tokens.content if isinstance(tokens, TokenSet) else tokens, dtype=np.int64)
        return self._table.decode(ids)

    def pieces(self, tokens: TokenSet) -> list[str]:
        special = set(self.special_ids)
        ids = tokens.content.tolist()
        return [self._table.spellings[i] if i in special else self.decode([i]) for i in ids]

    def words(self, ids: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        """Which word each token belongs to, (n,) int64, counted from 0.

        A token continues a word if its spelling says so (`##ing` of WordPiece); else where the token before it ends,
        and it begins, in a letter, a digit or a part of a character. Special tokens are words of their own.
        """
        ids = torch.as_tensor(ids, dtype=torch.int64)
        begins, ends = self._table.joints
        starts = torch.ones_like(ids)
        starts[1:] = ~(begins[ids[1:]] & ends[ids[:-1]])
        return starts.cumsum(0) - 1

    # What the data decides.

    def fit(self, records: Iterable[str]) -> Self:
        """A copy that holds the vocabulary. The records pass by one after another, and are not kept.

        Raises InputError if there is no text in them, for a file that is no tokenizer.json, for one that is not the
        vocabulary that is there already, and where `wrap` has nothing to put around a text.
        """
        if self.vocabulary is not None:
            if self.file is not None:
                self.check_vocabulary(self._with_specials(read_vocabulary(self.file)), self.file)
            return replace(self, vocabulary=self._with_specials(self.vocabulary))
        if self.kind == "bytes":
            return self
        if self.file is not None:
            return replace(self, vocabulary=self._with_specials(read_vocabulary(self.file)))
        if self.wrap:
            raise InputError(NO_WRAP)
        learn = learn_characters if self.kind == "characters" else train_bpe
        learnt = learn(read_texts(records), self.normalize, self.vocab_size)
        return replace(self, vocabulary=self._with_specials(learnt))

    def _with_specials(self, vocabulary: str) -> str:
        return add_specials(vocabulary, self.special_tokens) if self.special_tokens else vocabulary

    def inherit(self, other: Tokenizer) -> Self:
        has_own = self.file is not None or self.vocabulary is not None
        if has_own or not isinstance(other, Text) or other.kind != self.kind or other.vocabulary is None:
            return self
        learnt = {name: getattr(other, name) for name in ("normalize", "vocab_size")}
        learnt["vocabulary"] = self._with_specials(other.vocabulary)
        # Its table has a row for each of them, and it has always read a text with what is put around it.
        return replace(self, **learnt, least_ids=self.least_ids or other.least_ids, wrap=self.wrap or other.wrap)

    def agree(self, other: Tokenizer, name: str) -> None:
        if isinstance(other, Text) and other.kind == self.kind and None not in (self.vocabulary, other.vocabulary):
            self.check_vocabulary(other.vocabulary, f"{name}, {other.file}" if other.file else name)

    def rows_from(self, other: Tokenizer) -> Tensor | None:
        if (
            not isinstance(other, Text)
            or None in (self.spellings, other.spellings)
            or self.spellings == other.spellings
        ):
            return None
        theirs = {spelling: i for i, spelling in enumerate(other.spellings) if spelling is not None}
        rows = torch.full((self.n_ids,), -1)
        rows[: len(self.spellings)] = torch.tensor([theirs.get(spelling, -1) for spelling in self.spellings])
        return rows

    @property
    def spellings(self) -> list[str | None] | None:
        """What every id is spelt as, None where a number is left out; None before `fit`."""
        return None if self.vocabulary is None and self.kind != "bytes" else self._table.spellings

    def check_vocabulary(self, vocabulary: str, name: str = "the tokenizer") -> None:
        """Raise InputError, with the first difference, if ids of another vocabulary do not mean what ours mean.

        name: of the other, for the message.
        """
        ours, theirs = self._table.spellings, open_vocabulary(self.kind, vocabulary, self.normalize).spellings
        for i in range(max(len(ours), len(theirs))):
            one, other = (table[i] if i < len(table) else None for table in (ours, theirs))
            if one != other:
                raise InputError(
                    f"{name}: not the vocabulary that the model was trained with: "
                    f"token {i} was {one!r} and is {other!r}"
                )

    # The vocabulary.

    @property
    def key(self) -> str:
        """Names what texts become here: two of the same key give every text the same ids."""
        return json.dumps([self.kind, self.normalize, self.vocabulary])

    @property
    def n_ids(self) -> int:
        """How many ids there are, special ones included; before `fit`, as many as a BPE may get."""
        if self.kind == "bpe" and self.vocabulary is None and self.file is None:
            return self.vocab_size
        known = self.kind == "bpe" and self.vocabulary is not None
        return max(count_ids(self.vocabulary) if known else len(self._table.spellings), self.least_ids or 0)

    @property
    def eos_id(self) -> int:
        """The end of a text, and the start token of a causal one. Raises InputError where there is none."""
        return self._special("end-of-text")

    @property
    def mask_id(self) -> int:
        """What stands in the place of a masked token. Raises InputError where there is none."""
        return self._special("mask")

    @property
    def pad_id(self) -> int | None:
        """The padding of models that start from it; None where there is none, as in what is trained here."""
        return self._table.specials.get("padding")

    @property
    def unk_id(self) -> int | None:
        """What stands for all that the vocabulary lacks; None where it lacks nothing."""
        return self._table.specials.get("unknown")

    @property
    def contents(self) -> list[bytes | None]:
        """What each id adds to a text, as UTF-8; None for special ones and the unknown. Raises InputError where that
        depends on the ids beside it, as in WordPiece."""
        return [*self._table.contents, *[None] * (self.n_ids - len(self._table.contents))]

    @property
    def leads_with_space(self) -> bool:
        """Whether a space belongs to the word behind it, as in GPT-2 and SentencePiece."""
        return self.kind == "bpe" and any(len(each) > 1 and each[0] in SPACES for each in self._table.spellings)

    def ids_of(self, spellings: Sequence[str]) -> list[int]:
        """The ids of special tokens by their spelling. Raises InputError for one that is no special token."""
        named = {self._table.spellings[i]: i for i in self.special_ids}
        for spelling in spellings:
            if spelling not in named:
                raise InputError(f"there is no special token {spelling!r}{nearest(spelling, list(named))}")
        return [named[spelling] for spelling in spellings]

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids put before and after each record. Raises InputError where `wrap` has nothing to put."""
        if self.wrap and not self.can_wrap:
            raise InputError("wrap: the tokenizer.json puts nothing around a text; leave wrap out")
        return self._table.around if self.wrap else ([], [])

    @property
    def can_wrap(self) -> bool:
        """Whether the tokenizer.json says what to put around a text."""
        return self.kind == "bpe" and any(self._table.around)

    @property
    def specials(self) -> dict[str, str]:
        """How the special token of each role of `NAMES` is spelt, where there is one."""
        return {role: self._table.spellings[i] for role, i in self._table.specials.items()}

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids that no text is cut into, the unknown one aside: not to be masked, or made up by a model."""
        return self._table.special_ids

    def _special(self, role: str) -> int:
        if role not in self._table.specials:
            raise InputError(f"{self.file}: has no {role} token; one of {', '.join(NAMES[role])} is needed")
        return self._table.specials[role]

    @property
    def _table(self) -> Bytes | Characters | Package:
        if self.vocabulary is None and self.kind != "bytes":
            raise InputError("the text has no vocabulary yet: fit it to the training records first")
        return open_vocabulary(self.kind, self.vocabulary, self.normalize)

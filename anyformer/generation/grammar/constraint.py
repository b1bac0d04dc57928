"""Which tokens may follow, so that a text keeps to a grammar: worked out by llguidance, over the bytes of tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anyformer.errors import InputError
from anyformer.generation.grammar.options import GrammarOptions

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_SHOWN = 60
"""Characters of a text that a message shows."""


class Vocabulary:
    """What the ids of a text stand for, as llguidance takes it; made once for a model."""

    def __init__(self, contents: Sequence[bytes | None], end_ids: Sequence[int]) -> None:
        """
        contents: by id the bytes that it adds to a text; None for one that no text is made of.
        end_ids: those that end a text.
        """
        from llguidance import LLTokenizer, TokenizerWrapper

        self.contents, self.end_ids = contents, tuple(end_ids)
        if not end_ids:
            raise InputError("a text that keeps to a grammar needs stop_ids, one of which ends it")
        self.tokenizer: LLTokenizer = LLTokenizer(
            TokenizerWrapper(_Tokens(contents, end_ids[0])), n_vocab=len(contents), eos_token=list(end_ids)
        )

    def text(self, ids: Sequence[int]) -> str:
        return b"".join(self.contents[i] or b"" for i in ids).decode("utf-8", "replace")


class _Tokens:
    """The attributes that llguidance reads."""

    bos_token_id = None

    def __init__(self, contents: Sequence[bytes | None], end_id: int) -> None:
        self.eos_token_id = end_id
        self.tokens = [each or b"" for each in contents]
        self.special_token_ids = [i for i, each in enumerate(contents) if each is None]

    def __call__(self, text: Any) -> list[int]:
        """Asked for where a grammar forces a text's own tokens, which ours do not."""
        return []


class Constraint:
    """The grammar of one generation; as a `Rule` it closes what may not follow the ids of each row."""

    def __init__(self, options: GrammarOptions, vocabulary: Vocabulary, leading_space: bool = False) -> None:
        """
        leading_space: whether a text may begin with a space that is not shown.
        Raises InputError for what is no grammar.
        """
        from llguidance import LLMatcher

        self.name, self.vocabulary = options.constrains, vocabulary
        self._first = LLMatcher(vocabulary.tokenizer, options.definition(leading_space), log_level=0)
        if self._first.is_error():
            raise InputError(f"{self.name}: {_in_one_line(self._first.get_error())}")
        self._reached: dict[tuple[int, ...], LLMatcher | None] = {(): self._first}
        """What is known behind the ids of the rows that came last; None behind those that do not keep to it."""

    def __call__(self, logits: Tensor, ids: Sequence[list[int]]) -> None:
        """logits: (b, v), changed in place. Raises InputError where no token can follow."""
        rows = [tuple(each) for each in ids]
        self._advance(rows)
        bits = np.frombuffer(b"".join(map(self._following, rows)), np.uint8).reshape(len(rows), -1)
        n = len(self.vocabulary.contents)
        closed = np.unpackbits(bits, axis=1, count=n, bitorder="little") == 0
        logits[:, :n].masked_fill_(torch.from_numpy(closed).to(logits.device), -torch.inf)
        logits[:, n:] = -torch.inf
        if (logits.amax(1) == -torch.inf).any():
            # Other options may have closed what is left.
            raise self._stuck(rows[int(logits.amax(1).argmin())])

    def _advance(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Get to what is known behind the ids of each row, of which there is one more each time, behind any of those of
        the rows before."""
        before, self._reached = self._reached, {}
        heirs = Counter(row[:-1] for row in set(rows))
        for row in dict.fromkeys(rows):
            if row in before:
                self._reached[row] = before[row]
                continue
            begun = row[:-1] in before
            parent, new = (before[row[:-1]], row[-1:]) if begun else (self._first, row)
            heirs[row[:-1]] -= 1
            if parent is not None and (heirs[row[:-1]] or parent is self._first):
                # But the last of a row's heirs, all go on with a copy.
                parent = parent.deep_copy()
            self._reached[row] = parent if parent is not None and parent.consume_tokens(list(new)) else None

    def _following(self, row: tuple[int, ...]) -> bytes:
        """A bit for each id, 1 for those that may follow."""
        matcher, n_bytes = self._reached[row], -(-len(self.vocabulary.contents) // 8)
        if matcher is None:
            # A beam of no hope, which a search has for want of others, stays as it is.
            return b"\xff" * n_bytes
        bits = matcher.compute_bitmask()[:n_bytes]
        if matcher.is_error():
            # Also where no id may follow.
            raise self._stuck(row)
        return bits

    def _stuck(self, row: tuple[int, ...]) -> InputError:
        text = self.vocabulary.text(row)
        behind = f"behind {text[-MOST_SHOWN:]!r}" if text else "at the beginning"
        return InputError(
            f"{self.name}: {behind} no token may follow: what it asks for there is not in the vocabulary of the model, "
            "or closed by other options"
        )


def _in_one_line(error: str) -> str:
    """What llguidance says of a grammar: the reason, in a grammar with its line, without the lines that it shows."""
    lines = [line for line in error.splitlines() if not re.match(r"\s*(\d+ \||\^)", line)]
    reason = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
    said = re.sub(r" \(in regex\): regex parse error:$", f": {reason}", lines[0])
    said = re.sub(r"^(?:at )?(\d+)\((\d+)\): ", r"line \1, character \2: ", said)
    return said.removeprefix("line 1, character 8: ")

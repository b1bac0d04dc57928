"""Parses in brackets: constituents, `(S (NP the dog) (VP barks))`, and nested lists, `[MAX 2 [MIN 4 7 ] 0 ]`."""

from __future__ import annotations

import re

import numpy as np

from anyformer.errors import InputError
from anyformer.tokenizers.tree.parse import ROOT, Parse

SYMBOL = re.compile(r"[(\[][^\s()\[\]]*|[)\]]|[^\s()\[\]]+")
"""What opens, with its label; what closes; and a word."""
CLOSES = {"(": ")", "[": "]"}


def read_brackets(text: str) -> tuple[Parse, np.ndarray]:
    """A parse whose nodes are all symbols, what closes included, under the one that opens the brackets around them;
    and which nodes are words, (n,) bool. Several trees may stand one after another.

    Raises InputError, with the place, for brackets that do not match, and where there is no word.

    >>> parse, words = read_brackets("(S (NP dogs) bark)")
    >>> parse.words, parse.heads.tolist()
    (('(S', '(NP', 'dogs', ')', 'bark', ')'), [-1, 0, 1, 1, 0, 0])
    """
    if not isinstance(text, str):
        raise InputError(f"a parse in brackets must be a text, got {type(text).__name__}")
    symbols = SYMBOL.findall(text)
    heads, words, around = [], [], [ROOT]
    for i, symbol in enumerate(symbols):
        heads.append(around[-1])
        words.append(symbol[0] not in "()[]")
        if symbol[0] in CLOSES:
            around.append(i)
        elif symbol in CLOSES.values():
            opening = around.pop()
            if opening == ROOT:
                raise InputError(f"symbol {i + 1} of the parse, {symbol!r}, closes a bracket that nothing opened")
            if CLOSES[symbols[opening][0]] != symbol:
                raise InputError(
                    f"symbol {i + 1} of the parse, {symbol!r}, cannot close the {symbols[opening]!r} of symbol "
                    f"{opening + 1}"
                )
    if len(around) > 1:
        raise InputError(f"symbol {around[-1] + 1} of the parse, {symbols[around[-1]]!r}, is never closed")
    if not any(words):
        raise InputError("the parse has no words")
    return Parse(tuple(symbols), np.array(heads, dtype=np.int64)), np.array(words)

"""Values of records: what is missing, and numbers and JSON in the text of a cell."""

from __future__ import annotations


def spells_values(text: str) -> bool:
    """Whether a text is no name of a file but a list or a dict of values, as a cell of a CSV or a command line has it.

    >>> [spells_values(text) for text in ("[1, 2]", '{"age": 4}', "[1] seven.png")]
    [True, True, False]
    """
    text = text.strip()
    return text[:1] + text[-1:] in ("[]", "{}")

"""Values of records: what is missing, and numbers and JSON in the text of a cell."""

from __future__ import annotations

import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path
from typing import Any
from anyformer.errors import InputError, nearest


def spells_values(text: str) -> bool:
    """Whether a text is no name of a file but a list or a dict of values, as a cell of a CSV or a command line has it.

    >>> [spells_values(text) for text in ("[1, 2]", '{"age": 4}', "[1] seven.png")]
    [True, True, False]
    """
    text = text.strip()
    return text[:1] + text[-1:] in ("[]", "{}")

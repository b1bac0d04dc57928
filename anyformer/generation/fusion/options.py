"""Which language model and which words a text is searched by, and what they are read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from anyformer.choices import Values
from anyformer.data.files import find_file, read_lines
from anyformer.data.rows.opening import open_rows, table_ending
from anyformer.errors import InputError
from anyformer.generation.fusion.ngrams import NGrams
from anyformer.generation.fusion.prior import Spelling, TextPrior
from anyformer.generation.options import check_counts


@dataclass(frozen=True, kw_only=True)
class LanguageOptions(Values):
    """What a language model of n-grams, a bonus for words and a lexicon have to say; nothing when nothing is given."""

    language_model: str | None = None
    """What n-grams are counted from: a file with a text on each line; or a table of transcripts. From the current
    folder, else inside $ANYFORMER_DATA."""
    lm_column: str | None = None
    """Of a table the column; that of the target's name when left out."""
    lm_unit: Literal["word", "character"] = "word"
    """What n-grams consist of."""
    lm_order: int = 3
    """Units of an n-gram."""
    lm_weight: float = 0.5
    """What the log-probability of the language model is multiplied by before it is added to the score; 0 for none."""
    word_bonus: float = 0.0
    """What each word adds to the score: above 0 against the shorter texts that a language model favours."""
    lexicon: str | None = None
    """A file of words, one a line, or all that are parted by spaces: nothing else is written."""

    def __post_init__(self) -> None:
        check_counts(self, "lm_order")
        for name in ("lm_weight", "word_bonus"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} must be a number, got {getattr(self, name)}")
        if self.lm_weight < 0:
            raise InputError(f"lm_weight must be at least 0, got {self.lm_weight}")
        if self.lm_column is not None and self.language_model is None:
            raise InputError("lm_column is a column of the table language_model; give that too")

    @property
    def fuses(self) -> bool:
        """Whether the search goes by more than the model."""
        return self.language_model is not None or self.lexicon is not None or self.word_bonus != 0


def make_prior(options: LanguageOptions, spelling: Spelling, normalize: Callable[[str], str], field: str) -> TextPrior:
    """The prior that options ask for.

    normalize: what is done to a text before a model learns it. field: of the target, as a table may call its column.
    Raises InputError for a file that is not there or holds no text.
    """
    ngrams = words = None
    if options.language_model is not None:
        cut = str.split if options.lm_unit == "word" else _characters
        texts = _texts(options.language_model, "language_model", options.lm_column or field)
        ngrams = NGrams((cut(normalize(text)) for text in texts), options.lm_order)
    if options.lexicon is not None:
        words = {word for text in _texts(options.lexicon, "lexicon", field) for word in normalize(text).split()}
    by_word = options.lm_unit == "word"
    return TextPrior(spelling, ngrams, by_word, options.lm_weight, options.word_bonus, words)


def _characters(text: str) -> Sequence[str]:
    return " ".join(text.split())


def _texts(path: str, what: str, column: str) -> Iterator[str]:
    """The texts of a file, a line each; of a table those of a column.

    what: the option, for messages. Raises InputError for a file that is no text, or that holds none.
    """
    place, found = find_file(path), False
    texts: Iterable[Any]
    if table_ending(place) is None:
        texts = read_lines(path)
    else:
        rows = open_rows(path, place, [column])
        texts = (value for (value,) in rows.select([column], 0, len(rows)))
    for text in texts:
        if isinstance(text, str) and text.strip():
            found = True
            yield text
    if not found:
        raise InputError(f"{what}: {path} holds no text")

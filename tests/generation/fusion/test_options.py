"""The files that a prior is read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.generation.fusion.ngrams import NGrams
from anyformer.generation.fusion.options import LanguageOptions, make_prior
from anyformer.tokenizers.text.text import Text

LETTERS = Text("characters").fit(["abc "])


@dataclass(frozen=True)
class Options(LanguageOptions):
    """As a config that has them."""


def made(**options: object):
    return make_prior(Options(**options), LETTERS, str.lower, "text")


def test_lines_of_a_file_and_a_column_of_a_table_are_counted_alike(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("AB a\n\nc ab\r\n")
    (tmp_path / "t.csv").write_text("file,text,said\n1,AB a,x\n2,,y\n3,c ab,\n")
    expected = NGrams([["ab", "a"], ["c", "ab"]], 2)
    ids = LETTERS.encode_batch(["c ab"])[0].tolist()
    for name in ("t.txt", "t.csv"):
        prior = made(language_model=str(tmp_path / name), lm_order=2)
        assert prior.ngrams._counts == expected._counts
    spelt = made(language_model=str(tmp_path / "t.csv"), lm_column="said", lm_unit="character", lm_order=1)
    assert spelt.ngrams.n_units == 3 and spelt.score(ids) < 0
    (tmp_path / "words").write_text("AB c\na\n")
    assert made(lexicon=str(tmp_path / "words")).words == {"ab", "c", "a"}


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "t.csv").write_text("said\nx\n")
    for options, message in (
        ({"lm_order": 0}, "lm_order must be at least 1, got 0"),
        ({"lm_weight": -1.0}, "lm_weight must be at least 0, got -1.0"),
        ({"word_bonus": float("nan")}, "word_bonus must be a number, got nan"),
        ({"lm_unit": "words"}, "lm_unit must be word or character, got 'words'"),
        ({"lm_column": "said"}, "lm_column is a column of the table language_model; give that too"),
        ({"language_model": str(tmp_path / "empty.txt")}, "language_model: .*empty.txt holds no text"),
        ({"lexicon": str(tmp_path / "empty.txt")}, "lexicon: .*empty.txt holds no text"),
        ({"language_model": str(tmp_path / "t.csv")}, "t.csv: no column 'text'; there are said"),
        ({"language_model": str(tmp_path / "none.txt")}, "none.txt"),
    ):
        with pytest.raises(InputError, match=message):
            made(**options)
    assert not Options().fuses and Options(word_bonus=0.1).fuses

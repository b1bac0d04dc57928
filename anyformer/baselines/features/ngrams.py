"""Texts and SMILES as the n-grams in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_matrix, hstack

from anyformer.baselines.features.features import Features
from anyformer.errors import InputError
from anyformer.tokenizers.text.vocabulary import NORMALIZERS
from anyformer.tokenizers.tree.tree import Tree

MOST = 5000
"""N-grams of a kind at most: the most frequent ones of the training records."""


class TextNgrams(Features):
    """Words and pairs of words, and the 2 to 5 characters one after another within words, by TF-IDF; capitals do not
    count."""

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise InputError(f"a text must be a string, got {type(value).__name__}")
        return NORMALIZERS[self.tokenizer.normalize](value)

    def fit(self, kept: Sequence[str]) -> None:
        # Here, as it costs a second, which only who asks for a baseline is to wait for.
        from sklearn.feature_extraction.text import TfidfVectorizer

        kinds = [
            {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
            {"analyzer": "char_wb", "ngram_range": (2, 5)},
        ]
        fitted = [_fitted(TfidfVectorizer, kept, **kind) for kind in kinds]
        self._kinds = [kind for kind in fitted if kind is not None]

    def transform(self, kept: Sequence[str]) -> csr_matrix:
        return csr_matrix(hstack([csr_matrix((len(kept), 0)), *(kind.transform(kept) for kind in self._kinds)]))


class CharacterNgrams(Features):
    """The 1 to 4 characters one after another, of SMILES and of what is cut into n-grams: the logarithm of one more
    than how often each is there, as a larger molecule has more of everything."""

    kind: ClassVar[dict[str, Any]] = {"analyzer": "char", "ngram_range": (1, 4), "lowercase": False}

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise InputError(f"a text must be a string, got {type(value).__name__}")
        return value

    def fit(self, kept: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        self._counts = _fitted(CountVectorizer, kept, **self.kind)

    def transform(self, kept: Sequence[str]) -> csr_matrix:
        if self._counts is None:
            return csr_matrix((len(kept), 0))
        found = self._counts.transform(kept).astype(np.float64)
        found.data = np.log1p(found.data)
        return found


class WordNgrams(CharacterNgrams):
    """The same of the 1 to 3 words one after another of a text that comes with its parse."""

    tokenizer: Tree
    kind: ClassVar[dict[str, Any]] = {"token_pattern": r"\S+", "ngram_range": (1, 3), "lowercase": False}

    def read(self, value: Any) -> str:
        return " ".join(self.tokenizer.words(value))


def _fitted(kind: type, texts: Sequence[str], **options: Any) -> Any:
    """A vectorizer of the n-grams that come in two texts or more; of all where there are none such; None for texts
    without any."""
    for least in (2, 1):
        try:
            return kind(min_df=least, max_features=MOST, **options).fit(texts)
        except ValueError:
            # It says that no n-gram is left.
            continue
    return None

"""How far texts are from what they should be: word and character error rate, exact matches, BLEU.

What is counted is a vector of sums, so that the counts of batches, and of ranks, add up to those of all texts.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anyformer.metrics.metric import Metric

Kind = Literal["equal", "substituted", "inserted", "deleted"]

ORDER = 4
"""The longest n-grams of BLEU."""
N_BLEU = 2 + 2 * ORDER
"""Sums of BLEU: tokens of hypotheses and references, n-grams that match and all n-grams, by length."""
N_SUMS = 6 + 2 * N_BLEU
"""Errors and words, errors and characters, exact matches and texts, and the sums of both kinds of BLEU."""


class Aligned(NamedTuple):
    """A word of the reference beside one of the hypothesis."""

    kind: Kind
    """inserted: in the hypothesis alone. deleted: in the reference alone."""
    reference: str
    """"" where the word was inserted."""
    hypothesis: str
    """"" where the word was deleted."""


def count_errors(references: Sequence[str], hypotheses: Sequence[str], language: str | None = None) -> Tensor:
    """What the rates of texts are made of, (N_SUMS,) int64: of several batches, or ranks, to be added.

    Words are what stands between white space; case and punctuation count.
    language: whose abbreviations the Moses tokenizer knows ("en", "de", ...); None leaves out what is counted of its
        tokens, which takes the longest.
    """
    pairs = list(zip(references, hypotheses, strict=True))
    words = [(reference.split(), hypothesis.split()) for reference, hypothesis in pairs]
    sums = [
        sum(edit_distance(*pair) for pair in words),
        sum(len(reference) for reference, _ in words),
        sum(edit_distance(*pair) for pair in pairs),
        sum(len(reference) for reference, _ in pairs),
        sum(reference == hypothesis for reference, hypothesis in pairs),
        len(pairs),
        *_count_ngrams("13a", references, hypotheses),
    ]
    if language is None:
        return torch.tensor([*sums, *[0] * N_BLEU])
    tokens = ([_moses(text, language) for text in texts] for texts in (references, hypotheses))
    return torch.tensor([*sums, *_count_ngrams("none", *tokens)])


def error_rates(sums: Tensor) -> dict[str, float]:
    """The rates by name, from the sums of `count_errors`; of no text at all, 0 each.

    wer, cer: errors over the words, or characters, of the references; 0.1 is one in ten, and more than 1 can be.
    exact_match: the share of texts that are as they should be.
    bleu: of the whole corpus, 0 to 100, by sacrebleu's definition (Post 2018): 13a, case kept.
    bleu_moses: the same of lower-cased text that Moses' rules cut into tokens, as papers on Multi30k give it; not there
        where it was left out.
    """
    values = sums.tolist()
    word_errors, words, character_errors, characters, exact, texts = values[:6]
    rates = {
        "wer": word_errors / max(words, 1),
        "cer": character_errors / max(characters, 1),
        "exact_match": exact / max(texts, 1),
        "bleu": _bleu(values[6 : 6 + N_BLEU]),
    }
    n_references = values[6 + N_BLEU + 1]
    return rates | ({"bleu_moses": _bleu(values[6 + N_BLEU :])} if n_references else {})


def _rate(name: str, sums: Tensor) -> Tensor:
    # Of no text at all the rates are 0, which would be the best model's.
    return sums.new_tensor(error_rates(sums.long()).get(name, math.nan) if sums.any() else math.nan)


TEXT_METRICS = {
    name: Metric(best, ("errors",), partial(_rate, name))
    for name, best in {
        "wer": "min",
        "cer": "min",
        "exact_match": "max",
        "bleu": "max",
        "bleu_moses": "max",
    }.items()
}
"""Of the sums of `count_errors` under the name of errors."""


def edit_distance(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that make one of the other.

    All rows of the table at once, a bit each (Myers 1999, in the form of Hyyrö 2003).
    """
    if not reference:
        return len(hypothesis)
    places: dict[Hashable, int] = {}
    for i, item in enumerate(reference):
        places[item] = places.get(item, 0) | 1 << i
    every, last = (1 << len(reference)) - 1, 1 << len(reference) - 1
    # Where a column of the table goes up, and down, from one row to the next.
    up, down, distance = every, 0, len(reference)
    for item in hypothesis:
        equal = places.get(item, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right_up, right_down = down | ~(diagonal | up), diagonal & up
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = right_up << 1 | 1, right_down << 1
        up, down = (right_down | ~(diagonal | right_up)) & every, right_up & diagonal & every
    return distance


def align_words(reference: str, hypothesis: str) -> list[Aligned]:
    """The words of both texts side by side, with as few errors as possible."""
    left, right = reference.split(), hypothesis.split()
    table = np.zeros((len(left) + 1, len(right) + 1), np.int64)
    columns = np.arange(len(right) + 1)
    table[0] = columns
    known = np.array([*right, ""], dtype=object)[:-1]
    for i, word in enumerate(left):
        table[i + 1, 0] = i + 1
        table[i + 1, 1:] = np.minimum(table[i, 1:] + 1, table[i, :-1] + (known != word))
        # An insertion costs one more than the cell to the left.
        table[i + 1] = np.minimum.accumulate(table[i + 1] - columns) + columns
    found: list[Aligned] = []
    i, j = len(left), len(right)
    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (left[i - 1] != right[j - 1]):
            i, j = i - 1, j - 1
            found.append(Aligned("equal" if left[i] == right[j] else "substituted", left[i], right[j]))
        elif i and table[i, j] == table[i - 1, j] + 1:
            i -= 1
            found.append(Aligned("deleted", left[i], ""))
        else:
            j -= 1
            found.append(Aligned("inserted", "", right[j]))
    return found[::-1]


@cache
def _sacrebleu(tokenize: str) -> Any:
    # Here, as it costs a moment, and only text needs it. `force`: a word on texts that look tokenized helps nobody.
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenize, force=True)


def _count_ngrams(tokenize: str, references: Sequence[str], hypotheses: Sequence[str]) -> list[int]:
    if not references:
        return [0] * N_BLEU
    score = _sacrebleu(tokenize).corpus_score(list(hypotheses), [list(references)])
    return [score.sys_len, score.ref_len, *score.counts, *score.totals]


def _bleu(sums: Sequence[int]) -> float:
    from sacrebleu.metrics import BLEU

    hypotheses, references, *rest = sums
    return BLEU.compute_bleu(rest[:ORDER], rest[ORDER:], hypotheses, references, smooth_method="exp").score


@cache
def _moses_tools(language: str) -> tuple[Any, Any]:
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    return MosesPunctNormalizer(language), MosesTokenizer(language)


def _moses(text: str, language: str) -> str:
    normalizer, tokenizer = _moses_tools(language)
    return tokenizer.tokenize(normalizer.normalize(text.lower()), return_str=True, escape=False)

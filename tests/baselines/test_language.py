"""N-gram models of ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anyformer.baselines.language import WittenBell, ngram_lines, preceding
from anyformer.data.source import Source
from anyformer.model.config import TransformerConfig
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text


def by_hand(history: list[int], token: int, train: list[int], n_ids: int, start: int, order: int) -> float:
    """The formula written out, with dicts."""
    p, padded = 1 / n_ids, [start] * (order - 1) + train
    for length in range(order):
        context = tuple(history[len(history) - length :])
        after = [padded[i] for i in range(order - 1, len(padded)) if tuple(padded[i - length : i]) == context]
        if after:
            p = (after.count(token) + len(set(after)) * p) / (len(after) + len(set(after)))
    return p


def test_probabilities_are_those_of_the_formula_and_add_up_to_1() -> None:
    random = np.random.default_rng(0)
    train, seen, n_ids = random.integers(0, 5, 60), random.integers(0, 6, 40), 7
    model = WittenBell(preceding(train, 6), train, n_ids)
    found = model.probabilities(preceding(seen, 6), seen)
    padded = [6] * 4 + seen.tolist()
    for order, p in enumerate(found, start=1):
        wanted = [
            by_hand(padded[i : i + 4], token, train.tolist(), n_ids, 6, order) if order == 5
            else by_hand(padded[i + 5 - order : i + 4], token, train.tolist(), n_ids, 6, order)
            for i, token in enumerate(seen.tolist())
        ]  # fmt: skip
        assert p == pytest.approx(wanted)
    contexts = [np.repeat(keys[7:8], n_ids) for keys in preceding(seen, 6)]
    for p in model.probabilities(contexts, np.arange(n_ids)):
        assert p.sum() == pytest.approx(1)


def test_longer_contexts_tell_more_of_a_text_that_repeats_itself_in_the_units_of_the_task(tmp_path: Path) -> None:
    sources: dict[str, Source] = {}
    for name, n in (("train", 60), ("validation", 20)):
        (tmp_path / f"{name}.txt").write_text("abcabd" * n)
        sources[name] = Corpus(str(tmp_path / f"{name}.txt"))
    task = LanguageModel(
        {"text": Text("bytes")}, TransformerConfig(d_model=8, depth=1, n_heads=2), context=16, cache=str(tmp_path)
    )
    task.fit_tokenizers(sources["train"])
    lines, notes = ngram_lines(task, sources, {"validation": "val"})
    losses = [line.outcomes[0].metrics["val/loss"] for line in lines]
    assert notes == [] and losses == sorted(losses, reverse=True)
    # Of six letters three are a or b: what follows ab is c or d in turn, which three letters more tell.
    assert losses[2] == pytest.approx(np.log(2) / 3, abs=0.1) and losses[4] < 0.2
    metrics = lines[0].outcomes[0].metrics
    n_tokens, n_bytes = 20 * 6 + 1, 20 * 6
    assert metrics["val/bits_per_byte"] == pytest.approx(losses[0] * n_tokens / n_bytes / np.log(2))
    assert metrics["val/perplexity"] == pytest.approx(np.exp(losses[0]))
    assert lines[4].outcomes[0].inner < lines[0].outcomes[0].inner

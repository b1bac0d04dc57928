"""N-gram models of ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anyformer.baselines import language
from anyformer.baselines.baseline import baseline
from anyformer.baselines.language import WittenBell, masked_lines, ngram_lines, preceding
from anyformer.data.source import Source
from anyformer.model.config import TransformerConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.language.batch import Masking
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


def masked_model(folder: Path, **options: float) -> tuple[LanguageModel, dict[str, Source]]:
    """Of a text in which every other letter is drawn from four, and tells the one before it and not the one after."""
    random, sources = np.random.default_rng(0), dict[str, Source]()
    for name, n in (("train", 600), ("validation", 100)):
        (folder / f"{name}.txt").write_text("".join(random.choice(["ae", "bf", "cg", "dh"], n)))
        sources[name] = Corpus(str(folder / f"{name}.txt"))
    sizes = TransformerConfig(d_model=8, depth=1, n_heads=2)
    task = LanguageModel(
        {"text": Text("bytes")}, sizes, context=20, masking=Masking(share=0.05, **options), cache=str(folder)
    )
    return task, sources


def test_what_is_masked_is_told_by_what_stands_beside_it(tmp_path: Path) -> None:
    # A sample has one masked token, so that both of its neighbours are there, but for the ends of the sample.
    task, sources = masked_model(tmp_path, replaced=1.0, redrawn=0.0)
    (section,) = baseline(task, Records(sources["train"], sources["validation"])).sections
    accuracy = {line.model: line.outcomes[0].metrics["val/accuracy"] for line in section.lines}
    losses = [line.outcomes[0].metrics["val/loss"] for line in section.lines]
    # Of eight letters; half of them are told by the one before, and the other half by the one after.
    assert accuracy["1-gram, Witten-Bell"] < 0.4
    assert 0.4 < accuracy["token before, Witten-Bell"] < 0.85
    assert accuracy["tokens before and after, Witten-Bell"] > 0.85
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(np.log(8), abs=0.3)
    assert section.lines[0].outcomes[0].metrics["val/perplexity"] == pytest.approx(np.exp(losses[0]))
    assert section.best()[0].names == ["tokens before and after, Witten-Bell on text"]


def test_of_many_masked_tokens_a_sample_is_taken_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, sources = masked_model(tmp_path)
    task.fit_tokenizers(sources["train"])
    monkeypatch.setattr(language, "MOST_GUESSES", 4 * task.text.n_ids)
    _, notes = masked_lines(task, sources, {"validation": "val"})
    assert notes == ["a sample of 4 of the 11 validation stretches"]

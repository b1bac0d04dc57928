"""What a user is warned of, each in data that is just wrong enough, and nothing where all is well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anyformer.data.batch_plan import plan_batches
from anyformer.data.samples import Samples
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.planning.checks import _balance, cautions
from anyformer.planning.token_budget import count_budget, stacks
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer

SMALL = TransformerConfig(d_model=8, depth=1, n_heads=2)
ROTARY = replace(SMALL, rotary=RotaryConfig(("word",)))
PICTURE = np.zeros((8, 8), np.uint8)


class Rows(Source):
    """Rows as given."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]

    def name(self, i: int) -> str:
        return f"row {i}"


def said(task: Task, source: Source, pack: bool = False, bad: tuple[str, ...] = ()) -> list[str]:
    """What is said of all samples in one batch, one a row or packed."""
    task.fit_tokenizers(source)
    task.build()
    samples = Samples(task.view(source, True), task.chopper(True), True)
    n = len(samples)
    plan = plan_batches(n, batch_size=n, shuffle=False)
    if pack:
        plan = plan_batches(n, max_tokens=10**6, lengths=samples.lengths(), pack=True, shuffle=False)
    fetched = [samples.__getitems__(draws) for draws in plan.epoch(0)]
    budget = count_budget([stacks(each.batch) for each in fetched if each.batch is not None])
    return list(cautions(task, source, samples, budget, list(bad), n))


def classifier(**tokenizers: Tokenizer) -> Classify:
    return Classify(tokenizers, ROTARY if "text" in tokenizers else SMALL)


def texts(*values: str | None, **others: Any) -> Rows:
    return Rows([{"text": text, "label": i % 2, **others} for i, text in enumerate(values)])


def test_nothing_is_said_where_all_is_well() -> None:
    rows = Rows([{"image": PICTURE, "text": "a few words", "label": i % 2} for i in range(10)])
    task = classifier(image=ImagePatches((8, 8), 2, 1), text=Text("bytes"))
    assert said(task, rows) == []


def test_samples_that_cannot_be_used_are_counted() -> None:
    (line,) = said(classifier(text=Text("bytes")), texts("abc", "abd"), bad=("row 3: no", "row 5: no", "row 6: no"))
    assert line.startswith("3 of 2 samples cannot be used: row 3: no; row 5: no, and 1 more; mend them")


@pytest.mark.parametrize(("patch", "n"), [(4, 4), (8, 1)])
def test_a_patch_that_leaves_four_tokens(patch: int, n: int) -> None:
    rows = Rows([{"image": PICTURE, "label": i % 2} for i in range(4)])
    (line,) = said(classifier(image=ImagePatches((8, 8), patch, 1)), rows)
    assert line.startswith(f"field 'image' has {n} tokens a sample at most; cut it finer")


def test_texts_that_are_cut_off() -> None:
    cut = Text("bytes", max_len=6, truncate=True)
    (line,) = said(classifier(text=cut), texts("abc", "abcdefgh", "abcdef", "a"))
    assert line.startswith("field 'text': 50% of the texts are cut off at max_len=6; raise it")
    assert said(classifier(text=replace(cut, max_len=9)), texts("abc", "abcdefgh", "abcdef", "a")) == []


def test_a_context_shorter_than_the_documents(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(["short", "a document that is far longer than the context"] * 4))
    corpus = Corpus(str(tmp_path / "text.txt"), split="line")
    for context, n in ((16, 1), (64, 0)):
        model = LanguageModel(
            {"text": Text("bytes")}, ROTARY, context=context, samples="documents", cache=str(tmp_path / "cache")
        )
        lines = said(model, corpus, pack=True)
        assert len(lines) == n, lines
        if n:
            assert lines[0].startswith("context=16 is shorter than 50% of the documents, which are cut into pieces")
            assert lines[0].endswith("the longest has 47 tokens")


def test_classes_out_of_balance() -> None:
    def rows(n: int) -> Rows:
        return Rows([{"image": PICTURE, "label": "rare" if i < n else "often"} for i in range(44)])

    task = {"tokenizers": {"image": ImagePatches((8, 8), 2, 1)}, "transformer": SMALL}
    (line,) = said(Classify(**task), rows(4))
    assert line.startswith("column 'label': 'often' comes 40 times and 'rare' 4 times; weigh them by class_weights")
    assert said(Classify(**task), rows(5)) == []
    assert said(Classify(**task, class_weights="balanced"), rows(4)) == []
    assert line.endswith("with choose: f1")
    assert said(Classify(**task, choose="f1"), rows(4))[0].endswith("class_weights: balanced")
    unlabelled = Rows([{"image": PICTURE, "label": label} for label in (None, float("nan"), " ")])
    assert list(_balance(Classify(**task, classes=["a", "b"]), unlabelled)) == []


@pytest.mark.parametrize("others", [(), ("sort",)])
def test_the_metric_that_is_advised_can_be_chosen(others: tuple[str, ...]) -> None:
    rows = Rows([{"image": PICTURE, "label": "rare" if i < 4 else "often", "sort": i % 2} for i in range(44)])
    task = {"tokenizers": {"image": ImagePatches((8, 8), 2, 1)}, "transformer": SMALL}
    targets = {"label": Category(), **{name: Category() for name in others}}
    (line,) = said(Predict(**task, targets=targets), rows)
    advised = line.rpartition("choose: ")[2]
    assert "choose" not in said(Predict(**task, targets=targets, choose=advised), rows)[0]
    balanced = targets | {"label": Category(class_weights="balanced")}
    assert said(Predict(**task, targets=balanced, choose=advised), rows) == []


def test_a_field_that_is_nearly_always_absent() -> None:
    rows = Rows([{"image": PICTURE, "text": "words here" if i == 0 else None, "label": i % 2} for i in range(11)])
    task = classifier(image=ImagePatches((8, 8), 2, 1), text=Text("bytes"))
    (line,) = said(task, rows)
    assert line.startswith("field 'text' is absent in 91% of the samples; little can be learnt of it")


def test_a_field_that_is_left_out_on_purpose_is_none_of_them() -> None:
    rows = Rows([{"image": PICTURE, "text": "words here", "label": i % 2} for i in range(300)])
    tokenizers = {"image": ImagePatches((8, 8), 2, 1), "text": Text("bytes")}
    task = Classify(tokenizers, ROTARY, fields=FieldsConfig(dropout={"text": 0.96}))
    assert said(task, rows) == []


def test_a_vocabulary_larger_than_the_corpus_can_fill() -> None:
    (line,) = said(classifier(text=Text("bpe", 2000)), texts("to be or not", "to be that is"))
    assert "fewer than vocab_size=2,000; lower it" in line
    words = [" ".join(np.random.default_rng(i).choice(list("abcdefghijklmnop"), 9)) for i in range(40)]
    (line,) = said(classifier(text=Text("bpe", 270)), texts(*words))
    assert line.startswith("field 'text': vocab_size=270 is large for some") and "for each id; lower it" in line


def test_positions_far_longer_than_the_data() -> None:
    def task(most: int) -> Classify:
        return Classify({"text": Text("bytes", max_len=most)}, SMALL)

    (line,) = said(task(401), texts("a" * 100, "b" * 20, "c" * 90))
    assert line.startswith("the learned positions on 'word' hold 401 places, and the samples seen come to 100")
    assert said(task(400), texts("a" * 100, "b" * 90, "c" * 90)) == []


def test_rows_that_are_less_than_half_full() -> None:
    rows = texts("a" * 100, *["b" * 5] * 20)
    (line,) = said(classifier(text=Text("bytes")), rows)
    assert line.startswith("rows are 10% full") and "data.max_tokens puts samples of like length together" in line
    assert said(classifier(text=Text("bytes")), rows, pack=True) == []


def test_a_column_that_cannot_be_asked_is_left_alone() -> None:
    class Shy(Rows):
        def column(self, name: str) -> list[Any]:
            raise InputError("no columns here")

    rows = Shy([{"image": PICTURE, "label": "a"}] * 20)
    task = Classify({"image": ImagePatches((8, 8), 2, 1)}, SMALL, classes=["a", "b"])
    task.fit_tokenizers = lambda source: None  # type: ignore[method-assign]
    assert said(task, rows) == []

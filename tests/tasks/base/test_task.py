"""What all tasks share: no input holds the answer, and metrics of all kinds can be averaged."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from anyformer.data.python_records import as_source
from anyformer.data.source import Joined, Pick, Source
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import CTCConfig, SequenceToSequence
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text
from tests.helpers.table_files import write
from tests.helpers.turned import RATE, SMALL, recogniser, sound, translator
from tests.helpers.worlds import decider, walks

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def table(tmp_path: Path, **columns: Any) -> Table:
    write(tmp_path / "t.jsonl", [{"size": i, "label": "ab"[i % 2], "note": "x"} for i in range(4)])
    return Table(str(tmp_path / "t.jsonl"), columns)


def sources(source: Table) -> list[Source]:
    return [
        source,
        Pick(source),
        source.take([1, 0]),
        Joined((source,)),
        Pick(Joined((source, source)), each=1).take([0]),
    ]


TASKS = {
    "Classify": lambda: Classify({"field": Row()}, target="answer"),
    "Category": lambda: Predict({"field": Row()}, {"answer": Category(), "other": Regression()}),
    "Labels": lambda: Predict({"field": Row()}, {"answer": Labels()}),
    "Regression": lambda: Predict({"field": Row()}, {"many": Regression(columns=("other", "answer"))}),
    "TextTarget": lambda: Predict({"field": Text("bytes")}, {"answer": TextTarget(Text("bytes"))}),
    "Masked beside it": lambda: Predict({"field": Text("bytes")}, {"field": Masked(), "answer": Category()}),
    "SequenceToSequence": lambda: SequenceToSequence(
        dict.fromkeys(("field", "answer"), Text("bytes")), target="answer"
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_no_input_holds_what_a_target_is_read_from(name: str, tmp_path: Path) -> None:
    task = TASKS[name]()
    given = ["size", "label"] if isinstance(task.tokenizers["field"], Row) else "label"
    message = (
        "the column 'label' of the target '(answer|many)' is also in the input 'field', which a model would only copy"
    )
    for source in sources(table(tmp_path, field=given, answer="label", label="label", other="size")):
        with pytest.raises(InputError, match=message):
            task.fit_tokenizers(source)
    for source in sources(table(tmp_path, field="note", answer="label", label="label", other="size")):
        task.check_inputs(source)


def test_it_is_refused_in_validation_too_and_of_one_of_several_sources(tmp_path: Path) -> None:
    good, bad = (table(tmp_path, row=row, label="label") for row in (["size"], ["size", "label"]))
    task = Classify({"row": Row()})
    task.fit_tokenizers(good)
    # A row that is known to hold other columns does not read it.
    task.check_inputs(bad)
    with pytest.raises(InputError, match="the column 'label' of the target 'label' is also in the input 'row'"):
        Classify({"row": Row()}).check_inputs(Joined((good, bad)))
    texts, wrong = Classify({"row": Text("bytes", max_len=9)}), table(tmp_path, row="label", label="label")
    data = Records(table(tmp_path, row="note", label="label"), wrong, batch_size=2)
    with pytest.raises(InputError, match="the column 'label' of the target 'label' is also in the input 'row'"):
        lightning.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False).fit(texts, data)


def test_what_may_read_the_column_of_its_target_does(tmp_path: Path) -> None:
    source = table(tmp_path, field="label", answer="label")
    # What is hidden is predicted of the same column, and capitals are restored from it.
    Predict({"field": Text("bytes")}, {"field": Masked()}).check_inputs(source)
    texts = {"field": Text("characters", normalize="lowercase"), "answer": Text("characters")}
    SequenceToSequence(texts, target="answer").check_inputs(source)
    Classify({"row": Row({"size": "number"})}).check_inputs(table(tmp_path, row=["size", "label"], label="label"))


def test_a_score_is_1_where_a_metric_is_perfect_and_less_where_it_is_worse() -> None:
    text = {"note": Text("characters")}
    metres, millimetres = (
        Predict(text, {"size": Regression(n=1, mean=(unit,), std=(2 * unit,))}, choose="rmse") for unit in (1.0, 1000.0)
    )
    played = decider(walks("box"), known_returns=(-6.0, 4.0))
    for task, perfect, worse, score in (
        (Classify(text), 1.0, 0.7, 0.7),
        (Predict(text, {"size": Regression(n=1, scaling="none")}), 0.0, 0.5, math.exp(-0.5)),
        (metres, 0.0, 1.0, math.exp(-0.5)),
        (millimetres, 0.0, 1000.0, math.exp(-0.5)),
        (translator(), 100.0, 30.0, 0.3),
        (recogniser(), 0.0, 0.5, math.exp(-0.5)),
        # Between the worst and the best of the episodes that were learned from.
        (played, 4.0, -3.5, 0.25),
        (decider(walks("box"), play=None), 0.0, 2.0, math.exp(-2)),
    ):
        assert task.score(perfect) == 1 and task.score(worse) == pytest.approx(score), task.metric
    assert played.score(-6.0) == 0 and played.metric == ("val/return", "max")


RECORDS = [
    {
        "text": "ab",
        "turned": "ba",
        "audio": (sound("ab"), RATE),
        "size": {"a": i, "b": 2.0},
        "label": "ab"[i % 2],
        "y": 3.0 * i,
    }
    for i in range(4)
]
FITTED = {
    "many targets": lambda: Predict(
        {"size": Row(), "text": Text("characters")},
        {"label": Category(), "y": Regression(), "turned": TextTarget(Text("characters"))},
        SMALL,
        EmbeddingConfig(positions=[PositionConfig(("word",), "sinusoidal")]),
        read="attention",
    ),
    "by attention": lambda: translator(),
    "by CTC": lambda: recogniser("encoder"),
    "by both, beams": lambda: recogniser(ctc=CTCConfig(weight=0.3), decoding=DecodeConfig(method="joint", n_beams=2)),
    "a language model": lambda: LanguageModel({"text": Text("bytes")}, SMALL, context=8),
}


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_that_was_cast_predicts_about_the_same(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    task = FITTED[name]()
    task.fit_tokenizers(as_source(RECORDS, "records"))
    task.configure_model()
    options = GenerationConfig(max_new_tokens=4, temperature=0.5) if name == "a language model" else None
    expected = task.predict(RECORDS[:2], options)
    found = task.to(dtype).predict(RECORDS[:2], options)
    assert {p.dtype for p in task.parameters()} == {dtype}
    if name != "many targets":
        # Weights that were drawn choose among ids by next to nothing.
        assert [each.keys() for each in found] == [each.keys() for each in expected]
        return
    for now, then in zip(found, expected, strict=True):
        assert now["y"] == pytest.approx(then["y"], rel=0.05)
        assert now["label"]["probabilities"] == pytest.approx(then["label"]["probabilities"], abs=0.02)

"""What all tasks share: no input holds the answer, and metrics of all kinds can be averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from anyformer.data.python_records import as_source
from anyformer.data.source import Joined, Pick, Source
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.ensemble.ensemble import Ensemble
from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.mixture.mixture import Mixture
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.decoding import DecodeConfig
from anyformer.tasks.sequence.sequence import CTCConfig, SequenceToSequence
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text
from tests.helpers.table_files import write
from tests.helpers.turned import RATE, SMALL, Turned, recogniser, sound, translator
from tests.helpers.witnesses import redraw
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


# Vectors

BYTES = Text("bytes", max_len=20)
SIZES = TransformerConfig(d_model=12, depth=2, n_heads=3)
NOTES = ("to be", "or", "not to be, that is")
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)


def built(task: Task) -> Task:
    task.build()
    redraw(task)
    return task


def heard(architecture: Any) -> Task:
    task = recogniser(architecture, decoding=DecodeConfig(max_new_tokens=4))
    task.fit_tokenizers(Turned(4))
    return built(task)


def notes(**others: Sequence[Any]) -> list[dict[str, Any]]:
    columns = {"note": NOTES, **others}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def of_a_mixture() -> Task:
    tasks = {"mood": Classify({"note": BYTES}, classes=["a", "b"]), "poet": LanguageModel({"note": BYTES}, context=8)}
    return built(Mixture(tasks, SIZES)).members["mood"]


EMBEDS: dict[str, tuple[Callable[[], Task], Callable[[], Any]]] = {
    "classify": (lambda: built(Classify({"note": BYTES}, SIZES, classes=["a", "b"])), notes),
    "predict": (
        lambda: built(
            Predict(
                {"note": BYTES, "image": ImagePatches(size=(8, 8), patch=4, channels=1)},
                {"size": Regression(n=1, scaling="none"), "note": Masked()},
                SIZES,
                read="attention",
            )
        ),
        lambda: notes(image=list(PICTURES)),
    ),
    "language": (lambda: built(LanguageModel({"note": BYTES}, SIZES, context=8)), notes),
    "documents": (lambda: built(LanguageModel({"note": BYTES}, SIZES, context=8, samples="documents")), notes),
    "masked": (lambda: built(LanguageModel({"note": BYTES}, SIZES, context=8, masking=Masking())), notes),
    "encoder and decoder": (
        lambda: heard("encoder_decoder"),
        lambda: [{"audio": Turned(3)[i]["audio"]} for i in range(3)],
    ),
    "encoder": (lambda: heard("encoder"), lambda: [{"audio": Turned(3)[i]["audio"]} for i in range(3)]),
    "decoder": (lambda: heard("decoder"), lambda: [{"audio": Turned(3)[i]["audio"]} for i in range(3)]),
    "policy": (lambda: decider(walks("box")), lambda: [walks("box")[i]["episode"] for i in range(3)]),
    "one of a mixture": (of_a_mixture, notes),
}


@pytest.mark.parametrize("name", EMBEDS)
def test_every_task_gives_vectors_of_records_however_many_come_at_once(name: str) -> None:
    make, records = EMBEDS[name]
    task, given = make(), records()
    d_model = task.model.transformer.config.d_model
    found = task.embed(given)
    assert found.shape == (3, d_model) and found.dtype == np.float32
    alone = np.stack([task.embed(record) for record in given])
    np.testing.assert_allclose(alone, found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(task.embed(given, batch_size=2), found, rtol=1e-4, atol=1e-5)
    assert found.std(0).max() > 0.01
    tokens = task.embed(given, pool="tokens")
    assert [set(each) for each in tokens] == [set(task.embedded_fields)] * 3
    means = np.stack([np.concatenate(list(each.values())).mean(0) for each in tokens])
    np.testing.assert_allclose(task.embed(given, pool="mean"), means, rtol=1e-4, atol=1e-5)
    assert not np.allclose(task.embed(given, pool="mean", layer=0), means)


def test_a_field_is_read_alone_or_with_what_the_others_have_shown_it() -> None:
    task, given = (made() for made in EMBEDS["predict"])
    alone = task.embed([{"image": record["image"]} for record in given])
    within = task.embed(given, field="image")
    tokens = task.embed(given[0], pool="tokens", field="image")
    assert list(tokens) == ["image"]
    np.testing.assert_allclose(within[0], tokens["image"].mean(0), rtol=1e-4, atol=1e-5)
    assert np.abs(alone - within).max() > 0.01
    assert not np.allclose(within, task.embed(given))
    # What is masked in an evaluation is read.
    np.testing.assert_allclose(task.embed(given[0]), task.embed([given[0]])[0], rtol=1e-4, atol=1e-5)
    assert task.embed([]).shape == (0, 12) and task.embed([], pool="tokens") == []


def test_the_class_token_is_read_where_the_head_reads_it() -> None:
    task = EMBEDS["classify"][0]()
    batch = task.chopper(training=False)
    tokens = batch.collate([batch(record, labelled=False) for record in notes()]).tokens
    with torch.inference_mode():
        wanted = task.pool.read(task.model, tokens)
    np.testing.assert_allclose(task.embed(notes()), wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(task.embed(notes()), task.embed(notes(), pool="mean"))


def test_a_text_or_an_episode_longer_than_the_context_is_read_in_pieces() -> None:
    task = EMBEDS["language"][0]()
    pieces = [task.embed({"note": text}, pool="tokens")["note"] for text in ("not to b", "e, that ", "is")]
    whole = task.embed({"note": "not to be, that is"}, pool="tokens")["note"]
    np.testing.assert_allclose(whole, np.concatenate(pieces), rtol=1e-4, atol=1e-5)
    # A token sees none behind it.
    changed = task.embed({"note": "not to X"}, pool="tokens")["note"]
    np.testing.assert_allclose(changed[:7], pieces[0][:7], rtol=1e-4, atol=1e-5)
    assert np.abs(changed[7] - pieces[0][7]).max() > 0.01
    policy, (episode, *_) = (made() for made in EMBEDS["policy"])
    n = len(episode)
    assert n > policy.context
    steps = policy.embed({"episode": episode}, pool="tokens")
    assert len(steps["return"]) == len(steps["action"]) == n


def test_what_cannot_be_embedded_is_said() -> None:
    task = EMBEDS["classify"][0]()
    for options, message in (
        ({"layer": 3}, r"^layer must be from -3 to 2, got 3"),
        ({"field": "nope"}, r"^field: there is no field 'nope'; there are note$|did you mean 'note'"),
        ({"pool": "class", "field": "note"}, r"^pool: class is of whole records"),
        ({"pool": "meen"}, r"pool must be class, mean, last or tokens, got 'meen'; did you mean 'mean'\?"),
    ):
        with pytest.raises(InputError, match=message):
            task.embed(notes(), **options)
    with pytest.raises(InputError, match=r"^pool: the model has no class token; take mean, last or tokens$"):
        EMBEDS["language"][0]().embed("x", pool="class")
    with pytest.raises(InputError, match=r"^the task has no weights yet; fit it, or load a run$"):
        Classify({"note": BYTES}).embed("x")
    np.testing.assert_array_equal(task.embed(notes(), field="note"), task.embed(notes(), pool="mean"))
    both, (record, *_) = (made() for made in EMBEDS["predict"])
    with pytest.raises(InputError, match=r"^record 1 has nothing in image, which is to be read$"):
        both.embed([record, {"note": "x"}], field="image")
    mixture = Mixture({"a": Classify({"note": BYTES}), "b": LanguageModel({"note": BYTES}, context=8)}, SIZES)
    with pytest.raises(InputError, match=r"^a mixture has no `embed`; load one of its tasks by name: RUN:a, RUN:b$"):
        mixture.embed(notes())
    with pytest.raises(InputError, match=r"^Ensemble has no `embed`$"):
        Ensemble([Classify({"note": BYTES}, SIZES, classes=["a", "b"]) for _ in range(2)]).embed(notes())
    with pytest.raises(InputError, match=r"^record 0 must be an Episode, or hold one as `episode`; it has note$"):
        EMBEDS["policy"][0]().embed([{"note": 1}])


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

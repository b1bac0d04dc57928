"""Passes of an evaluation: each is what `predict` says of the records without those inputs, by group and as a whole."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning import seed_everything

from anyformer.errors import InputError
from anyformer.runs.checkpointing import Saving
from anyformer.runs.fit import evaluate, fit
from anyformer.runs.trainer import quiet as quietly
from anyformer.tasks.base.evaluation import Evaluations
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.sequence.sequence import CTCConfig
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.text.text import Text
from tests.helpers.mixed_fields import SMALL, Shown, two_inputs
from tests.helpers.small_run import in_a_fork
from tests.helpers.stopped_runs import Signal, assert_same_run
from tests.helpers.turned import Turned, recogniser, translator
from tests.helpers.witnesses import redraw
from tests.helpers.worlds import decider, walks
from tests.tasks.predict.test_predict import Rows
from tests.tasks.predict.test_predict import records as targets_of
from tests.tasks.predict.test_predict import task as targets_task

WITHOUT = [["left"], ["right"]]


def ready(**options: Any) -> Classify:
    """A task that answers differently to different records, though it has learnt nothing."""
    task = two_inputs(**{"classes": ["even", "odd"], "without": WITHOUT, "by": "size"} | options)
    task.build()
    redraw(task)
    return task


def data(**options: Any) -> Records:
    return Records(Shown(), Shown(), Shown(), **{"batch_size": 5} | options)


def expected(task: Classify) -> dict[str, float]:
    """The accuracies, by hand."""
    metrics, source = {}, Shown()
    for prefix, gone in (("without_left/", "left"), ("without_right/", "right"), ("", None)):
        records = [source[i] for i in range(len(source))]
        records = [{**record, gone: None} if gone else record for record in records]
        records = [record for record in records if record["left"] or record["right"]]
        is_right = [r["label"] == record["label"] for r, record in zip(task.predict(records), records, strict=True)]
        for size in ("few", "many", None):
            found = [ok for ok, record in zip(is_right, records, strict=True) if size in (None, record["size"])]
            name = "accuracy" if size is None else f"size_{size}/accuracy"
            metrics[prefix + name] = sum(found) / len(found)
    return metrics


def accuracies(metrics: dict[str, float]) -> dict[str, float]:
    stage = next(iter(metrics)).partition("/")[0]
    return {name.removeprefix(f"{stage}/"): value for name, value in metrics.items() if name.endswith("accuracy")}


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"max_tokens": 40, "batch_size": None}], ids=str)
def test_each_pass_is_what_predict_says_without_those_inputs(options: dict[str, Any]) -> None:
    task = ready()
    found = evaluate(task, data(**options), "test")
    assert accuracies(found) == pytest.approx(expected(task))
    assert len({round(found[f"test/{name}loss"], 4) for name in ("", "without_left/", "without_right/")}) == 3
    # What is kept for the pictures is of the whole.
    assert task.head("label").confusion.sum() == len(Shown())
    assert evaluate(task, data(n_workers=1), "validate") == {
        name.replace("test/", "val/"): value for name, value in evaluate(task, data(), "test").items()
    }


class Kept(Classify):
    """Writes down what its process found."""

    folder: Path

    def on_test_end(self) -> None:
        torch.save(dict(self.trainer.callback_metrics), self.folder / f"{self.global_rank}.pt")


# Of a process that saw nothing of a pass.
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
def test_two_processes_find_the_same_though_a_pass_leaves_one_of_them_nothing(tmp_path: Path) -> None:
    task = ready()
    task.__class__, task.folder = Kept, tmp_path
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    # Batches of one, every other to the second process, whose records have nothing but what is on the right.
    records = Records(Shown(), test=Shown().take([2, 0, 3, 4, 6, 8]), batch_size=1)
    with quietly():
        trainer = lightning.Trainer(
            accelerator="cpu", devices=2, strategy="ddp_fork", default_root_dir=tmp_path, **quiet
        )
        trainer.test(task, records, verbose=False)
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one == other
    alone = evaluate(task, records, "test")
    assert {name: value.item() for name, value in one.items()} == pytest.approx(alone)


def test_a_pass_of_which_nothing_is_left_has_no_figures() -> None:
    task = ready()
    lefts = Shown().take([1, 5, 9])
    metrics = evaluate(task, Records(Shown(), test=lefts), "test")
    assert {name.split("/")[1] for name in metrics if "without" in name} == {"without_right"}


def test_without_passes_and_groups_the_figures_are_as_ever() -> None:
    task = two_inputs(classes=["even", "odd"])
    task.build()
    metrics = evaluate(task, Records(Shown(), test=Shown()), "test")
    assert metrics.keys() == {f"test/{name}" for name in ("loss", "accuracy", "f1", "auroc", "ece")}


def test_exact_matches_are_given_by_group() -> None:
    task = translator()
    task.fit_tokenizers(Turned())
    task.build()
    batch = task.chopper(training=False)
    batch = batch.collate([batch(Turned()[i]) for i in range(4)])
    said = task.eval().write(batch, task.decoding)
    batch.references = (task.text.decode(said[0]).strip(), "x", task.text.decode(said[2]).strip(), "y")
    assert task.evaluate(batch)["exact_match"].tolist() == [1, 0, 1, 0]


def learnt(made: Any, source: Any) -> Any:
    made.fit_tokenizers(source)
    made.build()
    redraw(made)
    return made.eval()


def texts(n: int) -> Rows:
    return Rows(tuple({"text": ("to be or not", "that is", "be it")[i % 3] * (n - i)} for i in range(n)))


def language(masking: Masking | None) -> LanguageModel:
    text = {"text": Text("characters", max_len=8)}
    return LanguageModel(text, SMALL, context=8, example=None, masking=masking)


EVALUATED = {
    "classes": lambda: (ready(without=[]), Shown(7), Shown(5)),
    "passes without a field": lambda: (ready(), Shown(9), Shown(11)),
    "translations": lambda: (learnt(translator(), Turned()), Turned(6, 1), Turned(4, 2)),
    "transcripts": lambda: (learnt(recogniser(ctc=CTCConfig()), Turned()), Turned(4, 1), Turned(3, 2)),
    "a text": lambda: (learnt(language(None), texts(3)), texts(4), texts(2)),
    "masked words": lambda: (learnt(language(Masking()), texts(3)), texts(4), texts(2)),
    "decisions": lambda: (decider(walks("box"), play=None), walks("box", 5), walks("box", 3)),
    "targets of every kind": lambda: (targets_task(), Rows(tuple(targets_of(9, 3))), Rows(tuple(targets_of(5, 4)))),
}


@pytest.mark.parametrize("kind", EVALUATED)
def test_the_metrics_and_the_cases_of_an_evaluation_are_of_it_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    task, before, source = EVALUATED[kind]()

    def figures(records: Any, folder: str) -> dict[str, float]:
        given = Records(records, records, batch_size=2)
        return evaluate(task, given, "validate", tmp_path / folder, accelerator="cpu", enable_progress_bar=False)

    first, other, again = figures(source, "first"), figures(before, "other"), figures(source, "again")
    assert first.keys() == again.keys() and first != pytest.approx(other, nan_ok=True)
    assert again == pytest.approx(first, abs=0, rel=0, nan_ok=True)
    drawn = [path.name for path in (tmp_path / "first").glob("*")]
    assert drawn == [path.name for path in (tmp_path / "again").glob("*")]
    for name in drawn:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
        assert (tmp_path / "first" / name).read_bytes() != (tmp_path / "other" / name).read_bytes(), name


SMOOTHED = {
    "Classify": lambda by: (ready(without=[], label_smoothing=by), Shown()),
    "Predict": lambda by: (
        targets_task(
            {"kind": Category(label_smoothing=by), "name": TextTarget(Text("characters"), label_smoothing=by)}
        ),
        Rows(tuple(record for record in targets_of(12, 3) if {"kind", "name"} & record.keys())),
    ),
    "a translator": lambda by: (learnt(translator(label_smoothing=by), Turned()), Turned(6, 1)),
    "a translator by a decoder": lambda by: (learnt(translator("decoder", label_smoothing=by), Turned()), Turned(6, 1)),
    "a recogniser": lambda by: (learnt(recogniser(ctc=CTCConfig(), label_smoothing=by), Turned()), Turned(4, 1)),
}


@pytest.mark.parametrize("kind", SMOOTHED)
def test_the_loss_of_an_evaluation_is_without_label_smoothing_and_that_of_training_with_it(kind: str) -> None:
    found, trained = {}, {}
    plain, _ = SMOOTHED[kind](0.0)
    for by in (0.0, 0.3):
        task, source = SMOOTHED[kind](by)
        task.load_state_dict(plain.state_dict())
        data = Records(source, source, source, batch_size=3)
        for stage in ("validate", "test"):
            metrics = evaluate(task, data, stage, accelerator="cpu", enable_progress_bar=False)
            found |= {(by, name): value for name, value in metrics.items() if name.endswith("loss")}
        chopper = task.eval().chopper(training=True)
        batch = chopper.collate([chopper(source[i]) for i in range(len(source))])
        task.train()
        # The same dropout for both.
        torch.manual_seed(0)
        trained[by] = task.loss(batch)[0].item()
    assert {name for _, name in found} >= {"val/loss", "test/loss"}
    for (_, name), value in found.items():
        assert value == pytest.approx(found[0.0, name], rel=1e-6)
    assert trained[0.3] != pytest.approx(trained[0.0], rel=3e-5)


class Given:
    """A task that has found something."""

    trainer = SimpleNamespace(world_size=1)

    def __init__(self, metric: str, **found: float) -> None:
        self.metric, self.found = (f"val/{metric}", "max"), found

    def passes(self) -> list[tuple[str, Any]]:
        return [("", None)]

    def begin_evaluation(self) -> None:
        pass

    def report(self, stage: str) -> dict[str, float]:
        return self.found

    def score(self, value: float) -> float:
        return value


def test_the_score_of_several_tasks_is_the_mean_of_the_metrics_that_there_are() -> None:
    """A policy has no return before the first training step, when it is not played."""
    tasks = {"one": Given("f1", f1=0.2, loss=9.0), "other": Given("map", map=0.6), "policy": Given("return", loss=3.0)}
    for stage in ("val", "test"):
        metrics = Evaluations(tasks, stage).end()
        assert metrics == {
            f"{stage}/one/f1": 0.2,
            f"{stage}/one/loss": 9.0,
            f"{stage}/other/map": 0.6,
            f"{stage}/policy/loss": 3.0,
            f"{stage}/score": pytest.approx(0.4),
        }
    assert Evaluations({"policy": tasks["policy"]}, "val").end() == {"val/policy/loss": 3.0}


def test_what_cannot_be_evaluated_is_said_in_a_line() -> None:
    task = two_inputs(classes=["even", "odd"], by="sise")
    task.build()
    with pytest.raises(InputError, match=r"^fields\.by: shown row 0: no column 'sise'; .*did you mean 'size'\?$"):
        evaluate(task, data(), "test")
    task = ready()
    with pytest.raises(InputError, match=r"fields\.without needs a loader for each of its 3 passes, .* got 1"):
        evaluate(task, OneLoader(Shown(), Shown(), Shown()), "test")

    class Numbered(Shown):
        def __getitem__(self, i: int) -> dict[str, Any]:
            return super().__getitem__(i) | {"size": i}

    with pytest.raises(
        InputError, match=r"fields\.by: the column 'size' has more than 100 values; choose one of fewer"
    ):
        evaluate(ready(), Records(Shown(), test=Numbered(120)), "test")


class OneLoader(Records):
    """Somebody's own data."""

    def test_dataloader(self) -> Any:
        return super().test_dataloader()[-1]


# In a run


def small_fit(run: Path, **options: Any) -> dict[str, float]:
    seed_everything(0, verbose=False)
    task = two_inputs(dropout={"left": 0.5, "right": 0.3}, without=WITHOUT, by="size")
    options = {"max_epochs": 2, "log_every_n_steps": 1, "saving": Saving(every_n_steps=2)} | options
    return fit(task, data(), run, accelerator="cpu", enable_progress_bar=False, **options)


def test_a_run_stopped_in_the_second_pass_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
    monkeypatch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)
    monkeypatch.setattr("anyformer.runs.checkpointing.SAFE_VALIDATION", 0.0)
    whole, run = tmp_path / "whole", tmp_path / "run"
    small_fit(whole)
    # The best model is chosen by the whole, and who sees whom is drawn.
    metrics = (whole / "metrics.json").read_text()
    assert '"best/val/accuracy"' in metrics and '"val/without_left/size_few/accuracy"' in metrics
    assert '"test/without_right/accuracy"' in metrics
    assert (whole / "sees.png").read_bytes()[:4] == b"\x89PNG"

    stop = Signal(signal.SIGTERM, 7, "on_validation_batch_end")
    assert in_a_fork(lambda: small_fit(run, callbacks=[stop])) == 128 + signal.SIGTERM
    assert in_a_fork(lambda: small_fit(run, resume=True)) == 0
    assert_same_run(run, whole)


def test_the_small_world_has_what_the_tests_need() -> None:
    records = [Shown()[i] for i in range(24)]
    assert {(r["left"] is None, r["right"] is None) for r in records} == {(True, False), (False, True), (False, False)}
    assert {r["size"] for r in records} == {"few", "many", None} and SMALL.dropout

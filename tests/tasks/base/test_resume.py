"""What may change when a run goes on is said with both values, and all else is refused."""

from __future__ import annotations

import copy
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, Timer

from anyformer.errors import InputError
from anyformer.runs.checkpointing import Saving
from anyformer.runs.fit import fit
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.resume import changes, is_below
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.targets.category import Category
from anyformer.tokenizers.image.sources import Digits
from tests.helpers.small_run import small_task
from tests.helpers.stopped_runs import last_state

DATA = {"validation": 0.1, "batch_size": 400}
TRAINER = {"max_epochs": 1, "log_every_n_steps": 1}


def train(
    run: Path, task: Classify | None = None, data: dict | None = None, resume: bool = True, **options: Any
) -> dict:
    records = Records(Digits(), **DATA | (data or {}))
    options = TRAINER | {"callbacks": [EarlyStopping("val/loss", patience=9)]} | options
    return fit(
        task or small_task(), records, run, resume=resume, accelerator="cpu", enable_progress_bar=False, **options
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    train(run, resume=False)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_all_that_differs_is_found_or_the_first_that_may_not() -> None:
    before, now = {"lr": 1.0, "depth": 2}, {"lr": 2.0, "depth": 3, "new": 1}
    assert changes(before, now, lambda path: True, path="model.") == [
        "model.lr was 1.0 and is now 2.0",
        "model.depth was 2 and is now 3",
    ]
    with pytest.raises(
        InputError, match=r"^the checkpoint is of another run: depth was 2 and is now 3; resume with the"
    ):
        changes(before, now, lambda path: path == "lr")
    assert is_below("optimizer.lr", "optimizer")
    assert not is_below("optimizers", "optimizer")


def small(**changes: Any) -> Classify:
    """The small task, with other values of attributes, or of what is in them: `transformer__dropout`."""
    task = small_task()
    for name, value in changes.items():
        owner, _, inner = name.partition("__")
        setattr(task, owner, replace(getattr(task, owner), **{inner: value}) if inner else value)
    return task


def test_a_checkpoint_of_before_there_was_an_option_has_it_at_its_default() -> None:
    task, checkpoint = small(classes=[*"0123456789"]), {}
    task.configure_model()
    task.on_save_checkpoint(checkpoint)
    checkpoint = copy.deepcopy(checkpoint)
    del checkpoint["config"]["init_args"]["optimizer"]["lr_mults"]
    del checkpoint["config"]["init_args"]["tokenizers"]["image"]["init_args"]["resize"]
    task.on_load_checkpoint(checkpoint)
    assert task.changed == []
    task.optimizer = replace(task.optimizer, lr_mults={"heads.*": 0.5})
    with pytest.raises(InputError, match=r"optimizer\.lr_mults"):
        task.on_load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("task", "data", "options", "wrong"),
    [
        ({"transformer__n_heads": 4}, {}, {}, "transformer.n_heads was 2 and is now 4"),
        ({"transformer__dropout": 0.2}, {}, {}, "transformer.dropout was 0.1 and is now 0.2"),
        ({"embedding__types": False}, {}, {}, "embedding.types was True and is now False"),
        ({"targets": {"label": Category(label_smoothing=0.1)}}, {}, {}, "label_smoothing was 0.0 and is now 0.1"),
        ({"optimizer__name": "sgd"}, {}, {}, "optimizer.name was 'muon' and is now 'sgd'"),
        ({"optimizer__options": {"nesterov": False}}, {}, {}, "optimizer.options.nesterov is new"),
        ({"frozen": ["heads.*"]}, {}, {}, r"freeze was None and is now ['heads.*']"),
        ({"init_from": "other"}, {}, {}, "init_from was None and is now 'other'"),
        ({}, {"batch_size": 100}, {}, "data.batch_size was 400 and is now 100"),
        ({}, {"validation": 0.2}, {}, "data.validation was 0.1 and is now 0.2"),
        ({}, {"split_seed": 1}, {}, "data.split_seed was 0 and is now 1"),
        ({}, {"stratify": "label"}, {}, "data.stratify was None and is now 'label'"),
        ({}, {"seed": 3}, {}, "seed_everything (data.seed) was 0 and is now 3"),
        ({}, {}, {"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches was 1 and is now 2"),
        ({}, {}, {"overfit_batches": 1}, "trainer.overfit_batches was 0.0 and is now 1"),
    ],
)
def test_what_a_run_cannot_honour_is_refused_and_nothing_is_written(
    run: Path, task: dict, data: dict, options: dict, wrong: str
) -> None:
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=re.escape(wrong)):
        train(run, small(**task), data, max_epochs=2, **options)
    assert files == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_what_is_tested_on_may_change_but_for_what_it_leaves_of_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, data={"test": 0.1}, resume=False)
    with pytest.raises(InputError, match=r"data.train is not what .* was trained on: 1,437 records are now 1,617"):
        train(tmp_path, data={"test": Digits()})
    other = tmp_path / "other"
    train(other, data={"worker_timeout": 60.0, "n_workers": 1}, resume=False)
    capsys.readouterr()
    train(other, data={"worker_timeout": 90.0, "n_workers": 1, "test": Digits()})
    line = capsys.readouterr().err
    assert "data.worker_timeout was 60.0 and is now 90.0" in line and "data.test was None and is now" in line


def test_another_learning_rate_is_honoured_from_the_next_step_on_and_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(small_task().optimizer, lr=0.5, weight_decay=0.25, schedule="linear", warmup=0.0, final=0.1)
    rates: list[float] = []
    note = LambdaCallback(
        on_train_batch_start=lambda trainer, *_: rates.append(trainer.optimizers[0].param_groups[0]["lr"])
    )
    train(run, small(optimizer=config), max_epochs=2, callbacks=[note])
    # Of the step that it goes on with, too, when no schedule has stepped yet.
    assert rates == pytest.approx([0.5 * config.factor(step, 10) for step in range(5, 10)])
    assert "model.optimizer.lr was 0.01 and is now 0.5, model.optimizer.weight_decay was" in capsys.readouterr().err
    groups = last_state(run)["optimizer_states"][0]["param_groups"]
    assert sorted({group["lr"] for group in groups}) == pytest.approx([0.1 * 1e-3, 0.1 * 0.5])
    assert {group["weight_decay"] for group in groups} == {0.25, 0.0}


def test_what_may_change_is_said_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(run, data={"n_workers": 1}, max_epochs=2, gradient_clip_val=1.0, saving=Saving(every_n_steps=3))
    assert capsys.readouterr().err.splitlines() == [
        f"{run} goes on with other options: trainer.max_epochs was 1 and is now 2, trainer.gradient_clip_val was None "
        "and is now 1.0, checkpoints.every_n_steps was None and is now 3, data.n_workers was 0 and is now 1",
    ]


def test_an_argument_of_a_callback_comes_before_the_one_in_its_state(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = EarlyStopping("val/loss", patience=2)
    train(run, max_epochs=2, callbacks=[stop])
    assert stop.patience == 2
    assert "trainer.callbacks.0.patience was 9 and is now 2" in capsys.readouterr().err
    train(run, max_epochs=3, callbacks=[Timer()])
    assert "trainer.callbacks.0 was EarlyStopping and is now Timer" in capsys.readouterr().err


def test_the_same_options_say_nothing_and_an_ended_run_that_it_has_ended(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(run)
    assert capsys.readouterr().err == (
        "nothing was trained: 1 epoch is behind it (trainer.max_epochs); raise that to train on\n"
    )


def test_a_run_whose_time_is_up_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, resume=False, max_epochs=3, max_time={"milliseconds": 1})
    rows = (tmp_path / "metrics.csv").read_text()
    train(tmp_path, max_epochs=4, max_time={"milliseconds": 1})
    said = "nothing was trained: the trainer.max_time of 1 ms is used up; give a longer one, or null to train on"
    assert said in capsys.readouterr().err
    assert (tmp_path / "metrics.csv").read_text() == rows
    assert train(tmp_path, max_epochs=4)["epoch"] == 3


def test_a_moving_average_begins_where_the_run_goes_on(run: Path) -> None:
    train(run, small(optimizer__ema=None), max_epochs=2)
    assert last_state(run)["average"] == {}
    train(run, small(optimizer__ema=0.9), max_epochs=3)
    average, weights = (last_state(run)[name] for name in ("average", "state_dict"))
    assert any(not torch.equal(average[name], weights[name]) for name in average)

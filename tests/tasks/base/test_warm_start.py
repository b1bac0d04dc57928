"""A warm start: what is frozen stays, and a run starts from another's weights and goes on without it."""

from __future__ import annotations

import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from anyformer.errors import InputError
from anyformer.optim.optimizer import OptimizerConfig, Unfreezing
from anyformer.planning.training import how_trained
from anyformer.runs.checkpointing import Saving
from anyformer.saving.model_folder import load, save
from anyformer.tasks.base.warm_start import inherit_tokenizers
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_run import small_fit, small_task
from tests.runs.test_checkpointing import Signal, assert_same_run
from tests.tasks.base.test_training import Watched, batches, fit, records

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def test_frozen_parameters_stay_and_all_others_learn() -> None:
    task = Watched(freeze=["model.embeddings.*", "model.transformer.blocks.[0-0].*", "*final_norm.bias"])
    task.optimizer = replace(task.optimizer, ema=0.9)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    fit(task, batches(task, records(), [3, 5]))
    stays = {name for name, p in task.named_parameters() if torch.equal(p, before[name])}
    # The bias of a key moves no attention.
    stays -= {name for name in stays if name.endswith("blocks.1.attention.k.bias")}
    frozen = {name for name in before if name.startswith(("model.embeddings.", "model.transformer.blocks.0."))}
    assert stays == frozen | {"model.transformer.final_norm.bias"}
    # The moving average of what stays is itself, and what learns has its gradient even where a field is absent.
    assert all(torch.equal(task.best_weights()[name], before[name]) for name in stays)
    assert set(task.lacking) == stays


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ["model.embedings.*"],
            r"freeze: no parameter is named 'model\.embedings\.\*'; did you mean .*'model\.embeddings\.\*'",
        ),
        (["heads.*", "zebra"], r"freeze: no parameter is named 'zebra'$"),
        (["model.*", "heads.*"], r"freeze: model\.\*, heads\.\* leaves no parameter to train; leave some out"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(patterns: list[str], message: str) -> None:
    task = Watched(freeze=patterns)
    with pytest.raises(InputError, match=message):
        fit(task, batches(task, records(), [8]))


def fine_tuned(source: Path) -> Classify:
    """A task like that of a run, which starts from its weights, with frozen embeddings and lower rates further down."""
    start = small_task()
    return Classify(
        start.tokenizers,
        start.transformer,
        optimizer=replace(start.optimizer, layer_decay=0.5),
        init_from=str(source),
        freeze=["model.embeddings.*"],
    )


def test_a_run_starts_from_another_and_goes_on_without_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anyformer.runs.checkpointing.draw_curves", lambda run: None)
    monkeypatch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)
    first, whole, run = (tmp_path / name for name in ("first", "whole", "run"))
    small_fit(first, max_epochs=1, limit_train_batches=1)
    before = load(first).state_dict()
    capfd.readouterr()
    task = fine_tuned(first)
    small_fit(whole, task=task, max_epochs=1)
    assert capfd.readouterr().err.count(f"weights from {first}: {len(before)} tensors taken\n") == 1
    trained = load(whole)
    after = trained.state_dict()
    stays = {name for name in before if torch.equal(before[name], after[name])}
    assert stays == {name for name in before if name.startswith("model.embeddings.")}
    assert not {"init_from", "freeze"} & trained.config()["init_args"].keys()
    assert all(parameter.requires_grad for parameter in trained.parameters())

    stop = Signal(signal.SIGTERM, 3)
    with pytest.raises(SystemExit):
        small_fit(run, task=fine_tuned(first), saving=Saving(None), max_epochs=1, callbacks=[stop])
    shutil.rmtree(first)
    capfd.readouterr()
    small_fit(run, task=fine_tuned(first), max_epochs=1, resume=True)
    assert "weights from" not in capfd.readouterr().err
    assert_same_run(run, whole)

    # A second fit goes on from what the first has learned, and not from the file.
    with torch.no_grad():
        task.model.embeddings.lifts["image"].linear.bias.fill_(7.0)
    small_fit(tmp_path / "again", task=task, max_epochs=1, limit_train_batches=1)
    assert (task.model.embeddings.lifts["image"].linear.bias == 7.0).all()


def test_a_run_whose_source_is_gone_inherits_nothing(tmp_path: Path) -> None:
    task = small_task()
    before = dict(task.tokenizers)
    for source in (None, "https://host/run", str(tmp_path / "gone")):
        inherit_tokenizers(task, source)
    assert task.tokenizers == before


class Snapshots(Callback):
    """Keeps the parameters of every epoch's end."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Trainer, task: Classify) -> None:
        self.on_train_epoch_end(trainer, task)

    def on_train_epoch_end(self, trainer: Trainer, task: Classify) -> None:
        self.taken.append({name: p.detach().clone() for name, p in task.named_parameters()})

    def moved(self, epoch: int) -> set[str]:
        before, after = self.taken[epoch : epoch + 2]
        changed = (name for name in after if not torch.equal(before[name], after[name]))
        return {re.match("heads|model.embeddings|model.transformer.[a-z_]+", name)[0] for name in changed}


def joining(name: str) -> Classify:
    start = small_task()
    lr_mults = {"*.q.*": 0.5, "heads.*": 2.0}
    start.optimizer = replace(
        start.optimizer, name=name, lr=0.003, layer_decay=0.5, lr_mults=lr_mults, unfreeze=Unfreezing()
    )
    return start


@pytest.mark.parametrize("name", ["muon", "lion"])
def test_layers_join_one_after_another_and_a_killed_run_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("anyformer.runs.checkpointing.draw_curves", lambda run: None)
    monkeypatch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)
    monkeypatch.setattr("anyformer.runs.checkpointing.draw_first_samples", lambda *args, **kwargs: None)
    whole, run = tmp_path / "whole", tmp_path / "run"
    task, options = joining(name), {"max_epochs": 3, "limit_train_batches": 2, "limit_val_batches": 1}
    snapshots = Snapshots()
    small_fit(whole, task=task, saving=Saving(None), callbacks=[snapshots], **options)
    behind = {"heads", "model.transformer.final_norm"}
    blocks = behind | {"model.transformer.blocks"}
    assert [snapshots.moved(epoch) for epoch in range(3)] == [behind, blocks, blocks | {"model.embeddings"}]
    assert all(parameter.requires_grad for parameter in task.parameters())

    with pytest.raises(SystemExit):
        small_fit(run, task=joining(name), saving=Saving(None), callbacks=[Signal(signal.SIGTERM, 3)], **options)
    small_fit(run, task=joining(name), saving=Saving(None), resume=True, **options)
    assert_same_run(run, whole)


def test_processes_leave_out_of_a_step_what_has_not_joined() -> None:
    made = []
    for n in (1, 2):
        task = Watched()
        task.optimizer = replace(task.optimizer, unfreeze=Unfreezing(after=1, every=0))
        before = {name: p.detach().clone() for name, p in task.named_parameters()}
        parts = batches(task, records(), [4, 4])
        fit(task, *([parts[:1], parts[1:]] if n == 2 else [parts]), accumulate_grad_batches=1 if n == 2 else 2)
        moved = {name for name, p in task.named_parameters() if not torch.equal(p, before[name])}
        assert moved and not any(name.startswith(("model.embeddings", "model.transformer.blocks")) for name in moved)
        made.append({name: p.detach() for name, p in task.named_parameters()})
    torch.testing.assert_close(made[1], made[0], atol=1e-5, rtol=1e-5)


def test_nothing_to_train_in_the_first_epoch_is_refused() -> None:
    task = Watched(freeze=["heads.*", "*final_norm*"])
    task.optimizer = replace(task.optimizer, unfreeze=Unfreezing())
    with pytest.raises(InputError, match=r"optimizer.unfreeze: nothing stands behind the blocks"):
        fit(task, batches(task, records(), [8]))


def test_what_the_source_did_not_have_is_trained_like_a_head(tmp_path: Path) -> None:
    first = small_task()
    first.classes = ["a", "b"]
    first.build()
    save(first, tmp_path / "model")
    more = Classify(
        {**first.tokenizers, "note": Text("bytes", max_len=4)},
        first.transformer,
        optimizer=OptimizerConfig(layer_decay=0.5, unfreeze=Unfreezing()),
        classes=["a", "b", "c"],
    )
    more.build()
    more.fresh = more.start_from(tmp_path).fresh
    assert {"heads.class_head.output.bias", "model.embeddings.lifts.note.table"} <= set(more.fresh)
    rows = {row.part: (row.rates, row.epoch) for row in how_trained(more)}
    top, bottom = ((0.001,), 1), ((0.00025,), 3)
    assert rows["model.embeddings.lifts.note"] == rows["heads.class_head.output"] == top
    assert rows["model.embeddings.lifts.image"] == bottom

"""A warm start: what is frozen stays, a run starts from another's weights and goes on without it, or adapts them."""

from __future__ import annotations

import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.lora import LoraConfig, adapters, is_adapter
from anyformer.optim.optimizer import OptimizerConfig, Unfreezing
from anyformer.packing import collate
from anyformer.planning.training import how_trained
from anyformer.runs.checkpointing import Saving
from anyformer.saving.model_folder import load, save
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.starting.warm_start import freeze, inherit_tokenizers
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.text.text import Text
from tests.helpers.in_processes import train_on
from tests.helpers.small_run import in_a_fork, small_fit, small_options, small_task
from tests.helpers.stopped_runs import last_state
from tests.runs.test_checkpointing import Signal, assert_same_run
from tests.tasks.base.test_training import Watched, batches, records

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


def test_frozen_parameters_stay_and_all_others_learn() -> None:
    task = Watched(freeze=["model.embeddings.*", "model.transformer.blocks.[0-0].*", "*final_norm.bias"])
    task.optimizer = replace(task.optimizer, ema=0.9)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    train_on(task, batches(task, records(), [3, 5]))
    stays = {name for name, p in task.named_parameters() if torch.equal(p, before[name])}
    # The bias of a key moves no attention.
    stays -= {name for name in stays if name.endswith("blocks.1.attention.k.bias")}
    frozen = {name for name in before if name.startswith(("model.embeddings.", "model.transformer.blocks.0."))}
    assert stays == frozen | {"model.transformer.final_norm.bias"}
    # The moving average of what stays is itself, and what learns has its gradient even where a field is absent.
    assert all(torch.equal(task.best_weights()[name], before[name]) for name in stays)
    assert set(task.lacking) == stays


def test_patterns_name_the_class_token_as_before_and_as_today() -> None:
    for name in ("class", "class/"):
        task = small_task()
        task.classes = ["a", "b"]
        task.configure_model()
        freeze(task, [f"model.embeddings.lifts.{name}.*"])
        assert not task.model.embeddings.lifts["class"].table.requires_grad


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
        train_on(task, batches(task, records(), [8]))


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
    monkeypatch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
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
    monkeypatch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
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
        train_on(task, *([parts[:1], parts[1:]] if n == 2 else [parts]), accumulate_grad_batches=1 if n == 2 else 2)
        moved = {name for name, p in task.named_parameters() if not torch.equal(p, before[name])}
        assert moved and not any(name.startswith(("model.embeddings", "model.transformer.blocks")) for name in moved)
        made.append({name: p.detach() for name, p in task.named_parameters()})
    torch.testing.assert_close(made[1], made[0], atol=1e-5, rtol=1e-5)


def test_nothing_to_train_in_the_first_epoch_is_refused() -> None:
    task = Watched(freeze=["heads.*", "*final_norm*"])
    task.optimizer = replace(task.optimizer, unfreeze=Unfreezing())
    with pytest.raises(InputError, match=r"optimizer.unfreeze: nothing stands behind the blocks"):
        train_on(task, batches(task, records(), [8]))


# Adapters


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, trained for a step."""
    run = tmp_path_factory.mktemp("base") / "run"
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        small_fit(run, max_epochs=1, limit_train_batches=1)
    return run


def quick(patch: pytest.MonkeyPatch) -> None:
    """Without pictures, which take most of the time."""
    patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
    patch.setattr("anyformer.runs.checkpointing.draw_first_samples", lambda *args, **options: None)
    patch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)


SHORT = {"max_epochs": 1, "limit_train_batches": 3}
LORA = LoraConfig(rank=4, on=["*.q", "*.v", "*.down"], dropout=0.1)


def adapting(source: Path, lora: LoraConfig = LORA, **options: Any) -> Classify:
    return Classify(**(small_options() | options), init_from=str(source), lora=lora)


def test_adapters_alone_are_trained_and_saved_and_go_on_exactly(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    source, moved, whole, run = (tmp_path / name for name in ("source", "moved", "whole", "run"))
    shutil.copytree(base, source)
    small_fit(whole, task=adapting(source), **SHORT)
    said = capfd.readouterr().err
    assert f"weights from {source}: 26 tensors taken\n" in said
    assert "adapters of rank 4 on 3 linear maps: 576 of 4,442 parameters are trained\n" in said
    kept = load_file(whole / "model/weights.safetensors")
    assert len(kept) == 6 and all(map(is_adapter, kept))
    assert last_state(whole)["state_dict"].keys() == last_state(whole)["average"].keys() == kept.keys()
    trained, before = load(whole), load(source)
    assert all(layer.lora_b.any() for layer in adapters(trained).values())
    after = trained.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.state_dict().items())
    assert {name for name, p in trained.named_parameters() if p.requires_grad} == kept.keys()

    stop = Signal(signal.SIGTERM, 2)
    work = lambda: small_fit(run, task=adapting(source), saving=Saving(None), **SHORT, callbacks=[stop])  # noqa: E731
    assert in_a_fork(work) == 143
    shutil.move(source, moved)
    with pytest.raises(InputError, match=r"init_from: lora needs the model that it adapts.*say where it is by model"):
        small_fit(run, task=adapting(source), **SHORT, resume=True)
    other = tmp_path / "other"
    with torch.no_grad():
        before.model.embeddings.types["image"].add_(1.0)
    save(before, other / "model")
    with pytest.raises(
        InputError, match=r"init_from: .*other has weights of SHA-256 \w{16}\.\.\., and the adapters of"
    ):
        small_fit(run, task=adapting(other), **SHORT, resume=True)
    small_fit(run, task=adapting(moved), **SHORT, resume=True)
    assert_same_run(run, whole)


def test_new_parts_are_trained_and_saved_with_the_adapters(base: Path, tmp_path: Path) -> None:
    task = adapting(base, LoraConfig(on=[]), classes=[*"0123456789", "other"], mix=None)
    task.build()
    report = task.take_base(base)
    assert set(report.fresh) == task.best_weights().keys()
    assert task.best_weights().keys() == {"heads.class_head.output.weight", "heads.class_head.output.bias"}
    assert {name for name, p in task.named_parameters() if p.requires_grad} == task.best_weights().keys()


def with_text(source: Path | None, **options: Any) -> Classify:
    tokenizers = small_options()["tokenizers"] | {"text": Text(kind="characters", max_len=6)}
    lora = LoraConfig(rank=4, on=["*.attention.*", "*.mlp.*"], only_with=["text"])
    return Classify(
        **(small_options() | {"tokenizers": tokenizers, "mix": None} | options), init_from=source, lora=lora
    )


class Named(Digits):
    """Digits, every second with the word for it."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = super().__getitem__(i)
        return record | ({"text": f"is {record['label']}"} if i % 2 else {})


def test_a_model_that_learned_a_new_field_is_without_it_what_it_was_bit_for_bit(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    data = Records(Named(), 0.1, 0.1, batch_size=240)
    small_fit(tmp_path / "run", task=with_text(str(base)), data=data, max_epochs=1, limit_train_batches=2)
    before, after = load(base), load(tmp_path / "run")
    records = [{"image": Digits()[i]["image"]} for i in range(7)]
    assert after.predict(records) == before.predict(records)
    worded = [record | {"text": "is 3"} for record in records]
    assert all(one != other for one, other in zip(after.predict(worded), before.predict(records), strict=True))

    # In rows of several samples, some of them with it.
    with torch.no_grad():
        for layer in adapters(after).values():
            layer.lora_b.normal_()
    hidden = {}
    chopper = after.chopper(training=False)
    items = [chopper(record, labelled=False).sample for record in (records[0], worded[1], records[2], worded[3])]
    for what in ("adapted", "plain"):
        batch = collate(items, after.model.tokenizers, rows=[0, 0, 0, 1])
        with torch.no_grad():
            hidden[what] = after.model(batch).flatten(0, 1)
            for layer in adapters(after).values():
                layer.lora_b.zero_()
    tokens = torch.cat([part.index for part in batch.fields.values()])
    samples = torch.cat([part.sample for part in batch.fields.values()])
    for i in range(4):
        one, other = (hidden[what][tokens[samples == i]] for what in ("adapted", "plain"))
        assert torch.equal(one, other) is (i in (0, 2))


def test_with_the_trunk_frozen_a_new_field_changes_nothing_without_it(base: Path) -> None:
    task = with_text(str(base), classes=[*"0123456789"])
    task.lora = LoraConfig(on=[])
    task.tokenizers["text"] = task.tokenizers["text"].fit(["is 0123456789"])
    task.build()
    task.take_base(base)
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    assert trained == {f"model.embeddings.{name}" for name in ("lifts.text.table", "types.text", "positions.1.table")}
    with torch.no_grad():
        for parameter in task.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    before, records = load(base), [{"image": Digits()[i]["image"]} for i in range(7)]
    assert task.predict(records) == before.predict(records)
    worded = task.predict([record | {"text": "is 3"} for record in records])
    assert all(one != other for one, other in zip(worded, before.predict(records), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"transformer": replace(small_options()["transformer"], activation="relu")},
            r"model\.transformer\.activation is relu, and init_from .*run has gelu; give gelu",
        ),
        (
            {"embedding": EmbeddingConfig(norm=True)},
            r"model\.embedding\.norm is true, and init_from .* has false; give false",
        ),
    ],
)
def test_adapters_of_a_model_that_computes_otherwise_are_refused(
    base: Path, options: dict[str, Any], message: str
) -> None:
    task = adapting(base, **options, classes=[*"0123456789"])
    task.build()
    with pytest.raises(InputError, match=message):
        task.take_base(base)


def test_without_adapters_a_task_that_is_written_out_agrees_with_its_source_too(base: Path) -> None:
    options = small_options()
    other = replace(options["transformer"], activation="relu")
    task = Classify(**{**options, "transformer": other}, classes=[*"0123456789"])
    with pytest.raises(InputError, match=r"transformer\.activation is relu, and init_from .*run has gelu; give gelu$"):
        task.start_from(base)


def test_a_new_field_stands_behind_those_that_there_were(base: Path) -> None:
    task = with_text(str(base))
    task.tokenizers = dict(reversed(task.tokenizers.items()))
    task.tokenizers["text"] = task.tokenizers["text"].fit(["is 0123456789"])
    task.classes = [*"0123456789"]
    task.build()
    with pytest.raises(
        InputError, match=r"embedding\.positions\.0 are on word, and those of .* on row, column; name new"
    ):
        task.take_base(base)


def test_adapters_without_a_base_or_with_nothing_to_train_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^lora adapts a trained model; name it in init_from, or leave lora out$"):
        small_fit(tmp_path / "run", task=Classify(**small_options(), lora=LORA))
    task = adapting(base, LoraConfig(on=[]), classes=[*"0123456789"])
    task.build()
    with pytest.raises(InputError, match=r"lora\.on names no map, and .* has all parts of the model: nothing is left"):
        task.take_base(base)


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

"""Experts in training: the balance loss is counted once, however a batch is shared out, and never validated."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor

from anyformer.model.config import ExpertsConfig, TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.fit import evaluate
from anyformer.runs.metrics_file import read_rows
from anyformer.runs.signals import Stopped
from anyformer.saving.model_folder import load
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.base.expert_use import ExpertUse
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.sources import Digits
from tests.helpers.in_processes import train_on
from tests.helpers.small_mixture import TRANSFORMER, small_mixed_fit, small_mixture
from tests.helpers.small_run import small_fit, small_options
from tests.helpers.stopped_runs import Signal, assert_same_run
from tests.helpers.witnesses import Ids, draw_ids

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")


@pytest.fixture(autouse=True)
def without_other_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
    monkeypatch.setattr("anyformer.runs.checkpointing.draw_first_samples", lambda *_, **__: None)
    monkeypatch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)


EXPERTS = ExpertsConfig(n=4, active=2, every=2, shared=1)


class Watched(Classify):
    """Keeps the gradients of every step, as the optimiser gets them, and writes them into a folder where it has one."""

    folder: Path | None = None

    def __init__(self, balance: float = 3.0) -> None:
        experts = ExpertsConfig(n=4, active=2, balance=balance)
        transformer = TransformerConfig(d_model=12, n_heads=3, depth=2, init_std=0.3, experts=experts)
        torch.manual_seed(1)
        fields = {"text": Ids(11, ("word",))}
        super().__init__(fields, transformer, optimizer=OptimizerConfig(warmup=0), classes=["a", "b", "c"], read="mean")
        self.build()
        self.gradients: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.gradients.append({name: p.grad.clone() for name, p in self.named_parameters()})

    def on_train_end(self) -> None:
        if self.folder is not None:
            torch.save(self.gradients, self.folder / f"{self.trainer.global_rank}.pt")


def batches(task: Classify, sizes: Sequence[int]) -> list[Examples]:
    """Eight records in batches; half of them of one token, so that there is padding."""
    torch.manual_seed(2)
    records = [{"text": draw_ids(1 if i % 2 else 6), "label": "abcabccc"[i]} for i in range(8)]
    chopper = task.chopper(training=True)
    items = iter([chopper(record) for record in records])
    return [chopper.collate([next(items) for _ in range(size)]) for size in sizes]


def balance_of(task: Classify, batch: Examples) -> Tensor:
    """The balance loss of a batch written out, without its factor: of all layers together."""
    total, handles = [], []

    def of_layer(layer: Any, given: tuple) -> None:
        x, _, real = given
        p = (x[real] @ layer.router.weight.T).softmax(1)
        chosen = torch.zeros_like(p).scatter(1, p.topk(2, 1).indices, 0.5)
        total.append(4 * (chosen.mean(0) * p.mean(0)).sum())

    for block in task.model.transformer.blocks:
        handles.append(block.mlp.register_forward_pre_hook(of_layer))
    task.model(batch.tokens)
    for handle in handles:
        handle.remove()
    return sum(total)


@pytest.mark.parametrize("sizes", [(8,), (4, 4), (3, 5)], ids=str)
def test_the_balance_loss_is_the_mean_over_the_batches_of_a_step_by_their_targets(sizes: tuple[int, ...]) -> None:
    with_it, without = Watched(), Watched(balance=0.0)
    for task in (with_it, without):
        train_on(task, batches(task, sizes), accumulate_grad_batches=len(sizes))
    logged = [task.trainer.callback_metrics["train/loss"] for task in (with_it, without)]
    assert torch.equal(*logged), "that of the task alone"
    fresh = Watched()
    given = batches(fresh, sizes)
    sum(3.0 * balance_of(fresh, batch) * n / 8 for batch, n in zip(given, sizes, strict=True)).backward()
    for name, parameter in fresh.named_parameters():
        added = with_it.gradients[0][name] - without.gradients[0][name]
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(added, expected, atol=2e-5, rtol=1e-4)
    assert max(p.grad.abs().max() for p in fresh.parameters() if p.grad is not None) > 0.01


def test_two_processes_with_unlike_parts_of_a_batch_step_as_one(tmp_path: Path) -> None:
    shared, whole = Watched(), Watched()
    shared.folder = tmp_path
    one, other = batches(shared, (3, 5))
    train_on(shared, [one], [other])
    train_on(whole, batches(whole, (8,)))
    for rank in (0, 1):
        gradients = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(gradients, whole.gradients, atol=1e-5, rtol=1e-4)


def run_with_experts(run: Path, **options: Any) -> dict[str, float]:
    transformer = TransformerConfig(16, depth=2, n_heads=2, experts=EXPERTS)
    # Two optimisers, a moving average and augmentation, of which each may get wrong what it takes up again.
    task = Classify(**small_options() | {"transformer": transformer})
    few = {"max_epochs": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0}
    return small_fit(run, task=task, data=few_digits(), **few, **options)


def few_digits() -> Records:
    """Of training 6 batches."""
    return Records(Digits(), 0.9, batch_size=30)


def test_a_run_logs_and_draws_the_load_and_goes_on_exactly_where_it_was_stopped(tmp_path: Path) -> None:
    run_with_experts(tmp_path / "whole")
    with pytest.raises(Stopped):
        run_with_experts(tmp_path / "run", callbacks=[Signal(signal.SIGTERM, 3)])
    run_with_experts(tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert (tmp_path / "run/experts.png").exists()

    rows = [row for row in read_rows(tmp_path / "whole/metrics.csv") if row["train/loss"]]
    assert len(rows) == 6
    for row in rows:
        least, most, balance = (float(row[f"train/experts/{name}"]) for name in ("least", "most", "balance"))
        assert 0 <= least < 0.25 < most <= 0.5 and 0.9 < balance < 2

    task, one = load(tmp_path / "whole"), {"accelerator": "cpu", "limit_val_batches": 1}
    metrics = evaluate(task, few_digits(), "validate", tmp_path / "drawn", **one)
    assert list(task.expert_use.shares) == ["transformer.blocks.1"]
    assert task.expert_use.shares["transformer.blocks.1"].sum().item() == pytest.approx(1)
    assert (tmp_path / "drawn/experts.png").exists()
    # The loss of a validation is that of the task alone, whatever the factor.
    task.model.transformer.blocks[1].mlp.config = replace(EXPERTS, balance=1000.0)
    assert evaluate(task, few_digits(), "validate", **one) == metrics


def test_the_tasks_of_a_mixture_have_loads_of_their_own(tmp_path: Path) -> None:
    transformer = replace(TRANSFORMER, experts=ExpertsConfig(n=3, active=1))
    task = small_mixture(transformer=transformer)
    small_mixed_fit(tmp_path / "run", task=task, max_steps=6)
    rows = [row for row in read_rows(tmp_path / "run/metrics.csv") if row["train/experts/most"]]
    assert len(rows) == 6 and all(float(row["train/experts/balance"]) > 0.5 for row in rows)
    names = {name: f"tasks.{name}.model.transformer.blocks.0" for name in task.tasks}
    assert list(task.expert_use.layers) == list(names.values())
    # The only task that has test records was evaluated last.
    assert list(task.expert_use.shares) == [names["digits"]]
    assert task.expert_use.shares[names["digits"]].sum().item() == pytest.approx(1)
    assert (tmp_path / "run/experts.png").exists()


def test_without_experts_nothing_is_drawn(tmp_path: Path) -> None:
    use = ExpertUse()
    use.find(torch.nn.Linear(2, 2))
    use.begin(torch.nn.Linear(2, 2))
    use.end(lambda numbers: numbers)
    use.draw(tmp_path)
    assert use.shares == {} and list(tmp_path.iterdir()) == []

"""What all tasks share: the loss of a step is over all of its targets, however they came; nothing goes on from NaN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.distributed
from torch import Tensor

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.metrics_file import read_rows
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.classify.classify import Classify
from tests.helpers.in_processes import train_on
from tests.helpers.small_run import small_fit, small_task
from tests.helpers.witnesses import Ids, Vectors, draw_ids

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")

FIELDS = {"graph": Ids(7, n_relations=3), "picture": Vectors(3, ("row", "column"), (2, 5)), "text": Ids(11, ("word",))}


class Watched(Classify):
    """Keeps the gradients of every step, as the optimiser gets them."""

    def __init__(self, **options: Any) -> None:
        transformer = TransformerConfig(d_model=12, n_heads=3, depth=2, init_std=0.3)
        # A loss divided by the samples instead of their weights would be seen.
        options = {"classes": ["a", "b", "c"], "class_weights": [0.5, 1.0, 4.0], **options}
        torch.manual_seed(1)
        super().__init__(FIELDS, transformer, EmbeddingConfig(norm=True), OptimizerConfig(warmup=0), **options)
        self.build()
        self.gradients: list[dict[str, Tensor]] = []
        self.lacking: list[str] = []

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.lacking += [name for name, p in self.named_parameters() if p.grad is None]
        self.gradients.append({name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None})


def records() -> list[dict]:
    """Eight records, each of some of the fields; the last four have no picture, and relations none but the last."""
    return [
        {
            "graph": draw_ids(3, 7) if i == 7 else None,
            "picture": torch.randn(2, i + 1, 3) if i < 4 else None,
            "text": draw_ids(i, 11) if i in (2, 4, 5, 6) else None,
            "label": "abcabccc"[i],
        }
        for i in range(8)
    ]


def batches(task: Classify, given: Sequence[dict], sizes: Sequence[int]) -> list[Examples]:
    chopper = task.chopper(training=True)
    items = iter([chopper(record) for record in given])
    made = [chopper.collate([next(items) for _ in range(size)]) for size in sizes]
    for i, batch in enumerate(made):
        batch.samples = tuple(f"batch {i} row {j}" for j in range(batch.tokens.n_samples))
    return made


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (1, 4, 3), (5, 3)], ids=str)
def test_one_batch_of_8_is_several_that_make_8(sizes: tuple[int, ...]) -> None:
    given = records()
    whole, parts = Watched(), Watched()
    train_on(whole, batches(whole, given, [8]))
    train_on(parts, batches(parts, given, sizes), accumulate_grad_batches=len(sizes))
    assert len(whole.gradients) == len(parts.gradients) == 1
    torch.testing.assert_close(parts.gradients, whole.gradients, atol=1e-5, rtol=1e-5)
    assert not whole.lacking and not parts.lacking

    # It is the gradient of the weighted mean, the default of torch.
    task = Watched()
    (batch,) = batches(task, given, [8])
    weights = torch.tensor([0.5, 1.0, 4.0])
    torch.nn.functional.cross_entropy(task(batch.tokens), batch.aims["label"].values, weights).backward()
    expected = {name: p.grad for name, p in task.named_parameters()}
    torch.testing.assert_close(whole.gradients[0], expected, atol=1e-5, rtol=1e-5)


def test_a_last_step_of_fewer_batches_counts_its_own_targets() -> None:
    given = records()
    parts, alone = Watched(), Watched()
    train_on(parts, batches(parts, given, [2, 3, 3]), accumulate_grad_batches=2)
    assert len(parts.gradients) == 2
    alone.load_state_dict(parts.state_dict())
    train_on(alone, batches(alone, given[5:], [3]))
    # The weights differ by one step's learning rate; the size of the gradient tells that it was divided by 3, not 8.
    ratio = sum(g.norm() for g in parts.gradients[1].values()) / sum(g.norm() for g in alone.gradients[0].values())
    assert 0.8 < ratio < 1.25


class Rated(Watched):
    """Keeps the learning rates of every step, as the optimiser has them."""

    def optimizer_step(self, *given: Any, **options: Any) -> None:
        self.rates = [*getattr(self, "rates", []), [group["lr"] for group in self.optimizers().param_groups]]
        super().optimizer_step(*given, **options)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("warmup", [0, 0.05, 0.5, 1, 3], ids=str)
def test_every_step_has_the_learning_rate_of_its_number_and_that_of_the_first_is_above_0(
    warmup: float, name: str
) -> None:
    task = Rated()
    config = OptimizerConfig(name, lr=0.02, adamw_lr=0.001, warmup=warmup, schedule="linear")
    task.optimizer = config
    (first,) = {
        name: p.detach().clone() for name, p in task.named_parameters() if name == "heads.class_head.output.weight"
    }.values()
    train_on(task, batches(task, records(), [2, 2, 2, 2]))
    highest = {"adamw": [0.02], "muon": [0.001, 0.02]}[name]
    for step, rates in enumerate(task.rates):
        assert sorted({*rates}) == pytest.approx([config.factor(step, 4) * each for each in highest])
    assert len(task.rates) == 4 and min(task.rates[0]) > 0
    assert not torch.equal(task.head("label").output.weight, first)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_a_run_of_one_step_learns(name: str) -> None:
    task = Watched()
    task.optimizer = OptimizerConfig(name, lr=0.1)
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    train_on(task, batches(task, records(), [8]))
    moved = {name for name, p in task.named_parameters() if not torch.equal(p, before[name])}
    assert {"heads.class_head.output.weight", "model.transformer.blocks.0.mlp.up.weight"} <= moved


@pytest.mark.parametrize("lr", [0.01, 0.1])
def test_the_rate_of_each_step_is_the_one_that_is_logged_in_a_run_that_goes_on_too(tmp_path: Path, lr: float) -> None:
    class Rates(lightning.Callback):
        def on_before_optimizer_step(self, trainer: Any, task: Any, optimizer: torch.optim.Optimizer) -> None:
            rates.append(max(group["lr"] for group in optimizer.param_groups))

    rates: list[float] = []
    for n_epochs, resume, rate in ((1, False, 0.01), (2, True, lr)):
        task = small_task()
        task.optimizer = OptimizerConfig(lr=rate, lr_mults={"heads.*": 0.1})
        options = {"accumulate_grad_batches": 2, "limit_train_batches": 6, "limit_val_batches": 1}
        small_fit(tmp_path / "run", task=task, resume=resume, max_epochs=n_epochs, callbacks=[Rates()], **options)
    logged = [float(row["train/lr"]) for row in read_rows(tmp_path / "run/metrics.csv")]
    assert rates == pytest.approx(logged) and len(rates) == 6 and min(rates) > 0


class Written(Watched):
    """Writes what its process has seen into a folder."""

    folder: Path

    def on_train_end(self) -> None:
        seen = {"gradients": self.gradients, "lacking": self.lacking, "weights": self.state_dict()}
        torch.save(seen, self.folder / f"{self.trainer.global_rank}.pt")


def test_two_processes_of_which_one_lacks_a_field_step_as_one(tmp_path: Path) -> None:
    given = records()
    task, whole = Written(), Watched()
    task.folder = tmp_path
    # Pictures on the first process alone, relations on the second alone, and unlike numbers of samples.
    halves = batches(task, given[:4], [3, 1]), batches(task, given[4:], [2, 2])
    train_on(task, *halves, accumulate_grad_batches=2)
    train_on(whole, batches(whole, given, [8]))
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert not one["lacking"] and not other["lacking"]
    torch.testing.assert_close(one["gradients"], whole.gradients, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    task = Watched()
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    given = records()
    given[1]["picture"][0, 0] = torch.nan
    message = (
        r"not finite at step 0, before the weights were changed; lower model\.optimizer\.lr or look at the samples: "
        r"batch 0 row 0, batch 0 row 1, batch 0 row 2$"
    )
    with pytest.raises(InputError, match=message):
        train_on(task, batches(task, given, [3, 5]))
    assert all(torch.equal(p, before[name]) for name, p in task.named_parameters())

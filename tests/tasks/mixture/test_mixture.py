"""Several tasks in one run: killed and resumed it ends as one never killed, and each task can be had by itself."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anyformer.errors import InputError
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.lora import LoraConfig
from anyformer.model.positions import PositionConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.parsing.instantiate import instantiate
from anyformer.planning.parameters import measure, token_counts
from anyformer.runs.checkpointing import Saving
from anyformer.runs.fit import evaluate, fit
from anyformer.runs.metrics_file import read_metrics, read_rows
from anyformer.saving.manifest import read_manifest
from anyformer.saving.model_folder import load, make, save
from anyformer.saving.run_folder import find_run, split_run
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.decide.actor import PlayConfig
from anyformer.tasks.decide.collect import Collected
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.decide.play import RolloutConfig
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.mixture.data import Mixed, Part, Turn
from anyformer.tasks.mixture.mixture import Mixture
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.text import TextTarget
from anyformer.tokenizers.episode.continuous import Vector
from anyformer.tokenizers.episode.episode import EnvironmentConfig
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_mixture import (
    BATCHES,
    PICTURE,
    TRANSFORMER,
    Parities,
    small_mixed,
    small_mixed_fit,
    small_mixture,
    small_tasks,
)
from tests.helpers.small_run import in_a_fork
from tests.helpers.stopped_runs import Signal, assert_same_run, last_state


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
        patch.setattr("anyformer.tasks.classify.classify.Classify.draw", lambda self, folder: None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never killed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    small_mixed_fit(run)
    return run


# Resume


@pytest.mark.parametrize("point", [3, BATCHES, BATCHES + 5])
def test_a_killed_run_goes_on_exactly(tmp_path: Path, whole: Path, point: int) -> None:
    run = tmp_path / "run"
    code = in_a_fork(lambda: small_mixed_fit(run, callbacks=[Signal(signal.SIGKILL, point)]))
    assert code == -signal.SIGKILL
    assert in_a_fork(lambda: small_mixed_fit(run, resume=True)) == 0
    assert_same_run(run, whole)


def test_a_run_stopped_between_two_epochs_and_within_one_goes_on_exactly(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    for n, hook in ((1, "on_train_epoch_end"), (4, "on_train_batch_end")):
        stop = Signal(signal.SIGTERM, n, hook)
        options = {"saving": Saving(None), "callbacks": [stop], "resume": run.exists()}
        assert in_a_fork(lambda options=options: small_mixed_fit(run, **options)) == 128 + signal.SIGTERM
    last = read_manifest(run / "checkpoints")[-1]["file"]
    assert last == f"batch-{BATCHES + 4:08d}-batch.ckpt"
    assert in_a_fork(lambda: small_mixed_fit(run, resume=True)) == 0
    assert_same_run(run, whole)


def test_steps_of_several_batches_go_on_exactly(tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": 2, "max_epochs": 1, "saving": Saving(every_n_steps=1)}
    assert in_a_fork(lambda: small_mixed_fit(tmp_path / "whole", **options)) == 0
    kill = Signal(signal.SIGKILL, 6)
    assert in_a_fork(lambda: small_mixed_fit(tmp_path / "run", callbacks=[kill], **options)) == -signal.SIGKILL
    assert in_a_fork(lambda: small_mixed_fit(tmp_path / "run", resume=True, **options)) == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_checkpoint_of_other_tasks_is_refused(tmp_path: Path, whole: Path) -> None:
    state = last_state(whole)
    tasks = small_tasks()
    mixture = Mixture({"digits": tasks["digits"]})
    with pytest.raises(InputError, match=r"is of the tasks digits, parity, mood, poet, this run is of digits; resume"):
        mixture.on_load_checkpoint(state)
    mixture = small_mixture()
    for name, task in mixture.tasks.items():
        task.classes = getattr(load(f"{whole}:{name}"), "classes", None)
        task.tokenizers = load(f"{whole}:{name}").tokenizers
    mixture.on_load_checkpoint(state)
    mixture.tasks["mood"].classes = ["glad", "mad"]
    with pytest.raises(InputError, match=r"^tasks\.mood: the checkpoint is of another task: classes\.1 was 'sad' and"):
        mixture.on_load_checkpoint(state)


# What a run is


def test_figures_of_every_task_and_their_mean(whole: Path) -> None:
    metrics = read_metrics(whole)
    names = {"val/digits/accuracy", "val/parity/accuracy", "val/mood/f1", "val/poet/loss", "val/score"}
    assert names | {"test/digits/accuracy", "test/score"} <= metrics.keys()
    assert "test/mood/accuracy" not in metrics
    accuracies = [metrics[f"val/{name}/accuracy"] for name in ("digits", "parity", "mood")]
    likelihood = torch.tensor(metrics["val/poet/loss"]).neg().exp().item()
    assert metrics["val/score"] == pytest.approx((sum(accuracies) + likelihood) / 4, abs=1e-6)
    assert metrics["best/val/score"] >= metrics["val/score"]
    rows = [row for row in read_rows(whole / "metrics.csv") if row["train/poet/loss"]]
    # From the first turn of a task on, every row has the last loss of it.
    assert len(rows) > BATCHES and all(row["train/poet/loss"] for row in rows)


def test_each_task_is_had_from_the_folder_alone(whole: Path, tmp_path: Path) -> None:
    mixture, digits, poet = load(whole), load(f"{whole}:digits"), load(f"{whole}:poet")
    assert isinstance(mixture, Mixture)
    assert type(digits) is Classify
    assert type(poet) is LanguageModel
    image = Digits()[7]["image"]
    assert digits.predict([{"image": image}]) == mixture.tasks["digits"].predict([{"image": image}])
    assert digits.transformer == mixture.transformer
    # The shared weights stand in the file once.
    names = load_file(whole / "model/weights.safetensors").keys()
    assert sum(name.endswith("blocks.0.attention.q.weight") for name in names) == 1
    # And the plain task is what any other is: it is written and read again by itself.
    save(digits, tmp_path / "alone")
    assert load(tmp_path / "alone").predict([{"image": image}]) == digits.predict([{"image": image}])


def test_figures_of_a_task_alone_are_those_in_the_mixture(whole: Path) -> None:
    data = Records(Parities(), 0.2, batch_size=60)
    metrics = evaluate(load(f"{whole}:parity"), data, "validate", accelerator="cpu", enable_progress_bar=False)
    best = load(whole)
    every = evaluate(best, small_mixed(whole.parent), "validate", accelerator="cpu", enable_progress_bar=False)
    assert metrics["val/accuracy"] == every["val/parity/accuracy"]
    assert metrics["val/loss"] == pytest.approx(every["val/parity/loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (":digit", r"holds no task 'digit'; there are digits, parity, mood, poet; did you mean 'digits'\?"),
        ("/model:digits:poet", r"there is no folder|holds no model"),
    ],
)
def test_a_task_that_is_not_there_is_refused(whole: Path, run: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(f"{whole}{run}")


def test_a_task_of_no_mixture_is_refused(whole: Path, tmp_path: Path) -> None:
    save(load(f"{whole}:digits"), tmp_path / "alone")
    with pytest.raises(InputError, match=r"alone holds no task 'digits'; it is no mixture"):
        load(f"{tmp_path / 'alone'}:digits")


@pytest.mark.parametrize(
    ("hook", "given"),
    [("predict", [{}]), ("rollout", None), ("render", {}), ("chopper", True), ("evaluate", None), ("report", "val")],
)
def test_a_mixture_says_nothing_by_itself(hook: str, given: Any) -> None:
    message = f"a mixture has no `{hook}`; load one of its tasks by name: RUN:digits, RUN:parity, RUN:mood, RUN:poet$"
    with pytest.raises(InputError, match=message):
        getattr(small_mixture(), hook)(given)


def test_a_config_makes_the_same_again(whole: Path) -> None:
    config = json.loads((whole / "model/config.json").read_text())
    again = instantiate(json.loads((whole / "model/config.json").read_text()))
    assert json.loads(json.dumps(again.config())) == config
    inner = config["init_args"]["tasks"]["digits"]["init_args"]
    assert not {"transformer", "embedding", "optimizer", "init_from"} & inner.keys()
    assert make(f"{whole}:mood").tokenizers == load(f"{whole}:mood").tokenizers


def test_what_tasks_share_is_counted_once(whole: Path) -> None:
    with torch.device("meta"):
        mixture = make(whole)
        mixture.build()
    counts = token_counts(mixture, {"mood:text": 12, "poet:text": 12})
    assert counts["digits:image"] == counts["parity:image"] == 4
    sizes = measure(mixture, counts)
    assert sizes.total == sizes.untied == sum(parameter.numel() for parameter in mixture.parameters())
    assert {"transformer", "digits: heads", "poet: head"} <= {component.part for component in sizes.components}
    alone = sum(
        measure(task, token_counts(task, {"text": 12} if "text" in task.tokenizers else None)).flops
        for task in mixture.tasks.values()
    )
    assert sizes.flops == alone
    with pytest.raises(InputError, match=r"tokens: there is no field 'moods:text'; there are digits:image"):
        token_counts(mixture, {"mood:text": 12, "poet:text": 12, "moods:text": 3})


def test_a_task_is_named_behind_a_colon_unless_the_folder_is_called_so(tmp_path: Path) -> None:
    assert split_run("runs/all:digits") == (Path("runs/all"), "digits")
    assert split_run("runs/all") == (Path("runs/all"), "")
    (tmp_path / "a:b").mkdir()
    assert split_run(tmp_path / "a:b") == (tmp_path / "a:b", "")
    assert find_run(f"{tmp_path / 'a:b'}:c") == (tmp_path / "a:b", ":c")


# Fine-tuning


def test_a_task_is_fine_tuned_from_one_of_a_mixture(whole: Path, tmp_path: Path) -> None:
    before = load(f"{whole}:digits")
    task = Classify(small_tasks()["digits"].tokenizers, TRANSFORMER, init_from=f"{whole}:digits")
    options = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 1, "limit_train_batches": 1}
    task.optimizer = OptimizerConfig(lr=1e-12, weight_decay=0.0)
    # Rotary positions of words are of no use here, and the sizes of the run all the same.
    task.embedding = EmbeddingConfig(axes=("word",))
    fit(task, Records(Digits(), 0.1, batch_size=240), tmp_path / "run", **options)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(task.state_dict()[name], value, atol=1e-6, rtol=0, msg=name)
    with pytest.raises(InputError, match=r"is a mixture; name one of its tasks: .*:digits or .*:poet"):
        Classify(small_tasks()["digits"].tokenizers, TRANSFORMER, classes=list("ab")).take_over(load(whole), "runs/x")


def test_a_mixture_starts_from_a_mixture_a_task_or_a_trunk(whole: Path, tmp_path: Path) -> None:
    other = load(whole)
    name = "model.transformer.blocks.0.attention.q.weight"

    def fresh(*tasks: str) -> Mixture:
        mixture = Mixture({each: small_tasks()[each] for each in tasks}, TRANSFORMER)
        mixture.inherit_from(other)
        for each, task in mixture.tasks.items():
            if isinstance(task, Classify):
                task.classes = other.tasks[each].classes
        return mixture

    mixture = fresh("mood", "poet")
    assert mixture.tasks["mood"].tokenizers["text"] == other.tasks["mood"].tokenizers["text"]
    report = mixture.start_from(whole)
    assert not report.fresh and "tasks.poet.head.bias" not in report.fresh
    for task in ("mood", "poet"):
        theirs = other.tasks[task].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in mixture.tasks[task].state_dict().items())

    alone = fresh("poet")
    alone.start_from(f"{whole}:mood")
    assert torch.equal(alone.state_dict()[name], other.state_dict()[name])
    assert "tasks.poet.model.embeddings.lifts.text.table" in alone.start_from(f"{whole}:mood").fresh
    with pytest.raises(InputError, match="init_from of a mixture is a run folder"):
        alone.start_from(whole / "metrics.csv")


def test_a_mixture_inherits_what_is_written_and_the_fields_of_a_policy() -> None:
    letters, fields = Text("characters"), {"image": ImagePatches(size=(8, 8), patch=4, channels=1)}
    before = Predict(fields, {"caption": TextTarget(letters.fit(["xyz"]))})
    mixture = Mixture({"write": Predict(fields, {"caption": TextTarget(letters)}), "act": Decide()}, TRANSFORMER)
    mixture.inherit_from(before)
    assert mixture.tasks["write"].targets["caption"].text.vocabulary == "xyz"
    assert not mixture.tasks["act"]._before
    mixture.inherit_from(Decide({"state": Vector(normalize=False)}))
    assert mixture.tasks["act"]._before == {"state": Vector(normalize=False)}


# Policies


def test_two_policies_of_unlike_spaces_learn_with_one_trunk(tmp_path: Path) -> None:
    """A choice after four numbers, told the return, and a force after three, not told; each has its own context."""
    torch.manual_seed(0)
    pole = EnvironmentConfig("CartPole-v1", max_episode_steps=60)
    swing = EnvironmentConfig("Pendulum-v1", max_episode_steps=60)
    tasks = {
        "pole": Decide(context=6, play=PlayConfig(4)),
        "swing": Decide({"action": Vector(normalize=False, tanh=True)}, context=2, returns=False, play=PlayConfig(2)),
    }
    swings = Collected(swing, ("scripted",), 40)
    data = {
        "pole": Part(Collected(pole, ("scripted:0.5", "scripted"), 40), 0.1, batch_size=32),
        "swing": Part(swings, 0.1, batch_size=32),
    }
    sizes = TransformerConfig(d_model=16, depth=1, n_heads=2, rotary=RotaryConfig(("step",)))
    mixture = Mixture(tasks, sizes, optimizer=OptimizerConfig("muon", lr=0.02, adamw_lr=0.01))
    options = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 1}
    found = fit(mixture, Mixed(data, n_batches=120), tmp_path, **options)
    both = mixture.tasks["pole"], mixture.tasks["swing"]
    assert [[*task.tokenizers] for task in both] == [["return", "state", "action"], ["state", "action"]]
    shared = [{*each.parameters()} for each in both]
    assert shared[0] & shared[1] == {*both[0].model.transformer.parameters()}
    forces = np.concatenate([swings.episode(i).actions for i in range(len(swings))])
    # No single force is nearer than the middle one, and a pole falls within a dozen steps by itself.
    assert found["val/swing/error"] < 0.8 * np.abs(forces - np.median(forces)).mean()
    assert found["val/pole/return"] > 40
    scores = [task.score(found[f"val/{name}/return"]) for name, task in zip(tasks, both, strict=True)]
    assert found["val/score"] == pytest.approx(np.mean(scores), abs=1e-5)
    for name, task in zip(tasks, both, strict=True):
        alone = load(f"{tmp_path}:{name}")
        ours, theirs = (list(each.rollout(RolloutConfig(episodes=2, seed=5))) for each in (task, alone))
        assert ours == theirs


# Steps


class Watched(Mixture):
    """Keeps whose turn each step was, and which parameters had no gradient; writes it, where it has a folder."""

    folder: Path | None = None

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.turns, self.lacking = [], []

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.turns.append(self._turn)
        self.lacking.append({name for name, p in self.named_parameters() if p.grad is None})

    def on_train_end(self) -> None:
        check_steps(self)
        if self.folder is not None:
            weights = {name: parameter.detach().clone() for name, parameter in self.named_parameters()}
            torch.save([self.turns, weights], self.folder / f"{self.global_rank}.pt")


def watch(folder: Path, **options: Any) -> Watched:
    task = Watched(small_tasks(), TRANSFORMER, optimizer=OptimizerConfig("muon", lr=0.01), temperature=2.0)
    task.folder = folder
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, limit_val_batches=0, **quiet, **options)
    trainer.fit(task, datamodule=small_mixed(folder))
    return task


OF_TASKS = {
    "digits": r"tasks\.digits\.|model\.embeddings\.(lifts|types)\.image|model\.embeddings\.positions\.row",
    "parity": r"tasks\.parity\.|model\.embeddings\.(lifts|types)\.image|model\.embeddings\.positions\.row",
    "mood": r"tasks\.mood\.|model\.embeddings\.(lifts|types)\.text",
    "poet": r"tasks\.poet\.|model\.embeddings\.(lifts|types)\.text",
}


def check_steps(task: Watched) -> None:
    assert set(task.turns) == OF_TASKS.keys()
    names = {name for name, _ in task.named_parameters()}
    for turn, lacking in zip(task.turns, task.lacking, strict=True):
        own = {name for name in names if re.match(OF_TASKS[turn] + r"|model\.transformer\.", name)}
        assert lacking == names - own


def test_parameters_of_other_tasks_are_left_alone(tmp_path: Path) -> None:
    assert len(watch(tmp_path).turns) == BATCHES


def test_two_processes_draw_the_same_task_and_leave_the_others_alone(tmp_path: Path) -> None:
    watch(tmp_path, devices=2, strategy="ddp_fork")
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one[0] == other[0]
    torch.testing.assert_close(one[1], other[1], atol=0, rtol=0)


def test_the_loss_of_a_task_has_its_weight(whole: Path) -> None:
    mixture = load(whole)
    chopper = mixture.tasks["mood"].chopper(training=False)
    batch = chopper.collate([chopper({"text": "all is well", "mood": "glad"})])
    loss, n_targets = mixture.loss(Turn("mood", batch))
    assert n_targets == 1
    assert loss == 0.5 * mixture.tasks["mood"].loss(batch)[0]


@pytest.mark.parametrize("weights", [None, {"mood": 0.25, "digits": 3.0}], ids=["alike", "weighted"])
def test_the_logged_loss_of_a_task_is_its_mean_without_its_weight(
    tmp_path: Path, weights: dict[str, float] | None
) -> None:
    class Noted(Mixture):
        """Keeps what each batch loses, by the task alone."""

        def loss(self, batch: Turn) -> Any:
            with torch.random.fork_rng():
                loss, n_targets = self.tasks[batch.task].loss(batch.batch)
            noted.append((batch.task, (loss / n_targets).item()))
            return super().loss(batch)

    noted: list[tuple[str, float]] = []
    mixture = Noted(small_tasks(), transformer=TRANSFORMER, optimizer=OptimizerConfig(), weights=weights)
    run = tmp_path / "run"
    small_mixed_fit(run, task=mixture, max_epochs=1)
    rows = read_rows(run / "metrics.csv")
    assert len(rows) == len(noted) == BATCHES and {task for task, _ in noted} == {*mixture.tasks}
    last: dict[str, float] = {}
    for row, (name, loss) in zip(rows, noted, strict=True):
        last[name] = loss
        assert {task: float(row[f"train/{task}/loss"]) for task in last} == pytest.approx(last, rel=1e-4)


# What is refused


def task(**options: Any) -> Classify:
    return Classify({"image": ImagePatches(size=(8, 8), patch=4, channels=1)}, classes=["a", "b"], **options)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Mixture({}), "tasks must name at least one task, got none"),
        (lambda: Mixture({"a.b": task()}), r"tasks: 'a\.b' cannot be the name of a task"),
        (lambda: Mixture({"model": task()}), r"tasks: 'model' cannot be the name of a task"),
        (lambda: Mixture({"train": task()}), r"tasks: 'train' cannot be the name of a task"),
        (lambda: Mixture({"a": small_mixture()}), r"tasks\.a is a mixture itself; give its tasks here"),
        (
            lambda: Mixture({"a": task(transformer=TransformerConfig(depth=2))}),
            r"tasks\.a\.transformer: a mixture has one for all of its tasks; give it there",
        ),
        (lambda: Mixture({"a": task(optimizer=OptimizerConfig(lr=1))}), r"tasks\.a\.optimizer: a mixture has one"),
        (lambda: Mixture({"a": task(embedding=EmbeddingConfig(norm=True))}), r"tasks\.a\.embedding: a mixture has one"),
        (lambda: Mixture({"a": task(init_from="runs/a")}), r"tasks\.a\.init_from: a mixture has one"),
        (lambda: Mixture({"a": task(freeze=["head.*"])}), r"tasks\.a\.freeze: a mixture has one"),
        (lambda: Mixture({"a": task(lora=LoraConfig())}), r"tasks\.a\.lora: a mixture has no adapters; adapt one task"),
        (
            lambda: Mixture({"digits": task()}, weights={"digit": 1.0}),
            r"weights: there is no task 'digit'; there are digits; did you mean 'digits'\?",
        ),
        (lambda: Mixture({"a": task()}, choose="b"), r"choose: there is no task 'b'"),
        (lambda: Mixture({"a": task()}, weights={"a": -1.0}), r"weights\.a must be a number above 0, got -1\.0"),
        (
            lambda: Mixture({"a": task(), "b": task()}, sampling={"a": 1.0}),
            r"sampling: a have 1 of 1, none is left",
        ),
        (lambda: Mixture({"a": task()}, temperature=0.0), r"temperature must be a number above 0, got 0\.0"),
        (
            lambda: Mixture({"a": task(), "b": task()}, share_heads={"a": "b", "b": "a"}),
            r"share_heads: b uses the head of a itself; name that one",
        ),
        (
            lambda: Mixture(small_tasks(), share_heads={"poet": "mood"}),
            r"share_heads: poet cannot use the head of mood, as they are LanguageModel and Classify",
        ),
        (lambda: Mixture({"a": task()}, encoder=TransformerConfig()), r"encoder: no task has an encoder"),
    ],
)
def test_what_contradicts_itself_is_refused(made: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made()


def test_heads_of_other_classes_cannot_be_one() -> None:
    one, other = task(), task()
    other.classes = ["b", "a"]
    with pytest.raises(InputError, match=r"share_heads: a and b do not mean the same by targets\.label, and cannot"):
        Mixture({"a": one, "b": other}, share_heads={"a": "b"}).build()


def test_axes_of_some_tasks_alone_are_fine_and_those_of_none_are_not() -> None:
    text = Text("characters", max_len=8).fit(["ab"])
    tasks = {"seen": task(), "read": Classify({"text": text}, classes=["a", "b"])}
    stack = TransformerConfig(d_model=16, depth=1, n_heads=1, rotary=RotaryConfig(("word", "row")))
    placed = EmbeddingConfig(positions=[PositionConfig(("row", "column"), "joint"), PositionConfig(("word",))])
    mixture = Mixture(tasks, stack, embedding=placed)
    mixture.build()
    assert [position.axes for position in mixture.tasks["seen"].model.embeddings.placed] == [("row", "column")]
    assert [position.axes for position in mixture.tasks["read"].model.embeddings.placed] == [("word",)]
    stack = TransformerConfig(d_model=16, depth=1, n_heads=1, rotary=RotaryConfig(("wrod",)))
    with pytest.raises(
        InputError, match=r"tasks\.seen: no field has the axis 'wrod' that positions name, .*; there are row"
    ):
        Mixture({"seen": task()}, stack).build()


def test_the_best_model_is_chosen_by_a_task_or_by_all() -> None:
    assert small_mixture().metric == ("val/score", "max")
    assert small_mixture(choose="poet").metric == ("val/poet/loss", "min")
    assert small_mixture(choose="mood").metric == ("val/mood/accuracy", "max")


def test_the_data_must_be_of_a_mixture(tmp_path: Path) -> None:
    options = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 1}
    with pytest.raises(InputError, match="data: a mixture has records for each of its tasks; give class_path: Mixed"):
        fit(small_mixture(), Records(Digits(), 0.1), tmp_path / "one", **options)
    with pytest.raises(InputError, match="data: Mixed is for a mixture, and Classify is one task"):
        fit(small_tasks()["digits"], small_mixed(tmp_path), tmp_path / "two", **options)


class Heights(Parities):
    """Digits that are as high as they are great, in some unit."""

    def __init__(self, of_metre: float) -> None:
        self.of_metre = of_metre

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = Digits()[i]
        return {"image": record["image"], "height": (1 + int(record["label"])) * self.of_metre}


@pytest.mark.parametrize("scaling", ["standard", "log"])
@pytest.mark.parametrize("choose", ["rmse", "mae"])
def test_the_score_does_not_hang_on_the_unit_of_a_number(tmp_path: Path, scaling: Any, choose: str) -> None:
    found = []
    for name, of_metre in (("metres", 1.0), ("millimetres", 1000.0)):
        heights = Predict({"image": PICTURE}, {"height": Regression(scaling=scaling)}, choose=choose)
        tasks = {"digits": Classify({"image": PICTURE}), "heights": heights}
        parts = {"digits": Part(Digits(), 0.1, batch_size=240), "heights": Part(Heights(of_metre), 0.2, batch_size=60)}
        lightning.seed_everything(0, verbose=False)
        data = Mixed(parts, n_batches=2)
        quiet = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 1}
        found.append(fit(Mixture(tasks, replace(TRANSFORMER, rotary=None)), data, tmp_path / name, **quiet))
    metres, millimetres = found
    assert millimetres[f"val/heights/{choose}"] == pytest.approx(1000 * metres[f"val/heights/{choose}"], rel=1e-3)
    assert millimetres["val/score"] == pytest.approx(metres["val/score"], rel=1e-4)
    # Two numbers from 0 to 1, and neither is nothing.
    assert metres["val/score"] > metres["val/digits/accuracy"] / 2 + 0.1

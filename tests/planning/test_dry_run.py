"""A plan of a run: what it says against what can be counted, and that nothing is trained, kept or written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.planning.dry_run import plan
from anyformer.planning.report import Planned
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.language.language import LanguageModel
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_mixture import BATCHES, small_mixed, small_mixture
from tests.helpers.small_run import small_task
from tests.helpers.worlds import walks

SMALL = TransformerConfig(d_model=8, depth=1, n_heads=2)
ROTARY = replace(SMALL, rotary=RotaryConfig(("word",)))
OPTIONS: dict[str, Any] = {"accelerator": "cpu", "max_epochs": 2}


class Pairs(Source):
    """Numbers in digits and in words; every fifth cannot be read."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"digits": str(i), "words": "" if i % 5 == 4 else " ".join(["one", "two"][int(c)] for c in f"{i:b}")}

    def name(self, i: int) -> str:
        return f"pair {i}"


def few_digits(**options: Any) -> Records:
    return Records(Digits().take(range(250)), **({"validation": 0.2, "test": 0.2, "batch_size": 25} | options))


def translator(**options: Any) -> SequenceToSequence:
    texts = {name: Text("characters") for name in ("digits", "words")}
    return SequenceToSequence(texts, ROTARY, target="words", **options)


def test_what_is_said_of_a_classifier_can_be_counted() -> None:
    planned = plan(small_task(), few_digits(), max_epochs=3, check_val_every_n_epoch=2, accelerator="cpu")
    part = planned.parts[""]
    assert part.records == {"train": 150, "validation": 50, "test": 50}
    assert part.sizes["label"] == "Category, 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert part.sizes["image"] == "ImagePatches, on row 2 x column 2"
    assert part.n_batches == 6 and planned.n_steps == 18 and planned.n_validations == 1
    image, own = part.budget.fields
    assert (image.name, image.median, image.most, image.share, image.present) == ("image", 4, 4, 4 / 5, 1)
    assert (own.name, own.most) == ("class", 1) and part.budget.fill == 1
    task = small_task()
    task.classes = list(map(str, range(10)))
    task.build()
    assert planned.n_parameters == part.parameters.total == sum(p.numel() for p in task.parameters())
    assert part.trunk == {"transformer": "1 block, 16 wide, 2 heads"}
    assert planned.memory.weights >= 4 * planned.n_parameters == planned.memory.gradients
    # Of Muon a moment of each matrix, of AdamW two, and the moving average of all.
    assert 2 * planned.memory.gradients < planned.memory.optimizer < 3.1 * planned.memory.gradients
    assert planned.memory.peak >= planned.memory.before > 2**20
    step = planned.step
    assert min(step.read, step.forward, step.backward, step.optimizer) > 0
    assert step.samples == 25 and step.tokens == pytest.approx(5 * step.samples)
    assert planned.validation_seconds > 0 and planned.setup_seconds > 0
    assert planned.seconds > planned.n_steps * step.seconds
    assert planned.warnings == (
        "field 'image' has 4 tokens a sample at most; cut it finer (a smaller patch, width or stride), or attention "
        "has nothing to compare",
    )


def test_nothing_is_trained_kept_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task, data = small_task(), few_digits()
    task.classes = list(map(str, range(10)))
    task.build()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    first = plan(task, data, "seen/plan.png", **OPTIONS)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert data.sources == {} and task._trainer is None
    assert [path.name for path in tmp_path.rglob("*")] == ["seen", "plan.png"] and first.picture == "seen/plan.png"
    pixels = np.asarray(Image.open("seen/plan.png"))
    assert pixels.ndim == 3 and pixels.std() > 10


def test_accumulated_batches_are_one_step() -> None:
    planned = plan(small_task(), few_digits(), accumulate_grad_batches=4, **OPTIONS)
    assert planned.n_steps == 2 * 2
    assert planned.step.samples == 100


@pytest.mark.parametrize(("n_batches", "n_measured"), [(3, 2), (1, 1)])
def test_the_first_batch_is_not_measured_where_there_is_another(n_batches: int, n_measured: int) -> None:
    assert plan(small_task(), few_digits(), limit_train_batches=n_batches, **OPTIONS).step.n == n_measured


def test_a_run_by_steps_is_validated_by_steps() -> None:
    planned = plan(
        small_task(),
        few_digits(),
        accelerator="cpu",
        max_steps=100,
        val_check_interval=30,
        check_val_every_n_epoch=None,
    )
    assert (planned.n_steps, planned.n_validations) == (100, 3)


@pytest.mark.parametrize("architecture", ["encoder_decoder", "decoder"])
def test_texts_are_counted_in_both_stacks_and_bad_records_said(architecture: Any, tmp_path: Path) -> None:
    data = Records(Pairs(), validation=Pairs(), batch_size=10)
    planned = plan(translator(architecture=architecture), data, tmp_path / "plan.png", **OPTIONS)
    fields = {field.name: field for field in planned.parts[""].budget.fields}
    assert fields["digits"].most == 2
    # A start token, and up to 6 words of 3 letters with spaces between them.
    assert fields["words"].most == 1 + 6 * 3 + 5
    assert planned.parts[""].budget.n_samples == 32
    (warning,) = [warning for warning in planned.warnings if "cannot be used" in warning]
    assert warning.startswith("8 of 40 samples cannot be used: pair ")
    assert "field 'words': the text is empty" in warning
    assert (tmp_path / "plan.png").exists()
    assert ("encoder" in planned.parts[""].trunk) == (architecture == "encoder_decoder")


def test_a_language_model_and_a_policy_are_planned(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be that is the question " * 40)
    model = LanguageModel({"text": Text("characters")}, SMALL, context=32, cache=str(tmp_path))
    planned = plan(model, Records(Corpus(str(tmp_path / "text.txt")), 0.1, batch_size=4), tmp_path / "a.png", **OPTIONS)
    assert planned.parts[""].budget.fields[0].median == 32
    walker = Decide(transformer=SMALL, context=5)
    planned = plan(walker, Records(walks(), 0.25, batch_size=4), tmp_path / "b.png", **OPTIONS)
    names = {field.name for field in planned.parts[""].budget.fields}
    assert names == {"return", "action", "state.picture", "state.where"}
    assert planned.validation_seconds > 0
    assert (tmp_path / "a.png").exists() and (tmp_path / "b.png").exists()


def test_the_tasks_of_a_mixture_are_planned_each(tmp_path: Path) -> None:
    mixture = small_mixture()
    planned = plan(mixture, small_mixed(tmp_path), tmp_path / "plan.png", **OPTIONS)
    assert list(planned.parts) == ["digits", "parity", "mood", "poet"]
    assert planned.parts["mood"].budget.fields[0].name == "text"
    assert planned.parts["poet"].task == "LanguageModel"
    # What they share is counted once.
    own = [part.parameters for part in planned.parts.values()]
    assert max(each.total for each in own) < planned.n_parameters < sum(each.total for each in own)
    assert planned.n_steps == 2 * BATCHES and planned.n_validations == 2
    assert planned.validation_seconds > 0 and (tmp_path / "plan.png").exists()
    assert not any(warning.startswith("digits: column") for warning in planned.warnings)
    assert "all tasks together have" in str(planned)


def test_a_run_without_validation_and_without_an_end() -> None:
    task = Classify(
        {"image": ImagePatches((8, 8), 4, 1)}, SMALL, optimizer=OptimizerConfig(schedule="constant", warmup=0)
    )
    planned = plan(task, few_digits(validation=None, test=None), max_epochs=-1, accelerator="cpu")
    assert planned.n_validations == 0 and planned.validation_seconds == 0
    assert "without an end" in str(planned)


def test_what_fit_refuses_is_refused() -> None:
    task: Task = Classify({"image": ImagePatches((8, 8), 4, 1)}, SMALL, target="kind")
    with pytest.raises(InputError, match="no column 'kind'"):
        plan(task, few_digits(), **OPTIONS)
    with pytest.raises(InputError, match="the trainer's options cannot be used"):
        plan(small_task(), few_digits(), max_epoch=1)
    with pytest.raises(InputError, match=r"^trainer\.val_check_interval is more than the batches of an epoch"):
        plan(small_task(), few_digits(), **OPTIONS, val_check_interval=1000)
    with pytest.raises(InputError, match=r"^no step would be taken"):
        plan(small_task(), few_digits(), **{**OPTIONS, "max_epochs": 0})


def test_the_options_that_write_or_talk_are_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    options = {"callbacks": [ModelCheckpoint(tmp_path / "a")], "logger": CSVLogger(tmp_path / "b"), "devices": 2}
    assert isinstance(plan(small_task(), few_digits(), **OPTIONS, **options), Planned)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_validation_is_timed_as_it_runs_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, evaluate = [], Classify.evaluate

    def watched(self: Classify, batch: Any) -> Any:
        seen.append(torch.is_grad_enabled())
        return evaluate(self, batch)

    monkeypatch.setattr(Classify, "evaluate", watched)
    plan(small_task(), few_digits(), **OPTIONS)
    assert seen and not any(seen)

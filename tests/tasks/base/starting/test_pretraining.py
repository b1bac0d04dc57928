"""Training on masked content before a task's own: on which records, where its weights go, and how it resumes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.runs.checkpointing import RunCallback
from anyformer.runs.fit import fit
from anyformer.runs.metrics_file import read_rows
from anyformer.saving.model_folder import load
from anyformer.saving.run_folder import metrics_of
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.starting.pretraining import Pretraining
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.mixture.mixture import Mixture
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tokenizers.image.sources import Digits
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_run import BATCHES, in_a_fork, small_data, small_fit, small_options
from tests.helpers.stopped_runs import assert_same_run

OWN = TransformerConfig(d_model=8, depth=1, n_heads=2)


@pytest.fixture(autouse=True, scope="module")
def undrawn() -> Iterator[None]:
    """Pictures take most of the time of a run of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyformer.runs.checkpointing.draw_curves", lambda *_: None)
        patch.setattr("anyformer.tasks.predict.predict.Predict.draw", lambda self, folder: None)
        yield


def task(**options) -> Classify:
    return Classify(**small_options() | {"pretrain": Pretraining({"image": 0.5}, epochs=2)} | options)


def texts(folder: Path) -> dict[str, str]:
    """Tables of words: labelled, and more without labels, whose letters no labelled one has."""
    rows = "".join(f"{'abc'[i % 3] * 4},{'abc'[i % 3]}\n" for i in range(30))
    (folder / "train.csv").write_text(f"text,label\n{rows}")
    (folder / "more.csv").write_text("text\n" + "".join(f"{letter * 5}\n" for letter in "xyzxyz"))
    return {"train": str(folder / "train.csv"), "unlabelled": str(folder / "more.csv")}


def of_texts(**options) -> Predict:
    return Predict(
        {"text": Text("characters", max_len=8)},
        {"label": Category()},
        OWN,
        optimizer=OptimizerConfig("adamw", lr=0.01),
        pretrain=Pretraining({"text": 0.5}, epochs=1),
        **options,
    )


def test_training_starts_from_the_best_weights_of_what_was_pretrained(tmp_path: Path) -> None:
    still = OptimizerConfig("adamw", lr=1e-30)
    own = task(optimizer=still, pretrain=Pretraining({"image": 0.5}, 2, OptimizerConfig("adamw", lr=0.01)))
    small_fit(tmp_path / "run", task=own, max_epochs=1)
    pretrained, weights = (load_file(tmp_path / at / "model/weights.safetensors") for at in ("run/pretrained", "run"))
    shared = pretrained.keys() & weights.keys()
    assert {name for name in weights if name.startswith("model.transformer")} <= shared
    assert all(torch.equal(pretrained[name], weights[name]) for name in shared)
    rows = read_rows(tmp_path / "run/pretrained/metrics.csv")
    losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert len(losses) == 2 and losses[1] < losses[0]
    assert metrics_of(tmp_path / "run/pretrained").keys().isdisjoint({"test/loss", "val/accuracy"})
    # What is kept has its weights and says nothing of how they were trained.
    assert load(tmp_path / "run").pretrain is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never killed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert in_a_fork(lambda: small_fit(run, task=task())) == 0
    return run


def killed(n: int, work: Callable) -> Callable:
    """Kill the process after n steps, those of pretraining counted too."""

    def killing():
        ended, left = RunCallback.on_train_batch_end, [n]

        def end(*args):
            ended(*args)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        RunCallback.on_train_batch_end = end
        work()

    return killing


@pytest.mark.parametrize("steps", [BATCHES + 3, 2 * BATCHES, 2 * BATCHES + 4])
def test_one_killed_in_pretraining_or_after_it_goes_on_exactly(tmp_path: Path, whole: Path, steps: int) -> None:
    run = tmp_path / "run"
    assert in_a_fork(killed(steps, lambda: small_fit(run, task=task()))) == -signal.SIGKILL
    assert in_a_fork(lambda: small_fit(run, task=task(), resume=True)) == 0
    assert_same_run(run, whole)
    assert_same_run(run / "pretrained", whole / "pretrained")


def test_what_was_pretrained_is_not_written_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert in_a_fork(killed(BATCHES, lambda: small_fit(run, task=task()))) == -signal.SIGKILL
    with pytest.raises(InputError, match=r"run already holds a run; go on with resume=True"):
        small_fit(run, task=task())


def test_one_that_is_stopped_in_pretraining_says_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"

    def stopped():
        ended = RunCallback.on_train_batch_end

        def end(*args):
            os.kill(os.getpid(), signal.SIGTERM)
            ended(*args)

        RunCallback.on_train_batch_end = end
        small_fit(run, task=task())

    assert in_a_fork(stopped) == 128 + signal.SIGTERM
    said = capfd.readouterr().err
    assert f"fit(..., run_dir='{run}', resume=True)\n" in said
    with pytest.raises(InputError, match=r"targets\.image\.share was 0\.5 and is now 0\.25"):
        small_fit(run, task=task(pretrain=Pretraining({"image": 0.25}, epochs=2)), resume=True)


def test_unlabelled_records_are_read_in_pretraining_alone(tmp_path: Path) -> None:
    data = texts(tmp_path)
    own = of_texts()
    fit(own, Records(**data, validation=0.2, batch_size=12), tmp_path / "run", max_epochs=1, accelerator="cpu")
    # The last step of 24 and 6 records in batches of 12; then that of the 24 alone.
    assert [metrics_of(tmp_path / at)["step"] for at in ("run/pretrained", "run")] == [2, 1]
    assert set("abcxyz") <= set(own.tokenizers["text"].vocabulary)
    records = Records(**data).pretraining()
    records.attach(own)
    records.setup("fit")
    assert len(records.sources["train"]) == 36 and not records.holds("test")


class Drawing(torch.utils.data.Dataset):
    """Records that draw from the global generators, as transforms of torchvision do."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> dict:
        return {"image": (torch.rand(8, 8) * 255).to(torch.uint8), "label": "ab"[i % 2]}


def test_records_that_draw_numbers_do_not_change_where_the_task_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    monkeypatch.setattr("anyformer.runs.fit.set_generators", lambda state: states.append(state["torch"].tolist()))

    def begin(run: Path, **options) -> None:
        small_fit(run, task=task(mix=None), data=Records(Drawing(), batch_size=20), max_epochs=1, **options)

    assert in_a_fork(killed(3, lambda: begin(tmp_path / "run"))) == -signal.SIGKILL
    begin(tmp_path / "run", resume=True)
    begin(tmp_path / "whole")
    assert states[0] == states[1]


def test_one_whose_pretraining_is_taken_out_of_its_config_is_not_gone_on_with(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert in_a_fork(killed(BATCHES, lambda: small_fit(run, task=task()))) == -signal.SIGKILL
    with pytest.raises(InputError, match="run was being pretrained, and its config has no pretrain any more"):
        small_fit(run, task=task(pretrain=None), resume=True)


def test_who_sees_whom_is_asked_of_the_inputs_alone() -> None:
    sees = FieldsConfig(sees={"image": ["image", "class"], "class": ["image"]})
    assert task(mix=None, fields=sees).pretraining().fields.sees == {"image": ["image"]}


def test_no_record_of_the_test_is_pretrained_on() -> None:
    records = small_data().pretraining()
    records.attach(task())
    records.setup("fit")
    own = small_data()
    own.attach(task())
    own.setup("fit")
    assert len(records.sources["train"]) == len(own.sources["train"]) < len(Digits())
    folds = Records(Digits(), folds=4, fold=1, inner_folds=3, inner_fold=2)
    for each in (folds, pretraining := folds.pretraining()):
        each.attach(task())
        each.setup("fit")
    names = [
        [source.name(i) for i in range(len(source))]
        for source in (folds.sources["train"], pretraining.sources["train"])
    ]
    assert names[0] == names[1] and set(names[0]).isdisjoint(
        map(folds.sources["test"].name, range(len(folds.sources["test"])))
    )


def test_what_is_wrong_with_the_labels_is_said_before_anything_is_learned(tmp_path: Path) -> None:
    data = texts(tmp_path)
    (tmp_path / "train.csv").write_text("text,other\nabc,1\n")
    with pytest.raises(InputError, match="label"):
        fit(of_texts(), Records(**data), tmp_path / "run", max_epochs=1, accelerator="cpu")
    assert not (tmp_path / "run/pretrained").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pretraining({}), "pretrain.masked must name at least one input, got none"),
        (lambda: Pretraining({"image": 0.5}, epochs=0), "pretrain.epochs must be at least 1, got 0"),
        (lambda: task(pretrain=Pretraining({"imag": 0.5})), "pretrain.masked: .* no input 'imag' .*did you mean"),
        (lambda: task(pretrain=Pretraining({"image": 1.5})), "pretrain.masked: .*share must lie between 0 and 1"),
        (
            lambda: Mixture({"digits": task(transformer=TransformerConfig(), optimizer=OptimizerConfig())}),
            "digits.pretrain: a mixture is not pretrained; .*init_from",
        ),
        (
            lambda: small_fit(
                Path("run"), task=Classify(**small_options()), data=Records(Digits(), unlabelled="x.csv")
            ),
            "data.unlabelled is read by model.pretrain alone",
        ),
        (lambda: Records(Digits(), unlabelled=0.2), "data.unlabelled must be records or the path of some, got 0.2"),
        (lambda: Records(Digits(), unlabelled=[]), "data.unlabelled must list at least one source or path, got none"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(
    make: Callable, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        make()


def test_a_config_pretrains_by_folds_and_is_tried_and_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    texts(tmp_path)
    config = {
        "model": {
            "class_path": "Predict",
            "init_args": {
                "tokenizers": {"text": {"class_path": "Text", "init_args": {"kind": "characters", "max_len": 8}}},
                "targets": {"label": {"class_path": "Category"}},
                "transformer": {"d_model": 8, "depth": 1, "n_heads": 2},
                "pretrain": {"masked": {"text": 0.5}, "epochs": 1},
            },
        },
        "data": {"train": "train.csv", "validation": 0.2, "unlabelled": "more.csv", "batch_size": 12},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
    }
    Path("own.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "own.yaml", "--trainer.fast_dev_run", "true"]) == 0
    assert not Path("runs").exists()
    assert main(["plan", "own.yaml"]) == 0
    assert "until the first step, 3 steps of pretraining, 2 steps" in capsys.readouterr().out
    config["data"]["validation"] = None
    Path("own.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", "own.yaml", "--folds", "3"]) == 0
    assert [metrics_of(Path(f"runs/own/fold_{fold}_seed_0/pretrained"))["step"] for fold in range(3)] == [2, 2, 2]
    capsys.readouterr()
    assert main(["fit", "--resume", "runs/own/fold_0_seed_0", "--trainer.max_epochs", "2"]) == 0
    assert metrics_of(Path("runs/own/fold_0_seed_0"))["step"] == 3
    assert main(["predict", "runs/own/fold_0_seed_0/pretrained", "text=ab_"]) == 0
    # Its config names unlabelled records, which an evaluation has no use for.
    assert main(["validate", "runs/own/fold_0_seed_0"]) == 0
    assert main(["test", "runs/own/fold_0_seed_0", "--data.test", "train.csv"]) == 0

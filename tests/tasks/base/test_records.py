"""The data module: its sources, and a trainer that is stopped anywhere and goes on exactly."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jsonargparse
import lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyformer.data.chopper import Chopper
from anyformer.data.folders import Folders
from anyformer.data.loader import Loader
from anyformer.data.tables import Table
from anyformer.errors import InputError, say_once
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task
from anyformer.tasks.mixture.data import Mixed, Part
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokens import Tokenizer, TokenSet
from tests.helpers.mixed_fields import Shown, two_inputs
from tests.helpers.witnesses import Numbers


@dataclass
class Sums:
    numbers: Tensor
    rows: list[int] | None
    samples: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def to(self, device: Any, non_blocking: bool = False) -> Sums:
        return Sums(self.numbers.to(device), self.rows, self.samples)


@dataclass(frozen=True)
class Noisy:
    """Chops a record into its number with noise on it."""

    training: bool
    bad: tuple[int, ...] = ()
    tokenizers: dict = field(default_factory=dict)

    partner, mix, packs, by = Chopper.partner, Chopper.mix, Chopper.packs, Chopper.by

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> float:
        if int(record["x"]) in self.bad:
            raise InputError(f"field 'x': {record['x']} is bad")
        assert (random is not None) == self.training
        return int(record["x"]) + (float(random.random()) if random else 0.5)

    def count(self, record: dict[str, Any]) -> int:
        return 1 + int(record["x"]) % 3

    def collate(self, items: list, rows: list[int] | None = None) -> Sums:
        return Sums(torch.tensor(items), rows)


class Toy(lightning.LightningModule):
    """Learns something with dropout, and writes down which samples it saw with which loss."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 7), nn.Dropout(0.3), nn.Linear(7, 1))
        self.bad = bad
        self.seen: list[tuple[Any, ...]] = []
        self.evaluated: list[str] = []
        self.generator = None

    view, open, check_inputs = Task.view, Task.open, Task.check_inputs
    answers: ClassVar[dict[str, list[str]]] = {}

    def passes(self, training: bool = False) -> list[tuple[str, Noisy]]:
        return [("", self.chopper(training))]

    def chopper(self, training: bool) -> Noisy:
        return Noisy(training, self.bad)

    def training_step(self, batch: Sums, number: int) -> Tensor:
        loss = (self.net(batch.numbers[:, None] / 10) - 1).square().mean()
        self.seen.append((number, batch.samples, batch.numbers.tolist(), loss.item()))
        return loss

    def validation_step(self, batch: Sums, number: int) -> None:
        self.evaluated += batch.samples

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.01)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["generator"] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.generator = checkpoint["generator"]

    def on_train_start(self) -> None:
        if self.generator is not None:
            torch.set_rng_state(self.generator)


class SaveEverywhere(lightning.Callback):
    """A checkpoint at every hook where one is usually made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved: dict[Path, int] = {}

    def save(self, trainer: lightning.Trainer, toy: Toy, where: str) -> None:
        path = self.folder / f"{len(self.saved):02d}_{where}.ckpt"
        trainer.save_checkpoint(path)
        self.saved[path] = len(toy.seen)

    def on_train_batch_end(self, trainer, toy, *_):
        # A checkpoint holds no gradients, so none is made between the batches of one optimiser step.
        if not trainer.fit_loop._should_accumulate():
            self.save(trainer, toy, "batch_end")

    def on_validation_end(self, trainer, toy):
        self.save(trainer, toy, "validation_end")

    def on_train_epoch_end(self, trainer, toy):
        self.save(trainer, toy, "epoch_end")


def trainer(*callbacks: lightning.Callback, **options: Any) -> lightning.Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    options = {"max_epochs": 3, "accelerator": "cpu", "num_sanity_val_steps": 0, **quiet, **options}
    return lightning.Trainer(callbacks=list(callbacks), **options)


def fit(data: Records, path: Path | None = None, *callbacks: lightning.Callback, **options: Any) -> Toy:
    torch.manual_seed(0)
    toy = Toy()
    trainer(*callbacks, **options).fit(toy, data, ckpt_path=path, weights_only=True)
    return toy


def equal(one: Toy, other: Toy) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


# Resume


@pytest.mark.parametrize(
    ("options", "run"),
    [
        ({"batch_size": 5}, {}),
        ({"max_tokens": 9}, {"accumulate_grad_batches": 2}),
        ({"batch_size": 4, "validation": None}, {"limit_train_batches": 3}),
        ({"batch_size": 4}, {"val_check_interval": 2}),
    ],
    ids=["samples", "tokens", "no validation, short epochs", "validation inside epochs"],
)
def test_a_run_stopped_at_any_checkpoint_goes_on_bit_for_bit(tmp_path, options, run):
    options = {"validation": 0.2, **options}
    save = SaveEverywhere(tmp_path)
    whole = fit(Records(Numbers(22), **options), None, save, **run)
    assert len({str(samples) for _, samples, *_ in whole.seen}) >= len(whole.seen) - 1, "every batch is another"
    for path, n_seen in save.saved.items():
        resumed = fit(Records(Numbers(22), **options), path, **run)
        assert resumed.seen == whole.seen[n_seen:], path.name
        assert equal(resumed, whole), path.name


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 0), (0, 2)])
def test_the_number_of_workers_may_change_in_between(tmp_path, before, after):
    whole = fit(Records(Numbers(22), 0.2, batch_size=5))
    save = SaveEverywhere(tmp_path)
    assert fit(Records(Numbers(22), 0.2, batch_size=5, n_workers=before), None, save).seen == whole.seen
    middle = [path for path in save.saved if "batch_end" in path.name]
    for path in (middle[1], middle[3], middle[5]):
        resumed = fit(Records(Numbers(22), 0.2, batch_size=5, n_workers=after), path)
        assert resumed.seen == whole.seen[save.saved[path] :]
        assert equal(resumed, whole)


def test_an_interrupted_run_may_itself_be_interrupted(tmp_path):
    whole = fit(Records(Numbers(22), batch_size=3), max_epochs=2)
    path, seen = None, []
    while len(seen) < len(whole.seen):
        stop = Stop(tmp_path / f"{len(seen)}.ckpt", len(seen) + 3)
        toy = fit(Records(Numbers(22), batch_size=3), path, stop, max_epochs=2)
        seen, path = seen + toy.seen, stop.path
    assert seen == whole.seen and equal(toy, whole)


class Stop(lightning.Callback):
    """Saves and stops after a step."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, toy, *_):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def test_going_on_with_other_batches_inside_an_epoch_is_refused(tmp_path):
    fit(Records(Numbers(22), batch_size=5), None, Stop(tmp_path / "a.ckpt", 2), max_epochs=1)
    with pytest.raises(InputError, match=r"cannot go on inside an epoch: .* n_batches=5, this run has 6"):
        fit(Records(Numbers(22), batch_size=4), tmp_path / "a.ckpt", max_epochs=1)


NO_SAMPLE = {"n_workers": 1, "worker_timeout": 9.0, "on_bad_sample": "skip", "test": "other.csv"}
OF_DIVIDING = {"stratify": "kind", "split_seed": 1}
OF_SAMPLES = {"train": Numbers(20), "batch_size": 4, "max_tokens": 9, "seed": 1, "folds": 3, "validation": 0.2}


@pytest.mark.parametrize(
    ("options", "free", "fixed"),
    [
        ({"test": Numbers(4)}, NO_SAMPLE | OF_DIVIDING, OF_SAMPLES),
        ({"test": 0.2}, {}, OF_DIVIDING | {"test": 0.3}),
        ({"validation": 0.2}, {"test": Numbers(4)}, OF_DIVIDING),
        ({"validation": None, "folds": 2}, {"test": Numbers(4)}, OF_DIVIDING | {"fold": 1, "inner_folds": 2}),
        ({"folds": 2, "inner_folds": 2}, {"test": Numbers(4)}, OF_DIVIDING | {"fold": 1, "inner_fold": 1}),
        ({"batch_size": None, "max_tokens": 9}, {}, {"pack": True}),
    ],
)
def test_every_argument_that_changes_no_training_sample_may_change_on_a_resume(tmp_path, options, free, fixed):
    (tmp_path / "other.csv").write_text("x,kind\n1,a\n")
    base = {"train": Numbers(22), "validation": Numbers(4), "batch_size": 5, **options}
    seen = fit(Records(**base), max_epochs=1).seen
    for name, value in {**free, **fixed}.items():
        now = Records(**base | {name: str(tmp_path / value) if value == "other.csv" else value})
        assert (fit(now, max_epochs=1).seen == seen) == now.is_free(name) == (name in free), name
    named = {*NO_SAMPLE, *OF_DIVIDING, *OF_SAMPLES, "fold", "inner_folds", "inner_fold", "pack", "unlabelled"}
    assert named | {"group", "group_pattern"} == inspect.signature(Records).parameters.keys()
    # From these training starts, and by those the best model is chosen.
    assert not Records(Numbers(22), unlabelled=Numbers(5)).is_free("unlabelled")
    assert not Records(Numbers(22), Numbers(5)).is_free("validation")


# Sources


def test_fractions_are_taken_out_of_train_and_test_does_not_depend_on_validation():
    data = Records(Numbers(40), 0.25, 0.2, stratify="kind")
    data.setup("fit")
    assert {name: len(source) for name, source in data.sources.items()} == {"train": 22, "validation": 10, "test": 8}
    alone = Records(Numbers(40), None, 0.2, stratify="kind")
    alone.setup("test")
    assert list(alone.sources) == ["test"]
    assert alone.sources["test"].column("x") == data.sources["test"].column("x")
    other = Records(Numbers(40), None, 0.2, stratify="kind", split_seed=1)
    other.setup("test")
    assert other.sources["test"].column("x") != data.sources["test"].column("x")


def test_a_path_is_a_table_that_is_read_like_train(tmp_path):
    for name, rows in (("train", ["1,a", "2,b", "3,c"]), ("other", ["4,d"])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["number,word", *rows]))
    train = Table(str(tmp_path / "train.csv"), {"x": "number"}, rows=(0, 2), root="{stem}.zip")
    data = Records(train, test=str(tmp_path / "other.csv"))
    data.setup("test")
    assert data.sources["test"] == Table(str(tmp_path / "other.csv"), {"x": "number"}, root="{stem}.zip")
    plain = Records(str(tmp_path / "train.csv"), str(tmp_path / "other.csv"))
    plain.setup("fit")
    assert plain.sources["train"][2] == {"number": "3", "word": "c"} and len(plain.sources["validation"]) == 1


def test_a_path_may_be_of_class_folders(tmp_path):
    for part, kind in (("train", "JPG"), ("other", "jpg")):
        for name in ("cat/1", "cat/2", "dog/3"):
            (tmp_path / part / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / part / f"{name}.{kind}").touch()
    train, other = str(tmp_path / "train"), str(tmp_path / "other")
    data = Records(train, other, 0.5)
    data.setup("fit")
    assert data.sources["validation"] == Folders(other) and len(data.sources["train"]) == 1
    like = Records(Folders(train, {"x": "file"}, (".jpg",)), other, test=other)
    like.setup("fit")
    assert like.sources["test"] == like.sources["validation"] == Folders(other, {"x": "file"}, (".jpg",))
    (tmp_path / "t.csv").write_text("image,label\na.jpg,cat")
    mixed = Records(train, str(tmp_path / "t.csv"))
    mixed.setup("fit")
    assert mixed.sources["validation"] == Table(str(tmp_path / "t.csv"))


def place(folder: Path, *files: str) -> str:
    """A folder with files of these names."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return str(folder)


PARTED = [f"{part}/{name}/1.png" for part in ("train", "dev", "Test") for name in ("cat", "dog")]


def test_the_parts_below_a_root_are_train_validation_and_test(tmp_path, capsys):
    root = place(tmp_path / "set", *PARTED)
    place(tmp_path / "set" / "notes", "1.txt")
    for train in (root, Folders(root)):
        data = Records(train)
        data.setup("fit")
        expected = {"train": "train", "validation": "dev", "test": "Test"}
        assert data.sources == {part: Folders(f"{root}/{name}") for part, name in expected.items()}
        data = Records(train)
        data.setup("test")
        assert data.sources == {"test": Folders(f"{root}/Test")}
    said = f"{root}: {root}/train is train, {root}/dev is validation, {root}/Test is test, {root}/notes is not used\n"
    assert capsys.readouterr().err == said


def test_the_parts_below_a_root_are_held_and_change_no_argument(tmp_path):
    root = place(tmp_path / "set", *PARTED)
    for data in (Records(root), Mixed({"one": Part(Folders(root))})):
        before = data.config()
        assert data.holds("validation") and data.holds("test")
        for part in data.parts.values() if isinstance(data, Mixed) else [data]:
            for _ in range(2):
                part.setup("fit")
                assert part.sources["train"] == Folders(f"{root}/train")
        assert data.config() == before
    other = Records(f"{root}/train")
    assert not other.holds("validation") and not Records(str(tmp_path / "absent")).holds("test")


def test_what_is_given_goes_before_the_parts_below_a_root(tmp_path, capsys):
    root, other = place(tmp_path / "set", *PARTED), place(tmp_path / "other", "cat/1.png")
    data = Records(root, other, 0.5)
    data.setup("fit")
    assert data.sources["validation"] == Folders(other)
    assert {data.sources[part].name(0) for part in ("train", "test")} == {
        f"{root}/train/cat/1.png",
        f"{root}/train/dog/1.png",
    }
    line = capsys.readouterr().err
    assert f"{root}/dev is not used, as data.validation is given, {root}/Test is not used, as data.test" in line


def test_a_part_without_class_folders_is_not_used(tmp_path, capsys):
    root = place(tmp_path / "set", "train/cat/1.png", "train/dog/1.png", "test/1.png", "test/2.png")
    data = Records(root)
    data.setup("fit")
    assert data.sources == {"train": Folders(f"{root}/train")}
    assert f"{root}/test is not used, as it has no class folders" in capsys.readouterr().err
    plain = Records(Folders(root, {"image": "file"}))
    plain.setup("fit")
    assert len(plain.sources["train"]) == len(plain.sources["test"]) == 2


def test_one_class_is_enough_for_validation_and_not_for_training(tmp_path):
    one, two = place(tmp_path / "one", "cat/1.png"), place(tmp_path / "two", "cat/1.png", "dog/1.png")
    data = Records(two, one, one)
    data.setup("fit")
    assert data.sources["validation"].column("label") == ["cat"]
    with pytest.raises(InputError, match="there is only one class folder, 'cat'"):
        Records(one, two).setup("fit")


def test_a_list_is_read_as_one(tmp_path):
    for name, rows in (("one", ["1,a", "2,b"]), ("two", ["3,c"]), ("three", ["4,d"])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["number,word", *rows]))
    one, two, three = (str(tmp_path / f"{name}.csv") for name in ("one", "two", "three"))
    data = Records([Table(one, {"x": "number"}), two], [two, three])
    data.setup("fit")
    assert data.sources["train"].column("x") == ["1", "2", "3"] and data.sources["train"][2] == {"x": "3"}
    assert data.sources["validation"].column("x") == ["3", "4"]
    assert data.sources["validation"].name(1) == f"{three} row 0"
    fraction = Records([one, two, three], 0.5)
    fraction.setup("fit")
    assert {name: len(source) for name, source in fraction.sources.items()} == {"train": 2, "validation": 2}
    with pytest.raises(InputError, match="a list of data joins records, and a corpus is one text"):
        Records([Corpus(one), Corpus(two)]).setup("fit")


def test_folds_are_dealt_from_train_and_validation():
    made = []
    for fold in range(4):
        data = Records(Numbers(20), Numbers(6), Numbers(3), stratify="kind", folds=4, fold=fold)
        data.setup("fit")
        train, own = data.sources["train"], data.sources["validation"]
        assert len(train) + len(own) == 26 and len(own) in (6, 7) and len(data.sources["test"]) == 3
        assert abs(own.column("kind").count("odd") - len(own) / 2) <= 1
        alone = Records(Numbers(20), Numbers(6), stratify="kind", folds=4, fold=fold)
        alone.setup("validate")
        assert list(alone.sources) == ["validation"] and alone.sources["validation"].column("x") == own.column("x")
        made += own.column("x")
    assert sorted(made) == sorted([*range(20), *range(6)])


def test_a_fraction_for_validation_is_dealt_too_and_that_for_test_is_not():
    held = []
    for fold in range(3):
        data = Records(Numbers(30), 0.3, 0.2, folds=3, fold=fold)
        data.setup("fit")
        assert {name: len(source) for name, source in data.sources.items()} == {"train": 16, "validation": 8, "test": 6}
        held.append(data.sources["test"].column("x"))
    plain = Records(Numbers(30), 0.3, 0.2)
    plain.setup("fit")
    assert held == [plain.sources["test"].column("x")] * 3
    with pytest.raises(InputError, match=r"data.folds deals records out, and a corpus is one text"):
        Records(Corpus(__file__), folds=2).setup("fit")


def test_an_outer_fold_is_test_and_inner_ones_are_dealt_from_the_others(capsys):
    def numbers(source):
        return source.column("x")

    say_once.cache_clear()
    given = Numbers(42).take(np.arange(30)), Numbers(42).take(np.arange(30, 42))
    made = []
    for fold in range(3):
        options = {"stratify": "kind", "folds": 3, "fold": fold}
        plain = Records(*given, **options)
        plain.setup("fit")
        validated = []
        for inner in range(4):
            data = Records(*given, Numbers(5), inner_folds=4, inner_fold=inner, **options)
            data.setup("fit")
            parts = data.sources
            assert {name: len(source) for name, source in parts.items()} == {"train": 21, "validation": 7, "test": 14}
            # The same outer folds as without inner ones.
            assert numbers(parts["test"]) == numbers(plain.sources["validation"])
            assert sorted(numbers(parts["train"]) + numbers(parts["validation"])) == numbers(plain.sources["train"])
            assert 3 <= parts["validation"].column("kind").count("odd") <= 4
            validated += numbers(parts["validation"])
        assert sorted(validated) == numbers(plain.sources["train"])
        made += numbers(parts["test"])
        alone = Records(*given, inner_folds=4, **options)
        assert alone.holds("test")
        alone.setup("test")
        assert numbers(alone.sources["test"]) == numbers(parts["test"])
    assert sorted(made) == list(range(42))
    assert capsys.readouterr().err.count("data.test is kept aside and not used") == 1


def test_groups_stay_together_in_fractions_folds_and_inner_folds_and_are_counted(capsys):
    # Of each ten of the numbers 10 ... 99 the first digit is the group.
    source, by_ten = Numbers(100).take(np.arange(10, 100)), {"group": "x", "group_pattern": "^."}

    def groups(data: Records) -> dict[str, set[int]]:
        data.setup("fit")
        return {name: {x // 10 for x in part.column("x")} for name, part in data.sources.items()}

    say_once.cache_clear()
    parts = groups(Records(source, 0.2, 0.2, stratify="kind", **by_ten))
    assert {name: len(own) for name, own in parts.items()} == {"train": 5, "validation": 2, "test": 2}
    assert "data.group: x: 9 groups: train 5 groups, 50 records; validation 2 groups, 20" in capsys.readouterr().err
    held = []
    for fold in range(3):
        data = Records(source, folds=3, fold=fold, inner_folds=2, **by_ten)
        parts = groups(data)
        assert {name: len(own) for name, own in parts.items()} == {"train": 3, "validation": 3, "test": 3}
        assert set.union(*parts.values()) == set(range(1, 10))
        again = Records(source, folds=3, fold=fold, inner_folds=2, **by_ten)
        again.setup("fit")
        assert all(again.sources[name].column("x") == own.column("x") for name, own in data.sources.items())
        held += parts["test"]
    assert sorted(held) == list(range(1, 10))
    with pytest.raises(InputError, match=r"^inner folds of what is outside fold 0: folds: 6 groups of 'x' cannot be"):
        groups(Records(source, folds=3, inner_folds=7, **by_ten))
    with pytest.raises(InputError, match=r"1 groups of 'x' are in both data.train and data.validation: 9; take them"):
        groups(Records(source, Numbers(100).take([95]), **by_ten))
    with pytest.raises(InputError, match=r"data.group goes by a column, and a corpus has none; leave it out"):
        groups(Records(Corpus(__file__), 0.1, group="x"))
    with pytest.raises(InputError, match=r"data.group_pattern looks for groups in the text of a column; give"):
        Records(source, group_pattern="^.")
    assert Records(source, Numbers(3), group="x").is_free("group") and not Records(source, 0.1).is_free("group")
    assert not Records(source, folds=2).is_free("group_pattern")


def test_a_fraction_for_test_stays_untouched_by_inner_folds():
    plain, data = Records(Numbers(30), 0.3, 0.2), Records(Numbers(30), 0.3, 0.2, folds=3, inner_folds=2)
    plain.setup("test")
    data.setup("fit")
    used = [x for source in data.sources.values() for x in source.column("x")]
    assert sorted(used + plain.sources["test"].column("x")) == list(range(30))
    few = Records(Numbers(8), folds=2, inner_folds=5)
    with pytest.raises(InputError, match=r"^inner folds of what is outside fold 0: folds: 4 records cannot be dealt"):
        few.setup("fit")


def test_testing_needs_no_training_file(tmp_path):
    (tmp_path / "other.csv").write_text("x\n1\n")
    data = Records("nowhere.csv", test=str(tmp_path / "other.csv"))
    data.setup("test")
    assert len(data.sources["test"]) == 1
    with pytest.raises(InputError, match=r"nowhere.csv: no such file"):
        data.setup("fit")


def test_the_command_line_reads_sources_fractions_and_paths():
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(Records, "data")
    source = {"class_path": f"{__name__}.Numbers", "init_args": {"n": 9}}
    parsed = parser.parse_object({"data": {"train": source, "validation": 0.25, "test": "other.csv"}})
    data = parser.instantiate(parsed).data
    assert data.given == {"train": Numbers(9), "validation": 0.25, "test": "other.csv", "unlabelled": None}
    typed = parser.parse_args(["--data.train=train.csv", "--data.test=0.25", "--data.validation=null"])
    assert (typed.data.train, typed.data.test, typed.data.validation) == ("train.csv", 0.25, None)
    for several in (
        parser.parse_object({"data": {"train": [source, "b.csv"]}}),
        parser.parse_args([f"--data.train={json.dumps([source, 'b.csv'])}"]),
    ):
        assert parser.instantiate(several).data.given["train"] == [Numbers(9), "b.csv"]
    assert "Puts" not in parser.format_help() and "padding included" in parser.format_help()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size must be at least 1, got 0"),
        ({"max_tokens": 0}, "data.max_tokens must be at least 1, got 0"),
        ({"n_workers": -1}, "data.n_workers must be at least 0, got -1"),
        ({"n_workers": 10**11}, "data.n_workers must be at most 1000, got 100000000000"),
        ({"worker_timeout": 0.0}, "data.worker_timeout must be above 0, or null for no end, got 0.0"),
        ({"seed": -1}, "data.seed must be at least 0, got -1"),
        ({"folds": 1}, "data.folds must be at least 2, got 1"),
        ({"folds": 3, "fold": 3}, "data.fold must be below data.folds=3, got 3; folds are counted from 0"),
        ({"inner_folds": 3}, "data.inner_folds deals out the records outside a fold of data.folds; give that too"),
        ({"folds": 3, "inner_folds": 1}, "data.inner_folds must be at least 2, got 1"),
        ({"folds": 3, "inner_folds": 2, "inner_fold": 2}, "data.inner_fold must be below data.inner_folds=2, got 2"),
        ({"test": []}, "data.test must list at least one source or path, got none"),
        ({"pack": True}, "data.pack fills rows up to data.max_tokens; give that too"),
        ({"pack": True, "max_tokens": 9, "batch_size": 3}, "leave data.batch_size out"),
    ],
)
def test_options_that_cannot_be_say_why(options, message):
    with pytest.raises(InputError, match=message):
        Records(Numbers(22), **options)


def test_records_that_are_not_there_say_so():
    with pytest.raises(InputError, match=r"data.validation has no records"):
        Records(Numbers(22), Numbers(0)).setup("fit")
    with pytest.raises(InputError, match=r"there are no test records: give data.test a source, a path or a fraction"):
        trainer().test(Toy(), Records(Numbers(22)), verbose=False)
    with pytest.raises(InputError, match=r"there are no validation records: give data.validation"):
        trainer().validate(Toy(), Records(Numbers(22)), verbose=False)
    with pytest.raises(
        InputError, match="max_tokens=2 is less than the 3 tokens of numbers row 2; raise it to at least 3"
    ):
        fit(Records(Numbers(22), max_tokens=2))


# Loaders


@pytest.mark.parametrize("n_workers", [0, 2])
def test_every_record_is_evaluated_once_also_when_that_is_done_often(n_workers):
    data = Records(Numbers(22), 0.3, 0.2, batch_size=4, n_workers=n_workers)
    toy = fit(data, val_check_interval=1, max_epochs=1)
    names = sorted(data.sources["validation"].name(i) for i in range(7))
    assert sorted(toy.evaluated) == sorted(names * len(toy.seen))
    toy.evaluated = []
    trainer().test(toy, data, verbose=False)
    assert sorted(toy.evaluated) == sorted(data.sources["test"].name(i) for i in range(4))


def test_packed_batches_know_their_rows():
    toy = fit(Records(Numbers(22), max_tokens=9, pack=True), max_epochs=1)
    loader = toy.trainer.train_dataloader
    rows = [batch.rows for batch in loader]
    assert all(max(row) < 3 for row in rows) and any(len(row) > len(set(row)) for row in rows)


def test_overfitting_trains_on_the_same_batches_in_every_epoch():
    toy = fit(Records(Numbers(22), 0.2, batch_size=4), overfit_batches=2)
    seen = [samples for _, samples, *_ in toy.seen]
    assert seen[:2] == seen[2:4] == seen[4:]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_bad_samples_stop_the_run_or_are_left_out(n_workers, caplog):
    toy = Toy(bad=(3, 4))
    with pytest.raises(InputError, match=r"numbers row [34]: field 'x': [34] is bad"):
        trainer().fit(toy, Records(Numbers(22), batch_size=5, n_workers=n_workers))
    toy = Toy(bad=(3, 4))
    trainer(max_epochs=1).fit(toy, Records(Numbers(22), batch_size=5, on_bad_sample="skip", n_workers=n_workers))
    assert sorted(name for _, samples, *_ in toy.seen for name in samples) == sorted(
        f"numbers row {i}" for i in range(22) if i not in (3, 4)
    )
    assert "epoch 0 of training left out 2 samples: numbers row" in caplog.text


def test_workers_end_with_the_run():
    data = Records(Numbers(22), 0.2, batch_size=5, n_workers=2)
    toy = fit(data, max_epochs=1)
    assert isinstance(toy.trainer.train_dataloader, Loader)
    import multiprocessing

    assert not multiprocessing.active_children()


class Paths(Tokenizer):
    endings: ClassVar[tuple[str, ...]] = (".png",)

    def encode(self, record, random=None):
        return TokenSet(torch.zeros(1))

    empty = lift = encode


def test_file_names_start_from_the_folder_of_their_own_source(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("x,text\na.png,a.png\n")

    @dataclass(frozen=True)
    class Show(Noisy):
        def __call__(self, record, random):
            shown.append(record)
            return 0.0

    class Looks(Toy):
        def chopper(self, training):
            return Show(training, tokenizers={"x": Paths()})

    shown: list[dict[str, str]] = []
    trainer(max_epochs=1).fit(Looks(), Records(str(tmp_path / "train/t.csv"), str(tmp_path / "val/t.csv")))
    assert shown == [{"x": str(tmp_path / name / "a.png"), "text": "a.png"} for name in ("train", "val")]


# Passes


def test_each_pass_has_a_loader_of_the_same_batches_and_the_last_is_the_whole() -> None:
    task = two_inputs(classes=["even", "odd"], without=[["left"], ["right"]], by="size")
    data = Records(Shown(), Shown(), max_tokens=30, n_workers=1)
    data.trainer = trainer()
    data.trainer.strategy.connect(task)
    data.setup()
    loaders = data.val_dataloader()
    assert [loader.samples.chopper.without for loader in loaders] == [("left",), ("right",), ()]
    assert [loader.keep_workers for loader in loaders] == [False, False, True]
    assert len({id(loader.plan) for loader in loaders}) == 1 < len(loaders[0].plan)
    # Planned by the lengths of the whole: no batch of a pass is over the budget.
    assert all(batch.tokens.shape.numel() <= 30 for loader in loaders for batch in loader)
    assert isinstance(data.train_dataloader(), Loader)
    data.teardown()

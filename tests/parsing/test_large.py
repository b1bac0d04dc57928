"""What is large in a config is kept beside it, comes back where it stood as it was, and is never read as YAML."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer as Package
from tokenizers import models, pre_tokenizers

from anyformer.choices import Checked
from anyformer.parsing.instantiate import instantiate
from anyformer.parsing.large import LARGE, Large, put_back, take_out
from anyformer.runs.experiment import Unmade, parse
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text

WORDS = Package(models.WordLevel({f"word {i}": i for i in range(49_998)} | {"<unk>": 49_998, "<eos>": 49_999}, "<unk>"))
WORDS.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
WORDS.add_special_tokens(["<eos>"])
TEXT = Text(vocabulary=WORDS.to_str(), max_len=16)
NAMES = [f"class {i}" for i in range(5000)]
NUMBERS, CATEGORIES = [f"n {i}" for i in range(1000)], [f"c {i}" for i in range(1000)]
ROW = Row(
    columns=dict.fromkeys(NUMBERS, "number") | dict.fromkeys(CATEGORIES, "category"),
    means={name: i / 7 for i, name in enumerate(NUMBERS)},
    stds=dict.fromkeys(NUMBERS, 0.1),
    values=dict.fromkeys(CATEGORIES, ("no", "yes: 1", "null")),
)
TASKS = {
    "language": lambda: SequenceToSequence({"text": TEXT, "target": TEXT}, target="target", shared_vocabulary=True),
    "classes": lambda: Classify({"text": TEXT, "row": ROW}, classes=list(NAMES)),
    "targets": lambda: Predict(
        {"row": ROW},
        targets={
            "a": Category(classes=tuple(NAMES), class_weights=(0.25,) * 5000),
            "b": Labels(classes=tuple(NAMES)),
        },
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_with_large_values_is_made_again_and_none_of_them_is_read_as_yaml(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, n_read = TASKS[name](), []
    load = yaml.load
    monkeypatch.setattr(
        yaml, "load", lambda stream, *args, **rest: n_read.append(len(stream)) or load(stream, *args, **rest)
    )
    again = instantiate(task.config())
    assert again.tokenizers == task.tokenizers and again.config() == task.config()
    assert again.targets == task.targets
    assert n_read and sum(n_read) < 50_000


@pytest.mark.parametrize("name", TASKS)
def test_what_is_taken_out_is_all_that_is_large_and_goes_back(name: str) -> None:
    config = TASKS[name]().config()
    before = json.dumps(config)
    small, large = take_out(config)
    assert json.dumps(config) == before and len(json.dumps(small)) < 20_000
    put_back(small, [Large(at, value) for at, value, _ in large])
    assert small == config


def test_what_a_config_has_is_only_taken_where_it_may_be_left_out() -> None:
    config = {
        "class_path": f"{__name__}.Holder",
        "init_args": {
            "needed": ["a" * LARGE],
            "free": ["b" * LARGE],
            "short": ["c"],
            "inner": {"words": ["d" * LARGE]},
        },
    }
    small, large = take_out(config)
    assert [(at, value) for at, value, _ in large] == [
        (("init_args", "free"), ["b" * LARGE]),
        (("init_args", "inner", "words"), ["d" * LARGE]),
    ]
    assert small["init_args"] == {"needed": ["a" * LARGE], "short": ["c"], "inner": {}}
    made: Any = instantiate(config, [__name__.partition(".")[0]])
    assert made == Holder(["a" * LARGE], ("b" * LARGE,), ["c"], Inner(("d" * LARGE,)))


@dataclass(frozen=True)
class Inner:
    words: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Holder(Checked):
    needed: list[str]
    free: tuple[str, ...] = ()
    short: list[str] | None = None
    inner: Inner = Inner()


def test_a_long_list_of_a_users_own_config_is_not_copied_for_each_of_its_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"class {i}" for i in range(1000)]
    model = {"class_path": "Classify", "init_args": {"tokenizers": {"text": {"class_path": "Text"}}, "classes": names}}
    table = {"class_path": "Table", "init_args": {"path": "a.csv", "columns": {"row": names}}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"model": model, "data": {"train": table}}))
    n_copied, dispatch = [], copy._deepcopy_dispatch
    copied = dispatch[list]
    monkeypatch.setitem(dispatch, list, lambda value, *rest: n_copied.append(len(value)) or copied(value, *rest))
    parsed = parse("fit", [str(tmp_path / "a.yaml")], [], [], kind=Unmade)
    resolved = yaml.safe_load(parsed.resolved)
    assert resolved["model"]["init_args"]["classes"] == names
    assert resolved["data"]["train"]["init_args"]["columns"] == {"row": names}
    assert sum(n_copied) < 100 * len(names)


def test_the_arguments_of_a_class_that_cannot_be_found_stay_where_they_are() -> None:
    config = {"class_path": "made.in.a.function.Task", "init_args": {"classes": ["x" * LARGE]}}
    assert take_out(config) == (config, [])

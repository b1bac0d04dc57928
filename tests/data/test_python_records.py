"""Lists, data frames and datasets in the place of a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.data.python_records import FrameRecords, PythonRecords, as_source
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.saving.model_folder import load
from anyformer.tasks.base.records import Records
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.sources import Digits
from tests.helpers.small_run import small_fit, small_options


def record(i: int) -> dict[str, Any]:
    picture = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
    picture[:, : 4 if i % 2 else 8] //= 3
    return {"image": picture, "label": "half" if i % 2 else "all"}


class Mine(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> dict[str, Any]:
        if not 0 <= i < 60:
            raise IndexError(i)
        return record(i)


class Stream(torch.utils.data.IterableDataset):
    def __len__(self) -> int:
        return 60

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(record, range(60))


def frame() -> Any:
    return pytest.importorskip("pandas").DataFrame([record(i) for i in range(60)])


def hub() -> Any:
    rows = [{"image": record(i)["image"].tolist(), "label": record(i)["label"]} for i in range(60)]
    return pytest.importorskip("datasets").Dataset.from_list(rows)


MAKE = {
    "list": lambda: [record(i) for i in range(60)],
    "dataset": Mine,
    "iterable dataset": Stream,
    "generator": lambda: map(record, range(60)),
    "frame": frame,
    "Hugging Face's": hub,
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_each_is_the_same_source(make: Any) -> None:
    source = as_source(make(), "data.train")
    assert isinstance(source, PythonRecords | FrameRecords) and len(source) == 60
    for i in (0, 41):
        assert np.array_equal(np.asarray(source[i]["image"]), record(i)["image"])
    assert source.column("label") == [record(i)["label"] for i in range(60)]
    assert source.name(7) == "record 7"


@pytest.mark.parametrize("make", [MAKE["list"], MAKE["dataset"], MAKE["frame"]], ids=["list", "dataset", "frame"])
def test_a_run_is_trained_on_it_killed_and_gone_on_with_as_on_any(make: Any, tmp_path: Path) -> None:
    def data() -> Records:
        return Records(train=make(), validation=0.2, batch_size=16, n_workers=1)

    run, task = tmp_path / "run", Classify(**small_options() | {"mix": None})
    small_fit(run, task=task, data=data(), max_epochs=1)
    assert load(run).classes == ["all", "half"]
    assert small_fit(run, task=Classify(**small_options() | {"mix": None}), data=data(), max_epochs=2, resume=True)
    other = [{**record(i), "label": "all" if i % 3 else "half"} for i in range(60)]
    with pytest.raises(InputError, match=r"is not what .* was trained on"):
        same = _frame(other) if make is frame else other
        changed = Records(train=same, validation=0.2, batch_size=16, n_workers=1)
        small_fit(run, task=Classify(**small_options() | {"mix": None}), data=changed, max_epochs=3, resume=True)


def test_numbers_of_torch_are_numbers() -> None:
    found = PythonRecords([{"label": torch.tensor(3), "other": np.float64(2), "x": torch.ones(2)}])[0]
    assert [type(found[name]) for name in ("label", "other", "x")] == [int, float, torch.Tensor]
    assert type(as_source(_frame({"x": [1, 2]}), "data.train")[0]["x"]) is int


def test_what_is_missing_in_a_frame_is_none() -> None:
    pandas = pytest.importorskip("pandas")
    made = pandas.DataFrame(
        {"x": [1.0, None], "n": pandas.array([None, 2], dtype="Int64"), "t": ["a", None], "d": [pandas.NaT, pandas.NaT]}
    )
    source = as_source(made, "data.train")
    assert [source[i] for i in range(2)] == [
        {"x": 1.0, "n": None, "t": "a", "d": None}, {"x": None, "n": 2, "t": None, "d": None},
    ]  # fmt: skip
    assert (source.column("n"), source.column("t")) == ([None, 2], ["a", None])
    with pytest.raises(InputError, match="record 0: no column 'y'"):
        source.column("y")


def test_sources_paths_and_fractions_stay_and_lists_of_them_are_lists(tmp_path: Path) -> None:
    digits = Digits()
    for same in (None, "train.csv", 0.1, digits):
        assert as_source(same, "data.train") is same
    assert as_source(tmp_path / "a.csv", "data.train") == str(tmp_path / "a.csv")
    several = as_source([digits, "b.csv", [record(0)]], "data.train")
    assert several[:2] == [digits, "b.csv"] and several[2].name(0) == "record 0"
    (tmp_path / "a.csv").write_text("image,label\none.png,all\n")
    records = Records(train=[Table(str(tmp_path / "a.csv")), [record(0)]])
    records.setup("fit")
    assert len(records.sources["train"]) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: np.zeros(3), "data.train must be a source, a path, a list of records .*, got ndarray"),
        (lambda: {"image": 1}, "data.train must be a source, .*, got dict"),
        (lambda: [record(0), 3.5j], "data.train.0 must be a source, .*, got dict"),
        (lambda: object(), "data.train must be a source, .*, got object"),
        (lambda: b"abc", "data.train must be a source, .*, got bytes"),
        (
            lambda: as_source([{"a": 1}], "x") and PythonRecords([(1, 2)])[0],
            "record 0 must be a dict of fields, got tuple",
        ),
        (
            lambda: _frame([[1, 2]], columns=[0, 1]),
            "data.train: the columns of a DataFrame must be texts, got 0; rename it",
        ),
        (lambda: _frame([[1, 2]], columns=["a", "a"]), "data.train: two columns of the DataFrame are called 'a'"),
        (lambda: [(1, 2)], "data.train: a record must be a dict of fields, got a tuple of 2"),
        (lambda: [], "data.train must list at least one source or path, got none"),
    ],
)
def test_what_holds_no_records_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Records(train=make())


def _frame(*args: Any, **options: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame(*args, **options)

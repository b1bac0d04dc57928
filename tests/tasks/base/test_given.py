"""What `predict` may be given in Python."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.data.python_records import PythonRecords
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.tasks.base.given import AT_ONCE, read_records, takes_records
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.predict.predict import PredictOptions
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_run import small_options


@pytest.fixture(scope="module")
def model() -> Classify:
    torch.manual_seed(0)
    task = Classify(**small_options(), classes=["a", "b"])
    task.configure_model()
    return task.eval()


PICTURES = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)


class Pictures(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return len(PICTURES)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": PICTURES[i], "label": "a"}


def frame() -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame([{"image": picture, "other": 1.5} for picture in PICTURES])


@pytest.mark.parametrize(
    "make",
    [
        lambda: [{"image": picture} for picture in PICTURES],
        lambda: tuple({"image": torch.from_numpy(picture)} for picture in PICTURES),
        lambda: list(PICTURES),
        lambda: [torch.from_numpy(picture)[None] for picture in PICTURES],
        lambda: Pictures(),
        lambda: PythonRecords(Pictures()),
        lambda: frame(),
        lambda: ({"image": picture} for picture in PICTURES),
    ],
    ids=["records", "tensors", "bare", "channels first", "dataset", "source", "frame", "generator"],
)
def test_many_records_come_in_many_forms(model: Classify, make: Any) -> None:
    expected = model.predict([{"image": picture} for picture in PICTURES])
    assert len({result["probabilities"]["a"] for result in expected}) == 3
    assert model.predict(make()) == expected


def test_what_is_read_as_it_is_asked_for_is_never_held_as_a_whole(model: Classify) -> None:
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    class Record(dict):
        __hash__ = object.__hash__

    def records(n: int) -> Iterator[dict[str, Any]]:
        nonlocal most
        for i in range(n):
            record = Record(image=PICTURES[i % 3])
            alive.add(record)
            most = max(most, len(alive))
            yield record

    results = model.predict(records(5 * AT_ONCE + 3))
    assert len(results) == 5 * AT_ONCE + 3 and most <= AT_ONCE + 1
    assert results[3:6] == results[AT_ONCE + 2 : AT_ONCE + 5] == model.predict(list(PICTURES))


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"image": PICTURES[1]},
        lambda: PICTURES[1],
        lambda: torch.from_numpy(PICTURES[1]),
        lambda: {"bytes": _png(PICTURES[1]), "path": "one.png"},
        lambda: _png(PICTURES[1]),
    ],
    ids=["record", "array", "tensor", "dict", "bytes"],
)
def test_of_one_record_or_value_the_one_result_comes_back(model: Classify, make: Any) -> None:
    assert model.predict(make()) == model.predict([{"image": PICTURES[1]}])[0]


def _png(picture: np.ndarray) -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def test_file_names_start_from_the_folder_of_their_source(model: Classify, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(_png(PICTURES[1]))
    (tmp_path / "list.csv").write_text("image,label\none.png,a\n")
    assert model.predict(Table(str(tmp_path / "list.csv"))) == model.predict([{"image": PICTURES[1]}])
    assert model.predict(str(tmp_path / "one.png")) == model.predict({"image": PICTURES[1]})


def test_options_may_be_given_by_their_names(model: Classify) -> None:
    one = {"image": PICTURES[0]}
    assert model.predict(one, views=3) == model.predict([one], PredictOptions(views=3))[0] != model.predict(one)
    assert model.predict(one, PredictOptions(views=3), views=1) == model.predict(one)
    assert model.predict(one, batch_size=1) == model.predict(one)
    with pytest.raises(InputError, match=r"predict has no option 'view'; did you mean 'views'\?"):
        model.predict(one, view=3)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        model.predict(one, batch_size=0)
    for wrong in ({"views": 3}, 8):
        with pytest.raises(InputError, match=r"predict: options of .*; they must be PredictOptions, or given by"):
            model.predict(one, wrong)


class Told:
    """A task that gives back what it was given."""

    def __init__(self, tokenizers: dict[str, Any], options: Any = None) -> None:
        self.tokenizers, self.inputs, self.options = tokenizers, list(tokenizers), options

    @takes_records
    def predict(self, records: list[dict[str, Any]], options: Any = None) -> list[Any]:
        return [(record, options) for record in records]


def test_of_one_field_that_is_a_list_or_a_dict_the_value_is_whole() -> None:
    numbers, row = Told({"x": Text("bytes")}), Told({"who": Row()})
    assert numbers.predict([0.5, 2]) == ({"x": [0.5, 2]}, None)
    assert numbers.predict(["a", "b"]) == [({"x": "a"}, None), ({"x": "b"}, None)]
    assert numbers.predict([[1, 2], [3]]) == [({"x": [1, 2]}, None), ({"x": [3]}, None)]
    assert numbers.predict([]) == []
    assert numbers.predict(list(torch.tensor([1.0, 2.0])))[0] == {"x": [1.0, 2.0]}
    assert numbers.predict(word for word in "ab") == numbers.predict(["a", "b"])
    # A record that lacks the field is one all the same.
    assert numbers.predict([{"text": "a"}, {}]) == [({"text": "a"}, None), ({}, None)]
    with pytest.raises(InputError, match="predict has no option 'batch_size'"):
        numbers.predict("a", batch_size=3)
    assert row.predict({"age": 4}) == ({"who": {"age": 4}}, None)
    assert row.predict([{"age": 4}, {"who": {"age": 5}}]) == [({"who": {"age": age}}, None) for age in (4, 5)]
    own = Told({"x": Text("bytes")}, GenerationConfig())
    assert own.predict("a", temperature=0.5)[1] == GenerationConfig(temperature=0.5)


def test_of_several_fields_a_value_alone_is_refused() -> None:
    several = Told({"image": ImagePatches(size=(8, 8), patch=4), "text": Text("bytes")})
    assert several.predict({"image": 1, "text": "a"})[0] == {"image": 1, "text": "a"}
    with pytest.raises(InputError, match="a record must be a dict of the fields image, text, got str"):
        several.predict("a.png")
    with pytest.raises(InputError, match="record 1 must be a dict of the fields image, text, got int"):
        read_records(several, [{"image": 1}, 2])

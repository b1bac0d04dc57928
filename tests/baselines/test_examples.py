"""Records for simple models."""

from __future__ import annotations

import pytest

from anyformer.baselines.examples import Reader, dealt
from anyformer.data.splits import deal
from anyformer.errors import InputError
from anyformer.tasks.base.records import Records
from anyformer.tokenizers.text.text import Text
from tests.helpers.given_rows import Rows


def rows(n: int, first: int = 0) -> Rows:
    return Rows([{"text": f"t{i}", "label": i % 2, "other": "x"} for i in range(first, first + n)])


def test_folds_are_those_of_fit_and_each_record_is_read_once() -> None:
    train, validation, test = rows(7), rows(4, 7), rows(3, 20)
    data, reader = Records(train, validation, test, split_seed=5), Reader({"text": Text()}, ["label"])
    seen = []
    for fold, sources in dealt(data, 3):
        parts = {name: reader.read(source, name) for name, source in sources.items()}
        whole = Rows([*train.rows, *validation.rows])
        for part, wanted in zip(("train", "validation"), deal(whole, 3, fold, 5), strict=True):
            assert parts[part].fields["text"] == [wanted[i]["text"] for i in range(len(wanted))]
        assert parts["test"].fields["text"] == ["t20", "t21", "t22"]
        assert parts["test"].records[0] == {"label": 0}
        seen += parts["validation"].fields["text"]
    assert sorted(seen) == sorted(f"t{i}" for i in range(11))
    assert {*train.n_read, *validation.n_read, *test.n_read} == {1}


def test_of_many_records_a_sample_is_drawn_and_said() -> None:
    source, reader = rows(50), Reader({"text": Text()}, ["label"], limit=20)
    first, again = reader.read(source, "training"), reader.read(source.take(range(25)), "validation")
    assert len(first) == 20 and len(again) == 20
    assert reader.notes == ["a sample of 20 of the 50 training records", "a sample of 20 of the 25 validation records"]
    # Of a part of them those that were drawn before are drawn again.
    assert {text for text in first.fields["text"] if int(text[1:]) < 25} <= set(again.fields["text"])


def test_records_that_cannot_be_used_are_named_or_counted() -> None:
    source = Rows([{"text": "a", "label": 1}, {"text": 3, "label": 0}, {"text": None, "label": 1}])
    with pytest.raises(InputError, match=r"^row 1: field 'text': a text must be a string, got int"):
        Reader({"text": Text()}, ["label"]).read(source, "training")
    reader = Reader({"text": Text()}, ["label"], skips=True)
    assert reader.read(source, "training").fields["text"] == ["a", None]
    assert reader.notes == ["1 of 3 training records cannot be used and are left out"]
    with pytest.raises(InputError, match="none of the training records can be used"):
        reader.read(source.take([1]), "training")

"""A class for each token of an input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.tags import UNKNOWN, Tags
from anyformer.tokenizers.text.text import Text
from tests.tasks.targets.test_target import column

SMALL = TransformerConfig(d_model=8, depth=1, n_heads=2, init_std=0.5)
TARGET = Tags("text", classes=("N", "V"))
RECORDS = [
    {"text": "abc", "tags": ["N", None, "V"]},
    {"text": "ab", "tags": "V N"},
    {"text": "a"},
    {"text": "cccc", "tags": '["N", "N", "", "V"]'},
]


def task(label_smoothing: float = 0.0) -> Predict:
    torch.manual_seed(0)
    targets = {"tags": replace(TARGET, label_smoothing=label_smoothing)}
    made = Predict({"text": Text("characters", vocabulary="abc")}, targets, SMALL)
    made.build()
    return made.eval()


def test_tags_are_a_list_a_text_or_json_and_are_learned_from_the_records():
    found = Tags("text").fit("tags", column("tags", [["N", None, "V"], "V A", None, '["N", ""]', b"N"]))
    assert found.classes == ("A", "N", "V") and found.counts("tags", column("tags", ["V A N", ["V"]])) == {
        "A": 1,
        "N": 1,
        "V": 2,
    }
    assert Tags("text", classes=["V", 7]).fit("tags", column("tags", ["V"])).classes == ("V", "7")
    assert [TARGET.value("tags", record) for record in ({}, {"tags": None})] == [None, None]
    assert TARGET.value("tags", RECORDS[0]).tolist() == [0, UNKNOWN, 1]
    assert TARGET.value("tags", RECORDS[3]).tolist() == [0, 0, UNKNOWN, 1]
    assert TARGET.words(torch.tensor([1, UNKNOWN])) == "V -" and TARGET.render(["V", "N"]) == "V N"
    assert TARGET.row("tags", ["V", "N"]) == {"tags": "V N"}


def test_the_loss_and_the_accuracy_are_over_the_tokens_that_have_a_class():
    predict = task()
    items = [predict.chopper(False)(record) for record in RECORDS if "tags" in record]
    # Two samples in a row, so that places in the layout are not numbers of tokens.
    batch = predict.chopper(False).collate(items, [0, 0, 1])
    hidden = predict.model(batch.tokens).flatten(0, 1)
    tokens = batch.tokens.fields["text"]
    wanted = torch.tensor([0, UNKNOWN, 1, 1, 0, 0, 0, UNKNOWN, 1])
    logits = predict.head("tags").output(hidden[tokens.index])
    known = wanted != UNKNOWN
    loss, n = predict.loss(batch)
    expected = F.cross_entropy(logits, wanted, ignore_index=UNKNOWN, reduction="sum").item()
    assert n == 7 and loss.item() == pytest.approx(expected, rel=1e-5)
    predict.begin_evaluation()
    scores = predict.evaluate(batch)
    right = (logits.argmax(1) == wanted)[known].double()
    assert scores["accuracy"].tolist() == pytest.approx([part.mean().item() for part in right.split([2, 2, 3])])
    report = predict.report("val")
    assert report["accuracy"].item() == pytest.approx(right.mean().item())
    assert report["loss"].item() == pytest.approx(expected / 7, rel=1e-5)


def test_smoothing_counts_in_training_alone():
    smooth, plain = task(0.2), task()
    batch = plain.chopper(False).collate([plain.chopper(False)(RECORDS[0])])
    assert smooth.loss(batch)[0] == plain.loss(batch)[0]
    smooth.train()
    assert smooth.loss(batch)[0] != plain.loss(batch)[0]


def test_a_prediction_is_a_class_for_each_token_of_each_record():
    predict = task()
    found = predict.predict([{"text": text} for text in ("abc", "a", "cc")])
    assert [len(each["tags"]) for each in found] == [3, 1, 2]
    tokens = predict.tokenizers["text"].encode("abc")
    hidden = predict.model(collate([{"text": tokens}], {"text": predict.tokenizers["text"]}))
    expected = predict.head("tags").output(hidden[0]).argmax(1).tolist()
    assert found[0]["tags"] == [TARGET.classes[i] for i in expected]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Predict({"text": Text()}, {"tags": Tags("txt")}), "tags.of: there is no input 'txt'; did you mean"),
        (lambda: Predict({"text": Text()}, {"text": Tags("text")}), "the column 'text' is also an input"),
        (lambda: Tags("text").head("tags", None, SMALL), "target 'tags': the classes are not known yet"),
        (lambda: Tags("text").fit("tags", column("tags", ["N N"])), "must hold at least two classes, got .'N'"),
        (lambda: TARGET.value("tags", {"tags": "N X"}), "field 'tags': the label 'X' was not seen in training"),
        (lambda: TARGET.value("tags", {"tags": 7}), "'tags' must hold a list with a class for each token, got int"),
        (lambda: TARGET.value("tags", {"tags": {"a": 1}}), "field 'tags' must hold a list with a class .*, got dict"),
        (lambda: Tags("text", label_smoothing=1.0), "label_smoothing must be at least 0 and below 1"),
        (lambda: Tags("text", weight=0.0), "weight must be above 0"),
        (
            lambda: task().chopper(True).collate([task().chopper(True)({"text": "ab", "tags": "N V N"})]),
            "field 'tags' must have a class or None for each of the 2 tokens of 'text', got 3: N V N$",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_where_the_input_is_left_out_there_is_nothing_to_learn():
    predict = task()
    batch = collate([{}, {"text": Text("characters", vocabulary="abc").encode("ab")}], predict.model.tokenizers)
    values = [TARGET.value("tags", record) for record in RECORDS[:2]]
    assert TARGET.aim("tags", values, batch).values.tolist() == [1, 0]
    with pytest.raises(InputError, match="'tags' is a Tags, which explain does not know"):
        predict.explain({"text": "abc"})

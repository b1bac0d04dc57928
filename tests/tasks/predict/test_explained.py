"""The numbers of predictions that are explained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.tasks.explain.explainer import Wanted
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text
from tests.helpers.witnesses import redraw

SMALL = TransformerConfig(d_model=16, depth=2, n_heads=2)
TARGETS = {
    "kind": Category(("cat", "dog", "owl")),
    "marks": Labels(("loud", "soft")),
    "price": Regression(mean=(3.0,), std=(2.0,), n=1, scaling="log"),
    "sizes": Regression(columns=("width", "height"), mean=(1.0, 2.0), std=(3.0, 4.0)),
}
TOKENIZERS = {
    "photo": ImagePatches(size=(4, 6), patch=2, channels=1),
    "title": Text(kind="characters").fit(["abc"]),
    "facts": Row().fit([{"age": 1.0, "sex": "f"}, {"age": 3.0, "sex": "m"}]),
}
RECORD = {
    "photo": np.arange(24, dtype=np.uint8).reshape(4, 6),
    "title": "abba",
    "facts": {"age": 2.0, "sex": "f"},
}


def task(targets: dict = TARGETS, **options) -> Predict:
    torch.manual_seed(1)
    built = Predict(TOKENIZERS, targets, SMALL, **options)
    built.build()
    redraw(built)
    return built.eval()


@pytest.mark.parametrize("read", ["class", "mean", "attention"])
def test_values_of_fields_add_up_to_what_is_predicted(read: str) -> None:
    model = task(read=read)
    found = model.explain(RECORD, target="price")
    predicted = model.predict([RECORD])[0]["price"]
    np.testing.assert_allclose(found.fields.shapley.whole, predicted, rtol=1e-5)
    values = found.fields.shapley
    assert abs(values.values.sum() - (values.whole - values.nothing)) < 1e-6
    assert found.fields.names == ("photo", "title", "facts")
    # The columns of a row share what is left where the other fields stay.
    columns = found.columns["facts"]
    assert columns.names == ("age", "sex")
    assert abs(columns.shapley.values.sum() - (columns.shapley.whole - columns.shapley.nothing)) < 1e-6


def test_each_kind_of_target_has_its_number() -> None:
    model = task()
    said = model.predict([RECORD])[0]
    category = model.explain(RECORD, target="kind")
    p = said["kind"]["probabilities"][category.answer]
    assert category.answer == said["kind"]["label"]
    np.testing.assert_allclose(category.parts[0].value, np.log(p / (1 - p)), rtol=1e-3)
    label = model.explain(RECORD, target="marks", answer="soft")
    p = said["marks"]["probabilities"]["soft"]
    np.testing.assert_allclose(label.parts[0].value, np.log(p / (1 - p)), rtol=1e-3)
    number = model.explain(RECORD, target="sizes", answer="height")
    np.testing.assert_allclose(number.parts[0].value, said["sizes"]["height"], rtol=1e-4)
    above = model.explain(RECORD, target="sizes", answer="height", rather_than="width")
    np.testing.assert_allclose(above.parts[0].value, said["sizes"]["height"] - said["sizes"]["width"], rtol=1e-4)
    assert above.what == "height above width, in the units of the data"


def test_fields_may_be_missing() -> None:
    found = task().explain({"title": "ab"}, target="kind")
    assert found.fields.names == ("title",)
    assert set(found.sample) == {"title", "class"}


def test_a_field_whose_first_token_is_read_stays() -> None:
    found = task(read="first").explain(RECORD, target="kind")
    assert found.fields.names == ("title", "facts")


def test_the_negative_loss_is_explained_over_records() -> None:
    model = task({"kind": TARGETS["kind"]})
    records = [{**RECORD, "kind": "cat"}, {**RECORD, "title": "c", "kind": "owl"}]
    found = {each.name: each for each in model.importance(records)}
    p = [each["kind"]["probabilities"] for each in model.predict(records)]
    whole = np.mean([np.log(p[0]["cat"]), np.log(p[1]["owl"])])
    chopper = model.chopper(training=False)
    question = model.question(records[0], Wanted(truth=True))
    nothing = np.mean([
        model.question(each, Wanted(truth=True)).asked.values([chopper.own_tokens])[0] for each in records
    ])  # fmt: skip
    np.testing.assert_allclose(sum(each.shapley for each in found.values()), whole - nothing, atol=1e-4)
    np.testing.assert_allclose(question.asked.values([question.sample])[0], np.log(p[0]["cat"]), rtol=1e-4)


def test_a_target_must_be_named_where_there_are_several_and_be_of_a_known_kind() -> None:
    with pytest.raises(InputError, match="target: the model has kind, marks, price, sizes; say which"):
        task().explain(RECORD)
    model = task({"kind": TARGETS["kind"], "photo": Masked(0.5)})
    assert model.explain(RECORD).answer in ("cat", "dog", "owl")
    with pytest.raises(InputError, match="'photo' is a Masked, which explain does not know"):
        model.explain(RECORD, target="photo")
    alone = task({"kind": Category(classes=["cat"]), "price": TARGETS["price"]})
    with pytest.raises(InputError, match="'kind' is a Category, which explain does not know"):
        alone.explain(RECORD, target="kind")

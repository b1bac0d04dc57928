"""What fields are worth: the laws of Shapley values, on models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.explaining.fields import column_players, field_players, importance, value_of
from anyformer.explaining.shapley import EXACT
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from tests.helpers.explained import FIELDS, SIZES, WORDS, OfClass, model_of, sample
from tests.helpers.witnesses import draw_ids, redraw


def values_of(asked: OfClass, own: dict[str, Any]) -> dict[str, float]:
    found = value_of(asked.double(), own, field_players(asked, own))
    return dict(zip(found.names, found.shapley.values, strict=True))


def test_they_add_up_to_the_difference_between_all_and_none() -> None:
    asked, own = OfClass(model_of()), sample()
    found = values_of(asked, own)
    assert list(found) == ["left", "right", "picture"]
    whole, nothing = asked.double().values([own, {"class": own["class"]}])
    assert abs(sum(found.values()) - (whole - nothing)) < 1e-6
    assert all(abs(value) > 1e-3 for value in found.values())


def test_a_field_that_the_answer_cannot_depend_on_gets_nothing() -> None:
    asked = OfClass(model_of(sees={"class": ["left", "class"], "left": ["left", "picture"], "picture": ["picture"]}))
    found = values_of(asked, sample())
    assert abs(found["right"]) <= 1e-6
    assert abs(found["picture"]) > 1e-3


def test_a_field_that_is_given_twice_shares() -> None:
    model = Anyformer(FIELDS, TransformerConfig(**SIZES), EmbeddingConfig(types=False), shared={"right": "left"}).eval()
    redraw(model)
    own = sample()
    found = values_of(OfClass(model), {**own, "right": own["left"]})
    assert abs(found["left"] - found["right"]) <= 1e-6
    assert abs(found["left"]) > 1e-3


def test_more_fields_than_exact_values_can_be_had_for_are_sampled() -> None:
    names = [f"f{i}" for i in range(EXACT + 1)]
    asked = OfClass(model_of({**dict.fromkeys(names, WORDS), "class": FIELDS["class"]}, depth=1))
    own = {**{name: WORDS.encode(draw_ids(2)) for name in names}, "class": FIELDS["class"].encode()}
    found = value_of(asked, own, field_players(asked, own)).shapley
    assert found.errors is not None and (found.errors > 0).all()
    np.testing.assert_allclose(found.values.sum(), found.whole - found.nothing, atol=1e-6)


def test_parts_of_an_input_are_one_player_and_columns_are_players() -> None:
    own = {"state.image": WORDS.encode([1]), "state.vector": WORDS.encode([2]), "other": WORDS.encode([3])}
    assert field_players(OfClass(model_of()), own) == {
        "state": {"state.image": None, "state.vector": None},
        "other": {"other": None},
    }
    assert {
        name: player["row"].tolist() for name, player in column_players({}, "row", ["age: 4", "sex: f"]).items()
    } == {
        "age": [True, False],
        "sex": [False, True],
    }


def test_columns_share_what_their_field_is_worth() -> None:
    asked = OfClass(model_of())
    own = {name: tokens for name, tokens in sample(3).items() if name in ("left", "class")}
    columns = column_players(own, "left", ["a: 1", "b: 2", "c: 3"])
    found = value_of(asked.double(), own, columns).shapley
    np.testing.assert_allclose(found.values.sum(), values_of(asked, own)["left"], atol=1e-6)


def test_a_record_without_anything_to_leave_out_is_an_error() -> None:
    asked = OfClass(model_of())
    own = {"class": FIELDS["class"].encode()}
    with pytest.raises(InputError, match="nothing that could be left out beside class"):
        value_of(asked, own, field_players(asked, own))


class Sum(OfClass):
    """The sum of the ids on the left, and nothing else."""

    def values(self, samples, dropped=None):
        return np.array([float(each["left"].content.sum()) if "left" in each else 0.0 for each in samples])


def test_importance_over_records_has_its_standard_error() -> None:
    asked = Sum(model_of())
    records = [sample(left=WORDS.encode([i])) for i in (2, 4, 9)] + [
        {name: tokens for name, tokens in sample().items() if name != "left"}
    ]
    found = {each.name: each for each in importance(lambda i: (asked, records[i]), 4)}
    assert found["left"].n_records == 3
    assert found["left"].shapley == 5
    np.testing.assert_allclose(found["left"].shapley_error, np.std([2, 4, 9], ddof=1) / 3**0.5)
    # Around a ring the falls add up to nothing, but no record keeps its own.
    np.testing.assert_allclose(found["left"].permuted, 0, atol=1e-9)
    assert found["left"].permuted_error > 0
    assert (found["right"].shapley, found["right"].permuted) == (0, 0)
    assert torch.equal(records[0]["left"].content, torch.tensor([2])), "the records stay as they are"
    # A record with nothing but what stays counts for nothing, and all of them alike are refused.
    bare = {"class": records[0]["class"]}
    again = {each.name: each for each in importance(lambda i: (asked, [*records, bare][i]), 5)}
    assert again["left"].n_records == 3 and again["left"].shapley == 5
    with pytest.raises(InputError, match="the records have no field that could be left out"):
        importance(lambda i: (asked, bare), 2)

"""All that is found out of one answer, as one thing and as JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import torch

from anyformer.explaining.explanation import explain_sample, passes, pieces_of
from anyformer.explaining.shapley import EXACT
from anyformer.tokenizers.audio.audio import Audio
from tests.helpers.explained import FIELDS, PICTURE, WORDS, OfClass, model_of, sample


class Counted(OfClass):
    """Counts what is read."""

    n = 0

    def values(self, samples, dropped=None):
        Counted.n += len(samples)
        return super().values(samples, dropped)


def test_an_explanation_holds_its_parts_and_takes_as_many_passes_as_it_says() -> None:
    asked, own = Counted(model_of()), sample()
    told = passes(asked, own)
    Counted.n = 0
    found = explain_sample(asked, own, FIELDS, "seven")
    assert told == {
        "attention, relevance": "1 forward and 1 backward",
        "fields": "8 forward in float64 (exact)",
        "deletion": "67 forward",
    }
    assert Counted.n == 8 + 67
    assert found.inputs == ["left", "right", "picture"]
    assert len(found.flows) == len(found.grids) == 3
    np.testing.assert_allclose(found.parts[0].value, asked.values([own])[0], rtol=1e-5)
    # Grids name their tokens in the sequence of the rows.
    grid = found.grid(1)
    assert grid.queries == grid.keys
    assert grid.queries[4:7] == (("left", 4), ("right", 0), ("right", 1))


def test_it_is_plain_json() -> None:
    found = explain_sample(OfClass(model_of()), sample(), FIELDS, "seven").as_dict()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert again["answer"] == "seven"
    assert set(again["parts"][0]["relevance"]) == {"left", "right", "picture", "class"}
    np.testing.assert_allclose(np.sum(again["flow"][0]["heads"], 2), 1, atol=1e-3)
    assert again["fields"]["exact"] and again["fields"]["standard_error"]["left"] is None
    assert set(again["deletion"]["verdict"]) == {"relevance", "rollout"}


def test_a_record_of_one_token_is_explained_without_a_test() -> None:
    own = {"left": WORDS.encode([3]), "class": FIELDS["class"].encode()}
    found = explain_sample(OfClass(model_of()), own, FIELDS, "seven")
    assert found.deletion is None and found.as_dict()["deletion"] is None
    assert found.fields.names == ("left",)
    alone = explain_sample(OfClass(model_of()), {"class": own["class"]}, FIELDS, "seven")
    assert alone.fields is None
    assert math.isfinite(alone.parts[0].value)


def test_many_fields_are_told_to_be_sampled() -> None:
    names = [f"f{i}" for i in range(EXACT + 1)]
    own = {**{name: WORDS.encode([1]) for name in names}, "class": FIELDS["class"].encode()}
    asked = OfClass(model_of({**dict.fromkeys(names, WORDS), "class": FIELDS["class"]}, depth=1))
    assert passes(asked, own)["fields"] == "523 forward in float64 (sampled, as 9 fields are more than 8)"


def test_tokens_are_named_by_what_they_say_or_where_they_stand() -> None:
    assert pieces_of(PICTURE, PICTURE.encode(torch.zeros(2, 2, 3))) == ["r0 c0", "r0 c1", "r1 c0", "r1 c1"]
    assert pieces_of(WORDS, WORDS.encode([5, 6])) == ["word 0", "word 1"]
    assert pieces_of(FIELDS["class"], FIELDS["class"].encode()) == ["class"]
    sound = Audio()
    pieces = pieces_of(sound, sound.encode(np.zeros(16_000, dtype=np.float32)))
    assert pieces[:2] == ["0.00 s", f"{sound.seconds_per_token:.2f} s"]

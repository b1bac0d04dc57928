"""Questions about two digits: the answers are right, and validation shows pictures that training does not have."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.image.digit_questions import QUESTIONS, DigitQuestions
from anyformer.tokenizers.image.sources import Digits


def digit_of(picture: np.ndarray, known: dict[bytes, set[str]]) -> int:
    (label,) = known[picture.tobytes()]
    return int(label)


@pytest.fixture(scope="module")
def known() -> dict[bytes, set[str]]:
    """The digits that each picture stands for."""
    found: dict[bytes, set[str]] = {}
    for i in range(len(Digits())):
        record = Digits()[i]
        found.setdefault(record["image"].tobytes(), set()).add(record["label"])
    return found


def test_the_answers_are_those_of_the_pictures(known: dict[bytes, set[str]]) -> None:
    expected = {
        "left": lambda a, b: str(a),
        "right": lambda a, b: str(b),
        "larger": lambda a, b: ["neither", "left", "right"][(a > b) + 2 * (b > a)],
        "smaller": lambda a, b: ["neither", "left", "right"][(a < b) + 2 * (b < a)],
        "same": lambda a, b: ["no", "yes"][a == b],
        "sum": lambda a, b: str(a + b),
        "difference": lambda a, b: str(max(a, b) - min(a, b)),
    }
    source, kinds = DigitQuestions(n=700), Counter()
    for i in range(len(source)):
        record = source[i]
        left, right = (digit_of(record[name], known) for name in ("left", "right"))
        assert record["answer"] == expected[record["kind"]](left, right)
        assert record["question"] == QUESTIONS[record["kind"]][0]
        kinds[record["kind"]] += 1
    assert set(kinds) == set(QUESTIONS)
    assert min(kinds.values()) > 60
    answers = Counter(r["answer"] for r in map(DigitQuestions(n=400, kinds=("same",)).__getitem__, range(400)))
    assert 180 < answers["yes"] < 260


def test_no_picture_of_validation_occurs_in_training() -> None:
    seen = {}
    for part in ("train", "validation"):
        source = DigitQuestions(part, n=3000)
        records = map(source.__getitem__, range(len(source)))
        seen[part] = {record[name].tobytes() for record in records for name in ("left", "right")}
    assert len(seen["validation"]) > 300
    assert not seen["train"] & seen["validation"]


def test_a_record_is_a_function_of_part_seed_and_number() -> None:
    one, again, other = DigitQuestions(n=50), DigitQuestions(n=99), DigitQuestions(n=50, seed=1)
    for i in range(50):
        for name, value in one[i].items():
            np.testing.assert_array_equal(value, again[i][name])
    assert any(one[i]["answer"] != other[i]["answer"] for i in range(50))
    with pytest.raises(IndexError):
        one[50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"kinds": ()}, "kinds must be some of left, .*, got none"),
        ({"kinds": ("sum", "root")}, "kinds must be some of left, .*, got sum, root"),
    ],
)
def test_what_cannot_be_asked_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DigitQuestions(**arguments)

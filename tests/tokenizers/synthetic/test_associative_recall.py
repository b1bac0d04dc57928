"""Associative recall: what is asked for stands among the pairs."""

from __future__ import annotations

import unicodedata

import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.synthetic.associative_recall import AssociativeRecall, letter


def test_every_key_is_asked_for_once_and_its_value_is_beside_it() -> None:
    source = AssociativeRecall(n=100)
    keys, values = ({letter(i) for i in half} for half in (range(128), range(128, 256)))
    for i in range(100):
        symbols, asked = source[i]["symbols"], source[i]["values"]
        assert len(symbols) == len(asked) == 64
        pairs = dict(zip(symbols[0:16:2], symbols[1:16:2], strict=True))
        assert len(pairs) == 8 and {*pairs} <= keys and {*pairs.values()} <= values
        places = [place for place, value in enumerate(asked) if value is not None]
        assert {symbols[place]: asked[place] for place in places} == pairs and len(places) == 8
        assert all(place >= 16 and place % 2 == 0 for place in places)
    assert source.name(7) == "associative recall, train record 7"


def test_each_symbol_is_one_letter_whatever_is_done_to_texts() -> None:
    letters = [letter(i) for i in range(256)]
    assert len(set(letters)) == 256 and all(each.isalpha() and len(each) == 1 for each in letters)
    assert [unicodedata.normalize("NFC", each) for each in letters] == letters


def test_keys_come_again_soon_where_the_power_is_small() -> None:
    def mean_place(power: float) -> float:
        asked = [AssociativeRecall(n=60, n_pairs=4, power=power)[i]["values"] for i in range(60)]
        places = [place for each in asked for place, value in enumerate(each) if value is not None]
        return sum(places) / len(places)

    assert mean_place(0.01) < mean_place(0.5) < mean_place(1.0)
    assert mean_place(1.0) == pytest.approx(8 + 2 * 27 / 2, abs=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n_pairs": 0}, "n_pairs must be at least 1, got 0"),
        (
            {"n_pairs": 17},
            "length must be even and at least 68, for 17 pairs and as many places to ask for them, got 64",
        ),
        ({"length": 63}, "length must be even"),
        ({"vocabulary": 14}, "vocabulary must be even, at least 16 for 8 keys, and at most 256, got 14"),
        ({"vocabulary": 258}, "at most 256, got 258"),
        ({"power": 0.0}, "power must be above 0 and at most 1, got 0.0"),
    ],
)
def test_what_has_no_room_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AssociativeRecall(**arguments)

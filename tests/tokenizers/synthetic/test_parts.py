"""Records that are drawn for three parts, of which no two share one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.synthetic.parts import HELD_OUT, PARTS, DrawnParts, Part, part_of


@dataclass(frozen=True)
class Numbers(DrawnParts):
    """Of few different records, so that parts would share many."""

    part: Part = "train"
    n: int = 300
    seed: int = 0
    most: int = 200

    def draw(self, random: np.random.Generator) -> tuple[str, dict[str, Any]] | None:
        number = int(random.integers(self.most))
        return (str(number), {"x": number}) if number % 2 == 0 else None

    def name(self, i: int) -> str:
        return f"numbers, {self.part} record {i}"


def test_no_record_is_in_two_parts_and_all_are_in_one() -> None:
    seen = {part: {record["x"] for record in map(Numbers(part, n=1500).__getitem__, range(1500))} for part in PARTS}
    assert all(not number % 2 for found in seen.values() for number in found)
    assert len(set.union(*seen.values())) == sum(map(len, seen.values())) == 100
    counts = Counter(part_of(str(i)) for i in range(16_000))
    assert counts["train"] > 16_000 * (HELD_OUT - 3) / HELD_OUT and min(counts.values()) > 800


def test_a_record_is_a_function_of_part_seed_and_number() -> None:
    one, longer, other = Numbers(), Numbers(n=301), Numbers(seed=1)
    assert [one[i] for i in range(300)] == [longer[i] for i in range(300)] != [other[i] for i in range(300)]
    assert len(one) == 300 and one[-1] == one[299]
    with pytest.raises(IndexError):
        one[300]


def test_where_there_is_no_such_record_it_is_said() -> None:
    with pytest.raises(
        InputError, match=r"^numbers, validation record 7: none in 10,000 draws is as wanted and of this part"
    ):
        Numbers("validation", most=2)[7]

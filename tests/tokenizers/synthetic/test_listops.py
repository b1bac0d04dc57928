"""ListOps: the values are right, the lengths and depths within their limits."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.synthetic.listops import ListOps
from anyformer.tokenizers.tree.tree import Tree


def median(digits: list[int]) -> int:
    """The middle one, or of two the mean rounded down."""
    ordered = sorted(digits)
    middle = (len(ordered) - 1) / 2
    return (ordered[int(middle)] + ordered[-(-len(ordered) // 2) if len(ordered) % 2 == 0 else int(middle)]) // 2


def value_of(expression: str) -> int:
    """The innermost lists are replaced by their values until there is none."""
    meanings = {"MAX": lambda d: sorted(d)[-1], "MIN": lambda d: sorted(d)[0], "SM": lambda d: int(str(sum(d))[-1])}
    innermost = re.compile(r"\[(\w+) ([\d ]+) \]")
    while found := innermost.search(expression):
        digits = [int(digit) for digit in found[2].split()]
        value = median(digits) if found[1] == "MED" else meanings[found[1]](digits)
        expression = f"{expression[: found.start()]}{value}{expression[found.end() :]}"
    return int(expression)


def deepest(expression: str) -> int:
    depth = most = 0
    for symbol in expression:
        depth += (symbol == "[") - (symbol == "]")
        most = max(most, depth)
    return most


def test_the_value_of_an_expression_is_that_of_reducing_it_from_within() -> None:
    assert value_of("[MED 1 2 8 9 ]") == 5 and value_of("[MED 3 [SM 9 9 ] 7 ]") == 7 and value_of("[MED 1 2 ]") == 1
    source, operations = ListOps(n=300), Counter()
    for i in range(len(source)):
        record = source[i]
        expression = record["expression"]
        assert record["value"] == str(value_of(expression)) and record["depth"] == deepest(expression)
        assert 10 <= len(expression.split()) <= 200 and deepest(expression) <= 10
        operations.update(re.findall(r"\[(\w+)", expression))
    assert set(operations) == {"MAX", "MIN", "MED", "SM"} and min(operations.values()) > 0.2 * operations.total()


def test_lengths_depths_and_arguments_keep_to_their_limits() -> None:
    source = ListOps(n=60, min_len=6, max_len=20, max_depth=2, max_args=3)
    found = [source[i] for i in range(60)]
    lengths = [len(record["expression"].split()) for record in found]
    assert min(lengths) >= 6 and max(lengths) <= 20 and {record["depth"] for record in found} == {2}
    assert Counter(record["depth"] for record in map(ListOps(n=30, max_depth=1).__getitem__, range(30))) == {1: 30}


def test_an_expression_is_a_tree_in_brackets_whose_depth_is_its_own() -> None:
    source = ListOps(n=20)
    tree = Tree("brackets").fit(source.column("expression"))
    assert set(tree.vocabulary) == {*"0123456789", "]", "[MAX", "[MIN", "[MED", "[SM"}
    for i in range(20):
        tokens = tree.encode(source[i]["expression"])
        assert tree.decode(tokens) == source[i]["expression"]
        assert tokens.position[:, 1].max() == source[i]["depth"]
    assert source.name(3) == "ListOps, train record 3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"max_depth": 0}, "max_depth must be at least 1, got 0"),
        ({"max_args": 1}, "max_args must be at least 2, got 1"),
        ({"max_len": 3}, "max_len must be at least 4, got 3"),
        ({"min_len": 300}, "min_len must be at most max_len, got 300 and 200"),
    ],
)
def test_limits_that_cannot_be_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ListOps(**arguments)


def test_limits_that_no_expression_keeps_are_said_when_it_is_used() -> None:
    with pytest.raises(InputError, match="ListOps, train record 0: none in 10,000 draws is as wanted"):
        ListOps(min_len=6, max_len=6, max_args=3)[0]

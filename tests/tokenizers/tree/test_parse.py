"""A parse: depths and ways by other means, and what is none."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.tokenizers.tree.parse import join_parses, parse_heads, read_columns

NAMES = ("words", "heads")


@st.composite
def trees(draw: st.DrawFn) -> list[int]:
    """Heads of one tree, counted from 1, with its nodes in any sequence."""
    n = draw(st.integers(1, 9))
    above = [draw(st.integers(0, i - 1)) if i else -1 for i in range(n)]
    place = draw(st.permutations(range(n)))
    heads = [0] * n
    for i, head in enumerate(above):
        heads[place[i]] = 0 if head < 0 else place[head] + 1
    return heads


def walk(heads: list[int], start: int) -> dict[int, tuple[int, int]]:
    """Of every node that can be reached from a start, breadth first, the steps up and down on the way there."""
    found, waiting = {start: (0, 0)}, deque([start])
    while waiting:
        at = waiting.popleft()
        up, down = found[at]
        below = [i for i, head in enumerate(heads) if head == at + 1]
        for other, steps in [(heads[at] - 1, (up + 1, down)), *((i, (up, down + 1)) for i in below)]:
            if other >= 0 and other not in found:
                found[other] = steps
                waiting.append(other)
    return found


@given(st.lists(trees(), min_size=1, max_size=3))
def test_depths_and_ways_are_those_of_walking_from_node_to_node(sentences: list[list[int]]) -> None:
    parses = [parse_heads([f"w{i}" for i in range(len(heads))], heads, ["a word"] * len(heads)) for heads in sentences]
    joined = join_parses(parses)
    up, down = joined.steps
    begin = 0
    for heads in sentences:
        own = slice(begin, begin + len(heads))
        for i in range(len(heads)):
            way = walk(heads, i)
            assert [(up[own][i, own][j], down[own][i, own][j]) for j in range(len(heads))] == [
                way[j] for j in range(len(heads))
            ]
            assert joined.depths[begin + i] == way[heads.index(0)][0]
        apart = np.ones(len(joined.words), bool)
        apart[own] = False
        assert (up[own][:, apart] == -1).all() and (down[own][:, apart] == -1).all()
        begin += len(heads)


def test_columns_are_lists_texts_or_json_of_one_sentence_or_several() -> None:
    expected = [1, -1, 1]
    for record in (
        {"words": ["the", "dog", "barks"], "heads": [2, 0, 2]},
        {"words": "the dog barks", "heads": "2 0 2"},
        {"words": '["the", "dog", "barks"]', "heads": np.array([2, 0, 2])},
        '{"words": ["the", "dog", "barks"], "heads": ["2", "0", 2.0]}',
        {"words": [["the", "dog", "barks"]], "heads": [[2, 0, 2]]},
    ):
        parse = read_columns(record, NAMES)
        assert parse.words == ("the", "dog", "barks") and parse.heads.tolist() == expected
    two = read_columns({"form": [["a", "b"], ["c", "d"]], "head": [[0, 1], [2, 0]]}, ("form", "head"))
    assert two.heads.tolist() == [-1, 0, 3, -1]


@pytest.mark.parametrize(
    ("words", "heads", "message"),
    [
        (
            "a b c",
            "2 3 1",
            "^word 1: the heads lead in a circle, 'a' -> 'b' -> 'c' -> 'a', and no word is the root, whose",
        ),
        ("a b c", "0 3 2", "^word 2: the heads lead in a circle, 'b' -> 'c' -> 'b'$"),
        ("a b", "0 2", "^word 2: the heads lead in a circle, 'b' -> 'b'$"),
        ("a b", "0 3", "^word 2, 'b': its head is 3, and the 2 words of the sentence are 1 to 2"),
        ("a b", "0 -1", "^word 2, 'b': its head is -1"),
        ("a b c", "0 1 0", "^word 1, 'a', and word 3, 'c', both have head 0; a sentence has one root"),
        ("a b", ["0", None], "^word 2, 'b', has no head; give the number of its head"),
        ("a b", "0 _", "^word 2, 'b', has no head"),
        ("a b", "0 x", "^word 2, 'b': its head must be a whole number, got 'x'"),
        ("a b", [0, 1.5], "^word 2, 'b': its head must be a whole number, got 1.5"),
        ("a b c", "0 1", "^words has 3 words, and heads 2; each word has one head"),
        ([["a"], ["b"]], [[0]], "^words has 2 sentences, and heads 1"),
        ([["a"], "b"], [[0], [0]], "^column 'words' must hold a list, or a list of each sentence, and has both"),
        (["a", 7], [0, 1], "^word 2 must be a text, got 7"),
        ("a", 0, "^column 'heads' must hold a list with an entry for each word, got int"),
        ("a", None, "^a parse needs a column 'heads', and it is empty or not there"),
        ([], [], "^the parse has no words"),
    ],
)
def test_what_is_no_parse_is_refused_with_the_word(words: object, heads: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_columns({"words": words, "heads": heads}, NAMES)


def test_what_is_no_columns_is_refused() -> None:
    with pytest.raises(InputError, match="a parse must be the columns words and heads, got str; give Tree format"):
        read_columns("the dog", NAMES)


def test_a_long_chain_is_read_in_no_time() -> None:
    """No recursion, and no square of the length in finding circles."""
    n = 2000
    parse = parse_heads(["w"] * n, list(range(n)), ["a word"] * n)
    assert parse.heads.tolist() == list(range(-1, n - 1))

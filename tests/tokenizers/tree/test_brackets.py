"""Parses in brackets."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.tree.brackets import read_brackets


def test_symbols_hang_from_what_opens_the_brackets_around_them() -> None:
    parse, words = read_brackets("(S(NP (DT the)\n (NN dog)) [VP barks])")
    assert parse.words == ("(S", "(NP", "(DT", "the", ")", "(NN", "dog", ")", ")", "[VP", "barks", "]", ")")
    assert parse.heads.tolist() == [-1, 0, 1, 2, 2, 1, 5, 5, 1, 0, 9, 9, 0]
    assert [parse.words[i] for i in words.nonzero()[0]] == ["the", "dog", "barks"]
    assert parse.depths.tolist() == [0, 1, 2, 3, 3, 2, 3, 3, 2, 1, 2, 2, 1]


def test_several_trees_and_brackets_without_a_label() -> None:
    parse, words = read_brackets("( (S one)) two")
    assert parse.words == ("(", "(S", "one", ")", ")", "two") and parse.heads.tolist() == [-1, 0, 1, 1, 0, -1]
    assert words.tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(S (NP dog) barks", r"symbol 1 of the parse, '\(S', is never closed"),
        ("(S (NP dog barks)", r"symbol 1 of the parse, '\(S', is never closed"),
        ("(S dog))", r"symbol 4 of the parse, '\)', closes a bracket that nothing opened"),
        ("[MAX 1 2 )", r"symbol 4 of the parse, '\)', cannot close the '\[MAX' of symbol 1"),
        ("(S)", "the parse has no words"),
        ("", "the parse has no words"),
        (7, "a parse in brackets must be a text, got int"),
    ],
)
def test_brackets_that_do_not_match_are_refused_with_the_place(text: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_brackets(text)

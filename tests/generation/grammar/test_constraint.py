"""What may follow is what a search through all texts of a grammar finds, and what is written keeps to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.generation.grammar.constraint import Constraint, Vocabulary
from anyformer.generation.grammar.options import GrammarOptions
from tests.helpers.generators import V, build, letters, text

CONTENTS = [b"a", b"b", b"ab", b"ba", b"c", b"abc", b" ", b" a", None, b"\xc3", b"\xa4", b"\xc3\xa4", None]
END = 8
VOCABULARY = Vocabulary(CONTENTS, (END,))


def written(row: Sequence[int]) -> bytes:
    return b"".join(CONTENTS[i] or b"" for i in row)


def following(constraint: Constraint, row: Sequence[int]) -> set[int]:
    logits = torch.zeros(1, len(CONTENTS) + 2)
    constraint(logits, [list(row)])
    return set((logits[0] == 0).nonzero()[:, 0].tolist())


def by_search(texts: Sequence[bytes], so_far: bytes) -> set[int]:
    ids = {i for i, new in enumerate(CONTENTS) if new and any(text.startswith(so_far + new) for text in texts)}
    return ids | ({END} if so_far in texts else set())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.text("abcä ", min_size=1, max_size=4), min_size=1, max_size=4, unique=True), st.booleans())
def test_what_may_follow_is_what_some_text_goes_on_with(words: list[str], may_lead: bool) -> None:
    # A text that is shown without the space that it begins with does not begin with one.
    words = [word for word in words if not (may_lead and word.startswith(" "))] or ["a"]
    texts = [word.encode() for word in words]
    texts += [b" " + each for each in texts] if may_lead else []
    constraint = Constraint(GrammarOptions(regex="|".join(map(re.escape, words))), VOCABULARY, may_lead)
    reached, n = {()}, 0
    while reached:
        row = reached.pop()
        allowed = following(constraint, row)
        assert allowed == by_search(texts, written(row))
        reached |= {(*row, i) for i in allowed - {END}}
        n += END in allowed
    assert n >= len(words)


def test_a_grammar_counts_what_a_regular_expression_cannot(tmp_path: Path) -> None:
    path = tmp_path / "pairs.lark"
    path.write_text('start: "a" start "b" | "c"\n')
    texts = [b"a" * n + b"c" + b"b" * n for n in range(9)]
    constraint = Constraint(GrammarOptions(grammar=str(path)), VOCABULARY)
    reached = {()}
    while reached:
        row = reached.pop()
        allowed = following(constraint, row)
        assert allowed == by_search(texts, written(row))
        reached |= {(*row, i) for i in allowed - {END} if len(row) < 4}


def generate(check: Callable[[str], bool], n: int, **options) -> list[str]:
    """Texts of a model with drawn weights, whose letters are a to k and of which j ends a text."""
    torch.manual_seed(1)
    generator = build()
    generator.contents = lambda: [*(letter.encode() for letter in "abcdefghi"), None, b"k"]
    found = generator.generate(text(2), GenerationConfig(30, stop_ids=(9,), n_samples=n, **options))
    ended = [each for each in found[0] if each.ended == "stop"]
    assert len(ended) == len(found[0]) and all(check(letters(each.ids)) for each in ended)
    return [letters(each.ids) for each in ended]


@pytest.mark.parametrize("options", [{"temperature": 1.0}, {"temperature": 1.0, "top_k": 3}, {"n_beams": 40}, {}])
def test_every_text_that_ends_keeps_to_it(options: dict) -> None:
    regex = "(ab?c|k{2,4}d)(e|fgh)i"
    n = 1 if not options else 40
    found = generate(
        lambda each: re.fullmatch(regex, each) is not None,
        n if "n_beams" not in options else 16,
        **options,
        regex=regex,
    )
    if "n_beams" in options:
        # There are ten, and a search so wide finds all; a letter is a token here, so each is spelt in one way.
        assert len(set(found)) == 10


def test_steps_come_as_without() -> None:
    generator = build()
    generator.contents = lambda: [*(letter.encode() for letter in "abcdefghi"), None, b"k"]
    options = GenerationConfig(30, stop_ids=(9,), regex="[a-d]{5}k")
    (whole,) = generator.generate(text(3), options)[0]
    steps = [step for (step,) in generator.stream(text(3)[:0] or text(3), options)]
    assert steps[-1].ended == "stop" and len(steps) == 7
    assert re.fullmatch("[a-d]{5}k", whole.text)


def test_a_rule_and_ids_that_are_closed_hold_too() -> None:
    generator = build()
    generator.contents = lambda: [*(letter.encode() for letter in "abcdefghi"), None, b"k"]
    for options in ({"suppressed": (0, 1)}, {"allowed": (2, 3, 9)}):
        (found,) = generator.generate(text(2), GenerationConfig(9, stop_ids=(9,), regex="[a-d]{3}", **options))[0]
        assert set(found.text) <= {"c", "d"} and len(found.text) == 3
    with pytest.raises(InputError, match="regex: behind 'kk' no token may follow"):
        generator.generate(text(2), GenerationConfig(9, stop_ids=(9,), regex="kk[a-b]", suppressed=(0, 1)))


def test_json_keeps_to_its_schema() -> None:
    generator = build()
    contents = [each.encode() for each in ('{"', "n", '":', "1", "2", "}", " ", "-", ",")]
    generator.contents = lambda: [*contents, None, b"\n"]
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 22}}, "required": ["n"]}
    schema["additionalProperties"] = False
    options = GenerationConfig(60, stop_ids=(9,), n_samples=30, temperature=1.0, json_schema=schema)
    for each in generator.generate(text(2), options)[0]:
        if each.ended == "stop":
            found = json.loads(b"".join(generator.contents()[i] or b"" for i in each.ids))
            assert found["n"] <= 22 and isinstance(found["n"], int)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regex": "(a"}, r'^regex: invalid regex "\(a": unclosed group$'),
        ({"regex": "(?=a)b"}, "look-around, including look-ahead and look-behind, is not supported"),
        ({"json_schema": {"type": "objet"}}, "^json_schema: .*Invalid type: objet"),
        ({"regex": "z"}, "^regex: at the beginning no token may follow: .* not in the vocabulary of the model"),
        ({"regex": "az"}, "^regex: behind 'a' no token may follow"),
    ],
)
def test_an_impossible_grammar_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        constraint = Constraint(GrammarOptions(**options), VOCABULARY)
        following(constraint, [])
        following(constraint, [0])


def test_a_grammar_that_is_none_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.lark"
    path.write_text('start: "a"\nother: (\n')
    with pytest.raises(InputError, match=r"^grammar: line 2, character 9: Expected token"):
        Constraint(GrammarOptions(grammar=str(path)), VOCABULARY)


def test_a_generator_without_a_text_or_an_end_is_refused() -> None:
    generator = build()
    with pytest.raises(InputError, match="regex constrains texts, and what is generated here is none"):
        generator.generate(text(1), GenerationConfig(3, stop_ids=(9,), regex="a"))
    generator.contents = lambda: [b"a"] * V
    with pytest.raises(InputError, match="needs stop_ids, one of which ends it"):
        generator.generate(text(1), GenerationConfig(3, regex="a"))


@pytest.mark.parametrize("n", [31, 32, 33, 64])
def test_beams_of_no_hope_stay_as_they_are_in_vocabularies_of_any_size(n: int) -> None:
    vocabulary = Vocabulary([b"a", None, *[b"x%d" % i for i in range(n - 2)]], (1,))
    constraint = Constraint(GrammarOptions(regex="aa"), vocabulary)
    constraint(torch.zeros(3, n), [[], [], []])
    logits = torch.zeros(3, n)
    constraint(logits, [[0], [3], [5]])
    assert (logits == 0).sum(1).tolist() == [1, n, n]

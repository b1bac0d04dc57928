"""How a token is chosen and which text is shown, against formulas written out here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.generation import sampling
from anyformer.generation.config import GenerationConfig
from anyformer.generation.detokenizer import ShownText
from anyformer.generation.running_batch import penalize
from anyformer.generation.sampling import candidates, draw

LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0, 3.0], [0.0, 0.1, 4.0, 0.2, -torch.inf]])


def distribution(logits: torch.Tensor = LOGITS, **options: float) -> torch.Tensor:
    """Probabilities of all ids in sequence, (b, v)."""
    p, ids = candidates(logits, GenerationConfig(**{"temperature": 1.0, **options}))
    assert ids is not None or p.shape == logits.shape
    return p if ids is None else torch.zeros_like(logits).scatter(1, ids, p)


def by_hand(
    logits: Sequence[float], temperature: float = 1.0, top_k: int = 99, top_p: float = 1.0, min_p: float = 0.0
) -> list[float]:
    weights = [torch.tensor(logit / temperature).double().exp().item() for logit in logits]
    ranked = sorted(range(len(weights)), key=lambda i: -weights[i])[:top_k]
    total, reached, kept = sum(weights[i] for i in ranked), 0.0, []
    for i in ranked:
        if reached < top_p and weights[i] / total >= min_p * weights[ranked[0]] / total:
            kept.append(i)
        reached += weights[i] / total
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 1},
        {"top_k": 3},
        {"top_k": 50},
        {"top_p": 0.01},
        {"top_p": 0.7},
        {"top_p": 0.9},
        {"top_p": 1.0},
        {"min_p": 0.1},
        {"min_p": 1.0},
        {"temperature": 2.0, "top_k": 4, "top_p": 0.8, "min_p": 0.3},
        {"temperature": 1.5, "top_p": 0.95, "min_p": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize("head", [2, 256])
def test_only_what_the_filters_leave_is_drawn_renormalised(
    options: dict, head: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "N_SORTED", head)
    found = distribution(**options)
    expected = torch.tensor([by_hand(row, **options) for row in LOGITS.tolist()])
    torch.testing.assert_close(found, expected)


def test_a_draw_follows_the_distribution() -> None:
    p, n = torch.tensor([[0.0, 0.2, 0.0, 0.7, 0.1, 0.0]]), 2_000
    uniform = [(i + 0.5) / n for i in range(n)]
    drawn = draw(p.expand(n, -1), None, uniform)
    assert (drawn.bincount(minlength=6) / n).tolist() == pytest.approx(p[0].tolist(), abs=1e-3)
    assert draw(p.expand(2, -1), None, [0.0, 1 - 2**-53]).tolist() == [1, 4], "never what has no probability"
    ids = torch.tensor([[9, 8, 7, 6, 5, 4]])
    assert draw(p, ids, [0.5]).tolist() == [6]


def test_the_repetition_penalty_is_its_formula() -> None:
    history = torch.tensor([[0, 3, 0], [2, 2, 2]])
    expected = LOGITS.clone()
    expected[0, 0] /= 1.7
    expected[0, 3] *= 1.7
    expected[1, 2] /= 1.7
    assert torch.equal(penalize(LOGITS, history, 1.7), expected)


# Text


def show(pieces: Sequence[bytes], stop: Sequence[str] = ()) -> tuple[list[str], bool]:
    """What is shown token by token and at the end, where token i is the bytes pieces[i]; whether it was stopped."""
    text = ShownText(lambda ids: b"".join(pieces[i] for i in ids).decode(errors="replace"), stop)
    shown = []
    for i in range(len(pieces)):
        new, stopped = text.push(i)
        shown.append(new)
        if stopped:
            return shown, True
    rest, stopped = text.flush()
    return [*shown, rest], stopped


def test_a_stop_string_may_span_tokens() -> None:
    assert show([b"ab", b"cS", b"TO", b"Pde", b"f"], ["STOP"]) == (["ab", "c", "", ""], True)
    assert show([b"aSTOPb"], ["STOP"]) == (["a"], True)


def test_what_may_become_a_stop_string_is_held_until_it_does_not() -> None:
    assert show([b"aST", b"ST", b"x", b"S"], ["STOP"]) == (["a", "ST", "STx", "", "S"], False)
    assert show([b"aa", b"ab"], ["aab"]) == (["", "a"], True)


def test_the_first_of_several_stop_strings_counts() -> None:
    assert show([b"x1", b"2y3"], ["3", "12"]) == (["x", ""], True)


@pytest.mark.parametrize("character", ["é", "€", "😀"])
def test_a_character_is_shown_when_it_is_whole(character: str) -> None:
    parts = [bytes([byte]) for byte in character.encode()]
    assert show([b"a", *parts, b"b"]) == (["a", *[""] * (len(parts) - 1), character, "b", ""], False)


def test_bytes_that_are_no_character_are_shown_in_the_end() -> None:
    shown, _ = show([b"\x80"] * 9)
    assert "".join(shown) == "\ufffd" * 9 and shown[3] == "\ufffd"
    assert show([b"a\xf0"]) == (["a", "\ufffd"], False)
    assert "".join(show([b"\x80", b"\xf0", b"\x9f", b"\x98", b"\x80"])[0]) == "\ufffd😀"


@given(st.text(max_size=12), st.lists(st.integers(1, 3), min_size=40, max_size=40), st.sampled_from([(), ("ab", "b€")]))
def test_shown_text_is_the_decoded_text_up_to_a_stop_string(text: str, sizes: list[int], stop: tuple[str, ...]) -> None:
    text += "b€b"
    left, pieces = text.encode(), []
    while left:
        n = sizes[len(pieces) % len(sizes)]
        pieces.append(left[:n])
        left = left[n:]
    places = [text.find(each) for each in stop if each in text]
    shown, stopped = show(pieces, stop)
    assert "".join(shown) == text[: min(places, default=None)] and stopped == bool(places)


def test_the_space_before_a_later_word_is_kept() -> None:
    words = ["one", "two", "three"]
    text = ShownText(lambda ids: " ".join(words[i] for i in ids))
    assert "".join(text.push(i)[0] for i in range(3)) == "one two three"


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"n_beams": 0}, "n_beams must be at least 1, got 0"),
        ({"n_samples": 0}, "n_samples must be at least 1, got 0"),
        ({"temperature": 1.0, "top_k": 0}, "top_k must be at least 1, got 0"),
        ({"temperature": -0.1}, r"temperature must be at least 0 \(greedy\), got -0.1"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
        ({"temperature": 1.0, "min_p": -0.1}, "min_p must be above 0 and at most 1, got -0.1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"stop": ("a", "")}, "stop must not hold an empty string"),
        ({"allowed": ()}, "allowed must name at least one id"),
        ({"n_beams": 2, "temperature": 1.0}, "n_beams above 1 goes without temperature"),
        ({"n_beams": 2, "stop": ("a",)}, "n_beams above 1 goes without stop"),
        ({"top_k": 5}, "top_k needs a temperature above 0"),
        ({"top_p": 0.5}, "top_p needs a temperature above 0"),
        ({"min_p": 0.5}, "min_p needs a temperature above 0"),
        ({"n_samples": 2}, "n_samples 2 need a temperature above 0 or as many n_beams, got 1"),
        ({"n_samples": 3, "n_beams": 2}, "n_samples 3 need a temperature above 0 or as many n_beams, got 2"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        GenerationConfig(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"stop": "end"}, r"stop is a sequence of texts, got one: give \('end',\)"),
    ],
)
def test_options_that_would_be_misread_say_why(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GenerationConfig(**options)


def test_text_goes_on_behind_a_prompt_with_the_space_of_its_first_word() -> None:
    words = ["to", "be", "or"]

    def decode(ids):  # as decoders of Metaspace and WordPiece do
        return " ".join(words[i] for i in ids)

    text = ShownText(decode, before=[0])
    assert [text.push(i)[0] for i in (1, 2)] == [" be", " or"]
    first = ShownText(decode)
    assert [first.push(i)[0] for i in (1, 2)] == ["be", " or"]


def test_a_character_that_the_prompt_began_is_shown_when_it_is_whole() -> None:
    begun, rest = "é".encode()[:1], "é".encode()[1:]
    text = ShownText(lambda ids: bytes(ids).decode(errors="replace"), before=[*b"caf", *begun])
    assert text.push(rest[0])[0] == "é"

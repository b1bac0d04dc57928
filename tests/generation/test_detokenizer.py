"""Text that is shown token by token, against the whole text decoded at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyformer.generation.detokenizer import ShownText


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

"""Learned tokens."""

from __future__ import annotations

from anyformer.model.learned_tokens import LearnedTokens


def test_learned_tokens_are_numbered_and_have_a_slot_only_if_placed() -> None:
    assert LearnedTokens(3).encode().content.tolist() == [0, 1, 2]
    assert LearnedTokens(3).encode().position.shape == (3, 0)
    placed = LearnedTokens(3, placed=True)
    assert placed.encode().position.tolist() == [[0], [1], [2]]
    assert (placed.axes, placed.sizes) == (("slot",), {"slot": 3})
    for tokenizer in (LearnedTokens(3), placed):
        assert tokenizer.empty().content.dtype == tokenizer.encode().content.dtype
        assert tokenizer.empty().position.shape == (0, len(tokenizer.axes))

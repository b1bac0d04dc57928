"""The laws of token sets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anyformer.tokens import TokenSet, expand
from tests.helpers.toys import Toy, words


def test_a_set_is_without_positions_and_of_order_0_unless_told() -> None:
    tokens = TokenSet(torch.zeros(5, 3))
    assert len(tokens) == 5
    assert tokens.position.shape == (5, 0)
    assert tokens.order.tolist() == [0] * 5
    assert tokens.extent == (5,)
    assert tokens.relation is None


def test_a_lift_with_stride_has_more_content_than_tokens() -> None:
    tokens = TokenSet(torch.zeros(7, 2), torch.arange(3)[:, None], extent=(7,))
    assert len(tokens) == 3
    assert tokens.order.shape == (3,)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"position": torch.zeros(5)}, r"position must be \(5, axes\) for 5 tokens, got \(5,\)"),
        ({"position": torch.zeros(3, 1), "order": torch.zeros(2)}, r"order must be \(3,\) for 3 tokens, got \(2,\)"),
        ({"order": torch.zeros(5, 1)}, r"order must be \(5,\) for 5 tokens, got \(5, 1\)"),
        ({"relation": torch.zeros(5, 4)}, r"relation must be \(5, 5\) for 5 tokens, got \(5, 4\)"),
        ({"edges": torch.zeros(4, 2)}, r"edges must be \(e, 3\), each \(from, to, kind\), got \(4, 2\)"),
        ({"edges": torch.tensor([[0, 5, 0]])}, r"edges must be between the tokens 0 to 4, got \[\[0, 5\]\]"),
        ({"edges": torch.tensor([[-1, 2, 0]])}, r"edges must be between the tokens 0 to 4, got \[\[-1, 2\]\]"),
        ({"extent": (2, 3)}, r"extent must multiply to the 5 pieces of content, got \(2, 3\)"),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(parts: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TokenSet(torch.zeros(5), **parts)


def test_at_sets_the_order_and_nothing_else() -> None:
    tokens = words(4, 5, 6)
    assert tokens.at(2).order.tolist() == [2, 2, 2]
    assert tokens.at(torch.tensor([1, 2, 3])).order.tolist() == [1, 2, 3]
    assert tokens.at(2).content is tokens.content
    assert tokens.order.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"order must be \(3,\) for 3 tokens, got \(2,\)"):
        tokens.at(torch.tensor([1, 2]))


def test_a_tokenizer_of_several_fields_stands_as_one_for_each_part() -> None:
    class State(Toy):
        parts = {"image": Toy(2), "vector": Toy()}  # noqa: RUF012

    assert expand({"state": State(), "word": Toy(1)}) == {"state.image": Toy(2), "state.vector": Toy(), "word": Toy(1)}


def test_a_record_is_counted_by_cutting_it_unless_a_header_tells() -> None:
    assert Toy(1).count(words(4, 5, 6)) == 3


def test_a_tokenizer_without_an_inverse_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Toy has no inverse"):
        Toy().decode(words(1))


@pytest.mark.parametrize(
    ("content", "masked", "got"),
    [
        (torch.zeros(2), torch.tensor([True]), r"\(1,\) bool$"),
        (torch.zeros(2), torch.tensor([1, 0]), r"\(2,\) int64$"),
        (torch.zeros(4), torch.tensor([True, False]), r"for 2 tokens of 4 pieces, got \(2,\) bool$"),
    ],
    ids=str,
)
def test_what_is_masked_is_a_piece_a_token(content: Tensor, masked: Tensor, got: str) -> None:
    with pytest.raises(ValueError, match=rf"^masked must be \(2,\) bool, of a piece of content each, .*{got}"):
        TokenSet(content, torch.zeros(2, 0, dtype=torch.int64), masked=masked)

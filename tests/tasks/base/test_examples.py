"""A batch of a task moves as a whole, and what is no tensor stays."""

from __future__ import annotations

import torch

from anyformer.packing import collate
from anyformer.tasks.base.examples import Examples
from anyformer.tokens import TokenSet
from tests.helpers.witnesses import Ids


def test_a_batch_moves_with_its_tokens_and_keeps_its_names() -> None:
    sample = {"text": TokenSet(torch.tensor([1, 2]), torch.tensor([[0], [1]]), torch.tensor([0, 1]))}
    batch = Examples(collate([sample], {"text": Ids(5, ("word",))}), torch.tensor([3]), ("row 0",), ("a",))
    moved = batch.to("meta")
    assert moved.target.is_meta and moved.tokens.fields["text"].content.is_meta
    assert (moved.samples, moved.groups) == (("row 0",), ("a",)) and not batch.target.is_meta

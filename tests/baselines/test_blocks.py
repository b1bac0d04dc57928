"""Fields as matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import issparse

from anyformer.baselines.blocks import Block, field_sets, side_by_side
from anyformer.baselines.features.table import features_of
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.text.text import Text


def test_records_without_a_field_are_nothing_but_a_flag() -> None:
    kept = [{"a": 1.0}, None, {"a": 3.0}]
    block = Block(Row(), kept)
    found = block.matrix(kept)
    # The number, whether the column is missing (never), and whether the field is.
    assert found[:, -1].tolist() == [0, 1, 0] and not found[1, :-1].any()
    assert (found[[0, 2], :-1] ** 2).sum(1).mean() == pytest.approx(1)
    texts = Block(Text(), ["red", None, "red dog", None])
    found = texts.matrix([None, "red"])
    assert issparse(found) and found.toarray()[:, -1].tolist() == [1, 0] and found.toarray()[1, :-1].any()


def test_no_field_outweighs_another_side_by_side() -> None:
    random = np.random.default_rng(0)
    rows = [{f"c{i}": value for i, value in enumerate(random.normal(size=30))} for _ in range(8)]
    texts = ["red dog", "a cat", "red cat", "dog", "blue", "a red dog", "cats", "dogs"]
    blocks = [
        Block(Row(), rows).matrix(rows),
        Block(Text(), kept := [features_of(Text()).read(t) for t in texts]).matrix(kept),
    ]
    for block in blocks:
        dense = block.toarray() if issparse(block) else block
        assert (dense**2).sum() == pytest.approx(8)
    assert side_by_side(blocks).shape == (8, sum(block.shape[1] for block in blocks))


def test_each_field_is_read_alone_and_all_together() -> None:
    assert field_sets({"a": 0, "b": 0, "c": 0}) == [("a",), ("b",), ("c",), ("a", "b", "c")]
    assert field_sets({"a": 0}) == [("a",)]

"""The tokens of any field in statistics."""

from __future__ import annotations

import numpy as np
import pytest

from anyformer.baselines.features.contents import TokenStatistics
from anyformer.tokenizers.graph import Graph
from anyformer.tokenizers.points import Points
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import TokenSet


def test_clouds_of_any_number_of_points_come_to_as_many_columns() -> None:
    features = TokenStatistics(Points(normalize="none"))
    random = np.random.default_rng(0)
    clouds = [random.normal(size=(n, 3)) for n in (5, 9, 2)]
    kept = [features.read(cloud) for cloud in clouds]
    features.fit(kept)
    found = features.transform(kept)
    assert found.shape == (3, 1 + 4 * 3)
    assert found[1, 0] == pytest.approx(np.log1p(9))
    assert found[1, 1:4] == pytest.approx(clouds[1].mean(0), abs=1e-6)


def test_ids_are_counted_and_those_not_seen_in_training_are_not() -> None:
    features = TokenStatistics(Text("bytes"))
    kept = [features.read(text) for text in ("aab", "b", "zz")]
    features.fit(kept[:2])
    found = features.transform(kept).toarray()
    assert found[:, 0] == pytest.approx(np.log1p([3, 1, 2]))
    # b comes in both, and so first.
    assert found[:, 1:] == pytest.approx(np.log1p([[1, 2], [1, 0], [0, 0]]))


def test_a_field_of_several_fields_has_the_statistics_of_each() -> None:
    class Pair(Text):
        @property
        def parts(self) -> dict[str, Text]:
            return {"left": Text("bytes"), "right": Text("bytes")}

        def encode(self, record: str, random: np.random.Generator | None = None) -> dict[str, TokenSet]:
            return {"left": Text("bytes").encode(record)}

        def fit(self, records: object) -> Pair:
            return self

    features = TokenStatistics(Pair("bytes"))
    features.fit([features.read("ab")])
    assert features.transform([features.read("ab")]).toarray()[0, :2] == pytest.approx([np.log(3), 0])


def test_kinds_of_edges_are_counted() -> None:
    graphs = [
        {"nodes": ["a", "a"], "edges": [[0, 1, "x"], [1, 0, "x"], [1, 1, "y"]]},
        {"nodes": ["a", "a"], "edges": []},
        {"nodes": ["a", "a"], "edges": [[0, 1, "y"]]},
    ]
    features = TokenStatistics(Graph())
    kept = [features.read(graph) for graph in graphs]
    features.fit(kept)
    found = features.transform(kept).toarray()
    # How many nodes there are, how often "a" comes, and the kinds y and x, y being in more of the records.
    assert found == pytest.approx(np.log1p([[2, 2, 1, 2], [2, 2, 0, 0], [2, 2, 1, 0]]))

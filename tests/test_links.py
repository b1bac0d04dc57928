"""Links: edges from a record's own column, between the tokens of two fields or of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import anyformer
from anyformer.__main__ import main
from anyformer.data.chopper import Chopper
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.links import make_links
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.places import places_of
from anyformer.model.attention.visibility import RULE, View
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.packing import collate
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample
from tests.helpers.graphs import Nodes
from tests.helpers.small_run import small_fit
from tests.helpers.witnesses import Ids, by_sample, redraw

FIELDS = {"graph": Nodes(True), "text": Ids(11, ("word",), 64), "image": Ids()}
LINKS = [
    {"column": "points", "from": "text", "to": "image", "kinds": ["at", "near"], "edges_only": True},
    {"column": "tree", "from": "text", "to": "text", "edges_only": True, "directed": False},
    {"column": "same", "from": "image", "to": "text", "directed": False},
]
GRAPH = ([1, 2], [(0, 1, 2)])
RECORDS: list[dict[str, Any]] = [
    {
        "graph": GRAPH,
        "text": [1, 2, 3],
        "image": [4, 5],
        "points": [[0, 1, "near"], [2, 1, "at"]],
        "tree": "[[0, 1], [1, 1]]",
        "same": [[1, 2]],
    },
    {"text": [1, 2], "image": [4, 5, 6], "points": [[1, 2, "at"], [1, 0, "near"]]},
    {"text": [7], "graph": GRAPH},
]
MADE = make_links(LINKS, list(FIELDS))


class Cutter(Chopper):
    """No task: records to samples alone."""

    def __call__(self, record: Any, random: Any = None) -> Sample:
        return self.encode(record, random)

    def collate(self, items: Any, rows: Any = None) -> Any:
        return collate(items, self.tokenizers, rows)


CUTTER = Cutter(FIELDS, links=MADE)


def expected(record: dict[str, Any]) -> tuple[set, dict]:
    """By plain Python: which tokens see which, as pairs of (field, number), and the relations of the pairs."""
    at, near, tree, same = 3, 4, 5, 6
    ids = {name: GRAPH[0] if name == "graph" else record[name] for name in FIELDS if name in record}
    tokens = [(name, i) for name in ids for i in range(len(ids[name]))]
    related: dict[tuple, list[int]] = {}

    def add(one: tuple, other: tuple, kind: int) -> None:
        related.setdefault((one, other), []).append(kind)

    if "graph" in record:
        add(("graph", 0), ("graph", 1), 2)
    for i, j, kind in record.get("points", []):
        add(("text", i), ("image", j), {"at": at, "near": near}[kind])
    for i, j in json.loads(record.get("tree", "[]")):
        add(("text", i), ("text", j), tree)
        if i != j:
            add(("text", j), ("text", i), tree)
    for i, j in record.get("same", []):
        add(("image", i), ("text", j), same)
        add(("text", j), ("image", i), same)
    alone = {("graph", "graph"), ("text", "image"), ("text", "text")}
    seen = {(q, k) for q in tokens for k in tokens if (q[0], k[0]) not in alone or q == k or (q, k) in related}
    return seen, related


def build() -> Anyformer:
    config = TransformerConfig(12, depth=2, n_heads=3, rotary=RotaryConfig(("word",)))
    model = Anyformer(FIELDS, config, links=MADE)
    redraw(model)
    return model.eval()


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 0, 1]], ids=["padded", "packed"])
def test_who_sees_whom_is_the_rule_by_hand(rows: list[int]) -> None:
    model, samples = build(), [CUTTER(record) for record in RECORDS]
    batch = collate(samples, FIELDS, rows)
    places = places_of(batch, model.embeddings.axes, model.transformer.wanted)
    view = View(places, places, RULE, relation_bias=model.relation_bias, edges=batch.edges, edges_only=model.edges_only)
    seen, bias, table = view.visible(), view.bias(), model.relation_bias.table
    assert table.shape == (3 + 2 + 1 + 1, 3)
    for i, record in enumerate(RECORDS):
        where = {}
        for name, part in batch.fields.items():
            own = part.index[part.sample == i].tolist()
            where |= {divmod(place, batch.shape[1]): (name, n) for n, place in enumerate(own)}
        pairs, related = expected(record)
        for (row, query), one in where.items():
            for (_, key), other in where.items():
                assert bool(seen[row, query, key]) == ((one, other) in pairs), (one, other)
                # A loop of a link that is not directed is there both ways.
                added = sum((table[kind] for kind in related.get((one, other), [])), torch.zeros(3))
                torch.testing.assert_close(bias[row, :, query, key], added, msg=f"{one} {other}")


@torch.no_grad()
def test_packed_and_one_by_one_are_the_same_also_where_a_field_is_not_there() -> None:
    model, samples = build(), [CUTTER(record) for record in RECORDS]
    alone = [by_sample(batch, model(batch), [s])[0] for s in samples for batch in [collate([s], FIELDS)]]
    for rows in ([0, 1, 2], [0, 0, 0]):
        batch = collate(samples, FIELDS, rows)
        torch.testing.assert_close(by_sample(batch, model(batch), samples), alone, atol=1e-5, rtol=0)
    assert samples[2]["text"].links.keys() == {"text"}


def test_the_biases_have_gradients_where_no_record_has_links() -> None:
    fields = {"text": FIELDS["text"], "image": FIELDS["image"]}
    links = make_links(LINKS[:1], list(fields))
    model = Anyformer(fields, TransformerConfig(12, depth=1, n_heads=3), links=links)
    model(collate([{"text": fields["text"].encode([1, 2])}], fields)).sum().backward()
    assert model.relation_bias.table.grad is not None and not model.relation_bias.table.grad.any()


def test_an_edge_without_direction_is_there_both_ways_and_one_to_itself_once() -> None:
    links = CUTTER(RECORDS[0] | {"tree": [[0, 1], [2, 2]]})["text"].links["text"]
    ends = [tuple(edge[:2]) for edge in links.tolist() if edge[2] >= 0]
    assert sorted(ends) == [(0, 1), (1, 0), (2, 2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": [[0, 2, "at"]]}, r"'points': edge 0: there is no token 2 of field 'image'; they .* from 0 to 1$"),
        ({"points": [[3, 0, "at"]]}, r"'points': edge 0: there is no token 3 of field 'text'; they .* from 0 to 2$"),
        ({"points": [[0, 0]]}, "'points': an edge has no kind; there are at, near, see kinds of fields.links"),
        ({"points": [[0, 0, "att"]]}, "'points': no kind 'att' is known; there are at, near; did you mean 'at'"),
        ({"tree": [[0, 0, "x"]]}, "'tree': no kind 'x' is known; no kinds are given, see kinds of fields.links"),
        ({"tree": "all"}, "'tree': must hold a list of edges, got 'all'"),
        ({"tree": [[0, 1], [1, 0]]}, r"'tree': edge 1, \[1, 0\], says again what edge 0 does; give it once"),
        ({"points": [[0, 1, "at"]] * 2}, r"'points': edge 1, \[0, 1, 'at'\], says again what edge 0 does"),
    ],
)
def test_a_column_that_cannot_be_used_says_why(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"^column {message}"):
        CUTTER(RECORDS[0] | change)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ({"column": "e", "from": "text"}, r"fields.links.0 must name a column and the fields, .*, and lacks 'to'"),
        ({"column": "e", "from": "text", "to": "imag"}, r"links.0.to: there is no field 'imag' .*did you mean 'image'"),
        (LINKS[0] | {"kind": ["a"]}, r"fields.links.0 has no 'kind', but column, .*; did you mean 'kinds'"),
        (LINKS[0] | {"kinds": ["a", "a"]}, r"fields.links.0.kinds must be different names, got \['a', 'a'\]"),
    ],
)
def test_a_link_that_cannot_be_says_why(link: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_links([link], list(FIELDS))


def test_a_run_reads_links_from_its_table_and_predict_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The letter that the one word points to says what the class is."""
    rows = [
        {"text": "ab"[i % 2] + "ba"[i % 2], "mark": "x", "points": [[0, i // 2 % 2]], "kind": "ab"[(i + i // 2) % 2]}
        for i in range(16)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def task(column: str = "points") -> Predict:
        return Predict(
            {"mark": Text("characters"), "text": Text("characters")},
            {"kind": Category()},
            TransformerConfig(8, depth=2, n_heads=2),
            fields=FieldsConfig(links=[{"column": column, "from": "mark", "to": "text", "edges_only": True}]),
        )

    data = Records(Table(str(tmp_path / "rows.jsonl")), 0.25, batch_size=12)
    with pytest.raises(InputError, match="'pionts'"):
        small_fit(tmp_path / "none", task=task("pionts"), data=data, max_epochs=1)
    run = tmp_path / "run"
    small_fit(run, task=task(), data=data, max_epochs=1)
    made, record = anyformer.load(run), {"mark": "x", "text": "ab", "points": [[0, 1]]}
    one, other = made.predict([record, record | {"points": [[0, 0]]}])
    assert one != other, "another letter is pointed to"
    capsys.readouterr()
    given = ["mark=x", "text=ab", "points=[[0, 1]]"]
    assert main(["predict", str(run), *given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made.predict([record])[0]
    assert main(["predict", str(run), *given[:2], "points=[[0, 2]]"]) == 2
    assert "column 'points': edge 0: there is no token 2 of field 'text'" in capsys.readouterr().err

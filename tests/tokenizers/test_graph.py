"""Graphs: nodes of ids, numbers and texts, kinds of edges, and what does not hang on how a graph is written."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import anyformer
from anyformer.__main__ import main
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.packing import collate
from anyformer.runs.signals import Stopped
from anyformer.tasks.base.records import Records
from anyformer.tasks.predict.predict import Predict
from anyformer.tasks.targets.category import Category
from anyformer.tokenizers.graph import Graph, NodeTexts
from anyformer.tokenizers.text.text import Text
from tests.helpers.small_run import small_fit
from tests.helpers.stopped_runs import Signal, assert_same_run
from tests.helpers.witnesses import redraw

PAPERS = [
    {"nodes": ["a", "b", "c"], "edges": [[0, 1, "cites"], [2, 1, "cites"], [1, 1, "quotes"]]},
    {"nodes": ["b"], "edges": []},
    {"nodes": [7, "a"], "edges": [[0, 1], [0, 1, "cites"]]},
]
SITES = [
    {"nodes": [[1.0, 10.0], [3.0, 10.0], [5.0, 10.0]], "edges": [[0, 1], [1, 2]]},
    {"nodes": np.array([[3.0, 10.0]]), "edges": np.zeros((0, 2), dtype=np.int64)},
]
TITLES = [{"nodes": ["a red fox", "a fox"], "edges": [[0, 1, "is"]]}, {"nodes": ["", "red"]}]


def test_ids_and_kinds_are_learnt_and_all_others_share_an_entry() -> None:
    graph = Graph().fit(PAPERS)
    assert (graph.nodes, graph.vocabulary) == ("ids", ("7", "a", "b", "c"))
    assert graph.kinds == ("", "cites", "quotes") and graph.n_relations == 4
    tokens = graph.encode(PAPERS[0])
    assert tokens.content.tolist() == [1, 2, 3] and tokens.position.shape == (3, 0)
    assert tokens.edges.tolist() == [[0, 1, 1], [2, 1, 1], [1, 1, 2]]
    assert [graph.decode(graph.encode(each))["edges"] for each in PAPERS] == [each["edges"] for each in PAPERS]
    other = graph.encode({"nodes": ["c", "z"], "edges": [[1, 0, "loves"]]})
    assert other.content.tolist() == [3, 4] and other.edges.tolist() == [[1, 0, 3]]
    assert graph.decode(other) == {"nodes": ["c", "<unk>"], "edges": [[1, 0, "<unk>"]]}
    two = graph.encode({"nodes": ["a", "b"], "edges": [[0, 1, "loves"], [0, 1, "likes"]]})
    assert two.edges.tolist() == [[0, 1, 3]] * 2
    assert graph.pieces(other) == ["c", "<unk>"] and graph.fit([TITLES[0]]) == graph


def test_numbers_are_standardised_by_the_training_records() -> None:
    graph = Graph().fit(SITES)
    assert graph.nodes == "numbers" and graph.mean == (3.0, 10.0) and graph.kinds == ("",)
    tokens = graph.encode(SITES[0])
    torch.testing.assert_close(tokens.content[:, 0], torch.tensor([-1.0, 0.0, 1.0]) * 2 / graph.std[0])
    assert not tokens.content[:, 1].any(), "what never changes is 0"
    np.testing.assert_allclose(graph.decode(tokens)["nodes"], SITES[0]["nodes"])
    plain = Graph(normalize=False).fit(SITES).encode(SITES[0])
    assert plain.content.tolist() == SITES[0]["nodes"]
    single = Graph("numbers").fit([{"nodes": [1, 2.5]}])
    assert single.encode({"nodes": [1.75]}).content.shape == (1, 1) and single.pieces(single.encode({"nodes": [1.75]}))


def test_a_text_is_the_mean_of_its_tokens() -> None:
    graph = Graph("text", text=Text("characters")).fit(TITLES)
    tokens = graph.encode(TITLES[0])
    assert len(tokens) == 2 and len(tokens.content) == len("a red fox") + len("a fox")
    lift = graph.lift(5)
    assert isinstance(lift, NodeTexts)
    vectors = lift(torch.cat([graph.encode(each).content for each in TITLES]))
    ids = [graph.text.encode(text).content for text in ("a red fox", "a fox", "red")]
    torch.testing.assert_close(vectors[[0, 1, 3]], torch.stack([lift.table[each].mean(0) for each in ids]))
    assert torch.equal(vectors[2], lift.table[-1]), "an empty text has a vector of its own"
    assert graph.decode(tokens)["nodes"] == TITLES[0]["nodes"] == graph.pieces(tokens)
    assert Graph("text").fit(TITLES).text.kind == "bpe" and Graph(text=Text("bytes")).nodes == "text"


def test_an_edge_that_is_not_directed_leads_both_ways() -> None:
    record = {"nodes": ["a", "b"], "edges": [[1, 0, "x"], [1, 1, "x"], [0, 1]]}
    same, own = (Graph(directed=False, reverse=kind).fit([record]) for kind in ("same", "own"))
    assert same.encode(record).edges.tolist() == [[1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 1, 1], [1, 0, 0]]
    assert own.encode(record).edges.tolist() == [[1, 0, 1], [1, 1, 1], [0, 1, 0], [0, 1, 4], [1, 0, 3]]
    assert (same.n_relations, own.n_relations) == (3, 6)
    assert same.decode(same.encode(record)) == own.decode(own.encode(record)) == record


def class_tokens(graph: Graph, records: list[Any], rows: list[int] | None = None) -> torch.Tensor:
    """What a random model makes of graphs, (b, d)."""
    fields = {"graph": graph, "class": LearnedTokens()}
    torch.manual_seed(0)
    model = Anyformer(fields, TransformerConfig(d_model=16, n_heads=4, depth=2)).double().eval()
    redraw(model)
    batch = collate(
        [{"graph": graph.encode(each), "class": LearnedTokens().encode()} for each in records], fields, rows
    )
    with torch.no_grad():
        return batch.by_field(model(batch))["class"]


@pytest.mark.parametrize("edges_only", [False, True])
def test_the_sequence_of_nodes_and_edges_changes_nothing_and_edges_do(edges_only: bool) -> None:
    graph, random = Graph(edges_only=edges_only).fit(PAPERS), np.random.default_rng(0)
    names = [*"abcabc"]
    edges = [[0, 1, "cites"], [1, 2, "quotes"], [3, 4, "cites"], [5, 5, "quotes"], [4, 0], [2, 4, "cites"]]
    order = random.permutation(6)
    place = order.argsort().tolist()
    moved = [[place[i], place[j], *kind] for i, j, *kind in edges]
    other = {"nodes": [names[i] for i in order], "edges": [moved[i] for i in random.permutation(6)]}
    turned = {"nodes": names, "edges": [[1, 0, "cites"], *edges[1:]]}
    renamed = {"nodes": names, "edges": [[0, 1, "quotes"], *edges[1:]]}
    first, *rest = class_tokens(graph, [{"nodes": names, "edges": edges}, other, turned, renamed])
    torch.testing.assert_close(rest[0], first, rtol=0, atol=1e-9)
    assert all((each - first).abs().max() > 1e-3 for each in rest[1:])
    packed = class_tokens(graph, [other, turned], [0, 0])
    torch.testing.assert_close(packed, torch.stack(rest[:2]), rtol=0, atol=1e-9)


def test_what_was_learnt_is_taken_over_and_compared() -> None:
    graph = Graph().fit(PAPERS)
    assert Graph().inherit(graph) == graph
    assert Graph(kinds=("cites",)).inherit(graph).kinds == ("cites",)
    assert Graph("text").inherit(graph) == Graph("text")
    texts = Graph("text", text=Text("characters")).fit(TITLES)
    assert Graph("text", text=Text("characters")).inherit(texts) == texts
    graph.agree(Graph().fit(PAPERS), "graph")
    for other, fact in ((Graph().fit(PAPERS[:1]), "vocabulary"), (Graph(kinds=["cites"]), "kinds")):
        with pytest.raises(InputError, match=f"^graph: {fact} are not the same as the model was trained with"):
            graph.agree(other, "graph")
    with pytest.raises(InputError, match="not the vocabulary that the model was trained with"):
        texts.agree(Graph("text", text=Text("characters")).fit([{"nodes": ["xyz"]}, *TITLES]), "graph")


# What is no graph


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"nodes": ["a"], "edges": [[0, 1]]}, r"edge 0: there is no node 1; they are numbered from 0 to 0"),
        ({"nodes": ["a"], "edges": [[0, 0], [-1, 0]]}, r"edge 1: there is no node -1; they are numbered from 0 to 0"),
        ({"nodes": ["a"], "edges": [[0, "a"]]}, r"edge 0: there is no node 'a'; they are numbered from 0 to 0"),
        ({"nodes": ["a"], "edges": [[0]]}, r"edge 0 must be \[from, to\] or \[from, to, kind\], got \[0\]"),
        ({"nodes": ["a"], "edges": [[0, 0, ["x"]]]}, r"the kind of edge 0 must be one text or number, got a list"),
        ({"nodes": ["a"], "edges": [[0, 0, "cites"]] * 2}, r"edge 1, \[0, 0, 'cites'\], says again what edge 0 does"),
        ({"nodes": ["a"], "edges": {"0": 0}}, r"edges of a graph must be a list, got \{'0': 0\}"),
        ({"nodes": ["a", [1.0]]}, r"nodes of all graphs must be ids, .*; node 1 is \[1\.0\]"),
        ({"nodes": ["a", None]}, r"node 1 must be one text or number, got nothing"),
        ({"nodes": ["a"] * 5}, r"the graph has 5 nodes, more than max_nodes=4; raise max_nodes"),
        ({"nodes": []}, r"the graph has no nodes"),
        ({"nodes": ["a"], "edge": []}, r"a graph has nodes and edges, and no 'edge'; did you mean 'edges'"),
        (
            ["a"],
            r'a graph must be a dict like \{"nodes": \["a", "b"\], .*got \[\'a\'\]; of a table give .* both columns',
        ),
        ("a", r"a graph must be a dict like"),
        ("{nodes}", r"stands in brackets as JSON does, and is none"),
    ],
    ids=str,
)
def test_what_is_no_graph_is_refused(record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Graph(max_nodes=4).fit(PAPERS).encode(record)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "records", "message"),
    [
        ({}, [{"nodes": ["a"]}, {"nodes": [[1.0]]}], "must be ids, .* as `nodes: ids` says; node 0 is"),
        ({}, [{"nodes": [0.5]}], "node 0 is 0.5, which may be an id or a number; say in the tokenizer nodes: ids"),
        ({}, [], "the training records are empty"),
        ({}, [{"nodes": [[1.0], [2.0, 3.0]]}], "nodes must be numbers in lists of equal length"),
        (
            {},
            [{"nodes": [[1.0]]}, {"nodes": [[2.0, 3.0]]}],
            "nodes must have 1 numbers each, as others have, got 1 x 2",
        ),
        ({}, [{"nodes": [[1.0, None]]}], "node 0 lacks a number; fill it in"),
        ({"nodes": "text"}, [{"nodes": [3]}], "must be texts, as `nodes: text` says; node 0 is 3"),
        ({"directed": False}, [{"nodes": [3, 4], "edges": [[0, 1], [1, 0]]}], "where both ways are given say directed"),
    ],
    ids=str,
)
def test_what_cannot_be_learnt_from_is_refused(options: dict, records: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        graph = Graph(**options).fit(records)
        [graph.encode(record) for record in records]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_nodes": 0}, "max_nodes must be at least 1, got 0"),
        ({"reverse": "own"}, "reverse: own is of edges that are not directed; give directed: false too"),
        ({"mean": (1.0,)}, "mean and std belong together"),
        ({"nodes": "ids", "text": Text()}, "text says how texts are cut, and nodes are ids"),
        ({"nodes": "txt"}, "nodes must be ids, numbers, text or null, got 'txt'; did you mean 'text'"),
    ],
)
def test_options_that_cannot_be_say_why(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Graph(**options)


def test_before_it_is_fitted_it_says_so() -> None:
    for use in (Graph().empty, lambda: Graph("ids").lift(4), lambda: Graph("ids").encode(PAPERS[0])):
        with pytest.raises(InputError, match="are not known yet: fit it to the training records first"):
            use()


# A run


def graphs_file(folder: Path) -> Path:
    """Rings, and paths of the same nodes."""
    path = folder / "graphs.jsonl"
    with path.open("w") as file:
        for n in range(3, 13):
            steps = [[i, i + 1, "next"] for i in range(n - 1)]
            for ring, more in (("yes", [[n - 1, 0, "next"]]), ("no", [])):
                file.write(json.dumps({"nodes": ["x"] * n, "edges": steps + more, "ring": ring}) + "\n")
    return path


def train(run: Path, table: Path, **options: Any) -> None:
    task = Predict(
        {"graph": Graph(edges_only=True, directed=False)},
        {"ring": Category()},
        transformer=TransformerConfig(8, depth=2, n_heads=2, dropout=0.1),
    )
    columns = {"graph": ["nodes", "edges"], "ring": "ring"}
    data = Records(Table(str(table), columns), 0.25, batch_size=5)
    small_fit(run, task=task, data=data, **options)


def test_a_run_of_a_table_that_is_stopped_and_resumed_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table, whole, run = graphs_file(tmp_path), tmp_path / "whole", tmp_path / "run"
    train(whole, table)
    with pytest.raises(Stopped):
        train(run, table, callbacks=[Signal(signal.SIGTERM, 4)])
    train(run, table, resume=True)
    assert_same_run(run, whole)
    task, record = anyformer.load(whole), {"nodes": ["x", "y", "x"], "edges": [[0, 1, "next"], [1, 2, "before"]]}
    capsys.readouterr()
    assert main(["predict", str(whole), f"graph={json.dumps(record)}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == task.predict([{"graph": record}])[0] == task.predict([record])[0]
    assert main(["predict", str(whole), 'graph={"nodes": ["x"], "edges": [[0, 1, "next"]]}']) == 2
    assert "field 'graph': edge 0: there is no node 1; they are numbered from 0 to 0" in capsys.readouterr().err

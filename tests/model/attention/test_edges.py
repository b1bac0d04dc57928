"""Attention along edges: the rule by hand, the same in every engine, and nothing as large as all pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anyformer.batch import Batch, Edges
from anyformer.drawing.visibility import sight
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention import visibility
from anyformer.model.attention.blocks import lay_blocks
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.edges import among, behind, linked
from anyformer.model.attention.places import places_of
from anyformer.model.attention.visibility import View
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.packing import collate
from anyformer.tokens import Sample, TokenSet
from tests.helpers.graphs import TEXT, Nodes, by_hand, fields, graph, samples
from tests.helpers.largest import Largest
from tests.helpers.witnesses import by_sample, count, draw_ids, redraw

ROWS = [[0, 1, 2, 3], [0, 1, 0, 0]]


def build(
    edges_only: bool, *patterns: dict[str, Any], encoder: bool = False, has_pairs: bool = True, **choices: Any
) -> Anyformer:
    sizes = {"d_model": 12, "n_heads": 3, "depth": 2, "d_ff": 10, "rotary": RotaryConfig(("word",))}
    config = TransformerConfig(**(sizes | choices), patterns=patterns)
    model = Anyformer(fields(edges_only, has_pairs), config, encoder=config if encoder else None)
    redraw(model)
    return model.eval()


def view(model: Anyformer, batch: Batch) -> View:
    places = places_of(batch, model.embeddings.axes, model.transformer.wanted)
    given = {"relation": batch.relation, "relation_bias": model.relation_bias, "edges": batch.edges}
    return View(places, places, visibility.RULE, edges_only=model.edges_only, **given)


def run(model: Anyformer, batch: Batch, **given: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Hidden vectors, and the gradients of a loss on them."""
    model.zero_grad()
    hidden = model(batch, **given)
    hidden.square().mean().backward()
    return hidden.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


both_ways = pytest.mark.parametrize("edges_only", [False, True], ids=["biased", "edges only"])


@both_ways
@pytest.mark.parametrize("rows", ROWS, ids=["padded", "packed"])
def test_who_sees_whom_and_how_much_is_the_rule_by_hand(edges_only: bool, rows: list[int]) -> None:
    model, every = build(edges_only), samples()
    batch = collate(every, fields(edges_only), rows)
    given = view(model, batch)
    seen, bias = given.visible(), given.bias().permute(0, 2, 3, 1)
    start = [0] * 4
    for sample, row in zip(every, rows, strict=True):
        expected, biases = by_hand(sample, model.relation_bias.table, edges_only)
        n = len(expected)
        own = slice(start[row], start[row] + n)
        assert torch.equal(seen[row, own, own], expected)
        assert not seen[row, own, : own.start].any() and not seen[row, own, own.stop :].any()
        torch.testing.assert_close(bias[row, own, own], biases)
        start[row] += n


@both_ways
@torch.no_grad()
def test_padded_packed_and_one_by_one_are_the_same(edges_only: bool) -> None:
    model, every, known = build(edges_only), samples(), fields(edges_only)
    alone = [by_sample(batch, model(batch), [s])[0] for s in every for batch in [collate([s], known)]]
    for rows in ROWS:
        batch = collate(every, known, rows)
        torch.testing.assert_close(by_sample(batch, model(batch), every), alone, atol=1e-5, rtol=0)


@both_ways
@pytest.mark.parametrize("rows", ROWS, ids=["padded", "packed"])
@pytest.mark.parametrize("pattern", [{}, {"window": {"word": 3}}, {"global": ["graph"], "random": 1}], ids=str)
def test_blocks_are_one_mask_in_outputs_and_gradients(
    edges_only: bool, rows: list[int], pattern: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lay_blocks, "__defaults__", (4,))
    model, batch = build(edges_only, pattern, {}), collate(samples(2), fields(edges_only), rows)
    read = torch.arange(2).expand(batch.shape[0], 2)
    monkeypatch.setattr(visibility, "GAIN", 0)
    for given in ({}, {"read": read}):
        monkeypatch.setattr(visibility, "LONG", 1)
        is_taken = edges_only or pattern or rows == ROWS[1]
        assert ("blocks" in model.engines(batch)["transformer"]) == bool(is_taken)
        ours = run(model, batch, **given)
        monkeypatch.setattr(visibility, "LONG", 10**9)
        assert "blocks" not in model.engines(batch)["transformer"]
        torch.testing.assert_close(ours, run(model, batch, **given), atol=1e-5, rtol=1e-5)


def test_edges_are_the_dense_relation_that_says_the_same() -> None:
    """Also of tokens in another sequence, and with their biases' gradients."""
    edges = [(0, 1, 2), (1, 3, 0), (3, 0, 1), (2, 2, 0), *((i, i, 2) for i in (0, 1, 3))]
    ids, order = [4, 2, 9, 1], torch.tensor([1, 0, 2, 1])
    sparse, model = Nodes(True).encode((ids, edges)).at(order), build(True)
    relation = torch.full((4, 4), -1)
    for start, end, kind in edges:
        relation[start, end] = kind
    dense = TokenSet(sparse.content, relation=relation).at(order)
    known = fields(True)
    ours = run(model, collate([{"graph": sparse}], known))
    model.edges_only = None
    torch.testing.assert_close(run(model, collate([{"graph": dense}], fields(False))), ours, atol=1e-6, rtol=1e-5)


@both_ways
@torch.no_grad()
def test_cached_is_uncached(edges_only: bool) -> None:
    model, known, cache = build(edges_only), fields(edges_only), Cache()
    prompts: list[Sample] = [{"graph": graph(n, 2 * n), "text": count(TEXT.encode(draw_ids(5)))} for n in (6, 4)]
    whole = collate(prompts, known)
    expected = [part["text"] for part in by_sample(whole, model(whole), prompts)]
    ours: list[list[Tensor]] = [[], []]
    for i in range(5):
        step = []
        for prompt in prompts:
            text = prompt["text"]
            new = TokenSet(text.content[i : i + 1], text.position[i : i + 1], text.order[i : i + 1])
            step.append({"text": new} if i else {"graph": prompt["graph"], "text": new})
        batch = collate(step, known)
        for own, part in zip(ours, by_sample(batch, model(batch, cache=cache), step), strict=True):
            own.append(part["text"])
    torch.testing.assert_close([torch.cat(parts) for parts in ours], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_an_encoder_goes_along_edges_too() -> None:
    model, known = build(True, encoder=True), fields(True)
    texts = [{"text": count(TEXT.encode(draw_ids(n)))} for n in (3, 5)]
    first, second = graph(6, 5), graph(4, 3)
    read = collate([{"graph": first}, {"graph": second}], known)
    model(collate(texts, known), read)
    hidden = model.encode(read)
    alone = model.encode(collate([{"graph": second}], known))
    torch.testing.assert_close(hidden[1, :4], alone[0], atol=1e-5, rtol=0)
    # Without edges each node sees itself alone, so that its neighbours' content changes nothing.
    lonely = [Nodes(True).encode(([1, 2, last], [])) for last in (3, 4)]
    one, other = (model.encode(collate([{"graph": tokens}], known))[0, :2] for tokens in lonely)
    assert torch.equal(one, other)
    joined = [Nodes(True).encode(([1, 2, last], [(0, 2, 1)])) for last in (3, 4)]
    one, other = (model.encode(collate([{"graph": tokens}], known))[0] for tokens in joined)
    assert not torch.allclose(one[0], other[0], atol=1e-3) and torch.equal(one[1], other[1])


def large(n: int) -> Batch:
    """Nodes on a ring with a few edges far across, and one class token that sees all."""
    ring = [(i, (i + step) % n, abs(step)) for i in range(n) for step in (-1, 1)]
    far = [(i, (i * 7) % n, 2) for i in range(0, n, 64)]
    known = fields(True, has_pairs=False)
    return collate([{"graph": Nodes(True).encode((draw_ids(n), ring + far)), "class": known["class"].encode()}], known)


def test_no_tensor_is_of_length_times_length() -> None:
    n, model = 4096, build(True, depth=1, has_pairs=False)
    batch = large(n)
    assert model.engines(batch)["transformer"] == ["blocks"]
    with Largest() as largest:
        run(model, batch)
    assert largest.n_bytes < n * n / 2
    with Largest() as largest:
        view(model, batch).mask()
    assert largest.n_bytes >= n * n, "as one mask would be"


def test_a_batch_of_edges_alone_holds_no_dense_relation() -> None:
    known = {"graph": Nodes(True)}
    batch = collate([{"graph": graph(9, 12)}], known)
    assert batch.relation is None and len(batch.edges.kind) == 12 + 9 and batch.kind == "dense"
    moved = batch.to("cpu").edges
    assert torch.equal(moved.key, batch.edges.key)
    assert collate([], known).edges is not None, "so that the biases have gradients in every batch"


@torch.no_grad()
def test_a_neighbours_content_changes_no_bit() -> None:
    model, known = build(True, has_pairs=False), fields(True, has_pairs=False)
    own = {"graph": graph(300, 900)}
    edges = graph(300, 900).edges
    others = [{"graph": TokenSet(torch.tensor(draw_ids(300)), edges=edges)} for _ in range(2)]
    for rows in (None, [0, 0]):
        batches = [collate([own, other], known, rows) for other in others]
        first, second = (model(batch).flatten(0, 1)[:300] for batch in batches)
        assert torch.equal(first, second)
    assert model.engines(batches[0])["transformer"] == ["blocks"] * 2


def test_a_model_is_counted_without_memory_of_its_own() -> None:
    with torch.device("meta"):
        model = build(True)
    assert model.edges_only.shape == (4, 4) and model.edges_only.is_meta
    assert build(False).edges_only is None


def test_edges_are_drawn() -> None:
    model = build(True)
    sample = {"graph": Nodes(True).encode(([1, 2, 3], [(0, 1, 0), (2, 0, 1)]))}
    seen, _ = sight(model, collate([sample], fields(True)))
    assert seen.int().tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_edges_among_blocks_are_found_by_their_place_in_them() -> None:
    numbers = [[0, 0, 1], [0, 1, 1], [0, 1, 1], [1, 2, 0]]
    edges = Edges(*torch.tensor(numbers).T, kind=torch.tensor([4, 5, 6, 7]))
    query, key = torch.tensor([[1, -1], [5, 0]]), torch.tensor([[1, 2, -1], [1, 3, 4]])
    found = among(edges, query, key, (2, 3))
    # Places of rows of 3: 0 -> 1, twice 1 -> 1, and 5 -> 3.
    assert list(zip(*(part.tolist() for part in vars(found).values()), strict=True)) == [
        (0, 0, 0, 5),
        (0, 0, 0, 6),
        (1, 0, 1, 7),
        (1, 1, 0, 4),
    ]
    assert linked(found, (2, 2, 3), query.device).nonzero().tolist() == [[0, 0, 0], [1, 0, 1], [1, 1, 0]]
    assert not linked(None, (1, 2, 2), query.device).any()
    assert behind(edges, 2).key.tolist() == [3, 3, 3, 2] and behind(edges, 0) is edges

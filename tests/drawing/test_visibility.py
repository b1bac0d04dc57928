"""Who sees whom, drawn: the picture is of the rule that the model goes by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from anyformer.drawing.visibility import draw_sight, has_sights, sight
from anyformer.model.anyformer import Anyformer
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.packing import collate
from tests.helpers.mixed_fields import LEFT, RIGHT, SMALL, two_inputs
from tests.helpers.turned import Turned, translator
from tests.helpers.witnesses import Ids, redraw

FIELDS = {"left": LEFT, "right": RIGHT}


def test_a_picture_is_drawn_where_there_is_something_to_see() -> None:
    alone = {"left": LEFT, "class": LearnedTokens(1)}
    assert has_sights(Anyformer(FIELDS, SMALL))
    assert not has_sights(Anyformer(alone, SMALL))
    assert has_sights(Anyformer(alone, SMALL, sees={"left": ["left"]}))


def test_what_is_drawn_is_what_can_reach_a_token() -> None:
    graph = Ids(7, n_relations=3)
    fields = FIELDS | {"graph": graph}
    model = Anyformer(fields, SMALL, sees={"left": ["left", "graph"], "graph": ["graph", "right"]}).eval()
    redraw(model)
    sample = {"left": LEFT.encode([1, 2]).at(1), "right": RIGHT.encode([3, 1, 4]), "graph": graph.encode([5, 6, 2])}
    batch = collate([sample], fields)
    seen, field = sight(model, batch)
    names = [list(fields)[i] for i in field.tolist()]
    assert names == ["right"] * 3 + ["graph"] * 3 + ["left"] * 2, "in the sequence of the row"
    # With one block, what is drawn is what a token hangs on.
    moved = torch.zeros_like(seen)
    rows = model.embeddings(batch)
    with torch.no_grad():
        context = model(batch)
        for k in range(len(names)):
            model.embeddings.forward = lambda batch, k=k: (
                rows + torch.eye(len(names))[k][None, :, None] * torch.randn(16)
            )
            moved[:, k] = (model(batch) - context).abs().amax(-1)[0] > 1e-6
    assert torch.equal(moved, seen | torch.eye(len(names), dtype=torch.bool))
    figure = draw_sight(model, batch)
    left, right = figure.axes
    assert left.images[0].get_array().tolist() == [[1, 0, 3], [1, 2, 3], [0, 2, 3]]
    assert right.images[0].get_array().tolist() == torch.where(seen, field + 1, 0).tolist()
    assert [text.get_text() for text in right.get_yticklabels()] == ["right", "graph", "left"]


def test_what_an_encoder_reads_stands_before_what_is_written() -> None:
    task = translator()
    task.fit_tokenizers(Turned())
    task.build()
    chopper = task.chopper(training=True)
    batch = chopper.collate([chopper(Turned()[0])])
    n, m = batch.inputs.shape[1], batch.tokens.shape[1]
    seen, field = sight(task.model, *task.model_inputs(batch))
    expected = torch.ones(n + m, n + m, dtype=torch.bool)
    expected[:n, n:] = False
    expected[n:, n:] = torch.ones(m, m).tril().bool()
    assert torch.equal(seen, expected) and field.tolist() == [0] * n + [1] * m
    draw_sight(task.model, *task.model_inputs(batch))


def test_many_tokens_have_neither_lines_nor_more_words_than_there_is_room_for(tmp_path: Path) -> None:
    task = two_inputs(classes=["a", "b"])
    task.build()
    turns = {name: tokens.at(torch.arange(50) * 2 + i) for i, (name, tokens) in enumerate(long().items())}
    figure = draw_sight(task.model, collate([turns], task.model.tokenizers))
    assert not figure.axes[1].get_yticklabels()
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["left", "right", "class"]
    figure.savefig(tmp_path / "sees.png")


def long() -> dict:
    return {name: Ids(8, ("word",), max_len=50).encode([1] * 50) for name in FIELDS}


def test_each_layer_that_differs_is_drawn() -> None:
    fields = {"left": Ids(8, ("word",), max_len=50)}
    config = replace(SMALL, depth=5, patterns=({"window": {"word": 1}}, {"window": {"word": 1}}, {}))
    model = Anyformer(fields, config)
    assert has_sights(model), "though there is one field alone"
    batch = collate([{"left": fields["left"].encode([1] * 6)}], fields)
    figure = draw_sight(model, batch)
    assert [axes.get_title() for axes in figure.axes] == [
        "fields",
        "layers 1, 2, 4, 5: one sample of 6 tokens",
        "layer 3: one sample of 6 tokens",
    ]
    place = torch.arange(6)
    near = ((place[:, None] - place).abs() <= 1).int().tolist()
    assert figure.axes[1].images[0].get_array().tolist() == near
    assert figure.axes[2].images[0].get_array().tolist() == [[1] * 6] * 6
    drawn = Anyformer(fields, replace(config, patterns=({"random": 1},)))
    assert len(draw_sight(drawn, batch).axes) == 6, "links are each layer's own"


def test_a_window_is_drawn_as_all_that_it_joins() -> None:
    fields = {"left": Ids(8, ("word",), max_len=50)}
    config = replace(SMALL, depth=2, patterns=({"compress": 2}, {"linformer": 3, "length": 9}))
    model = Anyformer(fields, config)
    assert has_sights(model)
    tokens = fields["left"].encode([1, 2, 3, 4, 5])
    figure = draw_sight(model, collate([{"left": tokens}], fields))
    assert [axes.get_title() for axes in figure.axes[1:]] == [
        "layer 1: one sample of 5 tokens, 2 of them as one key",
        "layer 2: one sample of 5 tokens as 3 keys",
    ]
    for axes in figure.axes[1:]:
        assert axes.images[0].get_array().tolist() == [[1] * 5] * 5
    causal = collate([{"left": tokens.at(torch.arange(5))}], fields)
    seen, _ = sight(model, causal)
    assert seen.int().tolist() == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1] * 5]
    # With one block, what is drawn is what a token hangs on, beside itself.
    model = Anyformer(fields, replace(config, depth=1, patterns=({"compress": 2},))).eval()
    redraw(model)
    rows = model.embeddings(causal).detach().requires_grad_()
    model.embeddings.forward = lambda batch: rows
    for i, hidden in enumerate(model(causal)[0]):
        (gradient,) = torch.autograd.grad(hidden.sum(), rows, retain_graph=True)
        hangs_on = gradient[0].abs().amax(1) > 1e-7
        assert torch.equal(hangs_on, seen[i] | (torch.arange(5) == i))

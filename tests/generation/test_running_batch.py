"""The rows of a generation: what `collate` would lay, and logits of the whole model run again."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

from anyformer.batch import Batch
from anyformer.generation import running_batch as rows
from anyformer.generation.config import GenerationConfig
from anyformer.generation.generator import Generator
from anyformer.generation.running_batch import Rows, penalize
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention import cache
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.packing import collate
from anyformer.tokens import Sample
from tests.helpers.witnesses import Ids, count, draw_ids, redraw

V = 11
FIELDS = {"bag": Ids(7), "text": Ids(V, ("word",), 30)}


def build(**choices) -> Generator:
    model = Anyformer(FIELDS, TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=10, **choices))
    head = nn.Linear(12, V)
    redraw(model)
    redraw(head)
    return Generator(model.eval(), head, "text")


def begun(generator: Generator, samples: list[Sample], n_each: int = 1) -> tuple[Rows, Tensor]:
    started = Rows(generator.parts, samples, GenerationConfig())
    return started, started.begin(n_each)


def prompt(ids: list[int], bag: int = 0) -> Sample:
    """A text that counts on from the bag, if there is one."""
    conditions = {"bag": FIELDS["bag"].encode([3] * bag)} if bag else {}
    return {**conditions, "text": count(FIELDS["text"].encode(ids), 1 if bag else 0)}


def whole(generator: Generator, samples: list[Sample]) -> Tensor:
    """The logits after each sample, run alone."""
    return torch.cat([generator.head(generator.model(collate([each], FIELDS))[:, -1]) for each in samples])


def test_a_batch_of_one_token_a_row_is_as_collate_lays_it() -> None:
    with torch.inference_mode():
        started, _ = begun(build(), [prompt([1, 2, 3], bag=2), prompt([4])])
        batches = [started._next([5, 6])]
        started.places, started.orders = ([each + 1 for each in of] for of in (started.places, started.orders))
        batches.append(started._next([7, 8]))
    for step, (batch, ids) in enumerate(zip(batches, ([5, 6], [7, 8]), strict=True)):
        samples = []
        for new, place, order in zip(ids, (3 + step, 1 + step), (4 + step, 1 + step), strict=True):
            tokens = FIELDS["text"].encode([0] * place + [new])
            last = FIELDS["text"].encode([new])
            last.position[:] = tokens.position[-1:]
            samples.append({"text": last.at(order)})
        expected = collate(samples, FIELDS)
        same_batch(batch, expected)


def same_batch(found: Batch, expected: Batch) -> None:
    for part, other in zip(found.layout, expected.layout, strict=True):
        assert torch.equal(part, other)
    own, other = asdict(found.fields["text"]), asdict(expected.fields["text"])
    assert own.keys() == other.keys()
    for name, value in own.items():
        assert torch.equal(value, other[name]) if isinstance(value, Tensor) else value == other[name], name
    for name in ("n_samples", "one_per_row", "padded", "orders", "relation"):
        assert getattr(found, name) == getattr(expected, name), name


@pytest.mark.parametrize(
    "relative", [None, RelativeConfig("alibi", "word"), RelativeConfig("t5", "word")], ids=["none", "alibi", "t5"]
)
@torch.inference_mode()
def test_rows_may_be_prefilled_selected_repeated_and_advanced(
    relative: RelativeConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "SPARE", 1)
    generator = build(relative=relative)
    ids, bags, shapes = [draw_ids(n) for n in (3, 7, 1, 6)], (2, 0, 0, 1), []
    generator.model.register_forward_hook(lambda module, given, out: shapes.append(tuple(given[0].shape)))
    started, logits = begun(generator, [prompt(*each) for each in zip(ids, bags, strict=True)], n_each=2)
    assert shapes == [(2, 7), (1, 5), (1, 1)], "rows of like length together, none of them padded"
    kept = [0, 0, 1, 1, 2, 2, 3, 3]
    torch.testing.assert_close(logits, whole(generator, [prompt(ids[i], bags[i]) for i in kept]), atol=1e-4, rtol=1e-4)
    new = list(range(8))
    started.advance(new)
    lines = [[*ids[i], token] for i, token in zip(kept, new, strict=True)]
    started.select([6, 1, 2])
    logits = started.advance([9, 8, 7])
    expected = [prompt([*lines[i], token], bags[kept[i]]) for i, token in ((6, 9), (1, 8), (2, 7))]
    torch.testing.assert_close(logits, whole(generator, expected), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_row_may_be_copied_to_another_of_its_prompt() -> None:
    generator = build()
    started, _ = begun(generator, [prompt([1, 2]), prompt([3, 4, 5])], n_each=2)
    started.advance([1, 2, 3, 4])
    started.copy([(0, 1), (3, 2)])
    logits = started.advance([5, 6, 7, 8])
    lines = ([1, 2, 1, 5], [1, 2, 1, 6], [3, 4, 5, 4, 7], [3, 4, 5, 4, 8])
    torch.testing.assert_close(logits, whole(generator, [prompt(own) for own in lines]), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_past_the_context_a_row_keeps_its_newest_half_and_others_all() -> None:
    generator = build()
    generator.context = 5
    started, _ = begun(generator, [prompt([1, 2, 3, 4, 5]), prompt([6, 7], bag=1)])
    for own, other, expected in (
        (8, 9, ([3, 4, 5, 8], [6, 7, 9])),
        (1, 2, ([3, 4, 5, 8, 1], [6, 7, 9, 2])),
    ):
        logits = started.advance([own, other])
        samples = [prompt(expected[0]), prompt(expected[1], bag=1)]
        torch.testing.assert_close(logits, whole(generator, samples), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_the_repetition_penalty_stays_with_its_text_when_rows_are_copied_leave_or_are_read_anew() -> None:
    generator = build()
    config = GenerationConfig(repetition_penalty=2.5)
    lines = [[1, 2], [1, 2], [3, 4, 5], [3, 4, 5]]

    def check(logits: Tensor) -> None:
        free = whole(generator, [prompt(own) for own in lines])
        for found, own, expected in zip(started.restrict(logits.clone(), lines), lines, free, strict=True):
            for seen in {*own}:
                expected[seen] = expected[seen] / 2.5 if expected[seen] > 0 else expected[seen] * 2.5
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    def advance(new: list[int]) -> None:
        for own, token in zip(lines, new, strict=True):
            own.append(token)
        check(started.advance(new))

    started = Rows(generator.parts, [prompt([1, 2]), prompt([3, 4, 5])], config)
    check(started.begin(2))
    advance([6, 7, 8, 9])
    started.copy([(0, 1), (3, 2)])
    lines[1], lines[2] = [*lines[0]], [*lines[3]]
    advance([1, 2, 3, 10])
    started.select([3, 1])
    lines[:] = [lines[3], lines[1]]
    advance([0, 5])
    started.select([1])
    lines[:] = [lines[1]]
    advance([8])


@torch.inference_mode()
def test_what_has_left_the_context_is_penalised_still() -> None:
    generator = build()
    generator.context = 5
    samples = [prompt([1, 2, 3, 4, 5]), prompt([6, 7])]
    started = Rows(generator.parts, samples, GenerationConfig(repetition_penalty=2.5))
    started.begin()
    logits = started.advance([8, 9])
    free = logits.clone()
    found = started.restrict(logits, [[8], [9]])
    for row, seen in enumerate(({1, 2, 3, 4, 5, 8}, {6, 7, 9})):
        moved = (found[row] != free[row]).nonzero().flatten().tolist()
        assert set(moved) == seen


def test_the_repetition_penalty_is_its_formula() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, -1.0, 3.0], [0.0, 0.1, 4.0, 0.2, -torch.inf]])
    history = torch.tensor([[0, 3, 0], [2, 2, 2]])
    expected = logits.clone()
    expected[0, 0] /= 1.7
    expected[0, 3] *= 1.7
    expected[1, 2] /= 1.7
    assert torch.equal(penalize(logits, history, 1.7), expected)


# Patterns


LOCAL = {"window": {"word": 6}}


BEAMS, DRAWN = {"n_beams": 3, "n_samples": 3}, {"temperature": 1.0, "n_samples": 2}


@pytest.mark.parametrize(
    ("patterns", "most", "options"),
    [
        ((LOCAL,), (50,), {}),
        ((LOCAL,), (50,), BEAMS),
        ((LOCAL,), (50,), DRAWN),
        ((LOCAL, {}), (50, 106), BEAMS),
        (({**LOCAL, "global": ["bag"], "random": 1},), (106, 106), {}),
        (({"compress": 4}, LOCAL), (58, 50), {}),
        (({"compress": 4},), (58,), BEAMS),
    ],
    ids=["greedy", "beams", "drawn", "local and everything", "random", "compressed", "compressed, beams"],
)
def test_what_no_token_will_see_leaves_the_cache_and_changes_nothing(
    patterns: tuple, most: tuple, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SPARE", 16)
    fields = {"bag": FIELDS["bag"], "text": Ids(V, ("word",), 300)}
    choices = {"d_head": 4, "rotary": RotaryConfig(("word",)), "patterns": patterns}
    model = Anyformer(fields, TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=10, **choices))
    head = nn.Linear(12, V)
    redraw(model)
    redraw(head)
    generator, held = Generator(model.eval(), head, "text"), []
    prompts, config = [prompt([1, 2, 3], bag=2), prompt([4])], GenerationConfig(max_new_tokens=102, **options)
    forget = Anyformer.forget

    def watched(self: Anyformer, batch: Batch, kept: cache.Cache) -> None:
        forget(self, batch, kept)
        held.append([len(track) for track in kept.tracks])

    monkeypatch.setattr(Anyformer, "forget", watched)
    ours = generator.generate(prompts, config)
    for track, bound in zip(zip(*held, strict=True), most, strict=False):
        assert max(track) <= bound
    assert held[-1][-1] == 106 or most[-1] < 106
    monkeypatch.setattr(Anyformer, "forget", lambda *_: None)
    theirs = generator.generate(prompts, config)
    assert [[each.ids for each in row] for row in ours] == [[each.ids for each in row] for row in theirs]
    assert all(len(each.ids) == 102 for row in ours for each in row)

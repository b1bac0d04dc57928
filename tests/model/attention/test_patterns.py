"""Windows, global tokens and random links: the rule by hand, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anyformer.batch import Batch
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.patterns import Drawn
from anyformer.model.attention.places import places_of
from anyformer.model.attention.visibility import visible
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from anyformer.tokens import Sample, TokenSet
from tests.helpers.patterns import CLASS, FIELDS, PATTERNS, by_hand, picture, samples, text
from tests.helpers.witnesses import by_sample, redraw


def build(*patterns: dict[str, Any], depth: int = 2, encoder: bool = False, **choices: Any) -> Anyformer:
    config = TransformerConfig(d_model=12, n_heads=3, depth=depth, d_ff=10, patterns=patterns, **choices)
    model = Anyformer(FIELDS, config, encoder=config if encoder else None)
    redraw(model)
    return model.eval()


def seen_in(model: Anyformer, batch: Batch, layer: int = 0) -> torch.Tensor:
    stack = model.transformer
    places = places_of(batch, model.embeddings.axes, stack.wanted)
    return visible(places, places, pattern=stack.patterns[stack.blocks[layer].pattern])


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_who_sees_whom_is_the_rule_by_hand_in_rows_of_their_own_and_packed(pattern: dict) -> None:
    model, every = build({}, pattern), samples()
    apart, packed = collate(every, FIELDS), collate(every, FIELDS, [0, 0, 1, 0])
    seen, together = seen_in(model, apart, 1), seen_in(model, packed, 1)
    start = 0
    for i, sample in enumerate(every):
        expected = by_hand(sample, pattern, layer=1)
        n = len(expected)
        assert torch.equal(seen[i, :n, :n], expected) and not seen[i, :, n:].any() and not seen[i, n:].any()
        assert expected.any(1).all(), "a token sees itself at least"
        if i != 2:
            assert torch.equal(together[0, start : start + n, start : start + n], expected)
            start += n


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@torch.no_grad()
def test_padded_packed_and_one_by_one_are_the_same(pattern: dict) -> None:
    model, every = build(pattern, {}), samples()
    outputs = [by_sample(batch, model(batch), [s]) for s in every for batch in [collate([s], FIELDS)]]
    for rows in (None, [0, 1, 0, 0]):
        batch = collate(every, FIELDS, rows)
        torch.testing.assert_close(
            by_sample(batch, model(batch), every), [one for (one,) in outputs], atol=1e-5, rtol=0
        )


def one_by_one(sample: Sample, first: int) -> list[Sample]:
    """The first tokens of a text with what stands before it, then a token at a time."""
    part, order = sample["text"], sample["text"].order
    cuts = [slice(0, first), *(slice(i, i + 1) for i in range(first, len(part)))]
    parts = [TokenSet(part.content[cut], part.position[cut], order[cut]) for cut in cuts]
    return [{**{n: p for n, p in sample.items() if n != "text"}, "text": parts[0]}, *({"text": p} for p in parts[1:])]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@torch.no_grad()
def test_cached_is_uncached_and_what_no_token_will_see_may_be_forgotten(
    pattern: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anyformer.model.attention.cache.SPARE", 1)
    model, cache = build(pattern, {}, depth=3), Cache()
    prompts = [{"picture": picture(2, 3), "text": text(24)}, {"text": text(24)}]
    whole = collate(prompts, FIELDS)
    expected = [part["text"] for part in by_sample(whole, model(whole), prompts)]
    ours: list[list] = [[], []]
    for step in zip(*(one_by_one(sample, 4) for sample in prompts), strict=True):
        batch = collate(step, FIELDS)
        for own, part in zip(ours, by_sample(batch, model(batch, cache=cache), step), strict=True):
            own.append(part["text"])
        for track in cache.tracks:
            track._full = 0
        if batch.shape[1] == 1:
            model.forget(batch, cache)
    torch.testing.assert_close([torch.cat(parts) for parts in ours], expected, atol=1e-5, rtol=0)
    kept, everything, *_ = map(len, cache.tracks)
    assert everything == 10 + 20, "a layer without a pattern keeps all"
    if "window" in pattern and "random" not in pattern and "word" in pattern["window"]:
        assert kept < 20
    else:
        assert kept == everything


@torch.no_grad()
def test_an_encoder_may_have_patterns_too() -> None:
    model = build({"window": {"word": 1}}, encoder=True)
    conditions, texts = [{"text": text(9).at(0)}, {"text": text(5).at(0)}], [{"text": text(4)}, {"text": text(6)}]
    batch, read = collate(texts, FIELDS), collate(conditions, FIELDS)
    hidden = by_sample(batch, model(batch, read), texts)
    for own, condition, output in zip(texts, conditions, hidden, strict=True):
        (alone,) = model(collate([own], FIELDS), collate([condition], FIELDS))
        torch.testing.assert_close(output["text"], alone, atol=1e-5, rtol=0)
    memory = model.encode(read)
    far = conditions[0]["text"].content.clone()
    far[8] = (far[8] + 1) % 11
    moved = {"text": TokenSet(far, conditions[0]["text"].position)}
    changed = (model.encode(collate([moved, conditions[1]], FIELDS)) - memory).abs().amax(2)[0] > 1e-6
    assert changed.tolist() == [False] * 6 + [True] * 3, "two layers reach two words far"


# Random links


def test_links_are_a_function_of_seed_layer_and_place_alone() -> None:
    targets = Drawn(3, 7, 2).targets(torch.arange(50))
    assert torch.equal(targets[17], Drawn(3, 7, 2).targets(torch.tensor(17)))
    for place, row in enumerate(targets.tolist()):
        links = [link for link in row if link >= 0]
        assert len(set(links)) == len(links) == min(place, 3) and all(0 <= link < place for link in links)
    for other in (Drawn(3, 8, 2), Drawn(3, 7, 1)):
        assert (other.targets(torch.arange(50))[10:] != targets[10:]).float().mean() > 0.5
    spread = Drawn(2, 0, 0).targets(torch.arange(4000)) / torch.arange(4000).clamp(min=1)[:, None]
    # Uniform in its half of what is earlier.
    assert spread[100:].mean(0).tolist() == pytest.approx([0.25, 0.75], abs=0.02)
    # In every process and release.
    assert targets[[17, 49]].tolist() == [[2, 10, 12], [3, 22, 45]]


# What cannot be


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            {"window": {"wrod": 3}},
            r"transformer\.patterns\.0\.window: no field has the axis 'wrod'; there are word, .*",
        ),
        ({"global": ["clas"]}, r"transformer\.patterns\.0\.global: there is no field 'clas', but .*'class'\?"),
        ({"global": {"txt": 2}}, r"transformer\.patterns\.0\.global: there is no field 'txt'"),
        ({"random": 9000}, r"transformer\.patterns\.0\.random: 9000 links a token are more than the other 8192 places"),
        ({"random": 200, "block": 64}, r"200 links a token are more than the other 128 blocks of 64 places"),
        ({"random": 0}, r"patterns\.0\.random must be at least 1, got 0"),
        ({"random": [[0], [2]]}, r"patterns\.0\.random\.1 must name places of the table, 0 to 1, got 2"),
        ({"random": []}, r"patterns\.0\.random must name at least a link, or be left out"),
        ({"window": {}}, r"patterns\.0\.window must name at least an axis, or be left out"),
        ({"window": {"word": -1}}, r"patterns\.0\.window\.word must be at least 0, got -1"),
        ({"global": {"text": 0}}, r"patterns\.0\.global\.text must be at least 1, or null for all its tokens, got 0"),
        ({"window": {"word": 1}, "block": 0}, r"patterns\.0\.block must be at least 1, got 0"),
        ({"random": 1, "seed": -1}, r"patterns\.0\.seed must be at least 0, got -1"),
        ({"windw": {"word": 1}}, r"patterns\.0 has no 'windw', but window, .*; did you mean 'window'"),
    ],
    ids=str,
)
def test_a_pattern_that_cannot_be(pattern: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(pattern)


def test_there_are_no_more_patterns_than_layers() -> None:
    with pytest.raises(InputError, match=r"patterns must be at most one for each of the 2 layers, got 3"):
        build({}, {}, {})
    assert CLASS.n == 1 and len(build({}, {"random": 1}, depth=4).transformer.patterns) == 3, "links are a layer's own"

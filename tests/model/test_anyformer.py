"""The laws of the whole: token sets in, hidden vectors out. Nothing here depends on what a field means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from anyformer.batch import Batch, read_before
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.sight import Sight
from anyformer.model.by_field import module_name
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.packing import collate
from anyformer.tokens import Sample, Tokenizer, TokenSet
from tests.helpers.witnesses import Ids, Vectors, by_sample, count, draw_ids, redraw

BAG, PICTURE, TEXT = Ids(7), Vectors(3, ("row", "column"), (2, 5)), Ids(11, ("word",))
CLASS = LearnedTokens(2, placed=True)
FIELDS = {"bag": BAG, "picture": PICTURE, "text": TEXT, "class": CLASS}
"""A set without positions, a grid, a row of words, and class tokens."""
GRAPH = Ids(5, n_relations=3)

VARIANTS: dict[str, dict] = {
    "plain": {},
    "rotary": {"rotary": RotaryConfig(("word",))},
    "grouped": {"n_heads": 6, "n_kv_heads": 2, "d_head": 4, "qk_norm": "rmsnorm", "norm": "rmsnorm", "gated": True},
    "alibi": {"relative": RelativeConfig("alibi", "word")},
    "t5": {"relative": RelativeConfig("t5", "word", n_buckets=6, max_distance=5)},
    "post-norm": {"norm_position": "post", "layer_scale": 1.0, "activation": "silu"},
}
"""Choices of the transformer that every law is tried with."""


def build(
    tokenizers: dict[str, Tokenizer] = FIELDS,
    embedding: EmbeddingConfig = EmbeddingConfig(),
    encoder: bool = False,
    sees: dict | None = None,
    **choices,
) -> Anyformer:
    """A small model, redrawn, in eval mode."""
    config = TransformerConfig(**{"d_model": 12, "n_heads": 3, "depth": 2, "d_ff": 10, **choices})
    reader = replace(config, depth=1, activation="relu") if encoder else None
    model = Anyformer(tokenizers, config, embedding, reader, sees)
    redraw(model)
    return model.eval()


def picture(n_rows: int, n_columns: int) -> TokenSet:
    return PICTURE.encode(torch.randn(n_rows, n_columns, 3))


def text(n: int) -> TokenSet:
    return TEXT.encode(draw_ids(n))


def mixed_samples() -> list[Sample]:
    """Three samples of other lengths and fields: pictures and bags as conditions, texts one token after another."""
    everything = CLASS.encode()
    return [
        {"bag": BAG.encode([3, 1, 4, 1]), "text": count(text(3)), "class": everything.at(3)},
        {"picture": picture(2, 3), "text": count(text(5))},
        {"bag": BAG.encode([2]), "picture": picture(1, 4), "class": everything},
    ]


def assert_close(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]]) -> None:
    """Every field of every sample, to 1e-5."""
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def gradients(model: Anyformer, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter. Fails where one has none."""
    model.zero_grad()
    loss.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing, f"no gradient, not even 0: {missing}"
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


# Sets


@pytest.mark.parametrize("others", ["alone", "beside a text"])
def test_permuting_a_set_without_positions_permutes_its_outputs(others: str) -> None:
    model = build()
    rest = {} if others == "alone" else {"text": count(text(3))}
    ids, shuffled = torch.tensor([3, 1, 4, 1, 5, 2]), torch.tensor([4, 0, 5, 2, 1, 3])
    straight, moved = ({"bag": BAG.encode(order), **rest} for order in (ids.tolist(), ids[shuffled].tolist()))
    ours, theirs = (
        by_sample(batch, model(batch), [straight])[0] for batch in (collate([s], FIELDS) for s in (straight, moved))
    )
    torch.testing.assert_close(ours["bag"][shuffled], theirs["bag"], atol=1e-5, rtol=1e-5)
    if rest:
        torch.testing.assert_close(ours["text"], theirs["text"], atol=1e-5, rtol=1e-5)
    assert (ours["bag"][0] - ours["bag"][2]).abs().max() > 0.1, "tokens of other content have other outputs"


def test_tokens_with_positions_may_come_in_any_sequence() -> None:
    model, tokens = build(), picture(2, 5)
    shuffled = torch.randperm(10)
    moved = TokenSet(tokens.content[shuffled], tokens.position[shuffled], extent=(2, 5))
    ours, theirs = (model(collate([{"picture": each}], FIELDS)) for each in (tokens, moved))
    assert torch.equal(ours, theirs), "the layout puts them back into the sequence of their positions"


# Order


def episode(n_steps: int) -> Sample:
    """Return, state and action of each step, three orders a step."""
    step = torch.arange(n_steps)
    return {
        name: replace(PICTURE.encode(torch.randn(1, n_steps, 3)), order=3 * step + place)
        for place, name in enumerate(("return", "state", "action"))
    }


def frames(n: int) -> TokenSet:
    """n frames of two tokens each, one after another."""
    return replace(picture(2, n), order=torch.arange(n).repeat(2))


EPISODE = dict.fromkeys(("return", "state", "action"), PICTURE)
ORDERED = {
    "a causal text": (FIELDS, lambda: [{"text": count(text(6))}]),
    "causal texts of unlike length": (FIELDS, lambda: [{"text": count(text(6))}, {"text": count(text(3))}]),
    "a prefix language model": (FIELDS, lambda: [{"picture": picture(2, 3), "text": count(text(5))}]),
    "an episode": (EPISODE, lambda: [episode(4)]),
    "frame by frame": (FIELDS, lambda: [{"picture": frames(4)}]),
}
"""Samples whose tokens come one after another."""


def change(tokens: TokenSet, which: Tensor) -> TokenSet:
    """The same tokens with other content where `which` (n,) says so."""
    content = tokens.content.clone()
    content[which] = (content[which] + 1) % 5 if content.dtype == torch.int64 else content[which] + 1.0
    return replace(tokens, content=content)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("packed", [False, True], ids=["rows", "packed"])
@pytest.mark.parametrize("what", ORDERED)
def test_a_later_order_never_changes_an_earlier_output(what: str, packed: bool, variant: str) -> None:
    fields, make = ORDERED[what]
    samples = make()
    rows = [0] * len(samples) if packed else None
    choices = VARIANTS[variant] if "text" in fields else {}
    model = build(fields, **choices)
    batch = collate(samples, fields, rows)
    before = model(batch)
    for order in range(1, batch.orders[1] + 1):
        later = [{name: change(tokens, tokens.order >= order) for name, tokens in sample.items()} for sample in samples]
        after = model(collate(later, fields, rows))
        earlier = (batch.layout.order < order) & (batch.layout.segment > 0)
        assert torch.equal(before[earlier], after[earlier])
        assert not torch.equal(before[~earlier], after[~earlier])


PREDICTED = {
    "a causal text": (FIELDS, "text", lambda: [{"text": count(text(6), 0)}]),
    "a prefix language model": (FIELDS, "text", lambda: [{"bag": BAG.encode([1, 2, 3]), "text": count(text(5))}]),
    "packed prefix language models": (
        FIELDS,
        "text",
        lambda: [{"bag": BAG.encode([1, 2, 3]), "text": count(text(5))}, {"text": count(text(4), 0)}],
    ),
    "frames of two tokens": (FIELDS, "picture", lambda: [{"picture": frames(4)}, {"picture": frames(3)}]),
    "a return": (EPISODE, "return", lambda: [episode(4)]),
    "a state": (EPISODE, "state", lambda: [episode(4)]),
    "an action": (EPISODE, "action", lambda: [episode(4)]),
}
"""Fields, which of them is the target, and samples."""


def loss_terms(model: Anyformer, batch: Batch, target: str) -> tuple[Tensor, Tensor]:
    """(r,) terms of a loss of each predicted token's content, and which tokens they are."""
    places, tokens = read_before(batch, target)
    read = model(batch).flatten(0, 1)[places]
    wanted = batch.fields[target].content[tokens].reshape(len(tokens), -1).sum(1)
    return (read.square().sum(1) - wanted).square(), tokens


@pytest.mark.parametrize("what", PREDICTED)
def test_a_target_never_changes_the_loss_before_it(what: str) -> None:
    fields, target, make = PREDICTED[what]
    model, samples = build(fields), make()
    rows = [0] * len(samples)
    batch = collate(samples, fields, rows)
    terms, tokens = loss_terms(model, batch, target)
    assert len(terms) >= 3
    own = batch.fields[target]
    order, sample = batch.layout.order.flatten()[own.index][tokens], own.sample[tokens]
    for j, when in enumerate(samples[0][target].order):
        changed = {**samples[0], target: change(samples[0][target], torch.arange(len(samples[0][target])) == j)}
        after, _ = loss_terms(model, collate([changed, *samples[1:]], fields, rows), target)
        before_j = ((sample > 0) | (order <= when)) & (tokens != j)
        assert torch.equal(terms[before_j], after[before_j])
        about_j = tokens == j
        assert not about_j.any() or not torch.equal(terms[about_j], after[about_j]), "its own term is about it"


@pytest.mark.parametrize("what", PREDICTED)
def test_a_target_is_never_read_for_its_own_prediction(what: str) -> None:
    fields, target, make = PREDICTED[what]
    model, samples = build(fields), make()
    batch = collate(samples, fields, [0] * len(samples))
    lifted: list[Tensor] = []
    # What the content of each token becomes; its gradient tells whether a term has read it.
    model.embeddings.lifts[target].register_forward_hook(
        lambda module, given, out: lifted.append(out.detach().requires_grad_()) or lifted[-1]
    )
    terms, tokens = loss_terms(model, batch, target)
    read_at_all = torch.zeros(len(lifted[0]), dtype=torch.bool)
    for term, token in zip(terms, tokens, strict=True):
        gradient = torch.autograd.grad(term, lifted[0], retain_graph=True)[0]
        assert torch.equal(gradient[token], torch.zeros_like(gradient[token]))
        read_at_all |= gradient.abs().sum(1) > 0
    own = batch.fields[target]
    order = batch.layout.order.flatten()[own.index]
    latest = torch.stack([order[own.sample == i].max() for i in range(len(samples))])
    assert torch.equal(read_at_all, order < latest[own.sample]), "all but the latest are read for later ones"


# Padding, packing, one by one


LAYOUTS = {
    "padded": {},
    "padded further": {"length": 17},
    "packed in one row": {"rows": [0, 0, 0]},
    "packed in two rows": {"rows": [1, 0, 1], "length": 23},
}


def sums(model: Anyformer, batches: Sequence[tuple], samples: Sequence[Sequence[Sample]]) -> tuple[list, dict]:
    """Outputs by sample and the gradients of a loss that is the sum over all tokens."""
    outputs, loss = [], torch.zeros(())
    for batch, of_batch in zip(batches, samples, strict=True):
        outputs += by_sample(batch[0], model(*batch), of_batch)
    for sample in outputs:
        for vectors in sample.values():
            loss = loss + (vectors * torch.linspace(-1, 1, vectors.numel()).view_as(vectors)).sum()
    return outputs, gradients(model, loss)


@pytest.mark.parametrize("variant", [*VARIANTS, "relations", "encoder and decoder", "all see all"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_padding_and_packing_change_nothing(layout: str, variant: str) -> None:
    fields, samples, conditions = dict(FIELDS), mixed_samples(), None
    if variant == "relations":
        fields["graph"] = GRAPH
        samples[0]["graph"], samples[2]["graph"] = GRAPH.encode([0, 3, 2]), GRAPH.encode([4, 1]).at(1)
    if variant == "all see all":
        samples = [{name: tokens.at(0) for name, tokens in sample.items()} for sample in samples]
    if variant == "encoder and decoder":
        samples = [{"text": count(text(n))} for n in (3, 5, 2)]
        conditions = [{"picture": picture(2, 3)}, {"bag": BAG.encode([2])}, {"picture": picture(1, 4)}]
    model = build(fields, encoder=conditions is not None, **VARIANTS.get(variant, {}))

    alone = [(collate([sample], fields),) for sample in samples]
    together = (collate(samples, fields, **LAYOUTS[layout]),)
    if conditions is not None:
        alone = [(*batch, collate([condition], fields)) for batch, condition in zip(alone, conditions, strict=True)]
        together += (collate(conditions, fields, **LAYOUTS[layout]),)
    theirs, their_gradients = sums(model, alone, [[sample] for sample in samples])
    ours, our_gradients = sums(model, [together], [samples])
    assert_close(ours, theirs)
    largest = max(gradient.abs().max() for gradient in their_gradients.values())
    for name, gradient in our_gradients.items():
        assert (gradient - their_gradients[name]).abs().max() < 1e-5 * largest.clamp(max=1.0), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_sample_never_changes_its_neighbour_in_the_row(variant: str) -> None:
    model, samples = build(**VARIANTS[variant]), mixed_samples()
    rows = [0, 0, 0]
    batch = collate(samples, FIELDS, rows)
    before = by_sample(batch, model(batch), samples)
    turned = {
        name: replace(tokens, order=tokens.order.flip(0) + 1, position=tokens.position.flip(0))
        for name, tokens in samples[1].items()
    }
    other = {name: change(tokens, tokens.order >= 0) for name, tokens in turned.items()}
    changed = [samples[0], other, samples[2]]
    batch = collate(changed, FIELDS, rows)
    after = by_sample(batch, model(batch), changed)
    for i in (0, 2):
        for name in samples[i]:
            assert torch.equal(before[i][name], after[i][name])
    assert not torch.equal(before[1]["text"], after[1]["text"])


@pytest.mark.parametrize("variant", [*VARIANTS, "relations"])
@pytest.mark.parametrize("orders", ["all see all", "causal", "mixed"])
def test_a_padded_place_gives_0_and_never_nan(orders: str, variant: str) -> None:
    fields = {**FIELDS, "graph": GRAPH} if variant == "relations" else FIELDS
    model = build(fields, **VARIANTS.get(variant, {}))
    samples = {
        "all see all": [{"text": text(5)}, {"text": text(2)}, {}],
        "causal": [{"text": count(text(5))}, {"text": count(text(2))}, {}],
        "mixed": [*mixed_samples(), {}],
    }[orders]
    batch = collate(samples, fields, length=15)
    hidden = model(batch)
    padded = batch.layout.segment == 0
    assert padded[-1].all()
    assert torch.equal(hidden[padded], torch.zeros_like(hidden[padded]))
    assert hidden.isfinite().all() and (hidden[~padded].abs().amax(1) > 0).all()
    assert all(gradient.isfinite().all() for gradient in gradients(model, hidden.square().sum()).values())


@pytest.mark.parametrize("kind", ["everything", "causal"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_fast_paths_give_what_the_mask_gives(kind: str, variant: str) -> None:
    model = build(**VARIANTS[variant])
    samples = [{"text": text(5)}] * 3 if kind == "everything" else [{"text": count(text(n))} for n in (5, 2, 4)]
    batch = collate(samples, FIELDS)
    assert batch.kind == kind
    ours, theirs = model(batch), model(replace(batch, kind="dense"))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (model(replace(batch, kind="causal" if kind == "everything" else "everything")) - theirs).abs().max() > 0.1


# Visibility between fields


def test_sees_says_which_fields_a_field_may_look_at() -> None:
    model = build(depth=1, sees={"text": ["text", "bag"], "picture": ["picture"]})
    sample = {"bag": BAG.encode([1, 2]), "picture": picture(1, 3), "text": text(4)}

    def run(**changed: TokenSet) -> dict[str, Tensor]:
        batch = collate([{**sample, **changed}], FIELDS)
        return by_sample(batch, model(batch), [sample])[0]

    before = run()
    for changed, moved in {"bag": {"bag", "text"}, "picture": {"bag", "picture"}, "text": {"bag", "text"}}.items():
        tokens = sample[changed]
        after = run(**{changed: change(tokens, tokens.order >= 0)})
        assert {name for name in sample if not torch.equal(before[name], after[name])} == moved


def test_sees_names_known_fields() -> None:
    with pytest.raises(InputError, match="sees names the field 'txt', which is not among bag, picture, text, class"):
        build(sees={"text": ["txt"]})


# The cache


def steps(samples: Sequence[Sample], bounds: Sequence[int]) -> list[list[Sample]]:
    """The samples cut at orders: the tokens below the first bound, those below the second, ..."""

    def cut(tokens: TokenSet, low: int, high: int) -> TokenSet:
        inside = (tokens.order >= low) & (tokens.order < high)
        relation = None if tokens.relation is None else tokens.relation[inside][:, inside]
        content, position = tokens.content[inside], tokens.position[inside]
        return TokenSet(content, position, tokens.order[inside], relation, (len(content),))

    return [
        [{name: cut(tokens, low, high) for name, tokens in sample.items()} for sample in samples]
        for low, high in zip([0, *bounds], [*bounds, 1_000], strict=False)
    ]


GROWING = {
    "a causal text": lambda: [{"text": count(text(7), 0)}],
    "texts of unlike length": lambda: [{"text": count(text(n), 0)} for n in (7, 2, 5)],
    "prefixes of unlike length": lambda: [
        {"picture": picture(2, 2), "text": count(text(6))},
        {"bag": BAG.encode([3, 1]), "text": count(text(4))},
        {"text": count(text(6))},
    ],
}


@pytest.mark.parametrize("variant", [*VARIANTS, "relations", "encoder and decoder"])
@pytest.mark.parametrize("bounds", [(1, 2, 3, 4, 5, 6), (2, 5), (3, 4, 6)], ids=str)
@pytest.mark.parametrize("what", GROWING)
@torch.no_grad()
def test_a_cache_changes_nothing(what: str, bounds: tuple[int, ...], variant: str) -> None:
    fields, samples, conditions = dict(FIELDS), GROWING[what](), None
    if variant == "relations":
        fields["graph"] = GRAPH
        samples[0]["graph"] = GRAPH.encode([0, 3, 2]).at(2)  # behind cached tokens
    if variant == "encoder and decoder":
        conditions = [{"picture": picture(1, n + 1)} for n in range(len(samples) - 1)] + [{}]
    model = build(fields, encoder=conditions is not None, **VARIANTS.get(variant, {}))
    encoded = None if conditions is None else collate(conditions, fields)
    whole = collate(samples, fields)
    theirs = by_sample(whole, model(whole, encoded), samples)

    cache, ours = Cache(), [{name: [] for name in sample} for sample in samples]
    runs = []
    for block in model.transformer.blocks if encoded is not None else ():
        block.cross.k.register_forward_hook(lambda *_: runs.append(1))
    for part in steps(samples, bounds):
        batch = collate(part, fields)
        outputs = by_sample(batch, model(batch, encoded, cache), part)
        encoded = None
        for collected, output in zip(ours, outputs, strict=True):
            for name, vectors in output.items():
                collected[name].append(vectors)
    assert_close([{name: torch.cat(parts) for name, parts in sample.items()} for sample in ours], theirs)
    assert len(runs) == (len(model.transformer.blocks) if conditions is not None else 0), "memory is projected once"


@torch.no_grad()
def test_a_cache_keeps_packed_samples_apart() -> None:
    model, samples, rows = build(), [{"text": count(text(n), 0)} for n in (4, 6, 3)], [0, 1, 0]
    whole = collate(samples, FIELDS, rows)
    cache, ours = Cache(), [[] for _ in samples]
    for part in steps(samples, (2, 3, 5)):
        batch = collate(part, FIELDS, rows)
        for collected, output in zip(ours, by_sample(batch, model(batch, cache=cache), part), strict=True):
            collected.append(output["text"])
    assert_close([{"text": torch.cat(parts)} for parts in ours], by_sample(whole, model(whole), samples))


@torch.no_grad()
def test_a_single_new_token_behind_a_plain_cache_needs_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache = build(), Cache()
    sights: list[Sight] = []
    run = model.transformer.forward
    monkeypatch.setattr(
        model.transformer, "forward", lambda x, context, *args: sights.extend(context.sights) or run(x, context, *args)
    )
    for part in steps([{"text": count(text(5), 0)}] * 2, (2, 3, 4)):
        model(collate(part, FIELDS), cache=cache)
    assert [(sight.mask is None, sight.causal) for sight in sights] == [(True, True), *[(True, False)] * 3]


def test_a_cache_says_when_the_rows_changed() -> None:
    model, cache = build(), Cache()
    with torch.no_grad():
        model(collate([{"text": text(3)}] * 2, FIELDS), cache=cache)
        with pytest.raises(ValueError, match="the cache holds 2 rows, got 1"):
            model(collate([{"text": text(3)}], FIELDS), cache=cache)


# Encoder and decoder


def test_a_decoder_row_without_conditions_has_finite_outputs_and_gradients() -> None:
    model = build(encoder=True)
    samples = [{"text": count(text(4))}, {"text": count(text(2))}]
    batch, conditions = collate(samples, FIELDS), collate([{"picture": picture(2, 3)}, {}], FIELDS)
    hidden = model(batch, conditions)
    assert hidden.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients(model, hidden.square().sum()).values())
    # What it gets from the memory is the projection of 0: the bias alone.
    alone = model(collate(samples[1:], FIELDS), collate([{}], FIELDS))
    torch.testing.assert_close(hidden[1, :2], alone[0], atol=1e-5, rtol=1e-5)
    other = model(batch, collate([{"picture": picture(2, 3)}, {}], FIELDS))
    assert torch.equal(hidden[1], other[1]) and not torch.equal(hidden[0], other[0])


@pytest.mark.parametrize("widths", [(3, 1), (2, 2)], ids=["padded", "alike"])
def test_conditions_are_encoded_once_where_the_memory_is_given(widths: tuple[int, int]) -> None:
    # Of conditions without padding no mask is made.
    model, texts = build(encoder=True), [{"text": count(text(n))} for n in (4, 2)]
    pictures = [{"picture": picture(2, n)} for n in widths]
    batch, conditions = collate(texts, FIELDS), collate(pictures, FIELDS)
    memory = model.encode(conditions)
    hidden = model(batch, conditions, memory=memory)
    assert torch.equal(hidden, model(batch, conditions))
    assert not torch.allclose(hidden, model(batch, conditions, memory=memory + 1))
    for i, (own, condition) in enumerate(zip(texts, pictures, strict=True)):
        (alone,) = model(collate([own], FIELDS), collate([condition], FIELDS))
        torch.testing.assert_close(hidden[i, : len(alone)], alone, atol=1e-5, rtol=1e-5)
    assert torch.equal(hidden[1, 2:], torch.zeros(2, 12)), "padding is 0 though nothing hides the memory from it"


def test_a_condition_of_any_order_is_seen_by_the_whole_target() -> None:
    model = build(encoder=True)
    batch = collate([{"text": count(text(4))}], FIELDS)
    conditions = {"picture": picture(1, 5).at(torch.arange(5))}
    before = model(batch, collate([conditions], FIELDS))
    last = {"picture": change(conditions["picture"], torch.arange(5) == 4)}
    after = model(batch, collate([last], FIELDS))
    assert ((before - after).abs().amax(2) > 1e-4).all()


@pytest.mark.parametrize("rows", [None, [0, 0], [1, 0]], ids=["padded", "packed", "a row each"])
@pytest.mark.parametrize("n_samples", [1, 2])
def test_a_decoder_sees_the_conditions_that_sees_names_and_these_whatever_their_order(
    n_samples: int, rows: list[int] | None
) -> None:
    model = build(encoder=True, sees={"text": ["text", "bag"], "bag": ["bag"], "picture": ["picture"]})
    texts = [{"text": count(text(n))} for n in (4, 2)][:n_samples]
    given = [{"bag": count(BAG.encode([1] * n)), "picture": count(picture(1, 6 - n))} for n in (2, 5)][:n_samples]
    batch = collate(texts, FIELDS, rows and rows[:n_samples])

    def run(conditions: list[Sample]) -> list[Tensor]:
        hidden = model(batch, collate(conditions, FIELDS, rows and rows[:n_samples]))
        return [sample["text"] for sample in by_sample(batch, hidden, texts)]

    before = run(given)
    for i, own in enumerate(given):
        hidden_away = {**own, "picture": change(own["picture"], own["picture"].order > 0)}
        after = run([*given[:i], hidden_away, *given[i + 1 :]])
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
        latest = {**own, "bag": change(own["bag"], own["bag"].order == own["bag"].order.max())}
        after = run([*given[:i], latest, *given[i + 1 :]])
        for j, (one, other) in enumerate(zip(before, after, strict=True)):
            assert ((one - other).abs().amax(1) > 1e-4).all() if i == j else torch.equal(one, other)


@pytest.mark.parametrize("rows", [None, [0, 0]], ids=["a row each", "packed"])
@pytest.mark.parametrize("sees", [None, {"text": ["text", "bag"]}], ids=["everything", "by field"])
@pytest.mark.parametrize("sizes", [(3, 3), (1, 4)], ids=["alike", "padded"])
@torch.no_grad()
def test_with_a_cache_a_decoder_sees_the_same_of_the_conditions(
    sizes: tuple[int, int], sees: dict | None, rows: list[int] | None
) -> None:
    model, cache = build(encoder=True, sees=sees), Cache()
    samples = [{"text": count(text(5))} for _ in sizes]
    conditions = [{"bag": count(BAG.encode(draw_ids(n, 7))), "picture": count(picture(1, 4))} for n in sizes]
    encoded = collate(conditions, FIELDS, rows)
    whole = collate(samples, FIELDS, rows)
    theirs = by_sample(whole, model(whole, encoded), samples)
    ours: list[list[Tensor]] = [[] for _ in samples]
    for number, part in enumerate(steps(samples, (3, 4, 5))):
        batch = collate(part, FIELDS, rows)
        hidden = model(batch, None if number else encoded, cache)
        for collected, output in zip(ours, by_sample(batch, hidden, part), strict=True):
            collected.append(output["text"])
    assert_close([{"text": torch.cat(parts)} for parts in ours], theirs)


def test_each_stack_has_its_own_heads_rotary_and_relations() -> None:
    fields = {**FIELDS, "graph": GRAPH}
    decoder = TransformerConfig(d_model=12, n_heads=3, depth=1, rotary=RotaryConfig(("word",)))
    reader = TransformerConfig(d_model=12, n_heads=2, d_head=8, depth=1, rotary=RotaryConfig(("row", "column")))
    model = Anyformer(fields, decoder, EmbeddingConfig(positions=[]), reader)
    redraw(model)
    batch = collate([{"text": count(text(4))}], fields)
    sample = {"picture": picture(2, 3), "graph": GRAPH.encode([1, 2, 3])}
    here = model.encode(collate([sample], fields))
    turned = replace(sample["picture"], position=2 * sample["picture"].position)
    there = model.encode(collate([{**sample, "picture": turned}], fields))
    assert (here - there).abs().max() > 0.01, "the encoder turns by its own axes"
    gradient = gradients(model, model(batch, collate([sample], fields)).square().sum())
    assert gradient["encoder_relation_bias.table"].any() and not gradient["relation_bias.table"].any()
    assert gradient["encoder_relation_bias.table"].shape == (3, 2) and gradient["relation_bias.table"].shape == (3, 3)


def test_cross_attention_needs_conditions() -> None:
    model = build(encoder=True)
    with pytest.raises(ValueError, match="needs conditions, at least in the first call with a cache"):
        model(collate([{"text": text(3)}], FIELDS))


@torch.no_grad()
def test_a_cache_takes_conditions_once() -> None:
    model, cache = build(encoder=True), Cache()
    conditions = collate([{"picture": picture(1, 5)}], FIELDS)
    first, second = (collate(part, FIELDS) for part in steps([{"text": count(text(4), 0)}], (2,)))
    model(first, conditions, cache)
    with pytest.raises(ValueError, match="the cache already holds the conditions; give them in its first call only"):
        model(second, conditions, cache)


@pytest.mark.parametrize("sees", [None, {"picture": ["picture"]}], ids=["everything", "by field"])
@pytest.mark.parametrize("lengths", [(5, 5), (5, 3)], ids=["plain", "padded"])
@torch.no_grad()
def test_rows_that_share_a_memory_see_what_each_would_alone(lengths: tuple[int, int], sees: dict | None) -> None:
    """Three continuations of each of two samples, of which the second goes on alone at last."""
    model, cache = build(encoder=True, sees=sees), Cache()
    conditions = [{"picture": picture(1, n)} for n in lengths]
    begun = [draw_ids(2) for _ in conditions]
    samples = [{"text": count(TEXT.encode([*ids, *draw_ids(2)]), 0)} for ids in begun for _ in range(3)]
    start, second, third = steps(samples, (2, 3))
    every = [condition for condition in conditions for _ in range(3)]
    whole = model(collate(samples, FIELDS), collate(every, FIELDS))
    model(collate(start[::3], FIELDS), collate(conditions, FIELDS), cache)
    cache.select(torch.tensor([0, 0, 0, 1, 1, 1]), sharing=3)
    assert len(cache.memory[0][0]) == 2, "held once"
    torch.testing.assert_close(model(collate(second, FIELDS), cache=cache), whole[:, 2:3])
    cache.select(torch.tensor([3, 4, 5]), sharing=3)
    torch.testing.assert_close(model(collate(third[3:], FIELDS), cache=cache), whole[3:, 3:])


def test_the_two_stacks_have_one_width() -> None:
    decoder = TransformerConfig(d_model=12, n_heads=3, depth=1)
    with pytest.raises(InputError, match=r"encoder.d_model must be the decoder's 12, got 16"):
        Anyformer(FIELDS, decoder, encoder=replace(decoder, n_heads=4, d_model=16))


def test_a_transformer_has_cross_attention_where_there_is_an_encoder() -> None:
    for has_encoder in (False, True):
        parts = {
            name.split(".")[2]
            for name, _ in build(encoder=has_encoder).transformer.named_parameters()
            if "blocks" in name
        }
        assert ("cross" in parts) is has_encoder


# Absent fields


@pytest.mark.parametrize("absent", [*FIELDS, "graph", "all"])
@pytest.mark.parametrize("encoder", [False, True], ids=["one stack", "encoder and decoder"])
def test_an_absent_field_has_zero_gradients(absent: str, encoder: bool) -> None:
    fields = {**FIELDS, "graph": GRAPH}
    model = build(fields, EmbeddingConfig(norm=True), encoder, first_norm=True, layer_scale=1.0)
    sample = {
        "bag": BAG.encode([3, 1, 4]),
        "picture": picture(2, 3),
        "text": count(text(3)),
        "graph": GRAPH.encode([0, 3, 2]),
        "class": CLASS.encode(),
    }
    sample = {} if absent == "all" else {name: tokens for name, tokens in sample.items() if name != absent}
    batch = collate([sample], fields)
    hidden = model(batch, batch if encoder else None)
    own = {f"lifts.{module_name(absent)}.", f"types.{module_name(absent)}"}
    own |= {"text": {"positions.1."}, "picture": {"positions.0."}, "class": {"positions.2."}}.get(absent, set())
    own |= {"relation_bias."} if absent == "graph" else set()
    zero = set()
    for name, gradient in gradients(model, hidden.square().sum()).items():
        assert gradient.isfinite().all()
        if not gradient.any():
            zero.add(name)
    belongs = {name for name, _ in model.named_parameters() if any(part in name for part in own)}
    assert belongs <= zero if absent != "all" else zero == {name for name, _ in model.named_parameters()}
    # Keys' biases move no weight of attention, so theirs is 0 up to rounding anyway.
    assert absent == "all" or {name for name in zero - belongs if not name.endswith("k.bias")} == set()


@pytest.mark.parametrize("absent", [*FIELDS, "graph"])
@pytest.mark.parametrize("encoder", [False, True], ids=["one stack", "encoder and decoder"])
@pytest.mark.parametrize("packed", [False, True], ids=["a row each", "packed"])
def test_an_absent_field_changes_nothing_for_the_others(absent: str, encoder: bool, packed: bool) -> None:
    fields = {**FIELDS, "graph": GRAPH}
    choices = {"rotary": RotaryConfig(("word",)), "relative": RelativeConfig("t5", "word")}
    model = build(fields, EmbeddingConfig(norm=True), encoder, sees={"text": ["text", "picture"]}, **choices)
    # In float64, where rounding hides nothing that is not 0.
    model.double()
    samples: list[Sample] = [
        {
            "bag": BAG.encode([3, 1, 4, 1][i:]),
            "picture": picture(2, 3),
            "text": count(text(3 + i)),
            "graph": GRAPH.encode([0, 3, 2][i:]),
            "class": CLASS.encode(),
        }
        for i in range(3)
    ]
    without = [{name: tokens for name, tokens in samples[0].items() if name != absent}, *samples[1:]]
    emptied = [{**without[0], absent: fields[absent].empty()}, *samples[1:]]

    def hidden(given: Sequence[Sample], *rows: int) -> list[dict[str, Tensor]]:
        batch = collate(given, fields, rows, length=60)
        tokens = batch.fields["picture"]
        doubled = replace(tokens, content=tokens.content.double())
        batch = replace(batch, fields=batch.fields | {"picture": doubled})
        return by_sample(batch, model(batch, batch if encoder else None), given)

    rows = (0, 0, 1) if packed else (0, 1, 2)
    found = hidden(without, *rows)
    assert_near(found[1:], hidden(samples, *rows)[1:], 1e-12)
    assert_near(found[:1], hidden(without[:1], 0), 1e-12)
    # Bit for bit where the batch is of the same shape: no token of a field is no field.
    assert_near(found[1:], hidden(emptied, *rows)[1:], 0)


def assert_near(ours: list[dict[str, Tensor]], theirs: list[dict[str, Tensor]], tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def test_a_lift_that_two_fields_share_has_zero_gradients_where_both_are_absent() -> None:
    fields = {"left": PICTURE, "right": PICTURE, "text": TEXT}
    config = TransformerConfig(d_model=12, n_heads=3, depth=1)
    model = Anyformer(fields, config, shared={"right": "left"}, maskable=["left", "text"])
    redraw(model)
    own = ["embeddings.lifts.left.linear.weight", "embeddings.lifts.left.linear.bias", "embeddings.masks.left"]
    for sample, is_zero in (({"text": text(3)}, [True] * 3), ({"right": picture(2, 3)}, [False, False, True])):
        found = gradients(model, model(collate([sample], fields)).square().sum())
        assert [not found[name].any() for name in own] == is_zero
    assert sum("lifts" in name for name, _ in model.named_parameters()) == 3


def test_a_batch_of_no_samples_runs() -> None:
    fields = {**FIELDS, "graph": GRAPH}
    model = build(fields, relative=RelativeConfig("t5", "word"))
    hidden = model(collate([], fields))
    assert hidden.shape == (0, 0, 12)
    assert not any(gradient.any() for gradient in gradients(model, hidden.sum()).values())


# Training and compiling


COMPILED = {
    "everything": ({}, lambda: [{"picture": picture(2, 3), "class": CLASS.encode()} for _ in range(3)]),
    "causal": ({}, lambda: [{"text": count(text(4), 0)} for _ in range(3)]),
    "dense": (
        {"rotary": RotaryConfig(("word", "row")), "relative": RelativeConfig("t5", "word")},
        lambda: [{"bag": BAG.encode([1, 2]), "text": count(text(4), 0)} for _ in range(3)],
    ),
}
"""Choices and samples for each kind of batch."""


@pytest.mark.parametrize("kind", COMPILED)
def test_compiles_without_a_graph_break(kind: str) -> None:
    choices, make = COMPILED[kind]
    model, batch = build(**choices).train(), collate(make(), FIELDS)
    assert batch.kind == kind
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ours, theirs = (gradients(model, run(batch).square().sum()) for run in (compiled, model))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("where", ["embedding", "dropout", "attention_dropout", "drop_path"])
def test_dropout_is_for_training_only(where: str) -> None:
    model = build(embedding=EmbeddingConfig(dropout=0.5)) if where == "embedding" else build(**{where: 0.5})
    batch = collate(mixed_samples(), FIELDS)
    assert torch.equal(model(batch), model(batch))
    model.train()
    assert not torch.equal(model(batch), model(batch))
    rate_0 = build().train()
    assert torch.equal(rate_0(batch), rate_0(batch))


# Reading some places only


@pytest.mark.parametrize("relative", [None, RelativeConfig("alibi", "word"), RelativeConfig("t5", "word")], ids=str)
@pytest.mark.parametrize("kind", ["everything", "causal", "causal, alike", "dense", "relations", "packed"])
def test_reading_some_places_gives_what_reading_all_gives_there(kind, relative):
    orders = dict.fromkeys(("causal", "causal, alike"), torch.arange).get(
        kind, lambda n: torch.zeros(n, dtype=torch.int64)
    )
    ids = Ids(7, ("word",), n_relations=3 if kind == "relations" else 0)
    lengths = [5, 5, 5] if kind in ("everything", "causal, alike") else [5, 3, 4]
    samples = [{"text": (t := ids.encode(draw_ids(n, 7))).at(orders(len(t)))} for n in lengths]
    batch = collate(samples, {"text": ids}, rows=[0, 1, 0] if kind == "packed" else None)
    choices = {"rotary": RotaryConfig(("word",)), "relative": relative}
    config = TransformerConfig(d_model=12, n_heads=3, n_kv_heads=1, depth=2, **choices)
    model = Anyformer({"text": ids}, config)
    redraw(model)
    place = torch.tensor([[2, 0], [1, 2], [3, 1]])[: batch.shape[0]]
    whole = model(batch)
    some = model(batch, read=place)
    wanted = whole[torch.arange(batch.shape[0])[:, None], place]
    torch.testing.assert_close(some, wanted, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(wanted)
    parameters = list(model.parameters())
    expected = torch.autograd.grad((wanted * weight).sum(), parameters)
    for ours, theirs in zip(torch.autograd.grad((some * weight).sum(), parameters), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)

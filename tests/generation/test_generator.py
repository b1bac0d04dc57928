"""Generation against the whole model run again for every token, and against transformers' own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from anyformer.errors import InputError
from anyformer.generation import prepacked as packed
from anyformer.generation.config import GenerationConfig
from anyformer.generation.ctc_search import CTCPrefixScorer
from anyformer.generation.generator import Generator
from anyformer.model.config import ExpertsConfig, RotaryConfig
from anyformer.packing import collate
from anyformer.tokens import Sample
from tests.helpers.generators import FIELDS, ROWS, TEXT, V, both, build, ids_of, letters, logits_after, picture, text
from tests.helpers.witnesses import count

VARIANTS: dict[str, dict] = {
    "learned": {},
    "rotary": {"rotary": RotaryConfig(("word",))},
    "grouped": {"n_heads": 6, "n_kv_heads": 2, "d_head": 4, "norm": "rmsnorm", "gated": True},
    "experts": {"experts": ExpertsConfig(n=4, active=2, shared=1)},
}


def greedy_by_hand(generator: Generator, sample: Sample, n: int, condition: Sample | None = None) -> list[int]:
    ids: list[int] = []
    for _ in range(n):
        ids.append(int(logits_after(generator, sample, ids, condition).argmax()))
    return ids


# Cached is uncached


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("what", ["alike", "ragged", "one", "prefix", "encoder and decoder"])
def test_greedy_tokens_are_those_of_the_whole_model_run_again(what: str, variant: str) -> None:
    generator, conditions = build(what == "encoder and decoder", **VARIANTS[variant]), None
    prompts = text(*{"alike": (4, 4), "one": (5,)}.get(what, (7, 1, 4)))
    if what == "prefix":
        prompts = [{"picture": picture(n), "text": count(each["text"])} for n, each in enumerate(prompts, start=1)]
        del prompts[1]["picture"]
    if what == "encoder and decoder":
        conditions = [{"picture": picture(n)} for n in (3, 1)] + [{}]
    batch = None if conditions is None else collate(conditions, FIELDS)
    found = generator.generate(prompts, GenerationConfig(max_new_tokens=12), batch)
    assert generator.model.training, "the model is left as it was"
    for i, (prompt, own) in enumerate(zip(prompts, ids_of(found), strict=True)):
        assert own == greedy_by_hand(generator, prompt, 12, None if conditions is None else conditions[i])
    assert all(each.text == letters(each.ids) and each.ended == "length" for (each,) in found)


def test_products_of_packed_weights_give_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, prompts, config = build(), text(5, 3), GenerationConfig(max_new_tokens=10)
    usual = ids_of(generator.generate(prompts, config))
    monkeypatch.setattr(packed, "SMALLEST", 1)
    assert ids_of(generator.generate(prompts, config)) == usual
    with torch.no_grad():
        generator.head.weight.neg_()
    assert ids_of(generator.generate(prompts, config)) == [greedy_by_hand(generator, prompt, 10) for prompt in prompts]


def test_without_a_prompt_the_start_token_stands_first() -> None:
    generator, config = build(), GenerationConfig(max_new_tokens=5)
    started = greedy_by_hand(generator, {"text": count(TEXT.encode([0]), 0)}, 5)
    pictured = {"picture": picture(2)}
    behind = greedy_by_hand(generator, {**pictured, "text": count(TEXT.encode([0]))}, 5)
    assert ids_of(generator.generate([{}, {"text": TEXT.encode([])}, pictured], config)) == [started, started, behind]
    assert generator.generate([]) == [] and list(generator.stream([])) == []
    assert generator.generate([], GenerationConfig(n_beams=2)) == []


# The end


def test_rows_that_ended_leave_and_change_nothing() -> None:
    generator, prompts = build(), text(7, 2, 4, 5)
    free = ids_of(generator.generate(prompts, GenerationConfig(max_new_tokens=12)))
    stops = (free[0][3], free[2][6])
    rows: list[int] = []
    generator.model.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    found = generator.generate(prompts, GenerationConfig(max_new_tokens=12, stop_ids=stops))
    for (each,), own in zip(found, free, strict=True):
        end = next((i for i, token in enumerate(own) if token in stops), None)
        assert each.ids == own[:end] and each.ended == ("length" if end is None else "stop")
        assert each.text == letters(each.ids)
    assert rows == sorted(rows, reverse=True) and rows[0] == 4 > rows[-1]


# Draws


DRAWN = GenerationConfig(max_new_tokens=10, temperature=1.5)


def test_a_draw_hangs_on_seed_prompt_and_sample_alone() -> None:
    generator, prompts = build(), text(7, 2, 4)
    together = generator.generate(prompts, replace(DRAWN, n_samples=3))
    assert generator.generate(prompts, replace(DRAWN, n_samples=3)) == together, "a seed repeats"
    assert generator.generate(prompts, replace(DRAWN, n_samples=3, seed=1)) != together
    for i, prompt in enumerate(prompts):
        assert len({tuple(each.ids) for each in together[i]}) == 3, "samples differ"
        assert generator.generate([prompt], DRAWN, numbers=[i]) == [together[i][:1]]
    twice = generator.generate([prompts[0], prompts[0]], DRAWN)
    assert twice[0] != twice[1], "so do prompts"


def test_what_is_drawn_has_the_probabilities_of_the_model() -> None:
    generator, n = build(), 400
    (prompt,) = text(3)
    drawn = ids_of(generator.generate([prompt], GenerationConfig(1, temperature=2.0, top_k=5, n_samples=n)))
    kept, ids = (logits_after(generator, prompt, []) / 2).topk(5)
    expected = torch.zeros(V).scatter(0, ids, kept.softmax(0))
    found = torch.tensor(drawn).flatten().bincount(minlength=V) / n
    assert not found[expected == 0].any()
    assert (found - expected).abs().max() < 4 * 0.5 / n**0.5


def test_a_low_temperature_is_greedy() -> None:
    generator, prompts = build(), text(5, 3)
    greedy = generator.generate(prompts, GenerationConfig(8))
    assert generator.generate(prompts, GenerationConfig(8, temperature=1e-4)) == greedy
    assert generator.generate(prompts, GenerationConfig(8, temperature=1.0, top_k=1)) == greedy


def test_the_repetition_penalty_counts_prompt_and_new_tokens() -> None:
    generator, prompts = build(), text(6, 2)
    found = ids_of(generator.generate(prompts, GenerationConfig(8, repetition_penalty=3.0)))
    for prompt, own in zip(prompts, found, strict=True):
        for n, token in enumerate(own):
            logits = logits_after(generator, prompt, own[:n])
            for seen in {*prompt["text"].content.tolist(), *own[:n]}:
                logits[seen] = logits[seen] / 3 if logits[seen] > 0 else logits[seen] * 3
            assert int(logits.argmax()) == token
    assert found != ids_of(generator.generate(prompts, GenerationConfig(8)))


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0, "n_samples": 2}, {"n_beams": 3, "n_samples": 2}], ids=str)
def test_the_repetition_penalty_of_a_text_is_the_same_whatever_is_written_beside_it(options: dict) -> None:
    generator, prompts = build(), text(6, 2, 4, 3)
    config = GenerationConfig(12, repetition_penalty=1.8, **options)
    # Some end before the others, so that rows leave.
    stop = generator.generate(prompts, config)[1][0].ids[3]
    config = replace(config, stop_ids=(stop,))
    together = generator.generate(prompts, config)
    assert len({len(each.ids) for several in together for each in several}) > 1
    for number, (prompt, several) in enumerate(zip(prompts, together, strict=True)):
        (alone,) = generator.generate([prompt], config, numbers=[number])
        assert [each.ids for each in alone] == [each.ids for each in several]


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0}, {"n_beams": 3}, {"n_beams": 4, "n_samples": 2}], ids=str)
def test_only_allowed_ids_are_generated(options: dict) -> None:
    generator, prompts = build(), text(5, 3)
    config = GenerationConfig(10, allowed=(3, 5, 5, 8), **options)
    found = ids_of(generator.generate(prompts, config))
    assert {token for own in found for token in own} <= {3, 5, 8} and len(found) == 2 * config.n_samples
    # Ids that go up by one, from any; nothing is said about the first.
    found = ids_of(generator.generate(prompts, replace(config, allowed=None), allow=rising))
    assert all(own[n + 1] == (own[n] + 1) % V for own in found for n in range(9))


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0}, {"n_beams": 3}], ids=str)
def test_suppressed_ids_are_not_generated(options: dict) -> None:
    generator, prompts = build(), text(5, 3)
    free = ids_of(generator.generate(prompts, GenerationConfig(10, **options)))
    often, firsts = tuple({token for own in free for token in own[1:]})[:3], tuple({own[0] for own in free})
    config = GenerationConfig(10, suppressed=often, suppressed_first=firsts, **options)
    found = ids_of(generator.generate(prompts, config))
    assert not {token for own in found for token in own} & set(often)
    assert not {own[0] for own in found} & set(firsts)
    # Behind the first they are as good as any other.
    assert {
        token for own in ids_of(generator.generate(prompts, replace(config, suppressed=()))) for token in own[1:]
    } & {
        *often,
        *firsts,
    }
    few = replace(config, allowed=(1, 2, 3), suppressed=(2,), suppressed_first=())
    assert {token for own in ids_of(generator.generate(prompts, few)) for token in own} <= {1, 3}
    with pytest.raises(InputError, match="suppressed must name ids from 0 to 10, got"):
        generator.generate(prompts, GenerationConfig(suppressed=(11,)))


def rising(ids: list[int]) -> list[int] | None:
    return [(ids[-1] + 1) % V] if ids else None


# Past the context


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "n_samples": 2}, {"n_beams": 3}], ids=str)
def test_past_the_context_a_row_goes_on_from_its_newest_half(options: dict) -> None:
    generator, prompts = build(), text(7, 2, 4)
    generator.context = 7
    whole = generator.generate(prompts, GenerationConfig(20, **options))
    assert {len(own) for own in ids_of(whole)} == {20}
    for i, prompt in enumerate(prompts):
        alone = generator.generate([prompt], GenerationConfig(20, **options), numbers=[i])
        assert ids_of(alone) == ids_of(whole[i : i + 1]), "whatever rows are beside it"
    if options:
        return
    for prompt, own in zip(prompts, ids_of(whole), strict=True):
        seen: list[int] = prompt["text"].content.tolist()
        for token in own:
            if len(seen) > 7:
                seen = seen[-5:]
            assert int(logits_after(generator, {"text": count(TEXT.encode(seen), 0)}, []).argmax()) == token
            seen.append(token)


def test_past_the_context_conditions_stay() -> None:
    generator = build(encoder=True)
    generator.context = 6
    condition, prompt = {"picture": picture(4)}, {"picture": picture(2), "text": count(TEXT.encode([1, 2]))}
    found = generator.generate([prompt], GenerationConfig(12), collate([condition], FIELDS))
    seen = [1, 2]
    for token in ids_of(found)[0]:
        if len(seen) > 6:
            seen = seen[-4:]
        now = {**prompt, "text": count(TEXT.encode(seen))}
        assert int(logits_after(generator, now, [], condition).argmax()) == token
        seen.append(token)


# A second scorer


def test_greedy_tokens_of_two_scorers_are_the_likeliest_by_both() -> None:
    generator, prompts, lengths = build(), text(4, 2, 3), [9, 2, 6]
    log_probs = (3 * torch.randn(sum(lengths), V + 1)).log_softmax(1)
    config = GenerationConfig(8, stop_ids=(1,))
    found = generator.generate(prompts, config, second=CTCPrefixScorer(log_probs, lengths, (1,), 0.6))
    for prompt, frames, (each,) in zip(prompts, log_probs.split(lengths), found, strict=True):
        scorer, ids = CTCPrefixScorer(frames, [len(frames)], (1,), 0.6), []
        while 1 not in ids and len(ids) < 8:
            both = 0.4 * logits_after(generator, prompt, ids).log_softmax(0) + 0.6 * scorer.score()[0]
            ids.append(int(both.argmax()))
            scorer.advance(ids[-1:])
        assert each.ids == [token for token in ids if token != 1]
    assert len({len(each.ids) for (each,) in found}) > 1, "rows leave, and the scorer's with them"


# transformers' GPT-2


def test_greedy_tokens_are_transformers() -> None:
    expected, found = both(ROWS, GenerationConfig(32))
    assert found == expected and all(len(set(own)) > 4 for own in found)


# Bad input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"field": "txt"}, "no field 'txt' to generate; the model has picture, text"),
        ({"field": "picture"}, "field 'picture' has several axes"),
        ({"context": 1}, "context must be at least 2, to drop half of it, got 1"),
    ],
    ids=str,
)
def test_a_generator_that_cannot_be_is_refused(given: dict, message: str) -> None:
    generator = build()
    with pytest.raises(InputError, match=message):
        Generator(generator.model, generator.head, **{"field": "text", **given})


def test_what_cannot_be_continued_is_refused() -> None:
    generator = build(encoder=True)
    generator.context = 4
    with pytest.raises(InputError, match="prompt 1 reaches place 6 of field 'text', and the model can place 4: cut it"):
        generator.generate(text(4, 6))
    packed_conditions = collate([{"picture": picture(1)}] * 2, FIELDS, rows=[0, 0])
    with pytest.raises(InputError, match="a row for each of the 2 prompts, got 2 samples in 1 rows"):
        generator.generate(text(2, 2), conditions=packed_conditions)
    with pytest.raises(InputError, match="a row for each of the 1 prompts, got 2 samples"):
        generator.generate(text(2), conditions=collate([{"picture": picture(1)}] * 2, FIELDS))
    generator = build()
    with pytest.raises(InputError, match="beams are not streamed"):
        generator.stream(text(3), GenerationConfig(n_beams=2))
    for allowed in ((11,), (-1, 2)):
        with pytest.raises(InputError, match="allowed must name ids from 0 to 10, got"):
            generator.generate(text(3), GenerationConfig(allowed=allowed))
    with pytest.raises(InputError, match="allowed must name ids from 0 to 10, got none"):
        generator.generate(text(3), allow=lambda ids: [])
    generator.start = generator.decode = None
    with pytest.raises(InputError, match="prompt 0 has no token of field 'text' and there is no start token"):
        generator.generate([{}])
    with pytest.raises(InputError, match="stop strings need a decode to find them in; give stop_ids"):
        generator.stream(text(3), GenerationConfig(stop=("a",)))

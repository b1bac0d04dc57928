"""Generation against the whole model run again for every token, and against transformers' own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.generation import prepacked as packed
from anyformer.generation.config import GenerationConfig
from anyformer.generation.continuation import Continuation
from anyformer.generation.ctc_search import CTCPrefixScorer
from anyformer.generation.generator import Generator
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.losses.ctc import needed_frames
from anyformer.model.positions import PositionConfig
from anyformer.packing import collate
from anyformer.tokens import Sample, TokenSet
from tests.helpers.witnesses import Ids, Vectors, count, draw_ids, redraw

V = 11
TEXT, PICTURE = Ids(V, ("word",), 40), Vectors(3, ("row", "column"), (2, 5))
FIELDS = {"picture": PICTURE, "text": TEXT}
VARIANTS: dict[str, dict] = {
    "learned": {},
    "rotary": {"rotary": RotaryConfig(("word",))},
    "grouped": {"n_heads": 6, "n_kv_heads": 2, "d_head": 4, "norm": "rmsnorm", "gated": True},
}


def build(encoder: bool = False, **choices) -> Generator:
    """A small model, redrawn, with a head of its own, left in training mode."""
    config = TransformerConfig(**{"d_model": 12, "n_heads": 3, "depth": 2, "d_ff": 10, "dropout": 0.5, **choices})
    reader = replace(config, depth=1) if encoder else None
    model = Anyformer(FIELDS, config, EmbeddingConfig(), reader)
    head = nn.Linear(12, V)
    redraw(model)
    redraw(head)
    return Generator(model, head, "text", start=0, decode=letters)


def letters(ids: Sequence[int]) -> str:
    return "".join("abcdefghijk"[i] for i in ids)


def text(*lengths: int) -> list[Sample]:
    return [{"text": count(TEXT.encode(draw_ids(n)), 0)} for n in lengths]


def picture(n_columns: int) -> TokenSet:
    return PICTURE.encode(torch.randn(1, n_columns, 3))


@torch.no_grad()
def logits_after(generator: Generator, sample: Sample, ids: Sequence[int], condition: Sample | None = None) -> Tensor:
    """From the whole sample with the ids behind its text, without a cache. (v,)"""
    tokens = sample["text"]
    first = int(tokens.order[-1]) + 1
    both = torch.cat([tokens.content, torch.tensor(ids, dtype=torch.int64)])
    order = torch.cat([tokens.order, torch.arange(first, first + len(ids))])
    whole = {**sample, "text": TokenSet(both, torch.arange(len(both))[:, None], order)}
    model = generator.model.eval()
    conditions = None if condition is None else collate([condition], FIELDS)
    hidden = model(collate([whole], FIELDS), conditions)
    model.train()
    return generator.head(hidden[0, -1])


def greedy_by_hand(generator: Generator, sample: Sample, n: int, condition: Sample | None = None) -> list[int]:
    ids: list[int] = []
    for _ in range(n):
        ids.append(int(logits_after(generator, sample, ids, condition).argmax()))
    return ids


def ids_of(results: list[list[Continuation]]) -> list[list[int]]:
    return [each.ids for continuations in results for each in continuations]


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


def test_a_stop_string_may_span_tokens() -> None:
    generator, prompts = build(), text(4)
    free = letters(ids_of(generator.generate(prompts, GenerationConfig(max_new_tokens=12)))[0])
    stop = free[4:7]
    place = free.index(stop)
    config = GenerationConfig(max_new_tokens=12, stop=(stop, "zz"))
    ((found,),) = generator.generate(prompts, config)
    assert found.text == free[:place] and found.ended == "stop" and letters(found.ids) == free[: place + 3]
    steps = [step for (step,) in generator.stream(prompts, config)]
    assert "".join(step.text for step in steps) == free[:place]
    assert [step.id for step in steps] == found.ids
    assert [step.ended for step in steps] == [""] * (place + 2) + ["stop"]


def test_tokens_stream_out_one_by_one() -> None:
    generator, prompts = build(), text(4, 2)
    config = GenerationConfig(max_new_tokens=3)
    whole = ids_of(generator.generate(prompts, config))
    stream = generator.stream(prompts, config)
    for n in range(3):
        steps = next(stream)
        assert not torch.is_inference_mode_enabled(), "between two steps the caller's mode holds"
        assert [(step.prompt, step.sample, step.id) for step in steps] == [
            (i, 0, own[n]) for i, own in enumerate(whole)
        ]
        assert [step.text for step in steps] == [letters(own[n : n + 1]) for own in whole]
        assert {step.ended for step in steps} == {"length" if n == 2 else ""}
    assert next(stream, None) is None


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


# Beams


def best_by_hand(
    generator: Generator, prompt: Sample, n_new: int, penalty: float, stop: int
) -> tuple[float, list[int]]:
    """The best of all continuations: the score, and the ids without the one that stops."""
    best: tuple[float, list[int]] = (-torch.inf, [])
    open_ones: list[tuple[float, list[int]]] = [(0.0, [])]
    for length in range(1, n_new + 1):
        found = []
        for score, ids in open_ones:
            for token, p in enumerate(logits_after(generator, prompt, ids).log_softmax(0).tolist()):
                if token == stop or length == n_new:
                    own = ids if token == stop else [*ids, token]
                    best = max(best, ((score + p) / length**penalty, own))
                if token != stop:
                    found.append((score + p, [*ids, token]))
        open_ones = found
    return best


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_beams_wide_enough_find_the_best_of_all(penalty: float) -> None:
    generator, prompts = build(), text(4, 2)
    config = GenerationConfig(3, n_beams=V**2, length_penalty=penalty, stop_ids=(1,))
    for prompt, (found,) in zip(prompts, generator.generate(prompts, config), strict=True):
        score, ids = best_by_hand(generator, prompt, 3, penalty, stop=1)
        assert found.ids == ids and found.score == pytest.approx(score, abs=1e-5) and found.text == letters(ids)


# A second scorer


def joint_by_hand(
    generator: Generator, prompt: Sample, log_probs: Tensor, n_new: int, share: float, stop: int
) -> tuple[float, list[int]]:
    """The best of all texts that end: the score of attention and of CTC's loss, and the ids."""
    best: tuple[float, list[int]] = (-torch.inf, [])
    log_p = cache(lambda ids: logits_after(generator, prompt, ids).log_softmax(0))
    for length in range(n_new):
        for ids in product([i for i in range(V) if i != stop], repeat=length):
            whole = torch.tensor(ids, dtype=torch.int64)[None]
            ctc = -nn.functional.ctc_loss(log_probs[:, None], whole, (len(log_probs),), (length,), V, reduction="sum")
            if ctc == -torch.inf:
                continue  # It has no path.
            own = sum(log_p(ids[:n])[token] for n, token in enumerate([*ids, stop]))
            best = max(best, (float((1 - share) * own + share * ctc), list(ids)))
    return best


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_beams_wide_enough_find_the_best_by_attention_and_ctc_together(share: float) -> None:
    generator, prompts, lengths = build(), text(4, 2), [2, 2]
    log_probs = (2 * torch.randn(sum(lengths), V + 1)).log_softmax(1)
    # Two frames hold two ids, so that the third must be the end.
    config = GenerationConfig(3, n_beams=V**2, length_penalty=0.0, stop_ids=(1,))
    alone = generator.generate(prompts, config)
    found = generator.generate(prompts, config, second=CTCPrefixScorer(log_probs, lengths, (1,), share))
    for prompt, frames, (each,) in zip(prompts, log_probs.split(lengths), found, strict=True):
        score, ids = joint_by_hand(generator, prompt, frames, 3, share, stop=1)
        assert each.ids == ids and each.score == pytest.approx(score, abs=1e-4)
    assert ids_of(found) != ids_of(alone), "CTC has a say"


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


@pytest.mark.parametrize("seed", range(3))
def test_a_prompt_has_the_same_beams_alone_and_beside_others(seed: int) -> None:
    torch.manual_seed(seed)
    generator, prompts, lengths = build(), text(5, 1, 3), [7, 12, 4]
    log_probs = (3 * torch.randn(sum(lengths), V + 1)).log_softmax(1)
    config = GenerationConfig(12, n_beams=4, n_samples=4, stop_ids=(1,))
    together = generator.generate(prompts, config, second=CTCPrefixScorer(log_probs, lengths, (1,), 0.4))
    for i, frames in enumerate(log_probs.split(lengths)):
        second = CTCPrefixScorer(frames, lengths[i : i + 1], (1,), 0.4)
        (alone,) = generator.generate(prompts[i : i + 1], config, second=second)
        assert [each.ids for each in alone] == [each.ids for each in together[i]]
        assert [each.score for each in alone] == pytest.approx([each.score for each in together[i]], abs=1e-4)
        assert all(needed_frames(each.ids) <= len(frames) for each in alone)


# transformers' GPT-2


def gpt2(vocab_size: int = 40, **sizes: int) -> tuple[nn.Module, Generator]:
    """Theirs and ours, with the same weights; its head is its table of tokens."""
    module = pytest.importorskip("transformers.models.gpt2.modeling_gpt2")
    shape = {"vocab_size": vocab_size, "n_positions": 48, "n_embd": 16, "n_layer": 2, "n_head": 2, **sizes}
    theirs = module.GPT2LMHeadModel(module.GPT2Config(**shape, bos_token_id=None, eos_token_id=None)).eval()
    redraw(theirs)
    tokenizer = Ids(vocab_size, ("word",), shape["n_positions"])
    config = TransformerConfig(
        d_model=shape["n_embd"], depth=shape["n_layer"], n_heads=shape["n_head"], activation="gelu_tanh"
    )
    embedding = EmbeddingConfig(types=False, positions=[PositionConfig(("word",), "learned")])
    model = Anyformer({"text": tokenizer}, config, embedding)
    own, names = (
        dict(model.named_parameters()),
        {
            r"transformer\.wte\.weight": "embeddings.lifts.text.table",
            r"transformer\.wpe\.weight": "embeddings.positions.0.tables.0",
            r"transformer\.h\.(\d+)\.attn\.c_proj\.(.*)": r"transformer.blocks.\1.attention.o.\2",
            r"transformer\.h\.(\d+)\.mlp\.c_fc\.(.*)": r"transformer.blocks.\1.mlp.up.\2",
            r"transformer\.h\.(\d+)\.mlp\.c_proj\.(.*)": r"transformer.blocks.\1.mlp.down.\2",
            r"transformer\.h\.(\d+)\.ln_1\.(.*)": r"transformer.blocks.\1.attention_residual.norm.\2",
            r"transformer\.h\.(\d+)\.ln_2\.(.*)": r"transformer.blocks.\1.mlp_residual.norm.\2",
            r"transformer\.ln_f\.(.*)": r"transformer.final_norm.\1",
        },
    )
    with torch.no_grad():
        for name, tensor in theirs.named_parameters():
            tensor = tensor.T if re.search(r"(attn|mlp)\.c_.*weight", name) else tensor
            if found := re.fullmatch(r"transformer\.h\.(\d+)\.attn\.c_attn\.(.*)", name):
                for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                    own[f"transformer.blocks.{found[1]}.attention.{letter}.{found[2]}"].copy_(part)
            else:
                (target,) = (
                    re.sub(pattern, new, name) for pattern, new in names.items() if re.fullmatch(pattern, name)
                )
                own[target].copy_(tensor)
    table = own["embeddings.lifts.text.table"]
    return theirs, Generator(model, lambda hidden: nn.functional.linear(hidden, table), "text")


def both(
    rows: Sequence[Sequence[int]], config: GenerationConfig, **given: float
) -> tuple[list[list[int]], list[list[int]]]:
    """New ids of transformers' and of ours; theirs up to the one that stops."""
    theirs, ours = gpt2()
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    theirs.generation_config.eos_token_id = list(config.stop_ids) or None
    out = theirs.generate(
        ids,
        attention_mask=real,
        max_new_tokens=config.max_new_tokens,
        do_sample=False,
        num_beams=config.n_beams,
        num_return_sequences=config.n_samples,
        repetition_penalty=config.repetition_penalty,
        pad_token_id=0,
        **given,
    )
    expected = []
    for row in out[:, width:].tolist():
        end = next((i for i, token in enumerate(row) if token in config.stop_ids), None)
        expected.append(row[:end])
    tokenizer = ours.model.tokenizers["text"]
    prompts = [{"text": count(tokenizer.encode(list(row)), 0)} for row in rows]
    return expected, ids_of(ours.generate(prompts, config))


ROWS = [[5, 9, 31], [7], [3, 3, 8, 20, 11, 39]]


def test_greedy_tokens_are_transformers() -> None:
    expected, found = both(ROWS, GenerationConfig(32))
    assert found == expected and all(len(set(own)) > 4 for own in found)


@pytest.mark.parametrize("length_penalty", [1.0, 0.6, 0.0, -1.0])
@pytest.mark.parametrize("n_stops", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_beams_are_transformers(length_penalty: float, n_stops: int, seed: int) -> None:
    config = GenerationConfig(24, n_beams=4, n_samples=3, length_penalty=length_penalty)
    torch.manual_seed(seed)
    expected, found = both(ROWS, config, length_penalty=length_penalty)
    if n_stops:
        often = Counter(token for own in found for token in own).most_common(n_stops)
        config = replace(config, stop_ids=tuple(token for token, _ in often))
        torch.manual_seed(seed)
        expected, found = both(ROWS, config, length_penalty=length_penalty)
        assert min(map(len, found)) < 24
    assert found == expected


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

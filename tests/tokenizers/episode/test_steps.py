"""The laws of all step tokenizers, and of the heads that predict them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import jsonargparse
import numpy as np
import pytest
import torch
from torch import nn

from anyformer.errors import InputError
from anyformer.packing import collate
from anyformer.tokenizers.episode.continuous import Returns, Vector
from anyformer.tokenizers.episode.discrete import Bins, Categories, Letters
from anyformer.tokenizers.episode.frames import Frames
from anyformer.tokenizers.episode.steps import StepTokenizer, Stretch
from anyformer.tokenizers.image.patches import ConvStem
from anyformer.tokens import Tokenizer
from tests.helpers.witnesses import redraw

RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(6, 3)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
TEXTS = np.array(["", "ab", "c", "abcab", "", "b"], dtype=object)
CHOICES = Categories(shape=(3,), counts=(2, 5, 3), starts=(0, -1, 7))

KINDS: dict[str, tuple[StepTokenizer, np.ndarray]] = {
    "vector": (Vector(shape=(3,), dtype="float32").fit([NUMBERS]), NUMBERS),
    "number": (Vector(shape=(), normalize=False), NUMBERS[:, 0]),
    "gaussian": (Vector(shape=(3,), loss="gaussian", normalize=False), NUMBERS),
    "tanh": (Vector(shape=(3,), tanh=True, low=(-9,) * 3, high=(9,) * 3).fit([NUMBERS]), NUMBERS),
    "table": (Vector(shape=(3, 1)).fit([NUMBERS[:, :, None]]), NUMBERS[:, :, None]),
    "returns": (Returns().fit([NUMBERS[:, 0]]), NUMBERS[:, 0]),
    "bins": (Bins(shape=(3,)), NUMBERS),
    "bin": (Bins(7, shape=(), low=(-1,), high=(1,)), NUMBERS[:, 0].clip(-1, 1)),
    "choice": (Categories(shape=(), counts=(4,), starts=(2,)), np.array([2, 5, 3, 3, 4, 2])),
    "choices": (CHOICES, np.stack([[0, 1, 0, 1, 1, 0], [-1, 3, 2, 0, 1, 1], [7, 8, 9, 9, 8, 7]], -1)),
    "letters": (Letters(characters="abc", max_len=5), TEXTS),
    "frames": (Frames(patch=3, shape=(5, 7, 3)), PIXELS),
    "stem": (Frames(patch=4, stem=ConvStem(5), shape=(5, 7, 3)), PIXELS),
}
STEPS = np.array([4, 5, 6, 7, 8, 9])
PREDICTED = [name for name, (tokenizer, _) in KINDS.items() if name not in ("letters", "frames", "stem", "returns")]
every = pytest.mark.parametrize("name", KINDS)
predicted = pytest.mark.parametrize("name", PREDICTED)


def lifted(module: nn.Module) -> nn.Module:
    redraw(module)
    return module.double()


# All of them


@every
def test_decode_inverts_encode(name: str) -> None:
    tokenizer, values = KINDS[name]
    tokenizer.check(values, "here")
    again = tokenizer.decode(tokenizer.encode(Stretch(values, STEPS)))
    assert again.shape == values.shape
    if name in ("bins", "bin"):
        return  # See test_elements.py for how near they are.
    if values.dtype.kind == "f":
        np.testing.assert_allclose(again, values, rtol=1e-5, atol=1e-6)
    else:
        assert (again == values).all()
        assert again.dtype == values.dtype


@every
def test_a_token_says_its_numbers_or_is_part_of_a_picture(name: str) -> None:
    tokenizer, values = KINDS[name]
    tokens = tokenizer.encode(Stretch(values, STEPS))
    pieces = tokenizer.pieces(tokens)
    if name in ("frames", "stem"):
        assert pieces is None and (tokenizer.show(tokens) == np.hstack(list(values))).all()
    elif name == "letters":
        assert pieces == [each for text in values for each in (*text, "end")]
    else:
        said = np.array([float(word) for piece in pieces for word in piece.split()]).reshape(len(values), -1)
        assert len(pieces) == len(tokens)
        np.testing.assert_allclose(said, tokenizer.decode(tokens).reshape(len(values), -1), rtol=5e-3)


@every
def test_tokens_stand_at_their_timestep_and_are_numbered_within_it(name: str) -> None:
    tokenizer, values = KINDS[name]
    tokens = tokenizer.encode(Stretch(values, STEPS))
    assert tokens.position.shape == (len(tokens), len(tokenizer.axes)) and tokenizer.axes[0] == "step"
    n_each = [len(text) + 1 for text in TEXTS] if tokenizer.n_each is None else [tokenizer.n_each] * 6
    assert tokens.position[:, 0].tolist() == np.repeat(STEPS, n_each).tolist()
    assert tokens.order.tolist() == [j for n in n_each for j in range(n)]
    if tokenizer.axes[1:] == ("element",):
        assert tokens.position[:, 1].tolist() == tokens.order.tolist()
    elif tokenizer.n_each == 1:
        assert tokenizer.axes == ("step",)
    for axis, column in zip(tokenizer.axes, tokens.position.T, strict=True):
        assert axis not in tokenizer.sizes or int(column.max()) < tokenizer.sizes[axis]
    assert replace(tokenizer, max_steps=10).sizes == {"step": 10, **tokenizer.sizes}


@every
def test_a_step_is_cut_the_same_wherever_it_stands(name: str) -> None:
    tokenizer, values = KINDS[name]
    whole = tokenizer.encode(Stretch(values, STEPS))
    parts = [tokenizer.encode(Stretch(values[i : i + 2], STEPS[i : i + 2])) for i in (0, 2, 4)]
    for part in ("content", "position", "order"):
        assert torch.equal(torch.cat([getattr(tokens, part) for tokens in parts]), getattr(whole, part))


@every
def test_lifting_a_batch_equals_lifting_each_sample_forward_and_gradient(name: str) -> None:
    tokenizer, values = KINDS[name]
    samples = [tokenizer.encode(Stretch(values[i:j], STEPS[i:j])) for i, j in ((0, 3), (3, 4), (4, 6))]
    lift = lifted(tokenizer.lift(7))
    contents = [sample.content.double() if sample.content.is_floating_point() else sample.content for sample in samples]
    weights = torch.randn(sum(map(len, samples)), 7, dtype=torch.float64)

    together = lift(torch.cat(contents), tuple(sample.extent for sample in samples))
    (together * weights).sum().backward()
    gradients = [parameter.grad.clone() for parameter in lift.parameters()]
    lift.zero_grad()
    alone = [lift(content, (sample.extent,)) for content, sample in zip(contents, samples, strict=True)]
    assert [len(part) for part in alone] == [len(sample) for sample in samples]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)
    (torch.cat(alone) * weights).sum().backward()
    for gradient, parameter in zip(gradients, lift.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-6)
        assert gradient.abs().sum() > 0


@every
def test_without_steps_gradients_are_zero_and_not_none(name: str) -> None:
    tokenizer, values = KINDS[name]
    empty, sample = tokenizer.empty(), tokenizer.encode(Stretch(values, STEPS))
    modules = [tokenizer.lift(7)] + ([tokenizer.head(7)] if name in PREDICTED else [])
    vectors = modules[0](empty.content, ())
    assert vectors.shape == (0, 7)
    loss = vectors.sum() + sum(head.loss(vectors, empty.content) for head in modules[1:])
    loss.backward()
    for module in modules:
        assert all(p.grad is not None and not p.grad.any() for p in module.parameters())
    assert (empty.content.shape[1:], empty.content.dtype) == (sample.content.shape[1:], sample.content.dtype)
    assert (empty.position.shape[1:], empty.position.dtype) == (sample.position.shape[1:], sample.position.dtype)
    assert len(empty.extent) == len(sample.extent)
    nothing = tokenizer.encode(Stretch(values[:0], STEPS[:0]))
    assert len(nothing) == 0 and nothing.content.shape == empty.content.shape


@every
def test_stretches_of_several_lengths_are_collated(name: str) -> None:
    tokenizer, values = KINDS[name]
    samples = [{"state": tokenizer.encode(Stretch(values[:n], STEPS[:n]))} for n in (2, 5)]
    batch = collate(samples, {"state": tokenizer})
    assert batch.fields["state"].sample.tolist() == [i for i in (0, 1) for _ in range(len(samples[i]["state"]))]


@every
def test_a_run_keeps_it_as_plain_values(name: str) -> None:
    tokenizer, _ = KINDS[name]
    plain = {"class_path": type(tokenizer).__name__, "init_args": json.loads(json.dumps(asdict(tokenizer)))}
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--tokenizers", type=dict[str, Tokenizer])
    made = parser.instantiate(parser.parse_object({"tokenizers": {"state": plain}})).tokenizers
    assert made == {"state": tokenizer} and hash(made["state"]) == hash(tokenizer)


@pytest.mark.parametrize("tokenizer", [Vector(), Bins(), Categories(), Frames(), Letters(), Returns()], ids=repr)
def test_what_knows_no_space_yet_says_so(tokenizer: StepTokenizer) -> None:
    with pytest.raises(InputError, match=r"knows? no space yet|have no scale yet"):
        tokenizer.encode(Stretch(np.zeros(2), np.arange(2)))


def test_values_of_another_shape_are_refused() -> None:
    for values in (NUMBERS[:, :2], NUMBERS[:5], NUMBERS.T):
        with pytest.raises(InputError, match=r"values must be \(6, 3\), steps first, got \("):
            KINDS["vector"][0].encode(Stretch(values, STEPS))


# Heads


def hidden_and_content(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    tokenizer, values = KINDS[name]
    content = tokenizer.encode(Stretch(values, STEPS)).content
    return torch.randn(len(content), 7), content


@predicted
def test_a_loss_is_a_sum_over_tokens_and_a_head_learns_by_it(name: str) -> None:
    hidden, content = hidden_and_content(name)
    head = KINDS[name][0].head(7)
    each = [head.loss(hidden[i : i + 1], content[i : i + 1]) for i in range(len(content))]
    torch.testing.assert_close(head.loss(hidden, content), sum(each))
    before, n = head.metric(hidden, content)
    assert n == len(content) and head.metric_name == ("error" if content.is_floating_point() else "accuracy")
    hidden = nn.functional.one_hot(torch.arange(len(content))).float()
    head = KINDS[name][0].head(len(content))
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        head.loss(hidden, content).backward()
        optimizer.step()
    after, _ = head.metric(hidden, content)
    assert after == n if head.metric_name == "accuracy" else after < 0.1 * before


@predicted
def test_what_is_chosen_is_content_that_decodes_into_the_space(name: str) -> None:
    tokenizer, _ = KINDS[name]
    head = tokenizer.head(7)
    redraw(head)
    hidden, generator = 3 * torch.randn(50, 7), torch.Generator().manual_seed(3)
    for random in (None, generator):
        chosen = [head.choose(hidden, random, 2.0, element=j) for j in range(tokenizer.n_each)]
        content = torch.stack(chosen, 1).flatten(0, 1)
        empty = tokenizer.empty().content
        assert (content.dtype, content.shape) == (empty.dtype, (50 * tokenizer.n_each, *empty.shape[1:]))
        values = tokenizer.decode(replace(tokenizer.empty(), content=content, position=None, order=None, extent=None))
        tokenizer.check(values, "chosen")
        assert values.shape == (50, *tokenizer.shape)
        if random is None:
            again = [head.choose(hidden, element=j) for j in range(tokenizer.n_each)]
            assert all(torch.equal(one, other) for one, other in zip(chosen, again, strict=True))


def test_what_is_only_seen_has_no_head() -> None:
    for name in ("letters", "frames"):
        with pytest.raises(InputError, match=r"is for what an agent sees, and is not predicted"):
            KINDS[name][0].head(7)

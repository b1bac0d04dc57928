"""The laws of all step tokenizers, and what vectors and returns are."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import jsonargparse
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from witnesses import redraw

from anyformer.errors import InputError
from anyformer.tokenizers.elements import Bins, Categories, Letters
from anyformer.tokenizers.frames import Frames
from anyformer.tokenizers.image import ConvStem
from anyformer.tokenizers.trajectory import Regression, Returns, StepTokenizer, Stretch, Vector
from anyformer.tokens import Tokenizer, collate

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


def test_squared_error_is_the_mean_over_the_values() -> None:
    hidden, content = hidden_and_content("vector")
    head = KINDS["vector"][0].head(7)
    expected = nn.functional.mse_loss(head.output(hidden), content) * len(content)
    torch.testing.assert_close(head.loss(hidden, content), expected)
    error, _ = head.metric(hidden, content)
    std = torch.tensor(KINDS["vector"][0].std)
    torch.testing.assert_close(error, ((head.output(hidden) - content).abs() * std).mean() * 6)


def test_a_gaussian_is_that_of_torch() -> None:
    hidden, content = hidden_and_content("gaussian")
    head = KINDS["gaussian"][0].head(7)
    mean, log_std = head(hidden)
    assert (log_std.exp() - 1).abs().max() < 0.5, "deviations of about 1 at the start"
    redraw(head)
    mean, log_std = head(hidden)
    expected = -torch.distributions.Normal(mean, log_std.exp()).log_prob(content).sum()
    torch.testing.assert_close(head.loss(hidden, content), expected)
    assert torch.equal(head.choose(hidden), mean)
    assert log_std.min() >= -5 and log_std.max() <= 2
    generator, deviation = torch.Generator().manual_seed(3), log_std.exp()
    drawn = torch.stack([head.choose(hidden, generator, 0.5) for _ in range(400)])
    assert ((drawn.mean(0) - mean) / deviation).abs().max() < 0.1
    torch.testing.assert_close(drawn.std(0), 0.5 * deviation, rtol=0.15, atol=0)


def test_tanh_keeps_what_is_predicted_within_the_bounds() -> None:
    low, high = (-2.0, 0.0), (2.0, 10.0)
    vector = Vector(tanh=True, shape=(2,), low=low, high=high, mean=(1.0, 5.0), std=(0.5, 3.0))
    head = vector.head(7)
    redraw(head)
    hidden = 100 * torch.randn(200, 7)
    values = head.choose(hidden) * torch.tensor(vector.std) + torch.tensor(vector.mean)
    torch.testing.assert_close(values.amin(0), torch.tensor(low))
    torch.testing.assert_close(values.amax(0), torch.tensor(high))
    plain = replace(vector, normalize=False, mean=None, std=None, low=(-1.0, -1.0), high=(1.0, 1.0)).head(7)
    hidden = torch.randn(5, 7)
    assert torch.equal(plain.choose(hidden), plain.output(hidden).tanh()), "the paper's"
    with pytest.raises(InputError, match="tanh needs a space with bounds, and this one is open"):
        replace(vector, high=(2.0, None))


# Vectors


@given(arrays(np.float32, (11, 2), elements=st.floats(-100, 100, width=32)), st.sets(st.integers(0, 11), max_size=4))
def test_mean_and_deviation_are_those_of_all_steps_however_they_are_cut(values: np.ndarray, cuts: set[int]) -> None:
    vector = Vector(shape=(2,)).fit(np.split(values, sorted(cuts)))
    np.testing.assert_allclose(vector.mean, values.mean(0, dtype=np.float64), rtol=1e-9, atol=1e-9)
    std = values.std(0, dtype=np.float64)
    expected = np.where(std <= 2**-23 * np.abs(vector.mean), 1, std)
    np.testing.assert_allclose(vector.std, expected, rtol=1e-6)


def test_a_large_offset_does_not_drown_the_deviation() -> None:
    parts = [1e7 + np.array([[0.0], [1.0]]), 1e7 + np.array([[2.0], [3.0], [4.0]])]
    assert Vector(shape=(1,)).fit(parts).std == pytest.approx((math.sqrt(2),), rel=1e-6)


def test_what_never_changes_is_not_blown_up() -> None:
    vector = Vector(shape=(2,)).fit([np.array([[3.0, 1.0], [3.0, 2.0]])])
    assert vector.std == (1.0, 0.5)
    assert vector.cut(np.array([[3.0, 2.0]], dtype=np.float32)).tolist() == [[0.0, 1.0]]
    assert Vector(shape=(2,)).fit([np.array([[0.0, 0.1]] * 7), np.array([[0.0, 0.1 + 1e-10]])]).std == (1.0, 1.0)


def test_small_units_are_scaled_as_large_ones_are() -> None:
    values = np.random.default_rng(0).normal(size=(100, 1)) * 5e-8
    vector = Vector(shape=(1,)).fit([values])
    assert vector.std == pytest.approx((values.std(),))
    assert vector.cut(values).std(correction=0).item() == pytest.approx(1)


def test_what_is_learnt_is_kept_and_inherited() -> None:
    one = Vector(shape=(3,)).fit([NUMBERS])
    assert one.fit([NUMBERS * 2]) == one
    assert Vector().inherit(one).mean == one.mean and Vector(normalize=False).inherit(one).mean is None
    other = Vector(shape=(3,)).fit([NUMBERS * 2])
    assert other.inherit(one) == other
    one.agree(replace(one), "state")
    with pytest.raises(InputError, match="state: values were normalised by another mean"):
        one.agree(other, "state")
    with pytest.raises(InputError, match="no step to learn a mean from"):
        Vector(shape=(3,)).fit([])
    with pytest.raises(InputError, match="has no mean yet: fit it to the training episodes first"):
        Vector(shape=(3,)).encode(Stretch(NUMBERS, STEPS))


def test_values_are_put_back_into_the_bounds_and_the_dtype() -> None:
    vector = Vector(shape=(2,), dtype="int32", normalize=False, low=(-1, None), high=(2, None))
    tokens = vector.encode(Stretch(np.array([[1.6, 7.4], [9, -9]]), np.arange(2)))
    values = vector.decode(tokens)
    assert values.tolist() == [[2, 7], [2, -9]] and values.dtype == np.int32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.5, r"a\.npz episode 3: action, step 4: value 1 is 2\.5, and the space is from -1 to 2; mend the data"),
        (-1.1, r"step 4: value 1 is -1\.1, and the space is from -1 to 2"),
        (math.nan, r"step 4: value 1 is nan, and must be finite"),
        (math.inf, r"step 4: value 1 is inf, and must be finite"),
    ],
)
def test_a_value_outside_the_space_is_named_with_its_step(value: float, message: str) -> None:
    vector, values = Vector(shape=(2,), low=(None, -1), high=(None, 2)), np.zeros((6, 2))
    vector.check(values + np.array([1e9, 2.000001]), "a.npz episode 3: action")
    values[4:, 1] = value
    with pytest.raises(InputError, match=message):
        vector.check(values, "a.npz episode 3: action")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "cubed"}, "loss must be squared or gaussian, got 'cubed'"),
        ({"shape": (2,), "low": (1.0,)}, "low must have 2 numbers, one for each value, got 1"),
        ({"std": (1.0, 0.0)}, "std must be above 0, got 0.0"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be_say_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Vector(**options)


# Returns


def test_the_largest_return_of_the_data_is_one() -> None:
    returns = Returns().fit([np.array([-8.0, -5.0, -1.0]), np.array([2.0, 4.0]), np.array([])])
    assert returns == Returns(scale=8.0)
    tokens = returns.encode(Stretch(np.array([-8.0, 2.0]), np.arange(2)))
    assert tokens.content.tolist() == [[-1.0], [0.25]]
    assert returns.decode(tokens).tolist() == [-8.0, 2.0]
    assert Returns().fit([np.zeros(3)]).scale == 1.0
    given = Returns(scale=1000.0)
    assert given.fit([np.array([-8.0])]) == given


def test_the_head_of_returns_predicts_the_reward_and_what_comes_after() -> None:
    returns = Returns(scale=10.0)
    rewards = np.array([1.0, 2.0, 4.0])
    targets = returns.targets(rewards, np.array([7.0, 6.0, 4.0]))
    torch.testing.assert_close(targets, torch.tensor([[0.1, 0.6], [0.2, 0.4], [0.4, 0.0]]))
    head = returns.head(7)
    assert isinstance(head, Regression) and head.choose(torch.zeros(5, 7)).shape == (5, 2)
    error, n = head.metric(torch.zeros(3, 7), targets)
    assert n == 3 and error.item() == pytest.approx((7 + 10) / 2), "in the units of rewards"


def test_returns_are_inherited_and_compared() -> None:
    one = Returns(scale=8.0)
    assert Returns().inherit(one).scale == 8.0 and Returns(scale=3.0).inherit(one).scale == 3.0
    with pytest.raises(InputError, match=r"return: returns were scaled by 8\.0 and are by 3\.0; set scale"):
        one.agree(Returns(scale=3.0), "return")
    with pytest.raises(InputError, match="there is no step to learn returns from"):
        Returns().fit([])
    with pytest.raises(InputError, match="scale must be above 0, got 0"):
        Returns(scale=0.0)
    with pytest.raises(InputError, match="here, step 1: is nan, and must be finite"):
        one.check(np.array([1.0, math.nan]), "here")

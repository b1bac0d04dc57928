"""The visibility rule by hand, and attention under it against torch's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from anyformer.batch import Layout
from anyformer.model.attention.attention import Attention
from anyformer.model.attention.bias import RelationBias
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.rotary import rotate
from anyformer.model.attention.visibility import Sight, visible
from anyformer.model.config import TransformerConfig
from anyformer.model.layers import dropout, make_norm
from tests.helpers.witnesses import error, redraw


def layout(order: str, segment: str | None = None, field: str | None = None) -> Layout:
    """One row, a digit for each place."""
    segment, field = segment or "1" * len(order), field or "0" * len(order)
    return Layout(*(torch.tensor([[int(digit) for digit in part]]) for part in (segment, order, field)))


def picture(mask: Tensor) -> str:
    """The rows of a mask."""
    return " ".join("".join(str(int(seen)) for seen in row) for row in mask[0])


# The rule


@pytest.mark.parametrize(
    ("order", "segment", "seen"),
    [
        ("012", "111", "100 110 111"),  # a causal text
        ("001", "111", "110 110 111"),  # a prefix and a target
        ("000", "111", "111 111 111"),  # a picture
        ("0011", "1111", "1100 1100 1111 1111"),  # two frames
        ("0011", "1122", "1100 1100 0011 0011"),  # two samples of one row
        ("0101", "1122", "1000 1100 0010 0011"),
        ("010", "110", "100 110 000"),  # padding sees nothing, not even padding
        ("000", "000", "000 000 000"),
        ("0120", "1101", "1001 1101 0000 1001"),  # padding in the middle
    ],
)
def test_who_sees_whom(order: str, segment: str, seen: str) -> None:
    row = layout(order, segment)
    assert picture(visible(row, row)) == seen


def test_new_queries_see_cached_keys() -> None:
    assert picture(visible(layout("23"), layout("0123"))) == "1110 1111"
    # Rows of unlike length leave padding in the middle.
    assert picture(visible(layout("2"), layout("0102", "1101"))) == "1101"


def test_sees_hides_fields_from_fields() -> None:
    sees = torch.tensor([[True, False], [True, True]])
    row = layout("0000", field="0101")
    assert picture(visible(row, row, sees)) == "1010 1111 1010 1111"
    row = layout("0123", field="0101")
    assert picture(visible(row, row, sees)) == "1000 1100 1010 1111"


def test_a_relation_can_hide_a_pair() -> None:
    row = layout("000")
    assert picture(visible(row, row, relation=torch.tensor([[[0, -1, 2], [1, 0, 0], [-1, -1, 3]]]))) == "101 111 001"
    row = layout("012")
    assert picture(visible(row, row, relation=torch.tensor([[[0, 1, 2], [-1, 0, 0], [1, 1, 1]]]))) == "100 010 111"


def test_a_relation_bias_is_learned_for_each_relation_and_head() -> None:
    bias = RelationBias(3, 2)
    assert not bias.table.any(), "nothing at the start"
    redraw(bias)
    out = bias(torch.tensor([[[0, 1], [3, -1]]]))
    expected = torch.stack([torch.zeros(2), bias.table[0], bias.table[2], torch.zeros(2)], 1).view(1, 2, 2, 2)
    assert torch.equal(out, expected)


# Rotation


def test_rotation_turns_pairs_by_their_angle() -> None:
    x, angle = torch.tensor([3.0, 0.0, 0.0, 2.0]).view(1, 1, 1, 4), torch.tensor([torch.pi / 2, torch.pi])
    turned = rotate(x, (angle.cos(), angle.sin()))
    torch.testing.assert_close(turned.flatten(), torch.tensor([0.0, 0.0, 3.0, -2.0]), atol=1e-6, rtol=0)


# Against torch


SIZES = TransformerConfig(d_model=10, n_heads=5, d_ff=7)


def multihead(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    """Carry the weights over."""
    with torch.no_grad():
        for name, weight, bias in zip("qkv", theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True):
            projection = getattr(ours, name)
            projection.weight.copy_(weight)
            if projection.bias is not None:
                projection.bias.copy_(bias)
        ours.o.load_state_dict(theirs.out_proj.state_dict(), strict=ours.o.bias is not None)


def pairs(n: int = 7, m: int | None = None) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([n, n - 3])
    real = torch.arange(n) < lengths[:, None]
    return real, torch.randn(2, m or n, 10)


def compare(what: str, **wrong) -> tuple[float, float]:
    """Disagreement with torch.nn.MultiheadAttention, of outputs and of the gradients of the inputs and all weights."""
    theirs = nn.MultiheadAttention(10, 5, batch_first=True)
    redraw(theirs, spread=2.0)
    ours = Attention(replace(SIZES, **wrong))
    redraw(ours)
    multihead(ours, theirs)
    real, memory = pairs(7, 4)
    x = torch.randn(2, 7, 10, requires_grad=True)
    memory.requires_grad_()
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    bias = torch.randn(2, 5, 7, 7)
    mask, sight = {
        "self": ({}, Sight()),
        "padded": ({"key_padding_mask": ~real}, Sight(real[:, None, None, :])),
        "causal": ({"attn_mask": ~causal}, Sight(causal=True)),
        "causal by mask": ({"attn_mask": ~causal}, Sight(causal[None, None])),
        "bias": ({"attn_mask": bias.flatten(0, 1)}, Sight(bias)),
        "cross": ({}, Sight()),
        "cross padded": ({"key_padding_mask": ~real[:, 3:]}, Sight(real[:, None, None, 3:])),
    }[what]
    crosses = what.startswith("cross")
    expected = theirs(x, memory if crosses else x, memory if crosses else x, need_weights=False, **mask)[0]
    found = ours.cross(x, memory, sight) if crosses else ours(x, sight)
    noise = torch.randn(2, 7, 10) * (real[:, :, None] if "padded" in what else 1)
    # Real places only.
    shown = (noise != 0).all(2)
    inputs = [x, memory] if crosses else [x]
    their_gradients = torch.autograd.grad(
        (expected * noise).sum(), [*inputs, theirs.in_proj_weight, theirs.out_proj.weight]
    )
    our_gradients = torch.autograd.grad(
        (found * noise).sum(), [*inputs, ours.q.weight, ours.k.weight, ours.v.weight, ours.o.weight]
    )
    projections = torch.cat(our_gradients[len(inputs) : -1])
    our_gradients = [*our_gradients[: len(inputs)], projections, our_gradients[-1]]
    return (
        error(found[shown], expected[shown]),
        max(error(mine, other) for mine, other in zip(our_gradients, their_gradients, strict=True)),
    )


MASKS = ("self", "padded", "causal", "causal by mask", "bias", "cross", "cross padded")


@pytest.mark.parametrize("what", MASKS)
def test_attention_is_torchs(what: str) -> None:
    forward, gradient = compare(what)
    assert forward < 1e-4 and gradient < 1e-4


@pytest.mark.parametrize("what", MASKS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"q_bias": False},
        {"v_bias": False},
        {"o_bias": False},
        {"attention_scale": 1.0},
        {"qk_norm": "layernorm"},
        {"qk_norm": "rmsnorm"},
    ],
    ids=str,
)
def test_attention_set_wrong_is_seen(what: str, wrong: dict) -> None:
    assert compare(what, **wrong)[0] > 1e-2


@pytest.mark.parametrize("what", ["self", "padded", "causal", "cross"])
def test_a_wrong_number_of_heads_is_seen(what: str) -> None:
    assert compare(what, n_heads=2)[0] > 1e-2


def test_a_bias_on_keys_moves_no_weight_without_a_norm() -> None:
    # It adds the same to all logits of a query; Whisper leaves it out.
    assert compare("self", k_bias=False)[0] < 1e-4


@pytest.mark.parametrize("what", ["self", "causal", "padded"])
def test_grouped_heads_are_repeated_heads(what: str) -> None:
    grouped, plain = (Attention(replace(SIZES, n_heads=6, d_head=4, n_kv_heads=n)) for n in (2, 6))
    redraw(grouped)
    with torch.no_grad():
        plain.q.load_state_dict(grouped.q.state_dict())
        plain.o.load_state_dict(grouped.o.state_dict())
        for name in ("k", "v"):
            few, many = getattr(grouped, name), getattr(plain, name)
            many.weight.copy_(few.weight.view(2, 4, 10).repeat_interleave(3, 0).flatten(0, 1))
            many.bias.copy_(few.bias.view(2, 4).repeat_interleave(3, 0).flatten())
    real, x = pairs()
    sight = {"self": Sight(), "causal": Sight(causal=True), "padded": Sight(real[:, None, None])}[what]
    torch.testing.assert_close(grouped(x, sight), plain(x, sight))


def test_a_query_that_sees_nothing_gets_0() -> None:
    attention = Attention(replace(SIZES, o_bias=False))
    redraw(attention)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 2, :] = False
    for seen in (mask, torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)):
        x = torch.randn(1, 4, 10, requires_grad=True)
        out = attention(x, Sight(seen))
        assert not out[0, 2].any() and out[0, [0, 1, 3]].abs().amax(1).all()
        assert torch.autograd.grad(out.square().sum(), x)[0].isfinite().all()


# Norms


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("affine", [True, False], ids=["gains", "no gains"])
def test_norms_are_their_formulas(kind: str, affine: bool) -> None:
    norm = make_norm(kind, 6, replace(SIZES, norm_eps=0.3, norm_affine=affine))
    redraw(norm)
    x = torch.randn(4, 6)
    centred = x - x.mean(1, keepdim=True) if kind == "layernorm" else x
    expected = centred / (centred.square().mean(1, keepdim=True) + 0.3).sqrt()
    if affine:
        expected = expected * norm.weight
        if kind == "layernorm":
            expected = expected + norm.bias
    torch.testing.assert_close(norm(x), expected)
    assert len(list(norm.parameters())) == (0 if not affine else 2 if kind == "layernorm" else 1)


def test_rmsnorm_is_that_of_t5() -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    theirs, x = t5.T5LayerNorm(6, eps=1e-2), torch.randn(4, 6)
    redraw(theirs)
    ours = make_norm("rmsnorm", 6, replace(SIZES, norm_eps=1e-2))
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x), theirs(x))


# Dropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.35, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    x = torch.ones(401, 503, requires_grad=True)
    out = dropout(x, p)
    share = 1 - round(p * 2**16) / 2**16
    # Five standard deviations of a share of so many.
    assert (out > 0).double().mean().item() == pytest.approx(share, abs=5 * (p * (1 - p) / out.numel()) ** 0.5)
    torch.testing.assert_close(out[out > 0], torch.full_like(out[out > 0], 1 / share))
    assert share == pytest.approx(1 - p, abs=2**-17)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, out)


def test_dropout_is_drawn_for_each_number_by_itself() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(2**18), 0.5) > 0).float() - 0.5
    for apart in (1, 2, 3, 4, 64):
        # Four numbers come from one draw; 5 / sqrt(2**18) is 0.01.
        assert abs(float((kept[apart:] * kept[:-apart]).mean())) * 4 < 0.01


def test_dropout_leaves_the_rest_of_any_shape_and_dtype_as_it_is() -> None:
    x = torch.arange(1.0, 1 + 2 * 3 * 5, dtype=torch.bfloat16).view(2, 3, 5).transpose(0, 2)
    torch.manual_seed(0)
    out = dropout(x, 0.5)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert 0 < (out == 0).sum() < x.numel()
    assert torch.equal(out[out != 0], 2 * x[out != 0])
    torch.manual_seed(0)
    assert torch.equal(dropout(x, 0.5), out)
    assert dropout(torch.zeros(0, 7), 0.5).shape == (0, 7)
    assert torch.equal(dropout(x, 1e-9), x)
    assert not dropout(x, 1 - 1e-9).isnan().any()


# The cache's memory


def test_a_cache_keeps_what_it_was_given_while_it_grows() -> None:
    cache, kept = Cache(), []
    for step, n in enumerate((3, 1, 1, 4, 1)):
        k, v = torch.randn(2, 5, n, 4), torch.randn(2, 5, n, 4)
        kept.append((k, v))
        place = torch.ones(2, n, dtype=torch.int64)
        row = Layout(place, place * step, place * 0)
        cache.layout = (
            row if cache.layout is None else Layout(*(torch.cat(p, 1) for p in zip(cache.layout, row, strict=True)))
        )
        for layer in (0, 1):
            keys, values = cache.extend(layer, k + layer, v - layer)
            assert torch.equal(keys, torch.cat([k for k, _ in kept], 2) + layer)
            assert torch.equal(values, torch.cat([v for _, v in kept], 2) - layer)
    assert len(cache) == 10


def filled(lengths: list[int], n: int, offset: int = 0) -> tuple[Cache, Layout, Tensor]:
    """A cache of two layers with rows of these lengths in n places, their layout, and their keys, (b, 5, n, 4)."""
    segment = (torch.arange(n) < torch.tensor(lengths)[:, None]).long()
    row = Layout(segment, segment * torch.arange(n), segment * offset)
    k, cache = torch.randn(len(lengths), 5, n, 4), Cache()
    cache.layout = row
    for layer in (0, 1):
        cache.extend(layer, k + layer, k - layer)
    return cache, row, k


def keys_of(cache: Cache, layer: int) -> Tensor:
    """What a layer is given, but for a place that is added to see it."""
    extra = Layout(*(torch.zeros(len(part), 1, dtype=torch.int64) for part in cache.layout))
    cache.layout = Layout(*(torch.cat(pair, 1) for pair in zip(cache.layout, extra, strict=True)))
    keys, values = (part[:, :, :-1] for part in cache.extend(layer, *torch.zeros(2, len(extra.order), 5, 1, 4)))
    cache.layout = Layout(*(part[:, :-1] for part in cache.layout))
    real = cache.layout.segment[:, None, :, None] > 0
    torch.testing.assert_close((keys - layer) * real, (values + layer) * real)
    return keys - layer


def test_a_cache_keeps_the_rows_selected() -> None:
    cache, row, k = filled([3, 1, 4], 4)
    cache.memory, cache.memory_layout = {0: (k + 5, k - 5)}, row
    rows = torch.tensor([2, 0, 2])
    cache.select(rows)
    for layer in (0, 1):
        torch.testing.assert_close(keys_of(cache, layer), k[rows])
    assert torch.equal(cache.memory[0][0], k[rows] + 5) and torch.equal(cache.memory[0][1], k[rows] - 5)
    assert torch.equal(cache.memory_layout.order, row.order[rows]) and torch.equal(
        cache.layout.segment, row.segment[rows]
    )


def test_rows_of_a_cache_may_share_a_memory_and_part_again() -> None:
    cache, row, k = filled([3, 1, 4], 4)
    cache.memory, cache.memory_layout = {0: (k, -k)}, row
    cache.select(torch.tensor([0, 0, 1, 1, 2, 2]), sharing=2)
    assert cache.sharing == 2 and torch.equal(cache.memory[0][0], k) and len(cache.layout.order) == 6
    assert cache.memory_mask().squeeze().tolist() == (row.segment == 1).tolist()
    cache.select(torch.tensor([2, 3, 4, 5]), sharing=2)
    assert torch.equal(cache.memory[0][0], k[1:]) and torch.equal(cache.memory_layout.segment, row.segment[1:])
    assert cache.memory_mask().squeeze().tolist() == (row.segment[1:] == 1).tolist()
    cache.select(torch.tensor([3, 1, 2]))
    assert cache.sharing == 1 and torch.equal(cache.memory[0][1], -k[[2, 1, 2]])
    torch.testing.assert_close(keys_of(cache, 1), k[[2, 1, 2]])


def test_a_cache_copies_rows_from_a_place_on() -> None:
    cache, _, k = filled([4, 4, 4], 4)
    cache.copy([2], [0], 3)
    expected = k.clone()
    expected[0, :, 3:] = k[2, :, 3:]
    for layer in (0, 1):
        torch.testing.assert_close(keys_of(cache, layer), expected)


def test_caches_are_joined_with_padding_at_the_end() -> None:
    (one, row, k), (other, other_row, other_k) = filled([3, 2], 3), filled([5], 5, offset=1)
    joined = Cache.join([one, other])
    assert len(joined) == 5 and joined.layout.segment.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1] * 5]
    assert torch.equal(joined.layout.order[:2, :3], row.order) and torch.equal(joined.layout.field[2:], other_row.field)
    for layer in (0, 1):
        keys = keys_of(joined, layer)
        torch.testing.assert_close(keys[:2, :, :3], k)
        torch.testing.assert_close(keys[2:], other_k)
    assert not joined._plain, "padding is hidden by a mask"


def test_a_cache_that_begins_anew_keeps_the_memory_alone() -> None:
    cache, row, k = filled([3, 1], 3)
    cache.memory, cache.memory_layout = {0: (k, k)}, row
    cache.restart()
    assert len(cache) == 0 and cache.memory_layout is row and cache.memory[0][0] is k
    cache.layout = row
    assert torch.equal(cache.extend(0, k + 7, k)[0], k + 7)


def test_rows_of_a_cache_begin_anew_and_places_that_none_sees_are_cut() -> None:
    cache, row, k = filled([3, 5, 4], 5)
    cache.hide(torch.tensor([0, 2]))
    assert cache.layout.segment.tolist() == [[0] * 5, [1] * 5, [0] * 5]
    assert cache.n_hidden == 0
    cache.hide(torch.tensor([1]))
    assert cache.n_hidden == 5
    cache, row, k = filled([3, 5, 4], 5)
    cache.coordinate = k[:, 0, :, 0]
    cache.cut(2, 4)
    assert torch.equal(cache.layout.order, row.order[:, 2:4])
    assert torch.equal(cache.coordinate, k[:, 0, 2:4, 0])
    for layer in (0, 1):
        torch.testing.assert_close(keys_of(cache, layer), k[:, :, 2:4])


def test_rows_of_a_cache_hold_their_newest_places_anew_and_no_others() -> None:
    cache, _, k = filled([4, 5, 3], 5)
    part, _, new = filled([2, 3], 3)
    cache.renew(torch.tensor([2, 1]), part)
    assert cache.layout.segment.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0]]
    assert cache.n_hidden == 0
    for layer in (0, 1):
        keys = keys_of(cache, layer)
        torch.testing.assert_close(keys[0, :, :4], k[0, :, :4])
        torch.testing.assert_close(keys[1, :, 2:], new[1])
        torch.testing.assert_close(keys[2, :, 1:3], new[0, :, :2])
    cache.hide(torch.tensor([0]))
    assert cache.n_hidden == 1

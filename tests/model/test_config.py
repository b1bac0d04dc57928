"""What the configs work out, and what they refuse."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.model.config import ExpertsConfig, RelativeConfig, RotaryConfig, TransformerConfig


def test_the_inner_width_follows_d_model() -> None:
    assert TransformerConfig(d_model=24, n_heads=2).inner_width == 96
    assert TransformerConfig(d_model=24, n_heads=2, gated=True).inner_width == 64
    assert TransformerConfig(d_model=25, n_heads=5, gated=True).inner_width == 72
    assert TransformerConfig(d_model=24, n_heads=2, d_ff=7).inner_width == 7


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"d_model": 0}, "d_model must be at least 1, got 0"),
        ({"n_heads": 0}, "n_heads must be at least 1, got 0"),
        ({"depth": -1}, "depth must be at least 0, got -1"),
        ({"d_head": 0}, "d_head must be at least 1, got 0"),
        ({"n_kv_heads": 0}, "n_kv_heads must be at least 1, got 0"),
        ({"d_ff": 0}, "d_ff must be at least 1, got 0"),
        ({"init_std": -0.1}, "init_std must not be negative, got -0.1"),
        ({"norm_eps": -1e-5}, "norm_eps must not be negative, got -1e-05"),
        (
            {"d_model": 10, "n_heads": 4},
            "n_heads must divide d_model unless d_head is given, got d_model=10, n_heads=4",
        ),
        ({"n_heads": 6, "n_kv_heads": 4}, "n_kv_heads must divide n_heads, got n_heads=6, n_kv_heads=4"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"attention_dropout": -0.1}, "attention_dropout must be at least 0 and below 1, got -0.1"),
        ({"drop_path": 2}, "drop_path must be at least 0 and below 1, got 2"),
        (
            {"rotary": RotaryConfig(("row", "column"))},
            "rotary needs a d_head that is a multiple of 4 for the axes row, column, got 6",
        ),
    ],
    ids=str,
)
def test_a_config_that_cannot_be(choices: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TransformerConfig(**{"d_model": 12, "n_heads": 2, **choices})


def test_d_head_may_be_free_of_d_model() -> None:
    assert TransformerConfig(d_model=10, n_heads=4, d_head=3).head_width == 3
    with pytest.raises(InputError, match=r"rotary\.axes must name at least one axis, got none"):
        RotaryConfig(())
    with pytest.raises(InputError, match=r"rotary\.base must be above 0, got 0"):
        RotaryConfig(("word",), base=0)
    assert RotaryConfig(["row", "column"]) == RotaryConfig(("row", "column"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"n_buckets": 2}, "relative.n_buckets must be even and at least 4, got 2"),
        ({"n_buckets": 7}, "relative.n_buckets must be even and at least 4, got 7"),
        ({"n_buckets": 0, "bidirectional": False}, "relative.n_buckets must be even and at least 2, got 0"),
        ({"max_distance": 8}, "relative.max_distance must be above the 8 distances that have a bucket of their own"),
    ],
)
def test_buckets_that_cannot_be(choices: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RelativeConfig("t5", "word", **choices)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"n": 1}, r"^experts\.n must be at least 2, got 1$"),
        ({"n": 4, "active": 5}, r"^experts\.active must be at most experts\.n, got 5 of 4 experts$"),
        ({"active": 0}, r"^experts\.active must be at least 1, got 0$"),
        ({"every": 0}, r"^experts\.every must be at least 1, got 0$"),
        ({"shared": -1}, r"^experts\.shared must be at least 0, got -1$"),
        ({"d_ff": 0}, r"^experts\.d_ff must be at least 1, got 0$"),
        ({"balance": -0.01}, r"^experts\.balance must not be negative, got -0\.01$"),
        ({"balance": float("nan")}, r"^experts\.balance must be a number of at least 0, got nan$"),
        ({"active": 1, "normalize": True}, r"^experts\.normalize: with one active expert its weight would always be 1"),
        ({"every": 4}, r"^experts\.every must be at most depth, or no block has experts, got 4 and a depth of 3$"),
    ],
    ids=str,
)
def test_experts_that_cannot_be(choices: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TransformerConfig(d_model=12, n_heads=2, depth=3, experts=ExpertsConfig(**choices))


def test_which_blocks_have_experts() -> None:
    config = TransformerConfig(d_model=12, n_heads=2, depth=5, experts=ExpertsConfig(every=2))
    assert [config.has_experts(i) for i in range(5)] == [False, True, False, True, False]
    assert not TransformerConfig(d_model=12, n_heads=2).has_experts(0)


def test_the_weights_of_several_experts_are_normalized_and_that_of_one_is_not() -> None:
    assert ExpertsConfig(active=2).is_normalized and not ExpertsConfig(active=1).is_normalized
    assert not ExpertsConfig(active=2, normalize=False).is_normalized

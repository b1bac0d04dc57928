"""Series come back from their tokens, with time stamps, gaps and any channels; what cannot be used is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anyformer.errors import InputError
from anyformer.tokenizers.series.series import Series
from tests.helpers.channels import WALK, X, Y


@given(
    hnp.arrays(
        np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.floats(-9, 9) | st.just(np.nan)
    ),
    st.integers(1, 4),
)
def test_a_series_comes_back_from_its_tokens(values: np.ndarray, width: int) -> None:
    tokenizer = Series(width=width).fit([values])
    tokens = tokenizer.encode(values)
    assert len(tokens) == tokenizer.count(values) == -(-values.shape[1] // width)
    assert tokens.content.isfinite().all()
    back = tokenizer.decode(tokens)
    # Steps at the end where nothing is there are as good as none.
    assert np.isnan(values[:, back.shape[1] :]).all()
    np.testing.assert_allclose(back, values[:, : back.shape[1]], atol=1e-4)


def test_a_token_holds_its_steps_and_whether_they_are_there() -> None:
    tokenizer = Series(width=2, normalize=False, channels=2)
    tokens = tokenizer.encode([[1, None, 3], [4, 5, 6]])
    assert tokens.content.tolist() == [[1, 0, 4, 5, 1, 0, 1, 1], [3, 0, 6, 0, 1, 0, 1, 0]]
    assert tokens.position.tolist() == [[0], [1]]
    assert not tokens.order.any()


def test_each_channel_is_standardised_as_all_training_records_have_it() -> None:
    records = [WALK * [[1], [100], [0]] + 5, WALK[:, :4] * [[1], [100], [0]] - 2]
    tokenizer = Series(width=1).fit(records)
    together = np.concatenate(records, 1)
    np.testing.assert_allclose(tokenizer.mean, together.mean(1))
    np.testing.assert_allclose(tokenizer.std, together.std(1))
    values = torch.cat([tokenizer.encode(record).content[:, :3] for record in records])
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(values.std(0, correction=0), 1, atol=1e-6)
    assert tokenizer.sizes == {"time": 11}
    assert tokenizer.fit([]) is tokenizer


def test_missing_values_are_left_out_of_the_mean_and_a_channel_that_never_changes_is_not_blown_up() -> None:
    tokenizer = Series().fit([[[1, None, 3], [7, 7, 7], [None] * 3]])
    assert tokenizer.mean == (2, 7, 0)
    assert tokenizer.std == (1, 1, 1)


def test_times_are_continuous_positions_and_come_back() -> None:
    record = {"t": [10.0, 10.5, 12.0, 12.1, 15.0], "x": [1, 2, 3, 4, 5], "y": [5, 4, None, 2, 1]}
    tokenizer = Series(width=2, times="t").fit([record])
    assert (tokenizer.channels, tokenizer.unit, tokenizer.sizes) == (2, 2.5, {})
    # Of all tokens of the data alike, be they in a long record or in a short one.
    long, short = ({"t": times, "x": times} for times in ([0.0, 1, 2, 3, 4, 5, 6], [0.0, 9]))
    assert Series(times="t").fit([long, short]).unit == (6 + 9) / 7
    tokens = tokenizer.encode(record)
    np.testing.assert_allclose(tokens.position[:, 0], [4, 4.8, 6])
    assert tokens.position.dtype == tokenizer.empty().position.dtype == torch.float32
    np.testing.assert_allclose(tokens.content[:, -2:], [[0, 0.2], [0, 0.04], [0, 0]], atol=1e-6)
    back = tokenizer.decode(tokens)
    np.testing.assert_allclose(back["t"], record["t"], rtol=1e-6)
    np.testing.assert_allclose(back["x"], record["x"], atol=1e-5)
    np.testing.assert_allclose(back["y"], [5, 4, np.nan, 2, 1], atol=1e-5)
    again = tokenizer.encode(back)
    np.testing.assert_allclose(again.content, tokens.content, atol=1e-5)


def test_names_are_learnt_where_all_else_is_given_and_several_records_have_to_show_them() -> None:
    tokenizer = Series(channels=3, normalize=False, max_steps=3).fit([{"xy": [X, Y]}, {"z": Y, "xy": [X, Y]}])
    assert tokenizer.names == ("xy", "xy", "z")
    assert tokenizer.fit([]) is tokenizer
    assert tokenizer.encode({"z": Y}).content.tolist() == [[0, 0, y, 0, 0, 1] for y in Y]
    flat = Series().fit([[X, Y]])
    assert flat.names is None and flat.fit([[X, Y]]) is flat


def test_a_file_of_another_shape_is_refused_before_it_is_counted(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.float32(1))
    with pytest.raises(InputError, match=r"a series must be \(channels, steps\) with at least one of each, got \(\)"):
        Series().count(str(tmp_path / "one.npy"))


def test_a_rate_puts_series_of_unlike_rates_beside_each_other() -> None:
    slow, fast = Series(rate=2, unit=0.5, normalize=False, channels=1), Series(rate=8, width=4, unit=0.5, channels=1)
    fast = replace(fast, normalize=False)
    assert slow.encode([0, 1, 2]).position.tolist() == fast.encode(np.arange(12)).position.tolist() == [[0], [1], [2]]
    assert Series(rate=50, width=5, channels=1, normalize=False).encode(range(15)).position.tolist() == [[0], [1], [2]]


def test_the_picture_has_a_curve_for_each_channel() -> None:
    tokenizer = Series(width=2).fit([WALK])
    picture = tokenizer.show(tokenizer.encode(WALK))
    assert picture.shape == (3 * 32, 12 * 3, 3) and picture.dtype == np.uint8
    blue = (picture == (31, 119, 180)).all(-1).reshape(3, 32, 12, 3).any((1, 3))
    assert blue[:, :11].all() and not blue[:, 11].any()
    # A jump, up or down, is a line without a gap, its ends included.
    steps = Series(channels=1, normalize=False)
    picture = steps.show(steps.encode([[-3.0, 3.0, -3.0]]))
    jumps = (picture == (31, 119, 180)).all(-1)[:, [3, 6]]
    assert jumps.sum(0).tolist() == [31, 31] and jumps[[0, 30]].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"rate": -1.0}, "rate must be above 0, got -1"),
        ({"rate": 1.0, "times": "t"}, "times and rate both say when the steps are"),
        ({"unit": 1.0}, "unit is of time, which times or rate tell"),
        ({"channels": 2, "mean": [1.0]}, "mean must have 2 numbers, one for each channel, got 1"),
        ({"channels": 2, "names": ["x"]}, "names must have 2 names, one for each channel, got 1"),
        ({"times": "t", "names": ["t", "x"]}, "names: 't' are the times, and no channel; leave it out"),
        ({"std": [0.0]}, "std must be above 0, got 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Series(**options)


def test_what_is_not_known_before_fitting_is_said() -> None:
    with pytest.raises(InputError, match="the number of channels is not known yet; give channels, or fit"):
        Series().lift(8)
    with pytest.raises(InputError, match="the means of the channels are not known yet"):
        Series().encode([1, 2])
    with pytest.raises(InputError, match="the unit of time is not known yet"):
        Series(times="t", normalize=False).encode({"t": [1], "x": [1]})
    with pytest.raises(InputError, match="there is no series to learn the channels from"):
        Series().fit([])


def test_what_was_learnt_is_inherited_and_must_agree() -> None:
    fitted = Series(width=2).fit([WALK])
    assert Series(width=2).inherit(fitted) == fitted
    fitted.agree(Series(width=2).inherit(fitted), "sensor")
    named = Series(width=2).fit([{"x": WALK[0], "yz": WALK[1:]}])
    assert Series(width=2).inherit(named) == named
    named.agree(fitted, "sensor")
    with pytest.raises(InputError, match=r"sensor: names is .* set it alike"):
        named.agree(replace(named, names=("a", "b", "c")), "sensor")
    with pytest.raises(InputError, match=r"the records have 2 channels \(x, y\), and there must be 1$"):
        Series(channels=1).fit([{"x": X}, {"y": X}])
    with pytest.raises(InputError, match=r"a series of 3 channels, and there must be 2; its steps come first"):
        Series(channels=2).fit([np.transpose([X, Y])])
    with pytest.raises(InputError, match=r"some records have channels by name \(x\), some are arrays"):
        Series().fit([{"x": X}, [X]])
    with pytest.raises(InputError, match=r"sensor: mean is .* set it alike"):
        fitted.agree(Series(width=2).fit([WALK + 1]), "sensor")

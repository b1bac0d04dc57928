"""Clouds of points are sets: whatever sequence they come in, and however they are turned, they stay the same set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.points import Points, PointsAugmentation

CLOUD = np.random.default_rng(0).normal(3, 2, (20, 4))


def sides(points: np.ndarray) -> np.ndarray:
    """The distances of all points from each other, (n, n)."""
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@pytest.mark.parametrize("normalize", ["data", "none"])
def test_a_cloud_comes_back_from_its_tokens(normalize: str) -> None:
    tokenizer = Points(normalize=normalize).fit([CLOUD, CLOUD[:3] + 1])
    tokens = tokenizer.encode(CLOUD)
    np.testing.assert_allclose(tokenizer.decode(tokens), CLOUD, rtol=1e-5)
    assert tokens.position.shape == (20, 0) and not tokens.order.any()
    assert len(tokens) == tokenizer.count(CLOUD) == 20


def test_a_cloud_normalised_by_itself_keeps_its_shape_and_loses_place_and_size() -> None:
    tokenizer = Points().fit([CLOUD])
    points = tokenizer.encode(CLOUD).content[:, :3].double().numpy()
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-6)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
    larger = tokenizer.encode(CLOUD * [5, 5, 5, 1] + [1, 2, 3, 0]).content
    torch.testing.assert_close(larger, tokenizer.encode(CLOUD).content, atol=1e-5, rtol=0)
    ratio = sides(points) / np.maximum(sides(CLOUD[:, :3]), 1e-9)
    np.testing.assert_allclose(ratio[ratio > 0], ratio[0, 1], rtol=1e-4)
    assert tokenizer.encode([[1, 2, 3, 0]]).content[0, :3].tolist() == [0, 0, 0]


def test_the_data_is_scaled_alike_on_all_three_axes_and_each_feature_by_itself() -> None:
    tokenizer = Points(normalize="data").fit([CLOUD[:11], CLOUD[11:]])
    content = tokenizer.encode(CLOUD).content.double()
    np.testing.assert_allclose(content.mean(0), 0, atol=1e-6)
    assert content[:, :3].square().mean().item() == pytest.approx(1)
    assert content[:, 3].square().mean().item() == pytest.approx(1)
    assert len(set(tokenizer.std[:3])) == 1
    assert tokenizer.fit([]) is tokenizer


def test_a_cloud_far_away_keeps_its_size_the_same_on_all_three_axes() -> None:
    cloud = np.random.default_rng(0).normal([5e6, 300, 0], 0.28, (200, 3))
    tokenizer = Points(normalize="data").fit([cloud[:90], cloud[90:]])
    assert tokenizer.std == (pytest.approx(0.28, rel=0.1),) * 3 and len(set(tokenizer.std)) == 1
    assert Points().fit([np.full((1001, 3), [5e6 + 0.1, 0.1, 7])] * 3).std == (1, 1, 1)


def test_a_file_of_another_shape_is_refused_before_it_is_counted(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.float32(1))
    with pytest.raises(InputError, match=r"points must be \(n, 3 \+ features\) with at least one, got \(\)"):
        Points().count(str(tmp_path / "one.npy"))


def test_of_a_large_cloud_the_same_points_are_taken_whatever_their_sequence() -> None:
    tokenizer = Points(max_points=7, normalize="none").fit([CLOUD])
    first, second = (tokenizer.encode(cloud).content for cloud in (CLOUD, CLOUD[::-1].copy()))
    assert len(first) == tokenizer.count(CLOUD) == 7
    assert torch.equal(first, second)
    line = np.random.default_rng(1).permutation(np.arange(100.0))[:, None] * [1, 0, 0]
    taken = Points(max_points=5, normalize="none", n_features=0).encode(line).content[:, 0]
    assert taken.tolist() == pytest.approx([0, 25, 50, 74, 99], abs=1), "even over it, from end to end"
    drawn = [tokenizer.encode(CLOUD, np.random.default_rng(seed)).content for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert len({tuple(point) for point in drawn[0].tolist()}) == 7


@pytest.mark.parametrize("rotate", ["up", "any"])
def test_turning_keeps_distances_and_hands(rotate: str) -> None:
    turn = PointsAugmentation(rotate=rotate)
    matrices = [turn.change(np.eye(3), np.random.default_rng(seed)) for seed in range(400)]
    for matrix in matrices[:50]:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)
        assert rotate == "any" or matrix[2].tolist() == [0, 0, 1]
    # Every side comes as often as the other.
    np.testing.assert_allclose(np.mean(matrices, 0)[:2], 0, atol=0.1)


def test_noise_and_size_are_of_the_strength_asked_for_and_leave_features_alone() -> None:
    many = np.tile(np.array([0.0, 0, 0, 1, 2]), (4000, 1))
    tokenizer = Points(max_points=4000, normalize="none", augment=PointsAugmentation(jitter=0.02)).fit([many])
    noisy = tokenizer.encode(many, np.random.default_rng(0)).content
    assert noisy[:, :3].std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(noisy[:, 3:], tokenizer.encode(many).content[:, 3:])
    scaled = [PointsAugmentation(scale=0.2).change(np.ones((1, 3)), np.random.default_rng(seed)) for seed in range(99)]
    assert 0.8 <= np.min(scaled) < 0.85 and 1.15 < np.max(scaled) <= 1.2


def test_a_cloud_is_read_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "cloud.npy", CLOUD)
    (tmp_path / "cloud.csv").write_text("x,y,z,s\n" + "\n".join(",".join(map(repr, row)) for row in CLOUD.tolist()))
    tokenizer = Points().fit([CLOUD])
    for name in ("cloud.npy", "cloud.csv"):
        assert torch.equal(tokenizer.encode(str(tmp_path / name)).content, tokenizer.encode(CLOUD).content)
        assert tokenizer.count(str(tmp_path / name)) == 20
    assert torch.equal(tokenizer.encode(str(CLOUD.tolist())).content, tokenizer.encode(CLOUD).content)


def test_coordinates_alone_need_no_fitting_where_each_cloud_is_normalised_by_itself() -> None:
    plain = CLOUD[:, :3]
    assert torch.equal(Points(n_features=0).encode(plain).content, Points().fit([plain]).encode(plain).content)


def test_the_picture_shows_every_point_from_the_front() -> None:
    tokenizer = Points(normalize="none").fit([np.eye(3)])
    picture = tokenizer.show(tokenizer.encode([[0, 0, 0], [1, 0, 0], [0, 1, 1]]))
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8
    assert np.argwhere((picture < 255).all(-1)).tolist() == [[1, 1], [94, 1], [94, 94]]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([[1, 2]], r"points must be \(n, 3 \+ features\) with at least one, got \(1, 2\)"),
        (np.zeros((0, 3)), r"points must be .* got \(0, 3\)"),
        ([[1, 2, 3], [1, None, 3]], "point 1 has a number missing; leave it out"),
        ([[1, 2, 3, 4]], "points must have 0 features beside x, y and z, got 1"),
        ([["a", "b", "c"]], "points must be numbers in lists of equal length"),
        ("gone.csv", "gone.csv: no such file"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused(record: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Points().fit([np.eye(3)]).encode(record)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Points(max_points=0), "max_points must be at least 1, got 0"),
        (lambda: Points(n_features=-1), "n_features must be at least 0, got -1"),
        (lambda: Points().lift(8), "the features of points are not known yet; give n_features"),
        (lambda: Points(n_features=1).encode(CLOUD), "the means of the points are not known yet; fit"),
        (lambda: Points().fit([]), "there is no point to learn from"),
        (lambda: PointsAugmentation(jitter=-1.0), "augment.jitter must be at least 0"),
        (lambda: PointsAugmentation(scale=1.0), "augment.scale must be at least 0 and below 1"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_what_was_learnt_is_inherited_and_must_agree() -> None:
    fitted = Points().fit([CLOUD])
    assert Points().inherit(fitted) == fitted
    fitted.agree(Points().inherit(fitted), "scan")
    with pytest.raises(InputError, match=r"scan: mean is .* set it alike"):
        fitted.agree(Points().fit([CLOUD + 1]), "scan")

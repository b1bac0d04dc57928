"""Clips come back from their tubelets, from arrays and from files; what is drawn is drawn for all frames alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anyformer.errors import InputError
from anyformer.tasks.decide.video_file import Video as Film
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.video import Video
from tests.helpers.drawn import noise, smooth

CLIP = noise(6, 8, 12, 3)
WHOLE = Video(size=(8, 12), frames=6, patch=4, tubelet=2)


def film(path: Path, frames: np.ndarray) -> str:
    with Film(path) as video:
        for frame in frames:
            video.add(frame)
    return str(path)


def test_a_clip_comes_back_from_its_tokens() -> None:
    tokens = WHOLE.encode(CLIP)
    assert np.array_equal(WHOLE.decode(tokens), CLIP)
    assert len(tokens) == WHOLE.count(CLIP) == 3 * 2 * 3
    assert tokens.content.shape == (18, 3 * 2 * 4 * 4)
    assert tokens.position.tolist() == [[t, row, column] for t in range(3) for row in range(2) for column in range(3)]
    assert WHOLE.sizes == {"time": 3, "row": 2, "column": 3}
    assert not tokens.order.any()


def test_a_tubelet_holds_the_same_square_of_frames_that_follow_each_other() -> None:
    tokenizer = replace(WHOLE, mean=(0,), std=(1,))
    tubelet = tokenizer.encode(CLIP).content[(1 * 2 + 1) * 3 + 2].view(3, 2, 4, 4)
    expected = torch.from_numpy(CLIP[2:4, 4:8, 8:12]).permute(3, 0, 1, 2) / 255
    torch.testing.assert_close(tubelet, expected)


def test_of_each_stretch_any_frame_is_drawn_apart_from_the_others() -> None:
    clip = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(12, 2)
    tokenizer = replace(WHOLE, channels=1)
    taken = np.array(
        [tokenizer.decode(tokenizer.encode(clip, np.random.default_rng(i)))[:, 0, 0, 0] for i in range(99)]
    )
    within = taken - 10 * np.arange(6)
    assert set(within.flatten().tolist()) == set(range(10))
    assert np.abs(np.corrcoef(within.T) - np.eye(6)).max() < 0.5


def test_grey_clips_have_no_channels() -> None:
    tokenizer = replace(WHOLE, channels=1)
    assert np.array_equal(tokenizer.decode(tokenizer.encode(CLIP[..., 0])), CLIP[..., :1])
    assert tokenizer.show(tokenizer.encode(CLIP[..., 0])).shape == (8, 6 * 12, 3)


@pytest.mark.parametrize(
    ("n", "expected"), [(6, [0, 1, 2, 3, 4, 5]), (12, [1, 3, 5, 7, 9, 11]), (3, [0, 0, 1, 1, 2, 2])]
)
def test_frames_are_taken_from_the_middle_of_equal_stretches(n: int, expected: list[int]) -> None:
    clip = np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(12, 2)
    tokenizer = replace(WHOLE, channels=1)
    assert tokenizer.decode(tokenizer.encode(clip))[:, 0, 0, 0].tolist() == expected


def test_in_training_a_frame_is_drawn_from_each_stretch() -> None:
    clip = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(12, 2)
    tokenizer = replace(WHOLE, channels=1)
    drawn = np.array(
        [tokenizer.decode(tokenizer.encode(clip, np.random.default_rng(seed)))[:, 0, 0, 0] for seed in range(100)]
    )
    assert ((drawn // 10) == np.arange(6)).all()
    assert len(np.unique(drawn)) > 50


def test_all_frames_of_a_clip_of_its_own_length_are_taken_and_the_last_tubelet_is_filled() -> None:
    tokenizer = replace(WHOLE, frames=None)
    for n in (1, 4, 5):
        tokens = tokenizer.encode(CLIP[:n])
        assert len(tokens) == tokenizer.count(CLIP[:n]) == -(-n // 2) * 6
        assert np.array_equal(tokenizer.decode(tokens), CLIP[[*range(n), n - 1]][: -(-n // 2) * 2])
    assert tokenizer.sizes == {"row": 2, "column": 3}


def test_what_is_drawn_is_the_same_for_all_frames() -> None:
    still = smooth(8, 12)[None].repeat(6, 0)
    augment = Augmentation(scale=(0.5, 1.0), crop=2, shift=1.0, rotation=20, flip=True, erase=0.5)
    tokenizer = replace(WHOLE, augment=augment)
    frames = [tokenizer.decode(tokenizer.encode(still, np.random.default_rng(seed))) for seed in range(8)]
    assert all((clip == clip[0]).all() for clip in frames)
    assert len({clip.tobytes() for clip in frames}) == 8


def test_frames_are_cut_to_the_shape_and_resized() -> None:
    tokenizer = Video(size=(4, 4), frames=2, patch=4, tubelet=2)
    clip = np.zeros((2, 8, 16, 3), dtype=np.uint8)
    clip[:, :, 4:12] = 255
    assert (tokenizer.decode(tokenizer.encode(clip)) == 255).all()


@pytest.mark.parametrize("kind", ["npy", "gif", "mp4", "bytes", "pictures"])
def test_a_clip_is_read_from_whatever_holds_it(kind: str, tmp_path: Path) -> None:
    shades = np.array([0, 200, 40, 160, 80, 120], dtype=np.uint8)
    clip = np.broadcast_to(shades[:, None, None, None], (6, 16, 24, 3)).copy()
    tokenizer = Video(size=(16, 24), frames=None, patch=8, tubelet=2)
    if kind == "npy":
        np.save(tmp_path / "clip.npy", clip)
        record: Any = str(tmp_path / "clip.npy")
    elif kind == "gif":
        first, *others = map(Image.fromarray, clip)
        first.save(tmp_path / "clip.gif", save_all=True, append_images=others, duration=40)
        record = str(tmp_path / "clip.gif")
    elif kind == "pictures":
        record = [Image.fromarray(frame) for frame in clip]
    else:
        record = film(tmp_path / "clip.mp4", clip)
        if kind == "bytes":
            record = {"bytes": Path(record).read_bytes(), "path": "clip.mp4"}
    assert tokenizer.count(record) == len(tokenizer.encode(record)) == 3 * 2 * 3
    decoded = tokenizer.decode(tokenizer.encode(record)).astype(int)
    assert np.abs(decoded - clip).max() <= 4
    few = replace(tokenizer, frames=2)
    # The middles of two halves.
    assert np.abs(few.decode(few.encode(record)).astype(int)[:, 0, 0, 0] - shades[[1, 4]]).max() <= 4


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    whole = Path(film(tmp_path / "whole.mp4", CLIP.repeat(4, 1).repeat(4, 2)))
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:300])
    # A list of files to play, which ffmpeg would open where it may go by the content.
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{whole}\n")
    for record, message in (
        (str(tmp_path / "cut.mp4"), r"cut.mp4: damaged, truncated or no .mp4 file"),
        (str(tmp_path / "list.mp4"), r"list.mp4: damaged, truncated or no .mp4 file"),
        (str(tmp_path / "gone.mp4"), r"gone.mp4: no such file"),
        ("clip.txt", r"clip.txt: a clip must end in .npy, .npz, .mp4"),
        ({"bytes": b"1", "path": "clip.npy"}, "clip.npy: an array is read from its file, and not from bytes"),
        ({"bytes": b"1", "path": None}, "bytes without a name: a clip must end in"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), "a clip needs at least one frame"),
        (
            np.zeros((8, 8), dtype=np.uint8),
            r"a clip must be \(frames, rows, columns, channels\).* got an array \(8, 8\)",
        ),
        (3, "a clip must be .* got int"),
        ([CLIP[0], CLIP[1][:4]], "of one size, and after 8 x 12 pixels come 4 x 12"),
    ):
        with pytest.raises(InputError, match=message):
            replace(WHOLE, frames=None).encode(record)
    np.save(tmp_path / "one.npy", np.float32(1))
    with pytest.raises(InputError, match=r"a clip must be .* got an array \(\)"):
        replace(WHOLE, frames=None).count(str(tmp_path / "one.npy"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 0}, "patch must be at least 1, got 0"),
        ({"channels": 2}, "channels must be 1 .* or 3"),
        ({"size": [10, 12]}, r"size must be multiples of patch=4, got \(10, 12\)"),
        ({"frames": 3}, "frames must be a multiple of tubelet=2, got 3"),
        ({"mean": [0.1, 0.2]}, "mean must be one number or 3, got 2"),
        ({"std": [0.0]}, "std must be above 0"),
        ({"augment": Augmentation(policy="trivial")}, "augment.policy and augment.jitter recolour single pictures"),
        ({"augment": Augmentation(crop=8)}, "augment.crop must be less than the sides"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(WHOLE, **options)

"""Films are read upright, by the time at which their frames are shown, and in parts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from anyformer.errors import InputError
from anyformer.tokenizers.video import Video

CODECS = {"mp4": "libx264", "mov": "mpeg4", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4"}
LEVELS = [15 + 20 * i for i in range(12)]


def film(path: Path, times: list[Any], levels: list[int] = LEVELS, tick: Fraction = Fraction(1, 90_000)) -> str:
    """A film whose frames, each of one grey level, are shown from these times on, in seconds, the last as long as the
    first."""
    if path.suffix == ".gif":
        first, *others = (Image.new("RGB", (32, 32), (level,) * 3) for level in levels)
        ends = [*times[1:], times[-1] + times[1] - times[0]]
        lasts = [1000 * (after - time) for time, after in zip(times, ends, strict=True)]
        first.save(path, save_all=True, append_images=others, duration=[round(float(each)) for each in lasts])
        return str(path)
    with av.open(str(path), "w") as container:
        rate = (1 / (Fraction(times[1]) - Fraction(times[0]))).limit_denominator(1001)
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=rate)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = tick
        for time, level in zip(times, levels, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return str(path)


def seen(record: Any, frames: int | None, levels: list[int] = LEVELS) -> list[int]:
    """The numbers of the frames that are taken, by their grey level."""
    tokenizer = Video(size=(32, 32), patch=32, frames=frames, tubelet=1, channels=1)
    tokens = tokenizer.encode(record)
    assert tokenizer.count(record) == len(tokens)
    grey = tokenizer.decode(tokens).mean((1, 2, 3))
    return np.abs(grey[:, None] - np.array(levels)).argmin(1).tolist()


@pytest.mark.parametrize(
    ("kind", "rate"),
    [
        ("mp4", 30),
        ("mp4", Fraction(30_000, 1001)),
        ("mkv", 24),
        ("mkv", 60),
        ("webm", 25),
        ("avi", 25),
        ("mov", 50),
        ("gif", 10),
    ],
)
def test_frames_at_one_rate_are_taken_by_their_numbers(tmp_path: Path, kind: str, rate: Any) -> None:
    tick = 1 / Fraction(rate) if kind in ("avi", "mov") else Fraction(1, 90_000)
    path = film(tmp_path / f"a.{kind}", [i / Fraction(rate) for i in range(12)], tick=tick)
    assert seen(path, None) == list(range(12))
    assert seen(path, 12) == list(range(12))
    assert seen(path, 6) == [1, 3, 5, 7, 9, 11]
    assert seen(path, 4) == [1, 4, 7, 10]
    assert seen(path, 24) == sorted([*range(12), *range(12)])


@pytest.mark.parametrize("kind", ["mp4", "mkv", "gif"])
def test_frames_at_uneven_times_are_taken_by_the_time(tmp_path: Path, kind: str) -> None:
    # Ten in a second, which the last of them fills with the next; then two, of a second each.
    path = film(tmp_path / f"a.{kind}", [*(i / 10 for i in range(10)), 2.0, 3.0])
    # Of 3.1 seconds.
    assert seen(path, 4) == [3, 9, 9, 10]
    assert seen(path, None) == list(range(12))


def test_time_counts_from_the_first_frame(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", [5 + i / 10 for i in range(12)])
    assert seen(path, 4) == [1, 4, 7, 10]
    assert seen({"path": path, "start": 0.4, "end": 0.8}, None) == [4, 5, 6, 7]


def test_where_frames_are_missing_the_one_before_is_shown(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [0.0, 0.1, 0.2, 1.0, 1.1, 1.2], LEVELS[:6])
    assert seen(path, 13) == [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["mp4", "webm", "avi", "gif"])
def test_a_part_of_a_film_is_read(tmp_path: Path, kind: str) -> None:
    tick = Fraction(1, 10) if kind == "avi" else Fraction(1, 90_000)
    path = film(tmp_path / f"a.{kind}", [i / Fraction(10) for i in range(12)], tick=tick)
    for record in ({"path": path}, {"bytes": Path(path).read_bytes(), "path": f"a.{kind}"}):
        assert seen({**record, "start": 0.3, "end": 0.7}, None) == [3, 4, 5, 6]
        assert seen({**record, "start": "0.3", "end": "0.7"}, 2) == [4, 6]
        assert seen({**record, "start": 0.9}, None) == [9, 10, 11]
        assert seen({**record, "end": 0.25}, None) == [0, 1, 2]
        assert seen({**record, "start": None, "end": None}, None) == list(range(12))
    for start, end in ((1.3, None), (0.5, 0.5), (0.5, 9), (-1, None)):
        with pytest.raises(InputError, match=rf"a.{kind}: has 1.2 seconds, and no part from {start:g} to"):
            seen({"path": path, "start": start, "end": end}, None)
    with pytest.raises(InputError, match="start must hold a number, got 'soon'"):
        seen({"path": path, "start": "soon"}, None)


def test_an_array_has_no_part_by_time(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 32, 32), np.uint8))
    assert seen({"path": str(tmp_path / "a.npy")}, None, [0]) == [0] * 4
    with pytest.raises(InputError, match=r"a.npy: an array has no times, and so no part from start to end"):
        seen({"path": str(tmp_path / "a.npy"), "start": 1}, None)


QUARTERS = np.array([[30, 90], [150, 210]], dtype=np.uint8)


def marked(path: Path, matrix: tuple[int, int, int, int], tag: str | None = None) -> str:
    """A film of four frames whose quarters are of four levels, of 32 x 48 pixels, that says how it is to be turned."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        if tag is not None:
            stream.metadata["rotate"] = tag
        picture = np.kron(QUARTERS, np.ones((16, 24), np.uint8))[:, :, None].repeat(3, 2)
        for _ in range(4):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    if path.suffix == ".mp4":
        content = path.read_bytes()
        track = content.index(b"tkhd")
        whole = [(1, 0, 0), (0, 1, 0), (0, 0, 2**14)]
        turned = [(*matrix[:2], 0), (*matrix[2:], 0), (0, 0, 2**14)]
        before, after = (
            b"".join((value * 2**16 % 2**32).to_bytes(4, "big") for row in rows for value in row)
            for rows in (whole, turned)
        )
        at = content.index(before, track)
        path.write_bytes(content[:at] + after + content[at + len(after) :])
    return str(path)


def quarters(path: str) -> np.ndarray:
    return Video(size=(32, 32), patch=32, frames=2, tubelet=2, channels=1).decode(
        Video(size=(32, 32), patch=32, frames=2, tubelet=2, channels=1).encode(path)
    )[0, 8:32:16, 8:32:16, 0]


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1), QUARTERS),
        ((0, 1, -1, 0), np.rot90(QUARTERS, -1)),
        ((-1, 0, 0, -1), np.rot90(QUARTERS, 2)),
        ((0, -1, 1, 0), np.rot90(QUARTERS)),
        ((-1, 0, 0, 1), QUARTERS[:, ::-1]),
        ((1, 0, 0, -1), QUARTERS[::-1]),
        ((0, 1, 1, 0), QUARTERS.T),
        ((0, -1, -1, 0), QUARTERS[::-1, ::-1].T),
    ],
)
def test_a_film_is_turned_and_mirrored_as_it_says(
    tmp_path: Path, matrix: tuple[int, int, int, int], upright: np.ndarray
) -> None:
    path = marked(tmp_path / "a.mp4", matrix)
    assert np.abs(quarters(path).astype(int) - upright).max() <= 6
    with av.open(path) as container:
        assert next(container.decode(video=0)).width == 48


@pytest.mark.parametrize("angle", ["90", "180", "270"])
def test_a_tag_turns_it_where_there_is_no_matrix(tmp_path: Path, angle: str) -> None:
    path = marked(tmp_path / "a.mkv", (1, 0, 0, 1), angle)
    assert np.abs(quarters(path).astype(int) - np.rot90(QUARTERS, -int(angle) // 90)).max() <= 6


def test_an_odd_angle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.mkv: is to be turned by an angle that is no multiple of 90 degrees"):
        quarters(marked(tmp_path / "a.mkv", (1, 0, 0, 1), "45"))

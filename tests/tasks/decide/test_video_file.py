"""Videos: what is added can be seen in the file, and a file is whole or absent."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from anyformer.errors import InputError
from anyformer.tasks.decide.rollout import RandomActor, play
from anyformer.tasks.decide.video_file import Video
from anyformer.tokenizers.episode.environments import make
from anyformer.tokenizers.episode.episode import EnvironmentConfig


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_frames_come_back(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "made.mp4"
    with Video(path, fps=10) as video:
        for shade in (0, 100, 200):
            video.add(np.full((*size, 3), shade, np.uint8))
    seen = frames_of(path)
    assert [frame.shape for frame in seen] == [(size[0] + size[0] % 2, size[1] + size[1] % 2, 3)] * 3
    assert [abs(frame.mean() - shade) < 4 for frame, shade in zip(seen, (0, 100, 200), strict=True)] == [True] * 3
    with av.open(path) as container:
        assert container.streams.video[0].average_rate == 10
        assert container.streams.video[0].codec_context.name == "h264"
    assert list(tmp_path.iterdir()) == [path]


def test_an_environment_is_drawn(tmp_path: Path) -> None:
    config = EnvironmentConfig("CartPole-v1", max_episode_steps=3)
    with Video(tmp_path / "cart.mp4") as video:
        list(play(config, RandomActor(make(config).action_space), 1, 0, frames=video.add))
    seen = frames_of(tmp_path / "cart.mp4")
    assert len(seen) == 4
    assert seen[0].std() > 10


def test_a_video_that_was_not_finished_is_absent(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped"), Video(tmp_path / "made.mp4") as video:
        video.add(np.zeros((32, 32, 3), np.uint8))
        raise RuntimeError("stopped")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, message", [("made.avi", "must end in .mp4"), ("none/made.mp4", "there is no folder .*none")]
)
def test_a_path_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Video(tmp_path / name)


def test_a_video_without_a_frame(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was drawn"), Video(tmp_path / "made.mp4"):
        pass

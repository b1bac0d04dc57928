"""Videos of what is played: frames into an mp4 file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.saving.atomic import PART, sync_file, sync_folder


class Video:
    """An mp4 file (H.264) that frames are added to; it is there, whole, once the `with` has ended without an error.

    Raises InputError for another ending, a folder that is not there, and a video without a frame.

        with Video("played.mp4", fps=30) as video:
            episodes = list(play(environment, actor, 1, seed=0, frames=video.add))
    """

    def __init__(self, path: str | Path, fps: int = 30) -> None:
        self.path, self.fps = Path(path), fps
        self._part = self.path.with_name(self.path.name + PART)
        self._container: Any = None
        self._stream: Any = None
        if self.path.suffix.lower() != ".mp4":
            raise InputError(f"--video must end in .mp4, got {path}")
        if not self.path.parent.is_dir():
            raise InputError(f"the video {path}: there is no folder {self.path.parent}")

    def __enter__(self) -> Video:
        return self

    def add(self, frame: np.ndarray) -> None:
        """One more frame, (rows, columns, 3) uint8, all of the same size."""
        with writing(self.path):
            self._add(frame)

    def _add(self, frame: np.ndarray) -> None:
        # FFmpeg takes a quarter of a second to load, and few runs film.
        import av

        if self._container is None:
            self._container = av.open(self._part, "w", format="mp4")
            self._stream = self._container.add_stream("libx264", rate=self.fps)
            # H.264 halves the resolution of colour, so the sides must be even.
            self._stream.height, self._stream.width = (side + side % 2 for side in frame.shape[:2])
            self._stream.pix_fmt = "yuv420p"
        rows, columns = (side % 2 for side in frame.shape[:2])
        if rows or columns:
            frame = np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge")
        for packet in self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._container is None:
            if kind is None:
                raise InputError(f"the video {self.path}: nothing was drawn")
            return
        try:
            with writing(self.path):
                self._finish(whole=kind is None)
        finally:
            self._part.unlink(missing_ok=True)

    def _finish(self, whole: bool) -> None:
        try:
            if whole:
                for packet in self._stream.encode():
                    self._container.mux(packet)
        finally:
            self._container.close()
        if whole:
            sync_file(self._part)
            self._part.replace(self.path)
            sync_folder(self.path.parent)

"""How far a prediction is: a bar on a terminal, else a line every so often."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from anyformer.errors import say
from anyformer.runs.progress import duration

SECONDS = 15.0
"""Between two lines."""


class Progress:
    """Counts records on stderr."""

    def __init__(self, total: int, done: int = 0, shown: bool = True) -> None:
        """done: how many there were before. shown: else it is silent."""
        self.total, self.done, self.before, self.shown = total, done, done, shown
        self._began = self._last = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=done, file=sys.stderr, unit=" records") if shown and sys.stderr.isatty() else None
        )

    def add(self) -> None:
        """One more record is done."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
        elif self.shown and (now := time.monotonic()) - self._last >= SECONDS:
            self._last, rate = now, (self.done - self.before) / (now - self._began)
            left = duration(max((self.total - self.done) / rate, 1.0))
            say(f"{self.done:,} of {self.total:,} records, {rate:,.1f} a second, {left} left")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, line: str) -> None:
        """A line that does not stand in the bar."""
        tqdm.write(line, file=sys.stderr) if self._bar is not None else say(line)

"""Text shown as it is generated, piece by piece, none of which is taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character, or not yet one."""


N_BEFORE = 8
"""Ids of the prompt that new ones are decoded behind."""


UNFINISHED = 3
"""Bytes of a character in UTF-8 before its last, at the most, and so what they can be written as."""


class ShownText:
    """The text of tokens that come one by one, as far as it can be shown.

    Held back are tokens that end within a character, and text that may become a stop string.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), before: Sequence[int] = ()
    ) -> None:
        """before: the ids that stand before them, which are not shown."""
        self.decode, self.stop = decode, stop
        self.held = ""
        # Decoders may treat the first token of a text apart (its leading space), so new ones are decoded behind others.
        self._window = list(before[-N_BEFORE:])
        self._n_old, self._n_shown = len(self._window), len(_whole(decode(self._window))) if before else 0

    def push(self, new: int) -> tuple[str, bool]:
        """The text that the next token sets free, and whether it completes a stop string."""
        self._window.append(new)
        return self._scan(self._decoded(last=False), last=False)

    def flush(self) -> tuple[str, bool]:
        """What is left when no token follows; whether a stop string was in it."""
        return self._scan(self._decoded(last=True), last=True)

    def _decoded(self, last: bool) -> str:
        text = self.decode(self._window)
        whole = text if last else _whole(text)
        new = whole[self._n_shown :]
        self._n_shown = len(whole)
        if whole == text:
            # Nothing hangs on older tokens any more.
            self._window = self._window[self._n_old :]
            self._n_old, self._n_shown = len(self._window), len(self.decode(self._window))
        return new

    def _scan(self, text: str, last: bool) -> tuple[str, bool]:
        self.held += text
        found = [place for place in map(self.held.find, self.stop) if place >= 0]
        if found:
            shown, self.held = self.held[: min(found)], ""
            return shown, True
        n = 0 if last else max((_overlap(self.held, stop) for stop in self.stop), default=0)
        cut = len(self.held) - n
        shown, self.held = self.held[:cut], self.held[cut:]
        return shown, False


def _whole(text: str) -> str:
    """A text without what may be the beginning of a character."""
    return text[:-UNFINISHED] + text[-UNFINISHED:].rstrip(BROKEN)


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of a text with which the stop string begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)

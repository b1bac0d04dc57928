"""What stands before a text that is written: its start tokens, and before these what was said before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anyformer.errors import InputError
from anyformer.tasks.sequence.time_tokens import TimeTokens
from anyformer.tokenizers.text.text import Text
from anyformer.weights.whisper import PREVIOUS, TRANSCRIBE, TRANSLATE

LONGEST_BEFORE = 256
"""Ids of what was said before at the most, where the text has no greatest length."""


@dataclass(frozen=True)
class StartTokens:
    """The start of a text, and the forms that it may take."""

    text: Text
    ids: tuple[int, ...]
    """As a task gives them."""

    def split(self, start: Sequence[int]) -> tuple[list[int], list[int]]:
        """The tokens of what was said before, and those of the start itself."""
        n_before = max((i for i, each in enumerate(start) if each == self.ids[0]), default=0)
        return list(start[:n_before]), list(start[n_before:])

    def opened(
        self, start: Sequence[int], times: TimeTokens | None = None, prompt: str | None = None, translate: bool = False
    ) -> list[int]:
        """A start with what was said before, to transcribe or to translate, with times or without.

        start: as the model chose it, or as it was opened before. times: those that the text is written with.
        Raises InputError where the text has no tokens for it.
        """
        before, own = self.split(start)
        if translate:
            one, other = self._marks("translate", TRANSCRIBE, TRANSLATE)
            if one not in own and other not in own:
                raise InputError("translate needs a Whisper that knows several languages, and this one knows one")
            own = [other if each == one else each for each in own]
        if prompt and not before:
            (ids,) = self.text.encode_batch([" " + prompt.strip()])
            before = self.previous(ids)
        return [*before, *(each for each in own if times is None or each != times.without)]

    def previous(self, ids: Sequence[int]) -> list[int]:
        """What stands before the start where ids were written before it: of these the last, half a text at the most."""
        (mark,) = self._marks("prompt", PREVIOUS)
        longest = LONGEST_BEFORE if self.text.max_len is None else self.text.max_len // 2 - 1
        return [mark, *(int(each) for each in ids[-longest:])]

    def _marks(self, option: str, *spellings: str) -> list[int]:
        try:
            return self.text.ids_of(list(spellings))
        except InputError as error:
            raise InputError(f"{option} is for a Whisper, whose text has the tokens for it: {error}") from error

"""What a decoding method is: it chooses from logits how the continuations of all prompts go on, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from anyformer.generation.continuation import Continuation, Step
from anyformer.generation.running_batch import Rows


class Move(NamedTuple):
    """How the rows go on: some are kept, of these some are overwritten, and each takes in one more id."""

    new: list[int]
    """An id for each row that is kept."""
    keep: list[int] | None = None
    """These rows, in this sequence; None for all."""
    copies: Sequence[tuple[int, int]] = ()
    """Of the rows that are kept, (source, target) each, both of one prompt."""
    sharing: int = 1
    """Of each prompt so many rows are kept, one after another."""


class Method(Protocol):
    """A decoding method, made anew for each generation. The Generator runs the model and calls `step`."""

    not_streamed: ClassVar[str]
    """Why its steps do not show tokens as they come, and what to do; "" where they do."""
    n_rows: int
    """Rows in which each prompt is continued at first."""

    def __init__(self, rows: Rows, options: Any) -> None:
        """rows: not yet begun; they know the prompts and the options that all methods share. options: the whole config,
        of which a method needs its own."""

    @staticmethod
    def is_asked(options: Any) -> bool:
        """Whether options ask for this method."""

    @property
    def ids(self) -> list[list[int]]:
        """The new ids of every row so far."""

    def step(self, logits: Tensor, is_last: bool) -> tuple[list[Step], Move | None]:
        """Go on by one token.

        logits: (b, v), of each row after its ids, -inf for what may not follow; they may be overwritten.
        is_last: no further step will come.
        Returns what can be shown, and how the rows go on; None where all has ended, as it has at the last step.
        """

    def continuations(self) -> list[list[Continuation]]:
        """Of each prompt, the best first, when no step is left."""

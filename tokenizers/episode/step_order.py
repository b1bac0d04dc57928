"""The sequence of steps within episodes, where a file numbers them: joins and parallel tools give rows in any."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from anyformer.errors import InputError, say_once

TIMES = "timestamp", "timestamps", "time"
INDICES = (
    *("frame_index", "step_index", "step", "steps", "timestep", "timesteps", "time_step", "t", "index"),
    *TIMES,
)
"""What the numbers or times of steps are called: the first of these that a file has is gone by."""


def find_index(names: Collection[str]) -> str | None:
    """The name of what numbers the steps, if there is such."""
    return next((name for name in INDICES if name in names), None)


def sort_steps(place: str, index: str, values: np.ndarray, episodes: np.ndarray) -> np.ndarray | None:
    """The rows in the sequence of their index, and of the episodes' first rows, (n,); None where they are in it.

    values, episodes: (n,), of each row.
    """
    values = _checked(place, index, values)
    names, first, number = np.unique(episodes, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[number]
    order = np.lexsort((values, rank))
    is_sorted = bool((order == np.arange(len(order))).all())
    starts = np.flatnonzero(np.concatenate([[True], np.diff(rank[order]) > 0, [True]]))
    check_steps(place, index, values[order], starts, [f"{names[i]}" for i in np.argsort(first)], allow_ties=is_sorted)
    if is_sorted:
        return None
    say_once(f"{place}: the rows are not in the sequence of {index!r}; sorted by it")
    return order


def check_steps(
    place: str,
    index: str,
    values: np.ndarray,
    starts: np.ndarray,
    names: Collection[str] | None = None,
    allow_ties: bool = True,
) -> None:
    """Raise InputError where an index, (n,), does not rise within an episode; say it where it leaves numbers out.

    starts: (episodes + 1,), where each begins. names: what the episodes are called, their numbers when left out.
    allow_ties: whether times may be equal, as rounded ones are.
    """
    values = _checked(place, index, values)
    names = list(names or map(str, range(len(starts) - 1)))
    steps = np.diff(values)
    inside = np.ones(len(steps), dtype=bool)
    inside[starts[1:-1] - 1] = False
    still = np.zeros((), steps.dtype)
    falls = inside & (steps < still if index in TIMES and allow_ties else steps <= still)

    def episode_of(row: int) -> str:
        return names[int(np.searchsorted(starts, row, "right")) - 1]

    if falls.any():
        row = int(falls.argmax())
        before, after = values[row], values[row + 1]
        if before == after:
            raise InputError(
                f"{place}: episode {episode_of(row)} has {index} {before} twice; leave out what stands there twice"
            )
        raise InputError(
            f"{place}: the steps of episode {episode_of(row)} are not in the sequence of {index!r}, {after} comes "
            f"after {before}; sort them by it"
        )
    if values.dtype.kind in "iu" and index not in TIMES and inside.any():
        jumps = inside & (steps > steps[inside].min())
        if jumps.any():
            row = int(jumps.argmax())
            n = len(np.unique(np.searchsorted(starts, np.flatnonzero(jumps), "right")))
            say_once(
                f"{place}: {n} of {len(names)} episodes lack steps: in episode {episode_of(row)} {index} "
                f"{values[row + 1]} comes after {values[row]}"
            )


def _checked(place: str, index: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iufMm" or (values.dtype.kind == "f" and not np.isfinite(values).all()):
        raise InputError(
            f"{place}: {index!r}, by which steps are sorted, must be numbers or times, got {values.dtype}; make it "
            "such, or call it otherwise"
        )
    # Differences of small and of unsigned integers would run over.
    return values.astype(np.int64) if values.dtype.kind in "iu" else values

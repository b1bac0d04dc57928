"""What may change when a run goes on.

One rule for every option: what decides what the weights mean, or which samples a step is made of, stays as it was; what
only decides how training goes on may change, and the change is said. So the arguments of a task and of its data are
fixed, but for those that their classes name as free, and the options of the trainer are free, but for those that make
up a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from anyformer.errors import InputError
from anyformer.parsing.plain import differences


def changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    is_free: Callable[[str], bool],
    what: str = "run",
    path: str = "",
) -> list[str]:
    """How the options of a run that goes on differ from those of its checkpoint, each with both values.

    Raises InputError for the first that is not free. Options that there were none of at that time are left out.
    is_free: whether the option of a dotted path may change. what: whose checkpoint it is. path: of all of them.
    """
    found = []
    for place, how in differences(dict(before), {name: now[name] for name in now if name in before}):
        shown = f"{path}{place}".replace("init_args.", "")
        shown = "seed_everything (data.seed)" if shown == "data.seed" else shown
        if not is_free(place):
            raise InputError(
                f"the checkpoint is of another {what}: {shown} {how}; resume with the config and the training records "
                "of its run, or train with another --run_dir, where init_from may take this run's weights"
            )
        found.append(f"{shown} {how}")
    return found


def is_below(path: str, *heads: str) -> bool:
    """Whether a dotted path is one of some, or leads on from it."""
    return any(path == head or path.startswith(f"{head}.") for head in heads)

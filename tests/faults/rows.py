"""All rows of attacks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tests.faults import configs, formats, runs
from tests.faults.experiments import KINDS, whole
from tests.faults.harness import Row

ROWS = [*configs.ROWS, *runs.ROWS, *formats.ROWS]


def preload(chosen: Sequence[Row]) -> None:
    """Import and train here, once, what each trial would begin with: a fork of this process has it already."""
    torch.set_num_threads(1)
    import anyformer.cli.main  # noqa: F401
    from anyformer.parsing.classes import allowed_imports

    with allowed_imports():
        pass
    if not set(chosen) <= set(formats.ROWS):
        for kind in KINDS:
            whole(kind)

"""All rows of attacks."""

from __future__ import annotations

import torch

from tests.faults import configs, formats, runs

ROWS = [*configs.ROWS, *runs.ROWS, *formats.ROWS]


def preload() -> None:
    """Import here, once, what each trial would import anew: a fork of this process has it already."""
    torch.set_num_threads(1)
    import anyformer.cli.main  # noqa: F401
    from anyformer.parsing.classes import allowed_imports

    with allowed_imports():
        pass

"""Episodes of the corridor of `small_environments.py`, and small models of them."""

from __future__ import annotations

from typing import Any

import tests.helpers.small_environments  # noqa: F401  registers it
from anyformer.data.source import Source
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.tasks.decide.collect import Collected
from anyformer.tasks.decide.decide import Decide
from anyformer.tokenizers.episode.episode import EnvironmentConfig
from tests.helpers.witnesses import redraw


def world(kind: str = "picture", **kwargs: Any) -> EnvironmentConfig:
    return EnvironmentConfig("Corridor-v0", {"kind": kind, **kwargs})


def walks(kind: str = "picture", n: int = 12) -> Collected:
    """Episodes of a walker who goes anywhere."""
    return Collected(world(kind), ("random",), n)


def decider(source: Source, **options: Any) -> Decide:
    """A small model of episodes, its parameters redrawn so that attention is far from uniform."""
    rotary = RotaryConfig(axes=("step",))
    sizes = TransformerConfig(d_model=16, depth=2, n_heads=2, rotary=rotary)
    made = Decide(**{"transformer": sizes, "context": 5} | options)
    made.fit_tokenizers(source)
    made.configure_model()
    redraw(made)
    return made.eval()

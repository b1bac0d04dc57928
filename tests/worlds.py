"""Small environments of ours, of spaces that gymnasium's own have not. Importing this registers them."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from witnesses import redraw

from anyformer.data import Source
from anyformer.tasks.collecting import Collected
from anyformer.tasks.decide import Decide
from anyformer.tokenizers.episodes import EnvironmentConfig
from anyformer.transformer import RotaryConfig, TransformerConfig

LENGTH = 6
"""Places of the corridor."""


class Corridor(gymnasium.Env):
    """A walker on one of six places, seen as a picture and a vector: 1 for each step to the right, -0.5 to the left.

    What is seen and done may be nested in another way, which changes nothing else: see `SPACES`. An episode ends at the
    right end, or is cut off after 12 steps.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, kind: str = "picture", raises_at: int | None = None, render_mode: str | None = None) -> None:
        self.kind, self.raises_at, self.render_mode = kind, raises_at, render_mode
        self.observation_space, self.action_space = SPACES[kind]
        self.place = self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.place, self.count = int(self.np_random.integers(2)), 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if self.count == self.raises_at:
            raise RuntimeError("the floor is gone")
        right = self._goes_right(action)
        before, self.place = self.place, min(max(self.place + (1 if right else -1), 0), LENGTH - 1)
        self.count += 1
        reward = 1.0 if self.place > before else -0.5
        return self._seen(), reward, self.place == LENGTH - 1, self.count == 12, {}

    def render(self) -> np.ndarray:
        return np.repeat(np.repeat(self._picture(), 8, 0), 8, 1)

    def _picture(self) -> np.ndarray:
        picture = np.zeros((4, LENGTH, 3), dtype=np.uint8)
        picture[:, self.place] = 255
        return picture

    def _seen(self) -> Any:
        where = np.array([self.place / LENGTH, self.count / 12], dtype=np.float32)
        if self.kind == "picture":
            return {"picture": self._picture(), "where": where}
        if self.kind == "text":
            return {"text": "x" * self.place, "where": where}
        if self.kind == "pair":
            return (self.place, np.array([self.place % 2, self.place > 3], dtype=np.int8))
        return where

    def _goes_right(self, action: Any) -> bool:
        if self.kind == "text":
            # Two choices of three, which must agree.
            return bool(action[0] == action[1] == 2)
        if self.kind == "pair":
            return bool(action["way"] == 6 and action["hands"][0] == 1)
        return bool(action[0] > 0) if self.kind == "box" else bool(action)


SPACES = {
    "picture": (Dict({"picture": Box(0, 255, (4, LENGTH, 3), np.uint8), "where": Box(0, 1, (2,))}), Discrete(2)),
    "text": (Dict({"text": Text(LENGTH, min_length=0, charset="xy"), "where": Box(0, 1, (2,))}), MultiDiscrete([3, 4])),
    "pair": (Tuple([Discrete(LENGTH), MultiBinary(2)]), Dict({"way": Discrete(2, start=5), "hands": MultiBinary(2)})),
    "box": (Box(0, 1, (2,)), Box(-1, 1, (2,))),
}
"""By kind, what is seen and what is done."""

if "Corridor-v0" not in gymnasium.registry:
    gymnasium.register("Corridor-v0", "worlds:Corridor")


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
    made.learn(source)
    made.configure_model()
    redraw(made)
    return made.eval()

"""Environments of ours, small: what is seen nested, what is done nested, ends that are known, and ones that break.

They are registered when this is imported: `tests.helpers.small_environments:Lights-v0`, or `Lights-v0`. Nothing here
needs a model; see `worlds.py` for those.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

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
    "picture": (
        spaces.Dict({"picture": spaces.Box(0, 255, (4, LENGTH, 3), np.uint8), "where": spaces.Box(0, 1, (2,))}),
        spaces.Discrete(2),
    ),
    "text": (
        spaces.Dict({"text": spaces.Text(LENGTH, min_length=0, charset="xy"), "where": spaces.Box(0, 1, (2,))}),
        spaces.MultiDiscrete([3, 4]),
    ),
    "pair": (
        spaces.Tuple([spaces.Discrete(LENGTH), spaces.MultiBinary(2)]),
        spaces.Dict({"way": spaces.Discrete(2, start=5), "hands": spaces.MultiBinary(2)}),
    ),
    "box": (spaces.Box(0, 1, (2,)), spaces.Box(-1, 1, (2,))),
}
"""By kind, what is seen and what is done."""


class Lights(gymnasium.Env):
    """A picture with one bright half, and a vector whose first number says whether to choose it (above 0) or the other.

    Action 0 is left, 1 is right; 1 for every right choice, 8 steps.
    """

    observation_space = spaces.Dict(
        {"image": spaces.Box(0, 255, (8, 8, 1), np.uint8), "vector": spaces.Box(-1, 1, (2,), np.float32)}
    )
    action_space = spaces.Discrete(2)

    def _look(self) -> dict[str, np.ndarray]:
        image = self.np_random.integers(0, 64, (8, 8, 1), dtype=np.uint8)
        right = int(self.np_random.integers(2))
        image[:, 4 * right : 4 * right + 4] += 160
        vector = self.np_random.uniform(0.2, 1.0, 2).astype(np.float32) * self.np_random.choice([-1, 1], 2)
        self.answer = right if vector[0] > 0 else 1 - right
        return {"image": image, "vector": vector.astype(np.float32)}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._look(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.answer)
        self.steps += 1
        return self._look(), reward, self.steps == 8, False, {}


class Parts(gymnasium.Env):
    """A tuple of a number and a word is seen, a dict of choices and a force is done; 3 steps, the last a success."""

    observation_space = spaces.Tuple((spaces.Discrete(3), spaces.Text(4, min_length=1, charset="ab")))
    action_space = spaces.Dict({"move": spaces.MultiDiscrete([2, 3]), "force": spaces.Box(-1, 1, (1,), np.float32)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return (0, "a"), {}

    def step(self, action: dict[str, np.ndarray]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.steps += 1
        seen = (self.steps % 3, "ab"[self.steps % 2] * self.steps)
        return seen, float(action["force"][0]), False, self.steps == 3, {"is_success": self.steps == 3}


class Counter(gymnasium.Env):
    """Counts its steps, which is all that is seen; lasts as many, 1 to `longest`, as its seed says. Draws itself."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = spaces.Box(0, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, longest: int = 9, render_mode: str | None = None, reuse: bool = True) -> None:
        """reuse: whether the same array is given again and again, as by some environments."""
        self.longest, self.render_mode, self.reuse = longest, render_mode, reuse

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.length = 0, int(self.np_random.integers(1, self.longest + 1))
        self.seen = np.zeros(1, np.float32)
        return self.seen, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.steps < self.length, "stepped after the end"
        self.steps += 1
        if not self.reuse:
            self.seen = self.seen.copy()
        self.seen[:] = self.steps
        return self.seen, 1.0, self.steps == self.length, False, {}

    def render(self) -> np.ndarray:
        return np.full((33, 47, 3), 20 * self.steps, np.uint8)


class Broken(Counter):
    """Is whole for some episodes, and then fails in step 2: raises, gives a reward that is no number, is seen in
    another shape or draws nothing; or when it is reset. `after` of them are played by every copy."""

    def __init__(self, how: str = "raise", after: int = 0, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.how, self.whole = how, after

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.whole -= 1
        if self.how == "reset" and self.whole < 0:
            raise OSError("no such level")
        seen, info = super().reset(seed=seed)
        self.length = 4
        return seen, info

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        breaks = self.steps == 2 and self.whole < 0
        if breaks and self.how == "raise":
            raise RuntimeError("the motor\nis stuck")
        seen, reward, terminated, truncated, info = super().step(action)
        if breaks and self.how == "shape":
            seen = np.zeros((2, 1), np.float32)
        if breaks and self.how in ("nan", "none", "array"):
            reward = {"nan": float("nan"), "none": None, "array": np.ones(1)}[self.how]
        return seen, reward, terminated, truncated, info

    def render(self) -> np.ndarray | None:
        breaks = self.steps == 3 and self.whole < 0
        if breaks and self.how == "screen":
            raise OSError("no screen")
        return None if breaks and self.how == "dark" else super().render()


class Passing(Counter):
    """4 steps; in half of the episodes, those that are seen to begin with 1, the second alone is at the goal."""

    def __init__(self, name: str = "success", render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.name = name

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.length, self.passes = 4, int(self.np_random.integers(2))
        return np.full(1, self.passes, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, _ = super().step(action)
        return seen, reward, terminated, truncated, {self.name: bool(self.passes and self.steps == 2)}


for kind in (Corridor, Lights, Parts, Counter, Broken, Passing):
    gymnasium.register(f"{kind.__name__}-v0", kind)

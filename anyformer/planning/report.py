"""What is known of a run before it is trained: sizes, tokens, parameters, time, memory, and what to beware of.

Plain values, for the terminal and as JSON; `dry_run.py` finds them out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from anyformer.planning.parameters import Sizes
from anyformer.planning.token_budget import Budget
from anyformer.planning.training import Training, show_training
from anyformer.runs.progress import duration


@dataclass(frozen=True)
class Part:
    """A task with its data: the whole of a run, or one of the tasks of a mixture; as a string a few tables."""

    task: str
    records: dict[str, int]
    """Of training, validation and test, as far as there are any."""
    sizes: dict[str, str]
    """What the data has decided, in words: vocabularies, classes, places on the axes."""
    n_batches: int
    """Of an epoch."""
    budget: Budget | None
    """Of some batches; None where none of their samples could be used."""
    trunk: dict[str, str]
    """The sizes of the transformer, and of the encoder where there is one, in words."""
    parameters: Sizes
    """Of the task, those that it shares with others included; with the FLOPs of a sample of the middle."""
    attention: str = ""
    """Whether self-attention takes the batches plain, by one dense mask or in blocks, layer by layer, in words."""

    @property
    def by_part(self) -> dict[str, tuple[int, int]]:
        """Parameters and FLOPs of each part of the model."""
        components = self.parameters.components
        names = dict.fromkeys(component.part for component in components)
        every = {name: [each for each in components if each.part == name] for name in names}
        return {name: (sum(c.parameters for c in own), sum(c.flops for c in own)) for name, own in every.items()}

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        parts = {name: {"parameters": n, "flops": flops} for name, (n, flops) in self.by_part.items()}
        parameters = {
            "total": self.parameters.total,
            "active": self.parameters.active,
            "trained": self.parameters.trained,
            "flops": self.parameters.flops,
            "parts": parts,
        }
        return asdict(self) | {"parameters": parameters}

    def __str__(self) -> str:
        records = ", ".join(f"{n:,} {kind}" for kind, n in self.records.items())
        rows = [("records", records), *self.sizes.items(), ("an epoch", f"{self.n_batches:,} batches")]
        rows += [("attention", self.attention)] if self.attention else []
        width = max(len(key) for key, _ in rows)
        lines = [self.task, *(f"  {key:<{width}}  {value}" for key, value in rows)]
        lines += [] if self.budget is None else ["", str(self.budget)]
        return "\n".join([*lines, "", self._parameters()])

    def _parameters(self) -> str:
        rows = [("parameters", self.parameters.total), *((f"  {k}", n) for k, (n, _) in self.by_part.items() if n)]
        if self.parameters.trained != self.parameters.total:
            rows.insert(1, ("of which trained", self.parameters.trained))
        if self.parameters.active != self.parameters.total:
            rows.insert(1, ("of which active for a token", self.parameters.active))
        width, right = max(len(name) for name, _ in rows), len(f"{self.parameters.total:,}")
        lines = [f"{name:<{width}}  {n:>{right},}  {self.trunk.get(name.strip(), '')}".rstrip() for name, n in rows]
        n_tokens = sum(self.parameters.tokens.values())
        return "\n".join([*lines, f"{self.parameters.flops:.3g} FLOPs forward, of a sample of {n_tokens:,} tokens"])


@dataclass(frozen=True)
class Step:
    """The time of a step, in seconds, all batches that are accumulated for it included."""

    device: str
    n: int
    """Batches that were measured."""
    read: float
    """Waiting for batches."""
    forward: float
    backward: float
    optimizer: float
    samples: float
    """Of a step."""
    tokens: float

    @property
    def seconds(self) -> float:
        return self.read + self.forward + self.backward + self.optimizer


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    weights: int
    gradients: int
    optimizer: int
    """What the optimiser keeps: moments and the like; and the moving average of the weights."""
    before: int
    """What the process held before the data was read and the model made; 0 on a GPU."""
    peak: int
    """The most that the process, or the GPU, has held while steps were taken."""


@dataclass(frozen=True)
class Planned:
    """What is known of a run before it is trained; as a string what the terminal shows."""

    parts: dict[str, Part]
    """Of a mixture by the names of its tasks, else one of the name ''."""
    n_parameters: int
    """Of all tasks together, what they share counted once."""
    step: Step
    memory: Memory
    n_steps: float
    """Of the optimiser, in the task's own training; infinite where nothing ends it."""
    pretraining_steps: int
    """Before those, of `pretrain`; about as long each, so far as is known here."""
    setup_seconds: float
    """Until the first step: reading what the data decides, lengths, making the model."""
    n_validations: int
    validation_seconds: float
    """Of one, without playing; by texts of an untrained model where it writes, which end late."""
    warnings: tuple[str, ...]
    picture: str | None = None
    """The file that shows what the model sees."""
    training: tuple[Training, ...] = ()
    """The parts of the model where they are not all trained alike."""

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        stepping = (self.pretraining_steps + self.n_steps) * self.step.seconds
        return self.setup_seconds + stepping + self.n_validations * self.validation_seconds

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON, which knows no infinity: None there."""
        values = asdict(self) | {"seconds": self.seconds}
        values["step"]["seconds"] = self.step.seconds
        values["parts"] = {name: part.plain() for name, part in self.parts.items()}
        return _finite(values)

    def __str__(self) -> str:
        blocks = [f"{name}: {part}" if name else str(part) for name, part in self.parts.items()]
        if len(self.parts) > 1:
            blocks.append(f"all tasks together have {self.n_parameters:,} parameters")
        if self.training:
            blocks.append(show_training(self.training))
        blocks.append(self._run())
        if self.picture is not None:
            blocks.append(f"What the model sees is in {self.picture}.")
        if self.warnings:
            blocks.append("\n".join(["Look at:", *(f"- {warning}" for warning in self.warnings)]))
        return "\n\n".join(blocks)

    def _run(self) -> str:
        step, memory = self.step, self.memory
        took = ", ".join(f"{name} {duration(getattr(step, name))}" for name in TIMES)
        speed = f"{step.samples / step.seconds:,.0f} samples and {step.tokens / step.seconds:,.0f} tokens a second"
        held = ", ".join(f"{name} {size(getattr(memory, name))}" for name in ("weights", "gradients", "optimizer"))
        before = f", {size(memory.before)} of it before the data and the model" if memory.before else ""
        whole = "without an end: give trainer.max_epochs or trainer.max_steps"
        if math.isfinite(self.n_steps):
            often = f", {self.n_validations:,} validations of {duration(self.validation_seconds)}"
            first = f", {self.pretraining_steps:,} steps of pretraining" if self.pretraining_steps else ""
            whole = (
                f"about {duration(self.seconds)}: {duration(self.setup_seconds)} until the first step{first}, "
                f"{self.n_steps:,.0f} steps{often if self.n_validations else ''}"
            )
        return "\n".join(
            [
                f"a step   {duration(step.seconds)}: {took}",
                f"         on {step.device}: {speed}",
                f"memory   at most {size(memory.peak)}{before}; {held}",
                f"the run  {whole}",
            ]
        )


TIMES = ("read", "forward", "backward", "optimizer")
"""What the time of a step goes to."""


def size(n_bytes: float) -> str:
    """
    >>> size(512), size(3 * 1024 * 1024)
    ('512 B', '3 MiB')
    """
    n, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB"]
    while n >= 1000 and len(units) > 1:
        n /= 1024
        units.pop(0)
    return f"{n:.3g} {units[0]}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""A metric: what it is made of, how, and which of its values is best.

Whatever is evaluated keeps its accumulators in one `Accumulators` and names its metrics in one mapping, so another
metric is another entry there, beside a function that works it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from torch import Tensor, nn


class Metric(NamedTuple):
    """One number that an evaluation gives."""

    best: Literal["min", "max"]
    """Which of its values is best."""
    of: tuple[str, ...]
    """The accumulators that it is made of."""
    compute: Callable[..., Tensor]
    """() of what they hold, in this sequence."""


def ratio(total: Tensor, n: Tensor) -> Tensor:
    """A mean from its sum; NaN of nothing."""
    return total / n


LOSS = Metric("min", ("loss", "targets"), ratio)
"""The mean over the targets; NaN where there was none."""


class Accumulators(nn.ModuleDict):
    """What an evaluation adds up and keeps, by name: `Sums` and `Kept`."""

    def add(self, **values: Tensor | float) -> None:
        """Take values into the accumulators of their names."""
        for name, value in values.items():
            self[name].update(value)

    def reset(self) -> None:
        """Forget the evaluation before."""
        for accumulator in self.values():
            accumulator.reset()

    def keep_apart(self) -> None:
        """Let this process evaluate alone: the other ranks are not asked for theirs."""
        for accumulator in self.values():
            accumulator.distributed_available_fn = lambda: False

    def has(self, metric: Metric) -> bool:
        """Whether all that a metric is made of is here."""
        return all(name in self for name in metric.of)

    def compute(self, metrics: Mapping[str, Metric]) -> dict[str, Tensor]:
        """The metrics of all ranks together, the loss first; those of which an accumulator is lacking are left out."""
        names = sorted(metrics, key=lambda name: name != "loss")
        return {
            name: metrics[name].compute(*(self[each].compute() for each in metrics[name].of))
            for name in names
            if self.has(metrics[name])
        }

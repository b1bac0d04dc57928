"""What is learned of the inputs alone, before a task's own training: to fill in what is hidden of them."""

from __future__ import annotations

from dataclasses import dataclass

from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.optim.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Pretraining(Values):
    """Training by masked content, whose best weights a task starts from (Devlin et al. 2019, He et al. 2022).

    It sees the task's own training records, and those of `data.unlabelled`, without what is predicted of them. It is a
    run of its own, in `pretrained/` of the run folder, with the trainer's device, precision and limits on batches and
    time, which holds for each of both; callbacks, loggers and how often is validated are the task's own. It starts from
    `init_from`, where that is given, and the task from it.
    """

    masked: dict[str, float]
    """Of each input that is masked the share of its tokens, as in {smiles: 0.3}; see `Masked`."""
    epochs: int = 20
    """How often the records are gone through."""
    optimizer: OptimizerConfig | None = None
    """The optimiser and its learning rate; the task's own when left out."""

    def __post_init__(self) -> None:
        if not self.masked:
            raise InputError("pretrain.masked must name at least one input, got none")
        if self.epochs < 1:
            raise InputError(f"pretrain.epochs must be at least 1, got {self.epochs}")

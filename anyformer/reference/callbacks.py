"""Which of Lightning's callbacks cannot do here what they promise, and why; by name, so that no torch is imported."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

OF_THE_STEP = "changes what a step is, by which the learning rate is planned; give trainer.accumulate_grad_batches"
AVERAGED = "averages weights that are neither validated nor kept; give model.optimizer.ema"
BEHIND = "changes what is trained behind the optimiser's back; give model.freeze, or model.optimizer.layer_decay"
FROM_PYTHON = "takes functions, which no config can hold; give it in Python"
NO_CALLBACK = "is what other callbacks are made from; name one of those"
REFUSED = {
    "LearningRateFinder": "takes steps of its own before the run; give model.optimizer.lr",
    "BatchSizeFinder": "takes steps of its own before the run; give data.batch_size or data.max_tokens, and see "
    "`anyformer plan` for the memory",
    "GradientAccumulationScheduler": OF_THE_STEP,
    "StochasticWeightAveraging": AVERAGED,
    "WeightAveraging": AVERAGED,
    "EMAWeightAveraging": AVERAGED,
    "BaseFinetuning": BEHIND,
    "BackboneFinetuning": BEHIND,
    "OnExceptionCheckpoint": "saves and loads what a run cannot go on from exactly; checkpoints are saved without it, "
    "and fit --resume goes on",
    "ModelPruning": "renames the weights, so that the model could not be loaded again; prune what anyformer.load gives",
}
"""Lightning's callbacks that cannot do here what they promise: why, and what does."""
NOT_IN_A_CONFIG = {
    "LambdaCallback": FROM_PYTHON,
    "ThroughputMonitor": FROM_PYTHON,
    "BasePredictionWriter": NO_CALLBACK,
    "Callback": NO_CALLBACK,
    "Checkpoint": NO_CALLBACK,
    "ProgressBar": NO_CALLBACK,
}
"""Those that Python can use and a config cannot."""
NEEDS = {
    "DeviceStatsMonitor": "psutil",
    "RichModelSummary": "rich",
    "RichProgressBar": "rich",
}
"""The package that a callback needs and that is not installed with anyformer."""


def refusal(names: Iterable[str], in_a_config: bool = False) -> str | None:
    """Why a callback is refused; None where it is not.

    names: of its class, and of what that descends from. in_a_config: whether it is given as text.
    """
    refused = REFUSED | NOT_IN_A_CONFIG if in_a_config else REFUSED
    for name in names:
        if name in refused:
            return refused[name]
        if name in NEEDS and find_spec(NEEDS[name]) is None:
            return f"needs the package {NEEDS[name]}, which is not installed: pip install {NEEDS[name]}"
    return None

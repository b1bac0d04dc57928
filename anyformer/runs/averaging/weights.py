"""The average of weights: of runs that began with the same ones, or of the last checkpoints of a run.

The mean of weights is a model only where one can go straight from each to the other (Izmailov et al. 2018, "Averaging
Weights Leads to Wider Optima"; Wortsman et al. 2022, "Model soups").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from anyformer.errors import InputError
from anyformer.parsing.plain import differences
from anyformer.runs.averaging.config import Config
from anyformer.runs.checkpoint_io import Checkpoints
from anyformer.saving.manifest import CHECKPOINT, read_manifest
from anyformer.tasks.base.task import Task

OF_LEARNING = re.compile(
    r"(^|\.)(optimizer|augment|mix|choose|views|\w*dropout|drop_path|label_smoothing|class_weights|calibrate|temperature)"
    r"(\.|$)"
)
"""Arguments that say how weights are learned, or what was fitted to them afterwards, and not what they mean: they may
differ."""


def check_weights_alike(tasks: Mapping[str, Task], configs: Mapping[str, Config | None]) -> None:
    """Raise InputError where the mean of the weights of runs would be no model. By the run's name."""
    (first, one), *others = tasks.items()
    for name, other in others:
        for place, how in differences(one.config(), other.config()):
            place = place.replace("init_args.", "")
            if not OF_LEARNING.search(place):
                raise InputError(
                    f"the weights of {first} and {name} mean different things: {place or 'the task'} {how}; average "
                    "their predictions, without --weights"
                )
        starts = [_start(each, configs[each]) for each in (first, name)]
        if starts[0] != starts[1]:
            raise InputError(
                f"{first} and {name} did not start from the same weights ({starts[0]}; {starts[1]}), and the mean of "
                "theirs would be no model; average their predictions, without --weights, or train them from one "
                "init_from"
            )


def _start(run: str, config: Config | None) -> str:
    """Which weights a run started from."""
    if config is None:
        raise InputError(
            f"{run} has no config.yaml, so nothing says which weights it started from; average the predictions, "
            "without --weights"
        )
    source = config["model"].get("init_args", {}).get("init_from")
    return f"init_from: {source}" if source is not None else f"seed_everything: {config['seed_everything']}"


def mean_weights(several: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of tensors of one name; of those that are no fractions, counts, the last."""
    mean: dict[str, Tensor] = {}
    for name, last in several[-1].items():
        if last.is_floating_point():
            mean[name] = (sum(weights[name].double() for weights in several) / len(several)).to(last.dtype)
        else:
            mean[name] = last
    return mean


def checkpoint_weights(run: Path) -> list[dict[str, Tensor]]:
    """The weights of the checkpoints that a run has kept, oldest first: their moving averages where there are such.

    Checkpoints of the same step count once. Raises InputError where they are fewer than two, or one is damaged.
    """
    folder = run / "checkpoints"
    names = [line["file"] for line in read_manifest(folder) if CHECKPOINT.fullmatch(line["file"])]
    by_step: dict[int, dict[str, Tensor]] = {}
    for name in names:
        checkpoint: dict[str, Any] = Checkpoints().load_checkpoint(folder / name)
        by_step[checkpoint["global_step"]] = checkpoint["state_dict"] | checkpoint.get("average", {})
    if len(by_step) < 2:
        raise InputError(
            f"{folder} holds checkpoints of {len(by_step)} steps, and an average needs two or more; train with "
            "checkpoints.keep: 5, or name several runs"
        )
    return list(by_step.values())

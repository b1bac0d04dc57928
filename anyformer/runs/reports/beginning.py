"""What is said before training: how many records there are, of which classes and what they lack, how large the model
is, what it is trained on, and where the run is kept."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from anyformer.data.source import Source
from anyformer.data.values import is_missing
from anyformer.runs.metrics_file import MetricsFile
from anyformer.runs.progress import show_lines
from anyformer.tasks.base.task import Task
from anyformer.tokenizers.text.corpus import Documents
from anyformer.tokens import Tokenizer

MOST_RECORDS, MOST_SECONDS = 2000, 2.0
"""That are looked at to see what they lack: evenly over all, and for how long."""
MOST_CLASSES = 20
"""That are named with their counts."""
N_SHOWN = 3
"""Of more classes so many of the most and of the least frequent."""
PARTS = ("train", "validation", "test")


class Beginning(Callback):
    """Says it once, before the first step."""

    def __init__(self, run: Path) -> None:
        self.run = run

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        rows = [*_of_data(trainer.datamodule, module), *_of_model(trainer, module)]
        if not trainer.fast_dev_run:
            rows.append(("run", str(self.run)))
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsFile):
                place = getattr(logger, "log_dir", None) or logger.save_dir
                rows.append(("logger", f"{type(logger).__name__} in {place or 'no folder'}"))
        width = max(len(name) for name, _ in rows)
        show_lines(trainer, [f"{name:<{width}}  {text}" for name, text in rows])


def _of_data(data: Any, task: Task) -> Iterator[tuple[str, str]]:
    members = {name: (each, data.parts[name]) for name, each in task.members.items()} if task.members else {}
    for member, (each, part) in (members or {"": (task, data)}).items():
        sources: Mapping[str, Source] = getattr(part, "sources", {})
        if "train" not in sources:
            # A data module of the user's own.
            continue
        prefix = f"{member}: " if member else ""
        counts = [f"{name} {len(sources[name]):,}" for name in PARTS if name in sources]
        kind = "documents" if isinstance(sources["train"], Documents) else "records"
        yield f"{prefix}{kind}", "  ".join(counts)
        if isinstance(sources["train"], Documents):
            continue
        for name, target in each.targets.items():
            if classes := target.counts(name, sources["train"]):
                yield f"{prefix}{name}", count_classes(classes)
        if text := lacking(sources["train"], each.inputs, each.predicted, each.tokenizers):
            yield f"{prefix}missing", text


def count_classes(counts: Mapping[str, int]) -> str:
    """
    >>> count_classes({"car": 20, "frog": 1300})
    '2 classes: car 20, frog 1,300'
    """
    named = list(counts.items())
    if len(named) > MOST_CLASSES:
        named.sort(key=lambda pair: -pair[1])
        most, least = (", ".join(f"{name} {n:,}" for name, n in some) for some in (named[:N_SHOWN], named[-N_SHOWN:]))
        return f"{len(named)} classes, from {most} to {least}"
    return f"{len(named)} classes: {', '.join(f'{name} {n:,}' for name, n in named)}"


def lacking(
    source: Source, inputs: Sequence[str], predicted: Sequence[str], tokenizers: Mapping[str, Tokenizer]
) -> str:
    """In how many of the training records each field is not there, and each column of a row; "" where all are.

    Of many records some are looked at. What no record is asked for by its name, as it is made of others, is left out.
    """
    stride, begin, looked = math.ceil(len(source) / MOST_RECORDS), time.monotonic(), 0
    known, there = Counter[str](), set[str]()
    for i in range(0, len(source), stride):
        record = source[i]
        looked += 1
        for name in (*inputs, *predicted):
            value = record.get(name)
            own = {name: value}
            if name in tokenizers and tokenizers[name].takes_columns and isinstance(value, Mapping):
                own |= {f"{name}.{column}": cell for column, cell in value.items()}
            there |= own.keys() if name in record else set()
            known.update(each for each, cell in own.items() if not is_missing(cell))
        if time.monotonic() - begin > MOST_SECONDS:
            break
    told = [f"{name} {1 - known[name] / looked:.1%}" for name in sorted(there) if known[name] < looked]
    of = f" (of {looked:,} records looked at)" if looked < len(source) else ""
    return f"{', '.join(told)}{of}" if told else ""


def _of_model(trainer: Trainer, module: LightningModule) -> Iterator[tuple[str, str]]:
    parameters = list(module.parameters())
    n, trained = (sum(p.numel() for p in some) for some in (parameters, [p for p in parameters if p.requires_grad]))
    yield "parameters", f"{n:,}" if trained == n else f"{n:,}, of which {trained:,} are trained"
    device = trainer.strategy.root_device
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    processes = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    yield "device", f"{name}, {trainer.precision}{processes}"

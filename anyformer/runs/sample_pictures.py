"""The pictures of the first samples in a run folder: samples.png, and who sees whom in sees.png."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from anyformer.data.loader import Loader
from anyformer.drawing.contact_sheet import draw_samples
from anyformer.drawing.visibility import draw_sight, has_sights
from anyformer.errors import InputError, say
from anyformer.runs.state.random_state import generators, set_generators
from anyformer.saving.atomic import write_whole
from anyformer.tasks.base.task import Task


@rank_zero_only
def draw_first_samples(run: Path, loader: Any, task: Task, again: bool) -> None:
    """Draw what the model sees and who sees whom, of each task of a mixture, without moving a generator.

    loader: of training. again: whether pictures that are there are drawn anew.
    """
    loaders = {"": loader} if isinstance(loader, Loader) else getattr(loader, "loaders", {})
    drawings = (("samples.png", _draw_samples), ("sees.png", _draw_sight))
    for member, (name, draw) in product(loaders, drawings):
        path = run / member / name
        if path.exists() and not again:
            continue
        held = generators()
        try:
            draw(path, loaders[member], task.members[member] if member else task)
        except Exception as error:
            if isinstance(error, InputError) and not isinstance(error, OSError):
                raise
            # A drawing is not worth a run.
            say(f"{path} could not be drawn: {error}")
        finally:
            set_generators(held)


def _draw_samples(path: Path, loader: Loader, task: Task) -> None:
    sheet = draw_samples(loader.samples, loader.plan, task.preview)
    if sheet is not None:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, lambda part: sheet.save(part, "PNG"))


def _draw_sight(path: Path, loader: Loader, task: Task) -> None:
    """Who sees whom in that of the first samples which has the most fields."""
    if not has_sights(task.model):
        return
    samples = loader.samples
    if items := list(samples.first(loader.plan, 32)):
        fullest = max(items, key=lambda item: len(task.preview(item)[0]))
        figure = draw_sight(task.model, *task.model_inputs(samples.chopper.collate([fullest])))
        path.parent.mkdir(exist_ok=True)
        write_whole(path, lambda part: figure.savefig(part, format="png", dpi=100))

"""A small experiment of every kind of task, with data of its own, and the run of each that nothing happened to."""

from __future__ import annotations

import atexit
import os
import random
import resource
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.faults.harness import Outcome, command

TRUNK = "transformer: {d_model: 8, depth: 1, n_heads: 2, dropout: 0.1}"
WORDED = "transformer: {d_model: 8, depth: 1, n_heads: 2, dropout: 0.1, rotary: {axes: [word]}}"
TEXT = "{class_path: Text, init_args: {kind: characters}}"
PICTURE = "{class_path: ImagePatches, init_args: {size: [8, 8], patch: 4, channels: 1, augment: {shift: 1.0}}}"
TRAINER = """\
trainer: {max_epochs: 2, accelerator: cpu, enable_progress_bar: false, log_every_n_steps: 1}
checkpoints: {every_n_steps: 2}
"""
CONFIGS = {
    "classify": f"""\
model:
  class_path: Classify
  init_args:
    tokenizers: {{image: {PICTURE}}}
    {TRUNK}
    optimizer: {{name: muon, lr: 0.01, ema: 0.9}}
data: {{train: Digits, validation: 0.2, test: 0.2, stratify: label, batch_size: 300}}
""",
    "language": f"""\
model:
  class_path: LanguageModel
  init_args:
    tokenizers: {{text: {TEXT}}}
    {TRUNK}
    context: 16
data: {{train: {{class_path: Corpus, init_args: {{path: corpus.txt}}}}, validation: 0.2, test: 0.2, batch_size: 30}}
""",
    "sequence": f"""\
model:
  class_path: SequenceToSequence
  init_args:
    tokenizers:
      source: {TEXT}
      target: {TEXT}
    target: target
    {WORDED}
data: {{train: pairs.csv, validation: 0.2, test: 0.2, batch_size: 12}}
""",
    "predict": f"""\
model:
  class_path: Predict
  init_args:
    tokenizers: {{sex: {TEXT}}}
    targets:
      height: {{class_path: Regression}}
      kind: {{class_path: Category}}
    {WORDED}
data: {{train: people.csv, validation: 0.2, test: 0.2, batch_size: 12}}
""",
    "decide": f"""\
model:
  class_path: Decide
  init_args:
    {TRUNK}
    context: 4
data: {{train: {{class_path: Episodes, init_args: {{path: walks.npz}}}}, validation: 0.2, batch_size: 16}}
""",
    "mixture": f"""\
model:
  class_path: Mixture
  init_args:
    tasks:
      digits: {{class_path: Classify, init_args: {{tokenizers: {{image: {PICTURE}}}}}}}
      letters: {{class_path: LanguageModel, init_args: {{tokenizers: {{text: {TEXT}}}, context: 16}}}}
    {TRUNK}
data:
  class_path: Mixed
  init_args:
    parts:
      digits: {{train: Digits, validation: 0.2, batch_size: 400}}
      letters: {{train: {{class_path: Corpus, init_args: {{path: corpus.txt}}}}, validation: 0.2, batch_size: 30}}
    n_batches: 8
""",
}
KINDS = tuple(CONFIGS)


def write_data(folder: Path) -> None:
    """The data of all experiments, and their configs."""
    draw = random.Random(0)
    words = ("all", "is", "well", "what", "a", "joy")
    (folder / "corpus.txt").write_text("\n".join(" ".join(draw.choices(words, k=8)) for _ in range(60)))
    texts = [" ".join(draw.choices(words, k=2)) for _ in range(60)]
    (folder / "pairs.csv").write_text("source,target\n" + "".join(f"{text},{text[::-1]}\n" for text in texts))
    people = [(draw.choice(("man", "woman", "child")), draw.gauss(1.7, 0.1), draw.choice("ab")) for _ in range(60)]
    (folder / "people.csv").write_text("sex,height,kind\n" + "".join(f"{s},{h:.3f},{k}\n" for s, h, k in people))
    numbers = np.random.default_rng(0)
    arrays = {
        "observations": numbers.normal(size=(120, 3)).astype(np.float32),
        "actions": numbers.integers(0, 2, 120),
        "rewards": numbers.normal(size=120).astype(np.float32),
    }
    np.savez(folder / "walks.npz", **arrays, episode_lengths=np.full(12, 10))
    for kind, config in CONFIGS.items():
        (folder / f"{kind}.yaml").write_text(config + TRAINER)


class Whole(NamedTuple):
    """An experiment that nothing happened to."""

    home: Path
    """A folder with the data and, as `run`, the run."""
    outcome: Outcome
    seconds: float
    """Of processor time that it took."""


@cache
def whole(kind: str, *options: str) -> Whole:
    home = Path(tempfile.mkdtemp(prefix="whole."))
    remove_at_the_end(home)
    write_data(home)
    before = _children_seconds()
    outcome = at(home, lambda: fit(kind, *options))
    if outcome.code:
        raise RuntimeError(f"{kind} cannot be trained: {outcome.err[-2000:]}")
    return Whole(home, outcome, _children_seconds() - before)


def remove_at_the_end(folder: Path) -> None:
    """When this process ends; its forks end without a word."""
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def at(place: Path, work: Callable[[], Outcome]) -> Outcome:
    here = Path.cwd()
    os.chdir(place)
    try:
        return work()
    finally:
        os.chdir(here)


def fit(kind: str, *options: str, before: Callable[[], None] | None = None) -> Outcome:
    return command("fit", "--config", f"{kind}.yaml", "--run_dir", "run", *options, before=before_in_place(before))


def before_in_place(before: Callable[[], None] | None) -> Callable[[], None]:
    """Before a command: a cache of its own in the current folder, and what is asked for."""

    def prepare() -> None:
        os.environ["XDG_CACHE_HOME"] = "cache"
        if before is not None:
            before()

    return prepare


def go_on(*options: str, before: Callable[[], None] | None = None) -> Outcome:
    """Go on with what is in `run`, which may not have begun."""
    return command("fit", "--resume", "run", *options, before=before_in_place(before))


def copy_of(kind: str, place: Path) -> Whole:
    """A copy of an experiment and its run, to be harmed."""
    made = whole(kind)
    shutil.copytree(made.home, place, dirs_exist_ok=True)
    return made

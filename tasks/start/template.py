"""The config that `anyformer import` writes beside a model: it fine-tunes what was brought in on data of one's own."""

from __future__ import annotations

from typing import Any

from anyformer.parsing.plain import config_name
from anyformer.parsing.scalars import dump_yaml
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.embed.embed import Embed
from anyformer.tasks.sequence.sequence import SequenceToSequence
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.text.text import Text

HEAD = """\
# Fine-tunes the model in {run} on data of your own. Put in your table, then
#   anyformer fit --config {run}/config.yaml --run_dir runs/mine
# All that is left out is taken from the model: sizes, tokenizers with their vocabularies, positions, heads.
"""


def fine_tuning_config(task: Task, run: str) -> str:
    """The text of a config that starts from a task which was saved in `run`.

    The file and columns of the data are to be filled in. Learning rates are usual ones, to begin with (Devlin et al.
    2019, A.3; Bao et al. 2022). Of a model without a head it is a classifier.
    """
    cls = Classify if isinstance(task, Embed) else type(task)
    is_speech = any(isinstance(tokenizer, Audio) for tokenizer in task.tokenizers.values())
    is_text = all(isinstance(tokenizer, Text) for tokenizer in task.tokenizers.values())
    model: dict[str, Any] = {"init_from": run}
    if is_speech:
        # What it learns of recordings at their own length takes some ten times less work.
        own = {name: _padding(each) for name, each in task.tokenizers.items() if isinstance(each, Audio)}
        given = {name: {"init_args": dict.fromkeys(each)} for name, each in own.items() if each}
        model |= {"tokenizers": given} if given else {}
    if isinstance(task, SequenceToSequence) and task.start_choices:
        # In training nothing is left to choose: one of the languages.
        model["start"] = [each if isinstance(each, str) else _first_choice(each) for each in task.start or ()]
    pictures = {"layer_decay": 0.75} if not is_speech and not is_text and issubclass(cls, Classify) else {}
    model["optimizer"] = {"lr": 1e-4 if is_speech else 5e-5, **pictures}
    content = {
        "model": {"class_path": config_name(cls), "init_args": model},
        "data": {"train": _train(task), "validation": 0.1, "batch_size": 16},
        "trainer": {"max_epochs": 3},
    }
    return HEAD.format(run=run) + dump_yaml(content)


def _first_choice(spellings: list[str]) -> str:
    return "<|en|>" if "<|en|>" in spellings else spellings[0]


def _padding(audio: Audio) -> list[str]:
    """The options by which silence is put behind its recordings."""
    return [name for name in ("pad_to_seconds", "pad_seconds") if getattr(audio, name)]


def _train(task: Task) -> Any:
    if isinstance(task, Decide):
        return "episodes.npz"
    columns = {name: name for name in task.tokenizers}
    if isinstance(task, Classify | Embed):
        target = getattr(task, "target", "label")
        columns[target] = target
    return {"class_path": "Table", "init_args": {"path": "train.csv", "columns": columns}}

"""`anyformer fit --help`: our options first, in groups, and those of Lightning's Trainer, a line each, at the end."""

from __future__ import annotations

import re

from anyformer.front.parsers import fit_parser
from anyformer.reference.pages import one_line_rows, rows
from anyformer.reference.schema import lightning_trainer, plain
from anyformer.reference.source import Argument, find, subclasses

HEAD = """\
usage: anyformer fit --config FILE [--KEY=VALUE ...]
       anyformer fit --resume RUN [--KEY=VALUE ...]

Train, then test the best model. Every value of the config can be given as an option, by its keys:
--model.optimizer.lr=0.001, --data.batch_size=32, --model.tokenizers.image.init_args.patch=4.
More on a class, a block or a key: anyformer help ImagePatches, anyformer help optimizer, anyformer help lr.
"""


def fit_help() -> str:
    own = [
        (f"{action.option_strings[-1]} {action.metavar or ''}".strip(), action.help or "")
        for action in fit_parser()._actions
    ]
    common = set.intersection(*({each.name for each in task.arguments} for task in _tasks()))
    model = [each for each in _tasks()[0].arguments if each.name in common]
    parts = [
        HEAD.rstrip("\n"),
        f"The run:\n{rows(own)}",
        f"The model, of all tasks:\n{_options('model', model)}",
        f"The model, of one task:\n{rows((task.name, f'anyformer help {task.name}') for task in _tasks())}",
        f"The data:\n{_options('data', find('Records').arguments)}",
        f"Checkpoints:\n{_options('checkpoints', find('Saving').arguments)}",
        f"Randomness:\n{rows([('--seed_everything', 'Decides everything that is random; 0 when left out.')])}",
        f"Lightning's Trainer (more: anyformer help trainer):\n"
        f"{_options('trainer', lightning_trainer().arguments, is_short=True)}",
    ]
    return "\n\n".join(parts)


def _tasks() -> list:
    """Those that can be trained."""
    return [task for task in subclasses("Task") if any(each.name == "optimizer" for each in task.arguments)]


def _options(section: str, arguments: list[Argument], is_short: bool = False) -> str:
    told = [(f"--{section}.{each.name}", first_sentence(plain(each.text))) for each in arguments]
    return one_line_rows(told) if is_short else rows(told)


def first_sentence(text: str) -> str:
    """
    >>> first_sentence("Stop early, e.g. now. Disabled by default.")
    'Stop early, e.g. now.'
    """
    return re.split(r"(?<=[^.][^.][.;:])\s(?=[A-Z])", text)[0].rstrip(":;")

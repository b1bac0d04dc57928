"""The families of models of transformers that have a counterpart here; a new one is a file beside this and a name in
the list below.

Which family a config.json is of, and which can say a design of ours.
"""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from anyformer.errors import InputError
from anyformer.weights.bert import BERT
from anyformer.weights.decision_transformer import DECISION_TRANSFORMER
from anyformer.weights.gpt2 import GPT2
from anyformer.weights.huggingface import Design, Family, Kind, Settings
from anyformer.weights.marian import MARIAN
from anyformer.weights.t5 import T5
from anyformer.weights.whisper import WHISPER

FAMILIES = [GPT2, BERT, WHISPER, MARIAN, T5, DECISION_TRANSFORMER]


def find_family(settings: Settings) -> tuple[Family, str]:
    """The family and the architecture that a config.json names. Raises InputError if none is here."""
    known = {name: family for family in FAMILIES for name in family.architectures}
    named = settings.values.get("architectures")
    found = [name for name in named if name in known] if isinstance(named, list) else []
    if not found:
        given = ", ".join(map(str, named)) if isinstance(named, list) and named else "missing"
        raise InputError(
            f"{settings.path}: architectures is {given}; those that can be brought in are {', '.join(known)}"
        )
    settings.require(model_type=known[found[0]].model_type)
    return known[found[0]], found[0]


def choose_family(kind: Kind, design: Design, task: nn.Module) -> tuple[Family, dict[str, Any]]:
    """The family of a kind that says a design of ours, and the values of its config.json.

    task: of which the design is; it must have the options that a family fixes.
    Raises InputError for what none of them can say: what the one lacks that lacks the least.
    """
    best, least = InputError(f"transformers has no counterpart of a model of the kind {kind}"), math.inf
    for family in FAMILIES:
        if kind not in family.architectures.values():
            continue
        try:
            settings, theirs = family.says(design, kind)
        except InputError as error:
            if least == math.inf:
                best = error
            continue
        # Whatever the way back does not give again is more than their config.json can say.
        lost = [_shown(name, getattr(task, name)) for name, its in theirs.options.items() if getattr(task, name) != its]
        lost += [f"{name}: {value}" for name, value in design.plain.items() if value != theirs.plain[name]]
        if not lost:
            return family, settings
        if len(lost) < least:
            least = len(lost)
            best = InputError(
                f"{family.architecture(kind)} of transformers does not support {lost[0]}; train a model without it"
            )
    raise best


def _shown(name: str, value: Any) -> str:
    """An option as a config has it."""
    return f"{name}: {str(value).lower() if isinstance(value, bool) else value}"

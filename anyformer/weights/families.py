"""The families of models of transformers that have a counterpart here; a new one is a file beside this and a name in
the list below.

Which family a config.json is of, and which can say a design of ours.
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any

from torch import nn

from anyformer.errors import InputError
from anyformer.weights.bert import BERT, ROBERTA, XLM_ROBERTA
from anyformer.weights.decision_transformer import DECISION_TRANSFORMER
from anyformer.weights.gpt2 import GPT2
from anyformer.weights.huggingface import Design, Family, Kind, Settings
from anyformer.weights.marian import MARIAN
from anyformer.weights.t5 import T5, T5_ENCODER
from anyformer.weights.vit import VIT
from anyformer.weights.whisper import WHISPER

FAMILIES = [GPT2, BERT, WHISPER, MARIAN, T5, DECISION_TRANSFORMER, ROBERTA, XLM_ROBERTA, T5_ENCODER, VIT]
ROLES: dict[Kind, tuple[str, ...]] = {
    "language": ("CausalLM", "LMHeadModel"),
    "masked": ("MaskedLM", "PreTraining"),
    "classify": ("SequenceClassification",),
    "sequence": ("ConditionalGeneration", "MTModel"),
}
"""How the names of architectures of a kind end; the others are nearest to one without a head."""


def find_family(settings: Settings) -> tuple[Family, str]:
    """The family and the architecture that a config.json names.

    Raises InputError if none is here, with the nearest that is.
    """
    known = {name: family for family in FAMILIES for name in family.kinds}
    named = settings.values.get("architectures")
    named = list(map(str, named)) if isinstance(named, list) else []
    found = [name for name in named if name in known]
    if not found:
        nearest = f" {_nearest(named[0], settings.values.get('model_type'))};" if named else ""
        raise InputError(
            f"{settings.path}: architectures is {', '.join(named) or 'missing'};{nearest} those that can be brought in "
            f"are {', '.join(known)}"
        )
    settings.require(model_type=known[found[0]].model_type)
    return known[found[0]], found[0]


def find_bare(settings: Settings) -> tuple[Family, str] | None:
    """The family and the architecture of the model alone, whatever head a config.json names; None if it is not here."""
    model_type = settings.values.get("model_type")
    bare = ((family, name) for family in FAMILIES for name, kind in family.bare.items() if kind == "bare")
    return next((each for each in bare if each[0].model_type == model_type), None)


def _nearest(named: str, model_type: Any) -> str:
    """What is nearest to an architecture that is not here."""
    if (bare := find_bare(Settings({"model_type": model_type}, ""))) is not None:
        return (
            f"of it {bare[1]} can be had, which {bare[1]}.from_pretrained(...).save_pretrained(...) of transformers "
            "writes"
        )
    alike = [name for family in FAMILIES if family.model_type == model_type for name in family.kinds]
    if not alike:
        kind = next((kind for kind, endings in ROLES.items() if named.endswith(endings)), "bare")
        alike = [name for family in FAMILIES for name, its in family.kinds.items() if its == kind]
    return f"the nearest is {get_close_matches(named, alike, 1, 0)[0]}"


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

"""Which family a config.json is of, and which says a design of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from anyformer.errors import InputError
from anyformer.weights import families
from anyformer.weights.families import FAMILIES, choose_family, find_bare, find_family
from anyformer.weights.huggingface import Design, Family, Settings

EVERY = [(family, name) for family in FAMILIES for name in family.architectures]


def designed(family: Family, architecture: str) -> tuple[Design, nn.Module]:
    """The design of a config.json that says nothing, and a task with the options of it."""
    design, task = family.design(Settings({}, "config.json"), architecture), nn.Module()
    for name, value in design.options.items():
        setattr(task, name, value)
    return design, task


@pytest.mark.parametrize(("family", "architecture"), EVERY, ids=[name for _, name in EVERY])
def test_what_a_family_is_chosen_to_say_is_read_as_it(family: Family, architecture: str) -> None:
    design, task = designed(family, architecture)
    kind = family.architectures[architecture]
    chosen, settings = choose_family(kind, design, task)
    assert chosen is family
    assert find_family(Settings(settings, "config.json")) == (family, architecture)
    assert family.design(Settings(settings, "config.json"), architecture).plain == design.plain


@pytest.mark.parametrize("architecture", ["MarianMTModel", "T5ForConditionalGeneration"])
def test_the_family_that_lacks_the_least_is_named(architecture: str) -> None:
    family = next(family for family in FAMILIES if architecture in family.architectures)
    design, task = designed(family, architecture)
    other = replace(design, transformer=replace(design.transformer, layer_scale=0.1))
    with pytest.raises(
        InputError, match=rf"^{architecture} of transformers does not support transformer\.layer_scale: 0"
    ):
        choose_family("sequence", other, task)


def test_a_kind_without_a_family_has_no_counterpart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", [])
    with pytest.raises(InputError, match=r"^transformers has no counterpart of a model of the kind masked$"):
        choose_family("masked", *designed(*EVERY[0]))


def test_every_architecture_that_comes_in_is_found() -> None:
    for family in FAMILIES:
        for name, kind in family.kinds.items():
            settings = Settings({"architectures": [name], "model_type": family.model_type}, "c.json")
            assert find_family(settings) == (family, name)
            # Whatever its head, the model alone is known by its type.
            if kind == "bare":
                assert find_bare(Settings({"model_type": family.model_type}, "c.json")) == (family, name)
    assert find_bare(Settings({"model_type": "marian"}, "c.json")) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"^c\.json: architectures is missing; those that can be brought in are GPT2LMHeadModel, GPT2Model, Bert"),
        (
            {"architectures": ["A", "B"]},
            r"architectures is A, B; the nearest is \w+; those that can be brought in are G",
        ),
        ({"architectures": ["DistilBertModel"], "model_type": "distilbert"}, r"; the nearest is BertModel; those"),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, r"; the nearest is GPT2LMHeadModel; those"),
        ({"architectures": ["MPNetForMaskedLM"], "model_type": "mpnet"}, r"; the nearest is BertForMaskedLM; those"),
        ({"architectures": ["BartForConditionalGeneration"]}, r"; the nearest is T5ForConditionalGeneration; those"),
        ({"architectures": ["MarianModel"], "model_type": "marian"}, r"; the nearest is MarianMTModel; those"),
        (
            {"architectures": ["BertForTokenClassification"], "model_type": "bert"},
            r"; of it BertModel can be had, which BertModel\.from_pretrained\(\.\.\.\)\.save_pretrained\(\.\.\.\) of",
        ),
        ({"architectures": ["T5Model"], "model_type": "t5"}, r"; of it T5EncoderModel can be had"),
        ({"architectures": ["GPT2LMHeadModel"], "model_type": "gptj"}, r"model_type: 'gptj' cannot be brought in"),
    ],
)
def test_a_config_json_of_no_family_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_family(Settings(values, "c.json"))

"""A field may have any name, a word of Python or of torch too, and weights of before keep their places."""

from __future__ import annotations

import doctest

import pytest
import torch
from torch import nn

from anyformer.model import by_field
from anyformer.model.by_field import FieldModules, FieldParameters, field_name, module_name, weight_name
from anyformer.model.config import TransformerConfig
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.patches import ImagePatches

ODD = ["image", "state.image", "class", "from", "return", "values", "type", "training", "forward", "a word"]


def test_the_examples_hold() -> None:
    assert not doctest.testmod(by_field).failed


def test_every_field_has_a_module_of_its_own_that_is_found_by_both_names() -> None:
    modules, parameters = FieldModules(), FieldParameters()
    for i, field in enumerate(ODD):
        assert field not in modules and field not in parameters
        modules[field], parameters[field] = nn.Linear(1, i + 1), nn.Parameter(torch.zeros(i))
    for i, field in enumerate(ODD):
        for name in (field, module_name(field)):
            assert name in modules and name in parameters
            assert modules[name].out_features == i + 1 and len(parameters[name]) == i
    assert [field_name(name) for name in modules] == [field_name(name) for name in parameters] == ODD
    assert len(dict(nn.ModuleDict({"m": modules, "p": parameters}).named_parameters())) == 3 * len(ODD)


def test_weights_are_called_after_their_field_alone() -> None:
    for name in ("model.embeddings.types.class", "tasks.a.model.embeddings.lifts.return.linear.bias", "heads.from.w"):
        assert weight_name(name) == weight_name(weight_name(name)) != name
    for name in ("model.embeddings.lifts.state/image.table", "heads.class_head.output.bias", "model.class.weight"):
        assert weight_name(name) == name


@pytest.mark.parametrize("field", ["values", "type", "from"])
def test_a_classifier_of_a_field_of_any_name_predicts(field: str) -> None:
    def made(name: str) -> Classify:
        torch.manual_seed(0)
        tokenizers = {name: ImagePatches(size=(4, 4), patch=2, channels=1)}
        task = Classify(tokenizers, TransformerConfig(d_model=8, depth=1, n_heads=2), classes=["a", "b"])
        task.configure_model()
        return task

    picture = torch.arange(16, dtype=torch.uint8).reshape(4, 4).numpy()
    assert made(field).predict([{field: picture}]) == made("image").predict([{"image": picture}])

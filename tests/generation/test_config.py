"""The options of all methods together, and the method that they ask for."""

from __future__ import annotations

import pytest

from anyformer.errors import InputError
from anyformer.generation.beam_search import BeamOptions, BeamSearch
from anyformer.generation.config import METHODS, GenerationConfig
from anyformer.generation.options import CommonOptions
from anyformer.generation.sampling import Sampling, SamplingOptions


def test_the_options_choose_the_method() -> None:
    assert GenerationConfig().decoded_by is Sampling
    assert GenerationConfig(temperature=1.0, n_samples=3).decoded_by is Sampling
    assert GenerationConfig(n_beams=2).decoded_by is BeamSearch
    assert METHODS[-1].is_asked(GenerationConfig(n_beams=2)), "there is always one"


def test_every_option_is_declared_once() -> None:
    own = [set(vars(part).get("__annotations__", ())) for part in GenerationConfig.__mro__[:-1]]
    assert sum(map(len, own)) == len(set().union(*own))


@pytest.mark.parametrize("cls", [CommonOptions, SamplingOptions, BeamOptions])
def test_the_config_checks_what_each_of_its_parts_checks(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(cls, "__post_init__", checked.append)
    config = GenerationConfig()
    assert checked == [config]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_beams": 2, "temperature": 1.0}, "n_beams above 1 goes without temperature"),
        ({"n_beams": 2, "stop": ("a",)}, "n_beams above 1 goes without stop"),
        ({"regex": "a", "stop": ("b",)}, "regex goes without stop, which would cut a text off within it"),
        ({"n_samples": 2}, "n_samples 2 need a temperature above 0 or as many n_beams, got 1"),
        ({"n_samples": 3, "n_beams": 2}, "n_samples 3 need a temperature above 0 or as many n_beams, got 2"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        GenerationConfig(**options)
    assert "\n" not in str(caught.value)

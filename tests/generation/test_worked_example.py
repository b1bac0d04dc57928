"""The decoding method of CONTRIBUTING.md, added as it says there and used on a model whose tokens are known."""

from __future__ import annotations

import re
import sys
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.generation import config
from anyformer.generation.generator import Generator
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.tasks.sequence.decoding import DecodeConfig
from tests.helpers.witnesses import Ids

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
P = [0.5, 0.2, 0.2, 0.1]
"""Of 1.22 nats on average: nearest are ids 1 and 2 with 1.61, then id 0 with 0.69, then id 3 with 2.30."""


def load(name: str, file: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    file.write_text(code)
    spec = spec_from_file_location(name, file)
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """config.py as the page changes it."""
    pattern = r"^<!-- in tests: saved as typical.py -->\n```python\n(.*?)^```\n(?:.*?)^```text\n(.*?)^```$"
    ((method, change),) = re.findall(pattern, PAGE, re.MULTILINE | re.DOTALL)
    load("anyformer.generation.typical", tmp_path / "typical.py", method, monkeypatch)
    code = Path(config.__file__).read_text()
    for old, new in re.findall(r"^-(.*)\n\+(.*)\n", change, re.MULTILINE):
        assert code.count(f"{old}\n") == 1
        code = code.replace(old, new)
    place = code.index("\nfrom anyformer")
    line = "\nfrom anyformer.generation.typical import TypicalOptions, TypicalSampling"
    return load("config_as_changed", tmp_path / "config.py", code[:place] + line + code[place:], monkeypatch)


def drawn(options: object) -> list[int]:
    """How often each id is drawn by a head that says P whatever stands before it."""
    fields = {"text": Ids(len(P), ("word",), 20)}
    model = Anyformer(fields, TransformerConfig(d_model=4, n_heads=1, depth=1, d_ff=4))
    head = nn.Linear(4, len(P))
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor(P).log())
    continuations = Generator(model, head, "text", start=0).generate([{}], options)[0]
    ids: Tensor = torch.tensor([each.ids for each in continuations])
    return ids.flatten().bincount(minlength=len(P)).tolist()


def test_the_method_draws_what_its_formula_leaves(changed: ModuleType) -> None:
    options = {"max_new_tokens": 5, "temperature": 1.0, "n_samples": 40}
    typical = drawn(changed.GenerationConfig(typical_p=0.3, **options))
    assert typical[0] == typical[3] == 0 < min(typical[1:3]), "the likeliest is not typical"
    wider = drawn(changed.GenerationConfig(typical_p=0.9, **options))
    assert wider[3] == 0 < min(wider[:3])
    assert min(drawn(changed.GenerationConfig(**options))) > 0
    assert drawn(changed.GenerationConfig(typical_p=1.0, **options)) == drawn(config.GenerationConfig(**options))


def test_its_option_is_checked_and_the_other_methods_stay(changed: ModuleType) -> None:
    with pytest.raises(InputError, match=r"typical_p must be above 0 and at most 1, got 1\.5"):
        changed.GenerationConfig(typical_p=1.5)
    asked = [changed.GenerationConfig(**options).decoded_by for options in ({}, {"n_beams": 2}, {"typical_p": 0.5})]
    assert asked == [changed.Sampling, changed.BeamSearch, changed.TypicalSampling]


def test_its_option_is_one_of_all_that_generates(changed: ModuleType) -> None:
    """The options of the command line are the fields of these, by their source."""
    assert {"typical_p", "n_beams"} <= {each.name for each in fields(changed.GenerationConfig)}
    assert issubclass(DecodeConfig, config.MethodOptions)

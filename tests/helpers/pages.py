"""Code that stands on the repository's pages, to be run."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load_example(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that a block of CONTRIBUTING.md is, saved in a folder under the name that its mark gives."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(rf"<!-- in tests: saved as {name}\.py -->\n```python\n(.*?)^```$", page, re.M | re.S)
    (folder / f"{name}.py").write_text(code)
    spec = spec_from_file_location(name, folder / f"{name}.py")
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module

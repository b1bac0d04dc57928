"""Passages of the documentation in the source files that come with every Python, and the package of each."""

from __future__ import annotations

import ast
import re
import sysconfig
import zlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from anyformer.data.source import Source
from anyformer.errors import InputError, suggest

PACKAGES = ("_pydecimal", "asyncio", "email", "http", "importlib", "logging", "unittest", "xml")
"""Those that document the most, in every Python from 3.11 on."""
SHORTEST, LONGEST = 40, 600
"""Characters of a passage."""
NONE = "name its modules as import does"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Docstrings(Source):
    """Records `{"text": a passage, "package": "email"}`: paragraphs of the docstrings of the standard library.

    The files of the Python that runs are read, and not imported; tests are left out, and so are paragraphs of fewer
    than 40 or more than 600 characters, and those that stand in several of the packages. Which part a passage belongs
    to hangs on its text alone. Raises InputError, when it is first used, for a package that is not there.
    """

    part: Literal["train", "validation"] = "train"
    """Three of five passages are of training."""
    packages: tuple[str, ...] = PACKAGES
    """Packages and modules of the standard library."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "packages", tuple(self.packages))
        if len({*self.packages}) < max(len(self.packages), 1):
            raise InputError(f"packages must name at least one, none twice, got {', '.join(self.packages) or 'none'}")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return dict(self._records[i])

    def name(self, i: int) -> str:
        return f"passage {i} of the {self.part} part, of {self._records[i]['package']}"

    @cached_property
    def _records(self) -> list[dict[str, str]]:
        owners: dict[str, set[str]] = {}
        for package in self.packages:
            for text in _passages(package):
                owners.setdefault(text, set()).add(package)
        is_train = self.part == "train"
        return [
            {"text": text, "package": package}
            for text, (package, *others) in owners.items()
            if not others and (zlib.crc32(text.encode()) % 5 < 3) == is_train
        ]


@cache
def _passages(package: str) -> tuple[str, ...]:
    """The paragraphs of a package's docstrings, in the sequence of its files."""
    library = Path(sysconfig.get_path("stdlib"))
    files = sorted((library / package).rglob("*.py")) or sorted(library.glob(f"{package}.py"))
    if not files or not package.isidentifier():
        known = [path.stem for path in library.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
        raise InputError(f"packages: there is no {package!r} in the standard library{suggest(package, known, NONE)}")
    found = []
    for file in files:
        if {"test", "tests"} & {*file.relative_to(library).parts}:
            continue
        for node in ast.walk(ast.parse(file.read_bytes())):
            for part in re.split(r"\n\s*\n", (isinstance(node, DOCUMENTED) and ast.get_docstring(node)) or ""):
                if SHORTEST <= len(text := " ".join(part.split())) <= LONGEST:
                    found.append(text)
    return tuple(found)

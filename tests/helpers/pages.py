"""Pages of the documentation: their fenced blocks, the commands in them, and code that stands on them, to be run."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SHELLS = ("bash", "console", "sh", "shell")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    """Where its code begins."""
    mark: str
    """What an HTML comment `<!-- in tests: ... -->` right above it says."""


def blocks(text: str) -> list[Block]:
    """Blocks in their sequence. A mark is there to make a block small enough for a test:

    above a Python block `<!-- in tests: max_epochs=40 -> max_epochs=1; ... -->` replaces text in it;
    above a shell block `<!-- in tests: --trainer.max_epochs=1 -->` runs its `anyformer` commands with these arguments
    added (a shell block without a mark is only read);
    above any block `<!-- in tests: saved as radar.py -->` makes it that file, for the blocks below, and runs nothing;
    above any block `<!-- in tests: not run, as it needs a model -->` leaves it out.
    """
    pattern = r"(?:^<!-- in tests:(?P<mark>.*?)-->\n+)?^```(?P<language>[\w{}-]*)\n(?P<code>.*?)^```$"
    return [
        Block(m["language"], m["code"], text[: m.start("code")].count("\n"), (m["mark"] or "").strip())
        for m in re.finditer(pattern, text, re.MULTILINE | re.DOTALL)
    ]


def saved_as(block: Block) -> str | None:
    """The name of the file that a reader makes of a block."""
    found = re.fullmatch(r"saved as (\S+)", block.mark)
    return found and found[1]


def shrink(block: Block) -> str:
    code = block.code
    for change in filter(None, block.mark.split(";")):
        old, arrow, new = (part.strip() for part in change.partition("->"))
        assert arrow and old in code, f"line {block.line}: the mark's {old!r} is not in the block below it"
        code = code.replace(old, new)
    return code


def commands(text: str, *prompts: str) -> list[list[str]]:
    """The words of every `anyformer ...` command in a text, without `uv run` and what stands before it."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        for prompt in prompts:
            line = line.removeprefix(prompt)
        line = re.sub(r"^(\w+: +|\$ +)", "", line)
        for command in line.split("&&"):
            words = shlex.split(command, comments=True) if re.match(r" *(uv run +)?anyformer(\s|$)", command) else []
            if words:
                found.append(words[words.index("anyformer") :])
    return found


def config_of(command: list[str]) -> Path | None:
    """The file that a command names as --config, which must exist."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option in ("--config", "-c"):
            config = ROOT / (value or following)
            assert config.is_file(), f"{shlex.join(command)}: there is no such config"
            return config
    return None


def load_example(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that a block of CONTRIBUTING.md is, saved in a folder under the name that its mark gives."""
    page = blocks((ROOT / "CONTRIBUTING.md").read_text())
    (code,) = (block.code for block in page if saved_as(block) == f"{name}.py")
    (folder / f"{name}.py").write_text(code)
    spec = spec_from_file_location(name, folder / f"{name}.py")
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module

"""The README and the pages of docs/: what they show runs, and what they are built into asks nothing of the network."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import anyformer
from anyformer.__main__ import COMMANDS, main
from anyformer.testing.tokenizer import check_tokenizer
from tests.helpers.pages import SHELLS, blocks, commands, config_of, saved_as, shrink

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
RUN = [page for page in PAGES if page != "CONTRIBUTING.md"]
"""CONTRIBUTING's blocks are run by the tests of what they add to."""


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist_and_name_configs_that_do(page: str) -> None:
    shown = blocks((ROOT / page).read_text())
    saved = {name for block in shown if (name := saved_as(block))}
    for block in shown:
        assert block.language in ("", "python", "text", "yaml", "{toctree}", "{eval-rst}", *SHELLS), (
            f"a block of {block.language!r}, unread by tests"
        )
        if block.language == "yaml":
            yaml.safe_load(block.code)
        for command in commands(block.code):
            assert command[1] in COMMANDS or command[1].startswith("-"), shlex.join(command)
            if not saved.intersection(command):
                config_of(command)


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        target = link.partition("#")[0]
        # Pages of recipes are made when the documentation is built.
        if "://" not in link and target and not target.startswith("recipes/"):
            assert (ROOT / page).parent.joinpath(target).exists(), link


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 250
    made_for_the_site = {"docs/index.md", "docs/api.md"}
    assert {page for page in PAGES if page.startswith("docs/") and f"]({page})" not in text} == made_for_the_site


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    named = re.findall(r"^   (\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted({*anyformer.__all__} - {"__version__"})


@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_as_pasted(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block and every marked command, one after another in one folder, as a reader would."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for number, block in enumerate(blocks((ROOT / page).read_text())):
        if file := saved_as(block):
            (tmp_path / file).write_text(block.code)
            importlib.invalidate_caches()
        elif block.mark.startswith("not run"):
            continue
        elif block.language == "python":
            # A module of its own, so that classes defined in the block can be looked up by name.
            module = ModuleType(f"{Path(page).stem}_{number}")
            monkeypatch.setitem(sys.modules, module.__name__, module)
            # Blank lines in front, so that an error names the line of the page.
            code = compile("\n" * block.line + shrink(block), str(ROOT / page), "exec", dont_inherit=True)
            exec(code, module.__dict__)
        elif block.language in SHELLS and block.mark:
            for command in commands(block.code):
                assert main([*command[1:], *shlex.split(block.mark)]) == 0, shlex.join(command)


def test_the_pages_show_the_same_modality_which_is_short_and_keeps_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = blocks((ROOT / "docs" / "add_a_modality.md").read_text())
    shown = next(block.code for block in page if saved_as(block) == "radar.py")
    assert len(shown.splitlines()) < 30
    (tmp_path / "radar_of_the_docs.py").write_text(shown)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("radar_of_the_docs")
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert shown in text
    (check,) = re.findall(r"^ +check_tokenizer\(.*\)$", text, re.MULTILINE)
    exec(check.strip(), vars(module) | {"check_tokenizer": check_tokenizer})


def test_a_page_for_each_recipe_has_its_figures_its_config_and_the_pictures_of_built_in_data(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "recipes.py"))
    runs = tmp_path / "runs"
    for name in ("digits", "cifar10_small"):
        (runs / name).mkdir(parents=True)
        (runs / name / "curves.png").write_bytes(b"a picture")
    script["write"](tmp_path / "recipes", runs)
    digits, cifar = ((tmp_path / "recipes" / f"{name}.md").read_text() for name in ("digits", "cifar10_small"))
    assert "accuracy: 0.990" in digits and "class_path: Classify" in digits
    assert "](digits/curves.png)" in digits and (tmp_path / "recipes" / "digits" / "curves.png").exists()
    assert "accuracy: 0.733" in cifar and "curves.png" not in cifar
    names = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    assert {path.stem for path in (tmp_path / "recipes").glob("*.md")} == {*names, "index"}


def test_the_documentation_is_built_without_a_warning_into_pages_that_ask_nothing_of_the_network(
    tmp_path: Path,
) -> None:
    pytest.importorskip("sphinx", reason="uv sync --group docs")
    build = [sys.executable, "-m", "sphinx", "-W", "-q", "-d", str(tmp_path / "trees"), "docs", str(tmp_path / "site")]
    made = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert made.returncode == 0, made.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        text = page.read_text()
        asked = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)", text)
        assert asked == [], page.name
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text()), sheet.name


def test_blocks_marks_and_commands_are_found() -> None:
    page = """
<!-- in tests: saved as small.yaml -->
```yaml
n: 40
```

<!-- in tests: n=40 -> n=1; fast -> slow -->
```python
f(n=40, fast)
```

```bash
pip install uv && uv run anyformer fit --config configs/none.yaml  # a comment
$ anyformer test runs/digits
```
"""
    saved, python, shell = blocks(page)
    assert (saved_as(saved), saved.code, saved_as(python)) == ("small.yaml", "n: 40\n", None)
    assert (python.line, shrink(python)) == (8, "f(n=1, slow)\n")
    assert commands(shell.code) == [
        ["anyformer", "fit", "--config", "configs/none.yaml"],
        ["anyformer", "test", "runs/digits"],
    ]
    with pytest.raises(AssertionError, match="there is no such config"):
        config_of(commands(shell.code)[0])
    with pytest.raises(AssertionError, match="the mark's 'm=2' is not in the block below it"):
        shrink(python._replace(mark="m=2 -> m=1"))

"""What holds for the repository as a whole: the linked folders, the direction of imports, the YAMLs."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
import yaml

import anyformer
from tests.helpers.pages import commands, config_of

ROOT = Path(__file__).parents[1]
LINKED = ("tokenizers", "tasks", "configs")
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
TEST_COMMAND = "pip install uv && uv run pytest"

FLOORS = (
    {"errors", "text_tables"},
    {"faults"},
    {"choices", "local_files", "reference"},
    {"metrics", "parsing", "tokens"},
    {"batch", "links"},
    {"packing"},
    {"data", "model"},
    {"generation", "optim", "saving", "weights"},
    {"drawing", "testing"},
    {"explaining"},
    {"tokenizers"},
    {"tasks"},
    {"runs"},
    {"baselines"},
    {"planning"},
    {"front"},
    {"cli"},
)
"""The folders and files of the package from the ground: each may import what is on floors below, and itself."""

ABOVE_THE_CORE = {"tasks", "runs", "baselines", "planning", "cli"}
"""Who may know a trainer."""

FRONT_DOORS = {
    "__init__.py": "anyformer.load is looked up when it is asked for",
    "__main__.py": "--help and --version must answer without torch, and --version without anything",
}
"""Files of anyformer/ that import the rest within functions alone, and why."""

BY_NAME = {
    "anyformer/__init__.py": "the public names are looked up when they are asked for",
    "anyformer/parsing/classes.py": "a config names classes",
}
"""Files that import modules by a name that is made, and why."""

WITHOUT_A_TEST = {
    "anyformer/__main__.py": "the front of the command line: tests/cli",
}
"""Source files that have no test file of their own, and why."""


def in_the_package(folder: str) -> list[Path]:
    """The Python files below a folder of the repository; those behind the links of anyformer/ are not its own."""
    found = sorted((ROOT / folder).rglob("*.py"))
    return [path for path in found if path.relative_to(ROOT).parts[1] not in LINKED]


SOURCES = [path for folder in ("anyformer", "tokenizers", "tasks") for path in in_the_package(folder)]
FACES = [path for path in SOURCES if path.name == "__init__.py" and path.parent != ROOT / "anyformer"]
FILES = [path for path in SOURCES if path not in FACES]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """Its dotted name in the package: `anyformer.tokenizers.row` for tokenizers/row.py."""
    dotted = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    return dotted if dotted.split(".")[0] == "anyformer" else f"anyformer.{dotted}"


MODULES = {module_of(path): path for path in SOURCES}


def every(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name)


# The linked folders


@pytest.mark.parametrize("folder", LINKED)
def test_a_folder_at_the_root_is_linked_into_the_package(folder: str) -> None:
    link = ROOT / "anyformer" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..", folder)
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", LINKED)
def test_a_linked_folder_is_no_regular_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists(), "it would hide the published package of that name"


def test_the_published_tokenizers_is_found_from_the_root(tmp_path: Path) -> None:
    """`import lightning` fails where a Python that is started at the root finds ours in its place."""
    found = PathFinder.find_spec("tokenizers", [str(ROOT), *sys.path])
    assert found.origin, "found a namespace package"
    assert Path(found.origin).parent.parent != ROOT
    # With an __init__.py ours would be found first.
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "__init__.py").touch()
    hidden = PathFinder.find_spec("tokenizers", [str(tmp_path), *sys.path])
    assert Path(hidden.origin).parent.parent == tmp_path


# The direction of imports


def imports(tree: ast.AST) -> set[str]:
    """Dotted names of all that a tree imports; of `from a import b` both a and a.b, as b may be a module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import, which a linked folder cannot follow"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def within(found: set[str], *packages: str) -> set[str]:
    return {module for module in found for package in packages if f"{module}.".startswith(f"{package}.")}


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports: at its top, in a function, or for types alone."""
    found = imports(ast.parse(path.read_text()))
    # Of `from a import b` a is one only where b is none.
    return {
        module
        for module in found & MODULES.keys()
        if module != module_of(path)
        and not (MODULES[module].name == "__init__.py" and any(other.startswith(f"{module}.") for other in found))
    }


def floor_of(module: str) -> int:
    room = module.split(".")[1]
    (floor,) = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    return floor


INSIDE = [path for path in FILES if path.parent != ROOT / "anyformer" or path.name not in FRONT_DOORS]


@every(INSIDE)
def test_a_file_imports_what_is_on_its_floor_in_its_room_or_below(path: Path) -> None:
    own = module_of(path)
    for module in imported(path):
        same_room = module.split(".")[1] == own.split(".")[1]
        assert same_room or floor_of(module) < floor_of(own), f"{own} imports {module}"


@every(INSIDE)
def test_a_file_imports_from_files_and_not_from_faces(path: Path) -> None:
    assert not {module for module in imported(path) if MODULES[module].name == "__init__.py"}


@every([path for path in FILES if module_of(path).partition(".")[2].split(".")[0] not in ABOVE_THE_CORE])
def test_the_core_and_tokenizers_know_no_trainer(path: Path) -> None:
    assert not within(imports(ast.parse(path.read_text())), "lightning", "pytorch_lightning")


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The ways round of a graph, each found once."""
    found, state = [], {}

    def visit(node: str, way: list[str]) -> None:
        state[node] = "open"
        for other in sorted(edges.get(node, ())):
            if state.get(other) == "open":
                found.append([*way[way.index(other) :], other])
            elif other not in state:
                visit(other, [*way, other])
        state[node] = "done"

    for node in sorted(edges):
        if node not in state:
            visit(node, [node])
    return found


def test_no_files_import_each_other_in_a_circle() -> None:
    """Neither at import time nor later: imports in functions and for types alone count."""
    assert not circles({module_of(path): imported(path) for path in INSIDE})


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c", "a"]]


@every([path for path in SOURCES if name(path) not in BY_NAME])
def test_no_import_is_hidden_behind_a_name(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if ast.unparse(call.func).rpartition(".")[2] == "import_module"]


@every(FACES)
def test_a_face_holds_imports_alone_and_is_short(path: Path) -> None:
    _, *body = ast.parse(path.read_text()).body
    assert all(isinstance(node, ast.ImportFrom) or ast.unparse(node).startswith("__all__ = ") for node in body)
    assert len(path.read_text().splitlines()) < 40


@every(sorted({path.parent for path in SOURCES}))
def test_a_folder_has_at_most_a_dozen_files(path: Path) -> None:
    own = [file for file in path.iterdir() if file.is_file() and file.name != "__init__.py"]
    assert len(own) <= 12
    assert path in (ROOT / "anyformer", ROOT / "tokenizers", ROOT / "tasks") or (path / "__init__.py").exists()


@every(SOURCES)
def test_our_folders_are_imported_by_their_full_name(path: Path) -> None:
    assert not within(imports(ast.parse(path.read_text())), "tasks", "configs", "core", "tests")


@every([ROOT / "anyformer" / file for file in FRONT_DOORS])
def test_a_front_door_imports_the_standard_library_alone(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            node.body = [ast.Pass()]
    known = {"anyformer", "anyformer.errors", "anyformer.errors.InputError", "anyformer.__version__"}
    assert not {found for found in imports(tree) - known if found.split(".")[0] not in sys.stdlib_module_names}


def test_an_import_in_the_wrong_direction_is_seen() -> None:
    tree = ast.parse("import lightning.pytorch\ndef f():\n    from anyformer import tasks, tokens\n")
    assert within(imports(tree), "lightning", "anyformer.tasks") == {"lightning.pytorch", "anyformer.tasks"}


@every([*sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "docs").glob("*.py"))])
def test_what_a_benchmark_imports_of_ours_is_there(path: Path) -> None:
    """No test runs them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("anyformer."):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or f"{node.module}.{alias.name}" in MODULES, alias.name


# Every file


@every([path for path in FILES if name(path) not in WITHOUT_A_TEST and path.name != "__init__.py"])
def test_a_source_file_has_a_test_file_of_its_name_in_the_same_room(path: Path) -> None:
    room = path.relative_to(ROOT).parent.as_posix().removeprefix("anyformer").strip("/")
    assert (ROOT / "tests" / room / f"test_{path.stem}.py").exists()


@every([path for path in SOURCES if ">>> " in path.read_text()])
def test_the_examples_in_docstrings_run(path: Path) -> None:
    result = doctest.testmod(importlib.import_module(module_of(path)))
    assert result.attempted
    assert not result.failed


def texts() -> Iterator[Path]:
    """The files that a reader of the repository sees."""
    yield from ROOT.glob("*.md")
    yield from (ROOT / "pyproject.toml", ROOT / ".pre-commit-config.yaml", ROOT / ".ci" / "run")
    for folder in ("anyformer", "benchmarks", "tests", *LINKED):
        yield from (path for suffix in ("md", "py", "yaml") for path in sorted((ROOT / folder).rglob(f"*.{suffix}")))


UNWANTED = {
    "a path of one machine": r"(?<![\w.~/-])(/(home|root|tmp|work|mnt|Users)/|[A-Z]:\\\\?Users)",
    "the address of a package index": r"py" r"pi\.|python" r"hosted\.",
    "unfinished": r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b",
    "a merge": r"^(<{7}|>{7}) ",
    "a stop in the debugger": r"\bbreak" r"point\(\)|\bset_" r"trace\(\)",
}


@pytest.mark.parametrize("kind", UNWANTED)
def test_no_file_holds_what_does_not_belong(kind: str) -> None:
    found = [
        f"{name(path)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(UNWANTED[kind], line)
    ]
    assert not found, f"{kind}:\n" + "\n".join(found)


def test_what_does_not_belong_is_seen() -> None:
    home = "/".join(["", "home", "me", "data"])
    assert re.search(UNWANTED["a path of one machine"], f'open("{home}")')
    assert not re.search(UNWANTED["a path of one machine"], f"https://example.org{home}")


def test_the_public_names_are_found_by_editors_and_at_run_time_alike() -> None:
    tree = ast.parse((ROOT / "anyformer" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    for_types = {alias.name: node.module for node in block.body for alias in node.names}
    assert for_types == {name: f"anyformer.{home}" for name, home in anyformer._HOMES.items()}
    for public in anyformer.__all__:
        assert getattr(anyformer, public) is not None
    assert (ROOT / "anyformer" / "py.typed").exists()


def test_the_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == anyformer.__version__
    assert f"## [{anyformer.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_and_the_ci_run_the_same_tests() -> None:
    assert TEST_COMMAND in (ROOT / "README.md").read_text()
    assert TEST_COMMAND in (ROOT / ".ci" / "run").read_text()


# Configs


@every(CONFIGS)
def test_a_config_parses_and_its_head_says_data_command_result_and_time(path: Path) -> None:
    text = path.read_text()
    assert isinstance(yaml.safe_load(text), dict)
    head = re.match(r"(#.*\n)+", text)
    assert head, "the first lines of a config are a comment"
    for label in ("Data", "Command", "Result", "Time"):
        assert re.search(rf"^# {label}: +\S", head[0], re.MULTILINE), f"the head lacks a line '# {label}: ...'"
    assert {config_of(command) for command in commands(head[0], "# ")} == {path}

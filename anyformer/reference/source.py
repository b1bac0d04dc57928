"""Classes and their arguments as the source has them: it is parsed, and nothing of it is imported.

Knows the folders of this package and of Lightning; what other packages define has no type here.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

PACKAGE = "anyformer"
READ = (PACKAGE, "lightning")
"""The packages whose source is read."""
NO_ARGUMENTS = ("ClassVar", "KW_ONLY", "InitVar")


@dataclass(frozen=True)
class Argument:
    """An argument of a class's constructor."""

    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    """None where it must be given."""
    text: str
    """What it means."""
    module: Module
    """Where the names of its annotation and default are defined."""


class Module:
    """A file of source, parsed when it is asked for."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    @cached_property
    def names(self) -> dict[str, ast.AST | tuple[str, str]]:
        """What is defined at the top: classes, the values of assignments, and imports as (module, name)."""
        found: dict[str, ast.AST | tuple[str, str]] = {}
        text = self.path.read_text(encoding="utf-8")
        try:
            tree = ast.parse(without_bodies(text))
        except SyntaxError:
            # Of a text within a function, with lines that begin where statements do.
            tree = ast.parse(text)
        for node in _statements(tree.body):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.ClassDef):
                found[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                found[node.target.id] = node.value
        return found

    def find(self, name: str) -> Class | tuple[ast.expr, Module] | None:
        """What a name means here: a class; an expression, and where its own names are defined; None if neither."""
        found = self.names.get(name)
        if isinstance(found, tuple):
            other = module(found[0])
            return None if other is None or other is self else other.find(found[1])
        if isinstance(found, ast.ClassDef):
            return class_of(self, name)
        return None if found is None else (found, self)


BODIES = [
    re.compile(
        # A function other than a constructor; its parameters on its line, or on lines of their own; and its body.
        rf"^({at}(?:async )?def (?!__init__)\w+\((?:.*:\n|[^\n]*\n(?:{at}    .*\n)*?{at}\).*:\n))"
        rf"((?:(?:{at}    .*)?\n)+)",
        re.MULTILINE,
    )
    for at in ("", "    ")
]


def without_bodies(text: str) -> str:
    """Source without what functions do, which is most of it and costs as much to parse."""
    for pattern in BODIES:
        text = pattern.sub(lambda found: f"{found[1]}{' ' * (len(found[1]) - len(found[1].lstrip()))}    ...\n", text)
    return text


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements(node.body)
        else:
            yield node


class Class:
    """A class of a file of source."""

    def __init__(self, home: Module, node: ast.ClassDef) -> None:
        self.module, self.node, self.name = home, node, node.name

    @cached_property
    def text(self) -> str:
        """Its docstring without the parts on arguments and what it raises."""
        return re.split(r"^(?:\w+(?: \w+)?::?|\.\. \w.*)$", ast.get_docstring(self.node) or "", flags=re.M)[0].strip()

    @cached_property
    def line(self) -> list[Class]:
        """The class and all that it descends from, the nearest first."""
        found = [self]
        for base in self.node.bases:
            parent = self.module.find(ast.unparse(base).partition("[")[0])
            if isinstance(parent, Class):
                found += [each for each in parent.line if each not in found]
        return found

    @cached_property
    def is_dataclass(self) -> bool:
        return any("dataclass" in ast.unparse(decorator) for decorator in self.node.decorator_list)

    @property
    def is_values(self) -> bool:
        """Whether it is a block of values, which a config writes out, and no class that it chooses."""
        return all(each.is_dataclass for each in self.line)

    @property
    def is_ours(self) -> bool:
        return self.module.name.startswith(f"{PACKAGE}.")

    @property
    def is_abstract(self) -> bool:
        """Whether nothing is made of it, but of what descends from it."""
        marks = [ast.unparse(mark) for mark in self.node.bases] + [
            ast.unparse(mark)
            for each in self.node.body
            if isinstance(each, ast.FunctionDef)
            for mark in each.decorator_list
        ]
        return "ABC" in marks or "abstractmethod" in marks

    @cached_property
    def arguments(self) -> list[Argument]:
        if self.is_dataclass:
            found: dict[str, Argument] = {}
            for cls in reversed(self.line):
                if cls.is_dataclass:
                    found |= {each.name: each for each in cls._fields()}
            return list(found.values())
        for cls in self.line:
            for node in cls.node.body:
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    return cls._parameters(node)
        return []

    def _fields(self) -> Iterator[Argument]:
        said = _arguments_said(self.node)
        for node, after in zip(self.node.body, [*self.node.body[1:], None], strict=True):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            name, default = node.target.id, node.value
            if ast.unparse(node.annotation).partition("[")[0] in NO_ARGUMENTS:
                continue
            if isinstance(default, ast.Call) and ast.unparse(default.func) == "field":
                options = {option.arg: option.value for option in default.keywords}
                if "init" in options:
                    continue
                made = options.get("default_factory")
                default = options.get("default") if made is None else ast.Call(made, [], [])
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = str(after.value.value) if is_text else said.get(name, "")
            yield Argument(name, node.annotation, default, " ".join(text.split()), self.module)

    def _parameters(self, node: ast.FunctionDef) -> list[Argument]:
        said = _arguments_said(self.node) | _arguments_said(node)
        own = node.args.args[1:]
        defaults = [*[None] * (len(own) - len(node.args.defaults)), *node.args.defaults]
        pairs = [*zip(own, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
        return [Argument(arg.arg, arg.annotation, value, said.get(arg.arg, ""), self.module) for arg, value in pairs]


def _arguments_said(node: ast.ClassDef | ast.FunctionDef) -> dict[str, str]:
    """What a docstring has under `Args:`, by argument."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n|\n)*)", f"{ast.get_docstring(node) or ''}\n", re.MULTILINE)
    entries = re.split(r"^(\w+)[^:\n]*:", dedent(section[1]), flags=re.MULTILINE)[1:] if section else []
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}


@cache
def module(name: str) -> Module | None:
    """The file of a module of the packages that are read; None for any other."""
    root, *rest = name.split(".")
    folder = folder_of(root) if root in READ else None
    if folder is None:
        return None
    path = folder.joinpath(*rest)
    files = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    return next((Module(name, file) for file in files if file.is_file()), None)


@cache
def folder_of(package: str) -> Path | None:
    """Where a package is installed."""
    if package == PACKAGE:
        return Path(__file__).parents[1]
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


@cache
def class_of(home: Module, name: str) -> Class:
    return Class(home, home.names[name])  # type: ignore[arg-type]


@cache
def public_names() -> dict[str, str]:
    """The module of every name that the package offers."""
    return {name: f"{PACKAGE}.{home}" for name, home in ast.literal_eval(module(PACKAGE).names["_HOMES"]).items()}


@cache
def homes() -> dict[str, str]:
    """The module of every class of the package, by name."""
    found, folder = {}, folder_of(PACKAGE)
    for above, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("__"))
        for file in sorted(file for file in files if file.endswith(".py")):
            path = Path(above, file)
            text = path.read_text(encoding="utf-8")
            if names := re.findall(r"^class ([A-Z]\w*)", text, re.MULTILINE):
                dotted = ".".join(path.relative_to(folder).with_suffix("").parts)
                found |= dict.fromkeys(names, f"{PACKAGE}.{dotted}")
    return found | public_names()


@cache
def find(name: str) -> Class | None:
    """A class of this package, or one of Lightning's callbacks or loggers, by its name."""
    home = homes().get(name)
    home = home or next((of for of in ("callbacks", "loggers") if name in of_lightning(of)), None)
    if home is None:
        return None
    here = module(home if home.startswith(PACKAGE) else f"lightning.pytorch.{home}")
    found = here.find(name)
    return found if isinstance(found, Class) else None


def class_like(cls: type) -> Class:
    """A class that has been imported, of whatever package, as its source has it."""
    home = module(cls.__module__) or Module(cls.__module__, Path(inspect.getsourcefile(cls)))
    return class_of(home, cls.__name__)


@cache
def of_lightning(package: str) -> tuple[str, ...]:
    """The names that a package of Lightning's offers, such as callbacks."""
    return tuple(ast.literal_eval(module(f"lightning.pytorch.{package}").names["__all__"]))


@cache
def subclasses(base: str) -> list[Class]:
    """The classes that the package offers under a base, by name, without those that others are made from."""
    offered = [find(name) for name in sorted(public_names()) if name[0].isupper()]
    return [cls for cls in offered if cls is not None and base in [each.name for each in cls.line[1:]]]

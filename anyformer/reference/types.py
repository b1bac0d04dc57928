"""The types of arguments: read from their annotations, told in a few words, and as JSON Schema."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from anyformer.reference.source import Argument, Class, Module, module

SCALARS = {"int": "integer", "float": "number", "str": "string", "bool": "boolean", "Path": "string", "_PATH": "string"}
"""Their names in JSON Schema."""
LISTS = ("list", "List", "tuple", "Tuple", "Sequence", "Iterable")
CONTAINERS = ("list", "tuple", "MappingProxyType")
MAPPINGS = ("dict", "Dict", "Mapping")


@dataclass(frozen=True)
class Type:
    """What a value may be.

    kind: any, null, scalar, choice (of `values`), list (of any number), items (each of its own type), mapping, keys (a
        mapping of `values` to types), union, class.
    """

    kind: str
    parts: tuple[Type, ...] = ()
    values: tuple[Any, ...] = ()
    name: str = ""
    """Of a scalar."""
    cls: Class | None = None

    @property
    def members(self) -> tuple[Type, ...]:
        """The types of a union; else itself."""
        return self.parts if self.kind == "union" else (self,)

    @property
    def classes(self) -> list[Class]:
        return [each.cls for each in self.members if each.cls is not None]

    def __str__(self) -> str:
        """As one would write it in a YAML: `[int, int] or null`."""
        if self.kind == "choice":
            return " or ".join(_yaml(value) for value in self.values)
        if self.kind == "list":
            return f"[{self.parts[0]}, ...]"
        if self.kind == "items":
            return f"[{', '.join(map(str, self.parts))}]"
        if self.kind == "mapping":
            return f"{{name: {self.parts[0]}}}"
        if self.kind == "keys":
            return f"{{{', '.join(f'{key}: {part}' for key, part in zip(self.values, self.parts, strict=True))}}}"
        if self.kind == "union":
            return " or ".join(map(str, self.parts))
        return self.cls.name if self.cls else self.name or self.kind


ANY, NULL = Type("any"), Type("null")


def type_of(argument: Argument) -> Type:
    """The type that an argument's annotation gives it; any where that is not known here."""
    return ANY if argument.annotation is None else _read(argument.annotation, argument.module)


def _read(node: ast.expr, home: Module) -> Type:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _read(ast.parse(node.value, mode="eval").body, home)
        return NULL if node.value is None else ANY
    if isinstance(node, ast.BinOp):
        return _union(_read(node.left, home), _read(node.right, home))
    if isinstance(node, ast.Subscript):
        return _subscript(node, home)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "TypedDict":
        (_, told) = node.args
        keys = tuple(ast.literal_eval(key) for key in told.keys)
        return Type("keys", tuple(_read(each, home) for each in told.values), keys)
    name = ast.unparse(node)
    if name in SCALARS:
        return Type("scalar", name={"Path": "str", "_PATH": "str"}.get(name, name))
    if name in LISTS:
        return Type("list", (ANY,))
    if name in MAPPINGS:
        return Type("mapping", (ANY,))
    found = home.find(name)
    if isinstance(found, Class):
        return Type("class", cls=found)
    return ANY if found is None else _read(*found)


def _subscript(node: ast.Subscript, home: Module) -> Type:
    outer = ast.unparse(node.value).rpartition(".")[2]
    inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer == "Literal":
        values = [each.value for each in inner if isinstance(each, ast.Constant)]
        written = Type("choice", values=tuple(value for value in values if value is not None))
        return _union(written, NULL) if None in values else written
    if outer == "Optional":
        return _union(_read(inner[0], home), NULL)
    if outer == "Union":
        return _union(*(_read(each, home) for each in inner))
    if outer in MAPPINGS:
        return Type("mapping", (_read(inner[-1], home),))
    is_ellipsis = isinstance(inner[-1], ast.Constant) and inner[-1].value is ...
    if outer in ("tuple", "Tuple") and not is_ellipsis:
        return Type("items", tuple(_read(each, home) for each in inner))
    return Type("list", (_read(inner[0], home),)) if outer in LISTS else ANY


def _union(*parts: Type) -> Type:
    every = tuple(dict.fromkeys(member for part in parts for member in part.members))
    return every[0] if len(every) == 1 else Type("union", every)


def default_of(argument: Argument) -> str | None:
    """The default of an argument as a YAML has it; None where it must be given."""
    if argument.default is None:
        return None
    return _yaml(value_of(argument.default, argument.module))


def literal_of(argument: Argument) -> Any:
    """The default of an argument as a plain value; None where it has none, or an object."""
    value = None if argument.default is None else value_of(argument.default, argument.module)
    return None if isinstance(value, Made) else value


class Made:
    """A default that is an object."""

    def __init__(self, text: str) -> None:
        self.text = text


def value_of(node: ast.expr, home: Module) -> Any:
    """The value of an expression of plain values and names of such; else a `Made` of its text."""
    if isinstance(node, ast.Name | ast.Attribute) and isinstance(found := home.find(ast.unparse(node)), tuple):
        return value_of(*found)
    if isinstance(node, ast.Tuple | ast.List):
        parts = [(each, value_of(each.value if isinstance(each, ast.Starred) else each, home)) for each in node.elts]
        if any(isinstance(each, ast.Starred) and not isinstance(value, list) for each, value in parts):
            return Made(ast.unparse(node))
        return [one for each, value in parts for one in (value if isinstance(each, ast.Starred) else [value])]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = value_of(node.left, home), value_of(node.right, home)
        return left + right if isinstance(left, list) and isinstance(right, list) else Made(ast.unparse(node))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Lambda):
        # The factory of a dataclass's field.
        return value_of(node.func.body, home)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in CONTAINERS and len(node.args) == 1:
        value = _container(node.args[0], home)
        return Made(ast.unparse(node)) if value is None else value
    if isinstance(node, ast.Call) and ast.unparse(node) in ("dict()", "list()", "tuple()"):
        return {} if ast.unparse(node) == "dict()" else []
    try:
        return ast.literal_eval(node)
    except ValueError:
        return Made(ast.unparse(node))


def _container(node: ast.expr, home: Module) -> Any:
    """What is made into a list or mapping: of a mapping's values nothing needs to be known for a list of its keys."""
    if isinstance(node, ast.Name) and isinstance(found := home.find(node.id), tuple):
        return _container(*found)
    if isinstance(node, ast.Dict) and node.keys:
        return [value_of(key, home) for key in node.keys]
    value = value_of(node, home)
    return None if isinstance(value, Made) else value


def constant(home: str, name: str) -> Any:
    """The value of a name at the top of a module."""
    node = ast.Name(name)
    return value_of(node, module(home))


def _yaml(value: Any) -> str:
    if isinstance(value, Made):
        return value.text
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(each)}' for key, each in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if value == "" else str(value)

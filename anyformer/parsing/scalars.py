"""YAML as it is written: 01, on and 1_000 are texts until a type asks for a number or a boolean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import yaml
from jsonargparse import get_loader, set_dumper, set_loader
from jsonargparse._loaders_dumpers import dumpers, get_yaml_default_loader

WORDS = re.compile("yes|no|on|off", re.IGNORECASE)
WHOLE = re.compile("0|-?[1-9][0-9]*")
NO_TEXT = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null")}


class AsWritten(str):
    """An unquoted scalar that YAML takes for a number or a boolean which is written otherwise."""


def load_yaml(text: str, kind: type[str] = AsWritten) -> Any:
    """What a YAML text holds, in which a scalar of a list or a mapping that is a whole number in another spelling (01,
    0x1F, 1_000) or one of the words yes, no, on and off is text, and so is every key. A document that is one scalar is
    read as ever.

    kind: of that text. Raises yaml.YAMLError.
    """
    loader = _loader(kind)(text)
    try:
        return loader.get_single_data()
    except (ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        # Of a value that is not of the kind that its tag names, and of a number of thousands of digits.
        raise yaml.YAMLError(f"a value is not what its tag or form says ({error})") from None
    finally:
        loader.dispose()


@cache
def _loader(kind: type[str]) -> type:
    class Loader(get_yaml_default_loader()):
        def construct_document(self, node: yaml.Node) -> Any:
            self.is_inner = not isinstance(node, yaml.ScalarNode)
            return super().construct_document(node)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag in NO_TEXT:
                    key.tag = "tag:yaml.org,2002:str"
            return super().construct_mapping(node, deep)

        def construct_int(self, node: yaml.ScalarNode) -> Any:
            is_other = self.is_inner and not WHOLE.fullmatch(node.value)
            return kind(node.value) if is_other else self.construct_yaml_int(node)

        def construct_bool(self, node: yaml.ScalarNode) -> Any:
            is_word = self.is_inner and WORDS.fullmatch(node.value)
            return kind(node.value) if is_word else self.construct_yaml_bool(node)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_int)
    Loader.add_constructor("tag:yaml.org,2002:bool", Loader.construct_bool)
    return Loader


@cache
def _dumper() -> type:
    class Dumper(yaml.SafeDumper):
        """Quotes what any of the readers of YAML would take for a number: PyYAML takes 1e3 for a text."""

    for first, pairs in get_yaml_default_loader().yaml_implicit_resolvers.items():
        for tag, pattern in pairs:
            Dumper.add_implicit_resolver(tag, pattern, [first])
    return Dumper


def dump_yaml(content: Any) -> str:
    """The YAML text of plain values, from which every text comes back as a text."""
    return yaml.dump(content, Dumper=_dumper(), sort_keys=False, allow_unicode=True)


@contextmanager
def as_written() -> Iterator[None]:
    """While it lasts, jsonargparse reads and writes YAML so, in files and options alike. Of what it is given as text it
    makes the number or boolean that a type asks for."""
    read, write = get_loader("yaml"), dumpers["yaml"]

    def load(text: str) -> Any:
        content = load_yaml(text, str)
        # It has a way of its own with what is no list, and with {a}.
        has_values = isinstance(content, dict) and any(value is not None for value in content.values())
        return content if has_values or isinstance(content, list) else read(text)

    set_loader("yaml", load, (yaml.YAMLError,))
    set_dumper("yaml", dump_yaml)
    try:
        yield
    finally:
        set_loader("yaml", read, (yaml.YAMLError,))
        set_dumper("yaml", write)

"""A JSON Schema of configs, by which an editor completes and checks them; made from the source alone."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from anyformer.reference.callbacks import refusal
from anyformer.reference.source import Class, find, module, of_lightning, subclasses
from anyformer.reference.types import SCALARS, Type, default_of, type_of

Schema = dict[str, Any]
DIALECT = "http://json-schema.org/draft-07/schema#"
OF_LIGHTNING = {"Callback": "callbacks", "Logger": "loggers"}
"""Bases of Lightning's, and the package in which are the classes that one may name."""


def schema() -> Schema:
    """Of a whole config, with a definition for each class."""
    made = Maker()
    trainer = made.arguments(lightning_trainer())
    sections = {
        "seed_everything": {"type": "integer", "minimum": 0, "description": "Decides everything that is random."},
        "model": made.of(Type("class", cls=find("Task"))),
        "data": {"anyOf": [made.reference(find("Records")), made.chosen(find("Mixed"))]},
        "trainer": {"anyOf": [trainer, {"type": "null"}]},
        "checkpoints": {"anyOf": [made.reference(find("Saving")), {"type": "null"}]},
    }
    return {
        "$schema": DIALECT,
        "title": "A config of anyformer",
        **_object(sections),
        "definitions": dict(sorted(made.definitions.items())),
    }


@cache
def lightning_trainer() -> Class:
    """Lightning's Trainer."""
    return module("lightning.pytorch.trainer.trainer").find("Trainer")


CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
"""What stands under a key that names a class."""


@cache
def config_types() -> dict[str, Type]:
    """What stands under the keys at the top of a config."""
    records, mixed = Type("class", cls=find("Records")), Type("class", cls=find("Mixed"))
    return {
        "model": Type("class", cls=find("Task")),
        "data": Type("union", (records, mixed)),
        "trainer": Type("class", cls=lightning_trainer()),
        "checkpoints": Type("class", cls=find("Saving")),
    }


def is_named(cls: Class) -> bool:
    """Whether a config names such a class by class_path, and does not write its arguments out alone."""
    return bool(choices(cls)) or cls.name == "Mixed"


@cache
def choices(base: Class) -> list[Class]:
    """The classes of which a config names one where one of this base is wanted; none where it is written out."""
    if base.is_values:
        return []
    if base.name in OF_LIGHTNING and not base.is_ours:
        names = of_lightning(OF_LIGHTNING[base.name])
        return [find(name) for name in names if name != base.name and refusal([name], in_a_config=True) is None]
    offered = subclasses(base.name)
    return offered if base.is_abstract or not offered else [base, *offered]


class Maker:
    """Makes schemas, and a definition for each class that they meet."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}

    def of(self, kind: Type) -> Schema:
        """The schema of a type; of what is not known here anything is valid."""
        if kind.kind == "union":
            parts = [self.of(part) for part in kind.parts]
            return {} if {} in parts else {"anyOf": parts}
        if kind.kind == "list":
            return {"type": "array", "items": self.of(kind.parts[0])}
        if kind.kind == "items":
            n = len(kind.parts)
            return {"type": "array", "items": [self.of(part) for part in kind.parts], "minItems": n, "maxItems": n}
        if kind.kind == "mapping":
            return {"type": "object", "additionalProperties": self.of(kind.parts[0])}
        if kind.kind == "keys":
            properties = {key: self.of(part) for key, part in zip(kind.values, kind.parts, strict=True)}
            return {"type": "object", "properties": properties, "additionalProperties": False}
        if kind.kind == "choice":
            return {"enum": list(kind.values)}
        if kind.kind == "scalar":
            return {"type": SCALARS[kind.name]}
        if kind.cls is not None:
            return self.of_class(kind.cls)
        return {"type": "null"} if kind.kind == "null" else {}

    def of_class(self, cls: Class) -> Schema:
        if choices(cls):
            return self.chosen(cls)
        return self.reference(cls) if cls.is_ours else {"type": "object"}

    def chosen(self, base: Class) -> Schema:
        """One of the classes under a base, named by class_path; its short name alone where it needs no arguments."""
        key = f"one of {base.name}"
        if key not in self.definitions:
            self.definitions[key] = {}
            self.definitions[key] = {"anyOf": self._by_class_path(choices(base) or [base])}
        return _reference(key)

    def _by_class_path(self, classes: list[Class]) -> list[Schema]:
        short = {"enum": [cls.name for cls in classes]}
        named = [
            _object(
                {"class_path": {"const": cls.name}, "init_args": self.reference(cls)},
                ["class_path", *(["init_args"] if needed(cls) else [])],
                description=summary(cls),
            )
            for cls in classes
        ]
        # Of a package of the user's own, or of Lightning's.
        other = {"class_path": {"type": "string", "pattern": "[.]"}, "init_args": {"type": "object"}}
        return [short, *named, _object(other, ["class_path"])]

    def reference(self, cls: Class) -> Schema:
        """The arguments of a class."""
        if cls.name not in self.definitions:
            self.definitions[cls.name] = {}
            self.definitions[cls.name] = self.arguments(cls)
        return _reference(cls.name)

    def arguments(self, cls: Class) -> Schema:
        properties = {}
        for each in cls.arguments:
            default = default_of(each)
            tail = "" if default is None else f" Default: {default}."
            properties[each.name] = {**self.of(type_of(each)), "description": f"{plain(each.text)}{tail}".strip()}
        found = _object(properties, needed(cls), description=summary(cls))
        return _started(found) if {"init_from", "tokenizers"} <= properties.keys() else found


def _started(task: Schema) -> Schema:
    """The arguments of a task: what is left out is taken from the model of `init_from`, where that is given."""
    changes = _object({"init_args": {"type": "object"}}, ["init_args"])
    tokenizers = task["properties"]["tokenizers"]
    named = {"anyOf": [_reference("one of Tokenizer"), changes, {"type": "null"}]}
    task["properties"]["tokenizers"] = {
        "anyOf": [tokenizers, {"type": "object", "additionalProperties": named}],
        "description": tokenizers["description"],
    }
    task["anyOf"] = [{"required": task.pop("required", [])}, {"required": ["init_from"]}]
    return task


def needed(cls: Class) -> list[str]:
    """The arguments that must be given."""
    return [each.name for each in cls.arguments if each.default is None]


def summary(cls: Class) -> str:
    """The first sentence of what is said of a class."""
    text = " ".join(plain(cls.text.partition("\n\n")[0]).split())
    return re.split(r"(?<=[^.][.])\s(?=[A-Z`])", text)[0]


def plain(text: str) -> str:
    """Text without the marks of Sphinx, and without the default and the notes that Lightning says in it."""
    text = re.sub(r"\s*Default: ?``.*?``\.?|\s*\.\. \w+::.*", "", text, flags=re.DOTALL)
    text = re.sub(r":[\w:]+:`~?(?:[\w.]*\.)?([^`]+)`|`([^`<]+?)\s*<[^>]*>`_", r"\1\2", text)
    return text.replace("``", "`")


def _object(properties: Schema, required: list[str] | None = None, description: str = "") -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": required} if required else {}) | ({"description": description} if description else {})


def _reference(key: str) -> Schema:
    return {"allOf": [{"$ref": f"#/definitions/{key.replace(' ', '%20')}"}]}

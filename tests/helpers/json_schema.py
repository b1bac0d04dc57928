"""Draft 7 of JSON Schema, as far as the schema of configs uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}
UNDERSTOOD = {
    *("$schema", "$ref", "title", "description", "definitions", "type", "properties", "required", "items", "minItems"),
    *("maxItems", "additionalProperties", "allOf", "anyOf", "enum", "const", "pattern", "minimum"),
}


def errors(value: Any, of: dict, whole: dict, place: str = "") -> Iterator[str]:
    """What draft 7 of JSON Schema has against a value; of its keywords those that ours has."""
    assert of.keys() <= UNDERSTOOD
    if "$ref" in of:
        key = of["$ref"].removeprefix("#/definitions/").replace("%20", " ")
        yield from errors(value, whole["definitions"][key], whole, place)
    for each in of.get("allOf", []):
        yield from errors(value, each, whole, place)
    if "anyOf" in of:
        found = [list(errors(value, each, whole, place)) for each in of["anyOf"]]
        if all(found):
            yield ", or ".join("; ".join(some) for some in found)
    if "type" in of and (
        not isinstance(value, KINDS[of["type"]]) or (isinstance(value, bool) and of["type"] != "boolean")
    ):
        yield f"{place} is no {of['type']}"
        return
    if ("enum" in of and value not in of["enum"]) or ("const" in of and value != of["const"]):
        yield f"{place}: {value!r} is none of {of.get('enum', [of.get('const')])}"
    if isinstance(value, str) and not re.search(of.get("pattern", ""), value):
        yield f"{place} does not match {of['pattern']}"
    if isinstance(value, dict):
        for name in of.get("required", []):
            if name not in value:
                yield f"{place} lacks {name}"
        rest = of.get("additionalProperties", {})
        for name, inner in value.items():
            known = of.get("properties", {}).get(name, rest)
            if known is False:
                yield f"{place}.{name} is not known"
            else:
                yield from errors(inner, known, whole, f"{place}.{name}")
    if isinstance(value, list):
        if not of.get("minItems", 0) <= len(value) <= of.get("maxItems", len(value)):
            yield f"{place} has {len(value)} items"
        items = of.get("items", {})
        for i, inner in enumerate(value):
            yield from errors(inner, items[i] if isinstance(items, list) else items, whole, f"{place}.{i}")

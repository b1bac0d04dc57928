"""What jsonargparse has to say, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from anyformer.errors import InputError
from anyformer.parsing.classes import refusal


@contextmanager
def one_line(prefix: str = "") -> Iterator[None]:
    """Turn the errors of jsonargparse, and of the constructors it calls, into an InputError of one line."""
    from argparse import ArgumentError

    try:
        yield
    except InputError as error:
        raise InputError(f"{prefix}{condense(str(error))}") from None
    except RecursionError:
        raise InputError(f"{prefix}a value is nested too deep, or holds itself") from None
    except (ArgumentError, ImportError, TypeError, ValueError) as error:
        raise InputError(f"{prefix}{condense(str(error))}") from error


FORM = (
    r"(- )?Does not validate against|Subtypes:|Errors:|Given value type:|Not a valid subclass of|Subclass types expect|"
    r"(- )?(a class path \(str\)|a dict with|a dict without)|(- )?Problem with given class_path .*:$|"
    r"- Expected a <class 'NoneType'>"
)
"""How its lines begin that say nothing by themselves."""


def condense(message: str) -> str:
    """The many nested lines of jsonargparse as one: the key, what was needed, what arrived.

    >>> message = "Parser key \\"trainer.max_epochs\\":\\n  - Expected a <class 'int'>\\n  Given value: many"
    >>> condense(message)
    'trainer.max_epochs must be int, got many'
    """
    if "\n" not in message and not message.startswith("Parser key"):
        return message
    path, needed, causes, value = [], [], [], None
    for line in message.splitlines():
        text = line.strip()
        if key := re.match(r'-? ?Parser key "(.+?)":(.*)', text):
            path.append(key[1])
            text = key[2].strip()
        if found := re.match(r"-? ?Expected an? (.+?)(?:\. Got value: (.*))?$", text):
            if found[2] is not None:
                value = found[2]
            needed.append(_plainly(found[1]))
        elif found := re.match(r"Given value: (.*)", text):
            value = found[1] if value is None else value
        elif text and not re.match(FORM, text):
            causes.append(text.removeprefix("- "))
    where = ".".join(path)
    if causes:
        if denied := re.search(r"Importing '(.+?)' is not allowed", causes[0]):
            causes = [refusal(denied[1])]
        return f"{where}: {causes[0]}" if where else causes[0]
    needed = [name for name in dict.fromkeys(needed) if name not in ("NoneType", "")]
    quotes = "str" in needed and value is not None and re.fullmatch(r"True|False|None|-?[0-9.]+(e[+-]?[0-9]+)?", value)
    hint = "; write in quotes what is a text and YAML takes for a number, a boolean or null" if quotes else ""
    return f"{where} must be {' or '.join(needed) or 'something else'}, got {value}{hint}"


def _plainly(kind: str) -> str:
    """A type as jsonargparse writes it in plainer words; "" for what is no type."""
    if kind.startswith("path but "):
        return ""
    if kind.startswith("dot import path string"):
        return "the name of a class"
    if choices := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        return " or ".join(value.strip("' ") for value in choices[1].split(","))
    return re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind)

"""What the command line tells about classes, config blocks and options, and lists of what there is."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from anyformer.errors import InputError, suggest
from anyformer.reference.callbacks import refusal
from anyformer.reference.examples import config_classes, config_files, example, owners
from anyformer.reference.schema import choices, lightning_trainer, plain, summary
from anyformer.reference.source import Argument, Class, find, of_lightning, public_names, subclasses
from anyformer.reference.types import Made, Type, default_of, type_of, value_of

BASES = {"tokenizers": "Tokenizer", "tasks": "Task", "targets": "Target", "sources": "Source"}
OF_LIGHTNING = {"callbacks": "Callback", "loggers": "Logger"}
KINDS = (*BASES, "configs", *OF_LIGHTNING)
"""What can be listed."""
SECTIONS = {"data": "Records", "checkpoints": "Saving", "trainer": "Trainer"}
"""The class whose arguments stand under a key at the top of a config."""
MOST_OWNERS = 6


def width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 110)


def page(name: str, commands: Iterable[str] = ()) -> str:
    """The help of a class, of a key of a config, or of a path of keys. Raises InputError for a name that is none.

    commands: what else has help, among which the nearest name may be.
    """
    last = name.rpartition(".")[2]
    if last == "model":
        return listing("tasks")
    uses = [(cls, each) for cls in config_classes() for each in cls.arguments if each.name == last]
    classes = _classes()
    if last in SECTIONS or last in classes or (not uses and last.lower() in map(str.lower, classes)):
        wanted = SECTIONS.get(last, last)
        return class_page(_class(next(each for each in classes if each.lower() == wanted.lower())))
    if not uses:
        kinds = "see anyformer list tokenizers, tasks, targets, sources or configs"
        raise InputError(f"there is no {name!r}{suggest(last, [*classes, *_keys(), *commands], kinds)}")
    blocks = {cls.name: cls for _, each in uses for cls in type_of(each).classes if cls.is_values}
    told = "" if blocks and len(blocks) == 1 else _uses(last, uses)
    return "\n\n".join(part for part in (told, *map(class_page, blocks.values())) if part)


def _class(name: str) -> Class:
    return lightning_trainer() if name == "Trainer" else find(name)


@cache
def _classes() -> list[str]:
    """The names of classes that have a page."""
    own = [name for name in public_names() if name[0].isupper()]
    return [
        *dict.fromkeys(
            [*own, *(cls.name for cls in config_classes()), *of_lightning("callbacks"), *of_lightning("loggers")]
        )
    ]


@cache
def _keys() -> list[str]:
    return sorted({each.name for cls in config_classes() for each in cls.arguments})


def _uses(key: str, uses: list[tuple[Class, Argument]]) -> str:
    """What a key means in each class that has it; those of one meaning together."""
    meanings: dict[str, list[str]] = {}
    for cls, each in uses:
        meanings.setdefault("\n".join(argument_lines(each)), []).append(cls.name)
    return "\n\n".join(f"In {_several(names)}:\n{told}" for told, names in meanings.items())


def _several(names: list[str]) -> str:
    rest = len(names) - MOST_OWNERS
    return ", ".join(names[:MOST_OWNERS]) + (f" and {rest} more" if rest > 0 else "")


def class_page(cls: Class) -> str:
    parts = [f"{cls.name}{_kind(cls)}", wrap(plain(cls.text))]
    if refused := refusal([cls.name], in_a_config=True) if not cls.is_ours else None:
        return f"{cls.name} {refused}"
    if base_choices := [each for each in choices(cls) if each is not cls]:
        parts.append(f"One of:\n{rows((each.name, summary(each)) for each in base_choices)}")
    if not (cls.is_abstract and base_choices) and cls.arguments:
        parts.append("\n".join(["Arguments:", *(line for each in cls.arguments for line in argument_lines(each))]))
    if (used := None if cls.is_abstract else example(cls)) is not None:
        parts.append(f"In a config:\n{textwrap.indent(used, '  ')}")
    return "\n\n".join(part for part in parts if part)


def _kind(cls: Class) -> str:
    bases = [each.name for each in cls.line[1:]]
    kinds = [kind.removesuffix("s") for kind, base in (BASES | OF_LIGHTNING).items() if base in bases]
    if kinds:
        return f", a {kinds[0]}" + ("" if cls.is_ours else " of Lightning")
    places = [f"{owner.name}.{argument.name}" for owner, argument in owners(cls.name)]
    return f", of {_several(places)}" if places else ""


def argument_lines(argument: Argument) -> list[str]:
    """An argument: its name, type and default, and what it means."""
    kind = type_of(argument)
    head = textwrap.wrap(
        f"{argument.name}: {kind}, {_default(argument, kind)}", width(), initial_indent="  ", subsequent_indent="      "
    )
    return [*head, *(f"      {line}" for line in wrap(plain(argument.text), 6).splitlines())]


def _default(argument: Argument, kind: Type) -> str:
    """What an argument is where it is left out; of what no YAML writes, that it may be."""
    default = default_of(argument)
    if default is None:
        return "required"
    if len(kind.members) > 1 and any(default == f"{each}()" for each in kind.members):
        return f"default {default.removesuffix('()')} with the defaults of its own"
    is_made = isinstance(value_of(argument.default, argument.module), Made)
    return "may be left out" if is_made else f"default {default}"


def wrap(text: str, indent: int = 0) -> str:
    """Text in lines of the terminal's width, paragraphs and lists kept apart."""
    parts = re.split(r"\n\s*\n", text)
    return "\n\n".join(
        textwrap.fill(" ".join(part.split()), width() - indent, break_on_hyphens=False) for part in parts
    )


def rows(pairs: Iterable[tuple[str, str]], indent: int = 2) -> str:
    """Names and what is said of each, below one another."""
    pairs = list(pairs)
    wide = indent + 2 + max((len(name) for name, _ in pairs), default=0)
    return "\n".join(
        textwrap.fill(
            f"{' ' * indent}{name:{wide - indent}}{text}".rstrip(),
            max(width(), wide + 40),
            subsequent_indent=" " * wide,
            break_on_hyphens=False,
        )
        for name, text in pairs
    )


def one_line_rows(pairs: Sequence[tuple[str, str]], indent: int = 2) -> str:
    """The same with a line for each, which ends where the terminal does."""
    wide = indent + 2 + max(len(name) for name, _ in pairs)
    room = max(width() - wide, 40)
    return "\n".join(
        f"{' ' * indent}{name:{wide - indent}}{textwrap.shorten(text, room, placeholder=' ...')}"
        for name, text in pairs
    )


def listing(kind: str) -> str:
    """What there is of a kind, a line each. Raises InputError for a kind that there is not."""
    if kind not in KINDS:
        raise InputError(f"there are no {kind!r} to list; there are {', '.join(KINDS)}")
    if kind == "configs":
        return rows((_path(path), heading(path)) for path in config_files())
    classes = subclasses(BASES[kind]) if kind in BASES else choices(find(OF_LIGHTNING[kind]))
    named = rows((cls.name, summary(cls)) for cls in classes)
    return f"{named}\n\nMore on one of them: anyformer help {classes[0].name}"


def heading(path: Path) -> str:
    """The first line of a config, which says what it trains."""
    with path.open(encoding="utf-8") as lines:
        return next(lines).lstrip("# ").strip()


def _path(path: Path) -> str:
    """As one would write it here."""
    # Through the link to the folder at the root of a clone, where it is one.
    path = path.resolve()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)

"""Whether the options that override a config are ones, by the types of what they name; no value is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from anyformer.errors import Caller, InputError, suggest
from anyformer.parsing.options import options_in
from anyformer.reference.callbacks import refusal
from anyformer.reference.schema import CLASS_KEYS, choices, config_types, is_named, lightning_trainer
from anyformer.reference.source import Class, of_lightning
from anyformer.reference.types import ANY, Type, type_of

OF_THE_PROGRAM = ("seed_everything", "print_config")


@Caller.on_command_line()
def check_overrides(args: Sequence[str], own: Sequence[str], program: str, has_others: bool = False) -> None:
    """Raise InputError for an option that is none, and for a callback that is refused.

    own: the options of the command itself. program: as --help is asked of it. has_others: whether classes of other
        packages may be named, whose arguments are not known here.
    """
    for name, value in options_in(args):
        if name.startswith("trainer.callbacks"):
            _check_callbacks(value)
        if has_others and name.startswith(("model.", "data.")):
            continue
        beside = _beside(name)
        if beside is not None:
            near = suggest(name, [*own, *beside, *_every_option()], f"see {program} --help")
            raise InputError(f"there is no option --{name}{near}")


def _beside(name: str) -> list[str] | None:
    """The options that there are instead where a name is none; None where it is one."""
    place, *keys = name.split(".")
    tops = config_types()
    if name in OF_THE_PROGRAM or "help" in keys:
        return None
    if place not in tops:
        return [*OF_THE_PROGRAM, *tops]
    here = tops[place]
    for key in keys:
        below = _below(here)
        if key not in below and "*" not in below:
            return [f"{place}.{each}" for each in below]
        here, place = below.get(key, below.get("*")), f"{place}.{key}"
    return None


def _below(kind: Type) -> dict[str, Type]:
    """What the keys under a value of a type mean; `*` is any key."""
    found: dict[str, Type] = {}
    for each in kind.members:
        if each.kind == "any":
            found["*"] = ANY
        elif each.kind == "mapping":
            found["*"] = each.parts[0]
        elif each.kind == "keys":
            found |= dict(zip(each.values, each.parts, strict=True))
        elif each.kind in ("list", "items"):
            # The keys of its last.
            found |= _below(Type("union", each.parts))
        elif each.cls is not None:
            found |= _arguments(each.cls)
    return found


def _arguments(cls: Class) -> dict[str, Type]:
    options = choices(cls)
    if not options and not cls.is_ours and cls is not lightning_trainer():
        return {"*": ANY}
    found = {argument.name: type_of(argument) for each in options or [cls] for argument in each.arguments}
    if is_named(cls):
        itself = Type("class", cls=cls)
        found |= {"class_path": ANY, "init_args": itself, "dict_kwargs": ANY}
    return found


def _every_option() -> Iterator[str]:
    """The names of all options that are written out, as deep as blocks of values go."""
    for top, kind in config_types().items():
        yield from _dotted(top, kind)


def _dotted(name: str, kind: Type) -> Iterator[str]:
    yield name
    for key, inner in _below(kind).items():
        if key not in (*CLASS_KEYS, "*"):
            blocks = [cls for cls in inner.classes if cls.is_values]
            yield from _dotted(f"{name}.{key}", Type("union", tuple(Type("class", cls=cls) for cls in blocks)))


def _check_callbacks(value: str) -> None:
    for name in re.findall(r"\w+", value):
        if name in of_lightning("callbacks") and (refused := refusal([name], in_a_config=True)):
            raise InputError(f"trainer.callbacks: {name} {refused}")

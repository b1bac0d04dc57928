"""The model that a config starts from, looked at before anything is made: what the config leaves out comes from it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anyformer.errors import InputError, say
from anyformer.parsing.classes import find_class, parameters
from anyformer.parsing.scalars import load_yaml
from anyformer.tasks.base.starting.agreement import check_agreement
from anyformer.tasks.base.task import Task
from anyformer.tasks.start.completion import Completed, complete, names_in_full
from anyformer.tasks.start.opening import describe_model

SOURCE, CLASS = (
    re.compile(rf"--model{name}(=(?P<value>.*))?", re.DOTALL)
    for name in (r"\.(init_args\.)?init_from", r"(\.class_path)?")
)


@dataclass(frozen=True)
class Start:
    """What `init_from` of a config comes to."""

    name: str
    """As the config has it."""
    source: Task
    completed: Completed

    @property
    def model(self) -> dict[str, Any]:
        """The `model` of the config, complete."""
        return self.completed.model

    def prepare(self, task: Task) -> None:
        """Hand a task that was made of the config what the source's tokenizers have learnt.

        Raises InputError for an option that does not agree with the source.
        """
        try:
            check_agreement(task, self.source, self.name)
        except InputError as error:
            raise InputError(f"{error}, or leave it out") from None
        task.inherit_from(self.source)
        task.added_fields = self.completed.added

    def tell(self) -> None:
        """Say in a line each what was taken and what is otherwise."""
        for what, names in (("taken", self.completed.taken), ("changed", self.completed.changed)):
            if names:
                more = f" and {len(names) - 6} more" if len(names) > 6 else ""
                say(f"options {what} from {self.name}: {len(names)} ({', '.join(names[:6])}{more})")


def find_start(
    contents: Sequence[Mapping[str, Any]], overrides: Sequence[str], packages: Sequence[str]
) -> Start | None:
    """The start of an experiment's configs, of which a later one overrides those before; None without an `init_from`.

    Raises InputError for a source that is needed and cannot be had.
    """
    model: dict[str, Any] = {}
    for content in contents:
        if isinstance(own := content.get("model"), Mapping):
            model = _over(model, own)
    given = model.get("init_args") if isinstance(model.get("init_args"), Mapping) else {}
    name, class_path = _option(SOURCE, overrides, given.get("init_from")), _option(CLASS, overrides, None)
    cls = find_class(class_path, [Task]) if isinstance(class_path, str) else None
    if cls is not None and class_path != model.get("class_path"):
        # As elsewhere, another class keeps the arguments that it has too.
        known = parameters(cls) or given
        model = {"class_path": class_path, "init_args": {key: given[key] for key in given if key in known}}
    if not isinstance(name, str) or not _has_form(model):
        # What is wrong with the form of a config is found with the rest of it.
        return None
    try:
        source = describe_model(name, packages)
    except InputError:
        if "class_path" in model and names_in_full(given.get("tokenizers")):
            # Whatever is wrong is said where the weights are taken; a config of another run may be looked at without.
            return None
        raise
    if source is None or source.members:
        return None
    return Start(name, source, complete(model, source, name))


def _option(option: re.Pattern[str], overrides: Sequence[str], given: Any) -> Any:
    """The value of the last option of a kind, or what is given where there is none."""
    for i, each in enumerate(overrides):
        if match := option.fullmatch(each):
            value = match["value"] if match["value"] is not None else (*overrides, "")[i + 1]
            given = None if value == "" else load_yaml(value)
    return given


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping of a config with another's laid over it; of another class all arguments are the other's."""
    if above.get("class_path", below.get("class_path")) != below.get("class_path", above.get("class_path")):
        return dict(above)
    both = dict(below)
    for key, value in above.items():
        inner = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = _over(both[key], value) if inner else value
    return both


def _has_form(model: Mapping[str, Any]) -> bool:
    """Whether what is merged with the source's are mappings."""
    given = model.get("init_args") or {}
    tokenizers = given.get("tokenizers") or {} if isinstance(given, Mapping) else None
    return isinstance(tokenizers, Mapping) and all(
        isinstance(each, str | None) or (isinstance(each, Mapping) and isinstance(each.get("init_args") or {}, Mapping))
        for each in tokenizers.values()
    )

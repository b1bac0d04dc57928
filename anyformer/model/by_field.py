"""Modules and parameters by the name of a field, whatever a user calls it.

A module's name is an attribute of the module that holds it: it has no dot, it cannot be that of an attribute which
every such module has (`type`, `values`), and code that torch makes of a model, as `torch.export` does, cannot hold a
word of Python (`class`, `from`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from torch import Tensor, nn

OF_FIELDS = re.compile(r"((?:^|\.)(?:embeddings\.(?:lifts|types|masks)|heads)\.)([^.]+)")
"""Where the names of weights hold that of a field."""


class FieldModules(nn.ModuleDict):
    """Modules by the names of fields; iterating gives the names of the modules."""

    def __getitem__(self, field: str) -> nn.Module:
        return super().__getitem__(module_name(field))

    def __setitem__(self, field: str, module: nn.Module) -> None:
        super().__setitem__(module_name(field), module)

    def __contains__(self, field: str) -> bool:
        return super().__contains__(module_name(field))


class FieldParameters(nn.ParameterDict):
    """Parameters by the names of fields; iterating gives the names of the parameters."""

    def __getitem__(self, field: str) -> Any:
        return super().__getitem__(module_name(field))

    def __setitem__(self, field: str, parameter: Any) -> None:
        super().__setitem__(module_name(field), parameter)

    def __contains__(self, field: object) -> bool:
        return super().__contains__(module_name(str(field)))


TAKEN = {*dir(nn.ModuleDict()), *dir(nn.ParameterDict())}
"""Attributes that a module of fields has already."""


def module_name(field: str) -> str:
    """The name of a field's module; of a name that is one already that name.

    >>> [module_name(name) for name in ("image", "state.image", "class", "values")]
    ['image', 'state/image', 'class/', 'values/']
    """
    name = field.replace(".", "/")
    return f"{name}/" if iskeyword(name) or name in TAKEN else name


def field_name(module: str) -> str:
    """The field of a module's name.

    >>> [field_name(module_name(name)) for name in ("image", "state.image", "class")]
    ['image', 'state.image', 'class']
    """
    return module.removesuffix("/").replace("/", ".")


def weight_name(name: str) -> str:
    """The name of a weight as it is today: fields that are words of Python had theirs as they stand.

    >>> weight_name("model.embeddings.lifts.class.table")
    'model.embeddings.lifts.class/.table'
    """
    return OF_FIELDS.sub(lambda found: found[1] + module_name(field_name(found[2])), name)


def with_weight_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a file by their names of today."""
    return {weight_name(name): value for name, value in weights.items()}

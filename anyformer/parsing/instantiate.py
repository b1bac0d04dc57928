"""A task out of its config."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser

from anyformer.parsing.check import check
from anyformer.parsing.classes import allowed_imports
from anyformer.parsing.messages import one_line


def instantiate(config: Mapping[str, Any], unsafe: Sequence[str] = ()) -> Any:
    """The task of a config, `{"class_path": ..., "init_args": {...}}`. Raises InputError if it cannot be made."""
    with allowed_imports(unsafe):
        base = importlib.import_module("anyformer.tasks.base.task").Task
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(base, "model", fail_untyped=False, required=True)
        check({"model": config}, {"model": base}, "config.json")
        with one_line():
            return parser.instantiate(parser.parse_object({"model": config})).model

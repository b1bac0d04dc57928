"""Which texts may be written: those of a regular expression, a grammar or a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyformer.choices import Values
from anyformer.data.files import find_file
from anyformer.errors import InputError

EVERY_SPELLING = '\n%llguidance {"no_forcing": true}\n'
"""Behind a grammar: of a text all ways in which tokens spell it may be written, and not the tokenizer's own alone where
the grammar leaves one text only. So every text has its probability among those that the grammar allows."""
WHITE = r"[ ]|\n[ ]{0,40}"
"""White space between the parts of JSON: none, a space, or a new line and how far that is set in. Where any is allowed,
as in JSON itself, a model may write nothing else for ever."""


@dataclass(frozen=True, kw_only=True)
class GrammarOptions(Values):
    """What the whole of a new text must be; anything when nothing is given."""

    regex: str | None = None
    """A regular expression that the whole text matches, in the syntax of Rust's regex: without looking around, and
    without references back."""
    grammar: str | None = None
    """The file of a context-free grammar, from the current folder, else inside $ANYFORMER_DATA: as Lark writes them
    (`start: "yes" | "no"`), or in a name that ends in .gbnf as llama.cpp does."""
    json_schema: str | dict[str, Any] | None = None
    """The file of a JSON Schema, found like it, or the schema itself: the text is JSON that it allows, with at most a
    space or a new line between its parts."""

    def __post_init__(self) -> None:
        given = [name for name in ("regex", "grammar", "json_schema") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} both say what a text must be; give one of them")

    @property
    def constrains(self) -> str:
        """The option that is given; "" for none."""
        return next((name for name in ("regex", "grammar", "json_schema") if getattr(self, name) is not None), "")

    def definition(self, leading_space: bool = False) -> str:
        """The grammar, as llguidance takes it.

        leading_space: whether a space may stand before the text.
        Raises InputError for a file that is not there or cannot be read, and for a schema that is no JSON.
        """
        if self.regex is not None:
            body = _of_regex(self.regex)
        elif self.grammar is not None:
            body = _of_file(self.grammar)
        else:
            body = f"start: %json {json.dumps(_schema(self.json_schema))}"
        inner = {"name": "text", "lark_grammar": body + EVERY_SPELLING}
        if not leading_space:
            return json.dumps({"grammars": [inner]})
        return json.dumps({"grammars": [{"lark_grammar": 'start: " "? @text' + EVERY_SPELLING}, inner]})


def _of_regex(regex: str) -> str:
    from llguidance import LLMatcher

    return json.loads(LLMatcher.grammar_from_regex(regex))["grammars"][0]["lark_grammar"]


def _of_file(path: str) -> str:
    text = _read(path, "grammar")
    if not path.endswith(".gbnf"):
        return text
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(text)
    except Exception as error:  # Whatever its parser trips over.
        raise InputError(f"grammar: {path} is no GBNF grammar: {' '.join(str(error).split())}") from None


def _schema(given: str | Mapping[str, Any] | None) -> Any:
    """A JSON Schema, in which `x-guidance` says how what it allows is laid out."""
    schema = given
    if isinstance(given, str):
        try:
            schema = json.loads(_read(given, "json_schema"))
        except json.JSONDecodeError as error:
            raise InputError(f"json_schema: {given} is no JSON: line {error.lineno}: {error.msg}") from None
    return {"x-guidance": {"whitespace_pattern": WHITE}} | schema if isinstance(schema, dict) else schema


def _read(path: str, what: str) -> str:
    try:
        return Path(find_file(path)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what}: {path} cannot be read as text: {error}") from None

"""Where a grammar comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.generation.grammar.options import GrammarOptions


def test_one_of_them_is_given() -> None:
    assert GrammarOptions().constrains == "" and GrammarOptions(regex="").constrains == "regex"
    with pytest.raises(InputError, match="regex and json_schema both say what a text must be; give one of them"):
        GrammarOptions(regex="a", json_schema={})


def test_a_schema_is_a_file_or_itself(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "integer"}))
    by_file = GrammarOptions(json_schema=str(path)).definition()
    assert by_file == GrammarOptions(json_schema={"type": "integer"}).definition()
    own = {"type": "integer", "x-guidance": {"whitespace_flexible": False}}
    assert "whitespace_pattern" in by_file and "whitespace_pattern" not in GrammarOptions(json_schema=own).definition()


def test_a_grammar_of_llama_cpp_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.gbnf").write_text('root ::= "a" | "b" root\n')
    assert "start" in GrammarOptions(grammar=str(tmp_path / "a.gbnf")).definition()
    (tmp_path / "bad.gbnf").write_text('root ::= "a" | (\n')
    with pytest.raises(InputError, match=r"grammar: .*bad.gbnf is no GBNF grammar: "):
        GrammarOptions(grammar=str(tmp_path / "bad.gbnf")).definition()


@pytest.mark.parametrize("name", ["grammar", "json_schema"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent: no such file"):
        GrammarOptions(**{name: str(tmp_path / "absent")}).definition()
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=rf"{name}: .*bytes cannot be read as text"):
        GrammarOptions(**{name: str(tmp_path / "bytes")}).definition()
    (tmp_path / "no.json").write_text('{"type": \n}')
    with pytest.raises(InputError, match=r"json_schema: .*no.json is no JSON: line 2: Expecting value"):
        GrammarOptions(json_schema=str(tmp_path / "no.json")).definition()

"""CoNLL-U: what the format has, and what is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from anyformer.errors import InputError
from anyformer.tokenizers.tree.conllu import Conllu, read_conllu

# From the description of the format, https://universaldependencies.org/format.html, in part.
VAMONOS = """\
# newdoc id = first
# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\tNumber=Plur\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\t_
"""
SUE = """\
# sent_id = 2
# a comment that names nothing
1\tSue\tSue\tPROPN\t_\t_\t2\tnsubj\t_\t_
2\tlikes\tlike\tVERB\t_\t_\t0\troot\t_\t_
3\tcoffee\tcoffee\tNOUN\t_\t_\t2\tobj\t_\t_
4\tand\tand\tCCONJ\t_\t_\t5\tcc\t_\t_
5\tBill\tBill\tPROPN\t_\t_\t2\tconj\t_\t_
5.1\tlikes\tlike\tVERB\t_\t_\t_\t_\t2:conj\t_
6\ttea\ttea\tNOUN\t_\t_\t5\torphan\t_\t_
"""
UNDERSCORE = """\
# newdoc
# sent_id = 3
1\t_\t_\tSYM\t_\t_\t0\troot\t_\t_
"""


def line(i: str = "1", form: str = "a", head: str = "0") -> str:
    return "\t".join([i, form, "_", "_", "_", "_", head, "_", "_", "_"])


def test_words_and_heads_are_read_without_comments_words_in_one_and_empty_nodes() -> None:
    parse = read_conllu(VAMONOS)
    assert parse.words == ("vamos", "nos", "a", "el", "mar") and parse.heads.tolist() == [-1, 0, 4, 4, 0]
    both = read_conllu(f"\n{VAMONOS}\n\n{SUE}\n")
    assert read_conllu(line(form="a\u2028b").replace("\n", "\r\n") + "\r\n").words == ("a\u2028b",)
    assert both.words[5:] == ("Sue", "likes", "coffee", "and", "Bill", "tea")
    assert both.heads[5:].tolist() == [6, -1, 6, 9, 6, 9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{line()}\n1\ta\t_\n", r"^line 2: CoNLL-U has 10 columns with tabs between, and there are 3: '1\\ta\\t_'"),
        (f"# x = 1\n{line()}\t_\n", "^line 2: CoNLL-U has 10 columns .*, and there are 11"),
        (line().replace("\t", " "), "^line 1: CoNLL-U has 10 columns .*, and there are 1: "),
        (f"{line()}\n\n{line('2')}", "^line 3: the ID must be 1, as words are counted, got '2'"),
        (f"{line()}\n{line('2', 'b', '_')}", "^line 2, 'b', has no head"),
        (f"{line()}\n{line('2', 'b', 'x')}", "^line 2, 'b': its head must be a whole number, got 'x'"),
        (f"# x = 1\n{line()}\n{line('2', 'b', '3')}", "^line 3, 'b': its head is 3, and the 2 words"),
        (f"{line()}\n{line('2', 'b')}", "^line 1, 'a', and line 2, 'b', both have head 0"),
        (
            f"{line()}\n\n{line(head='2')}\n{line('2', 'b', '1')}",
            "^line 3: the heads lead in a circle, 'a' -> 'b' -> 'a'",
        ),
        ("# nothing\n\n", "^the parse has no words"),
        (["a"], "^a parse in CoNLL-U must be a text, got list"),
    ],
)
def test_what_is_no_conllu_is_refused_with_the_line(text: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_conllu(text)


def test_a_file_gives_its_sentences_with_lists_of_words_and_what_comments_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "es.conllu").write_text("\n".join([VAMONOS, SUE, UNDERSCORE]), encoding="utf-8")
    source = Conllu(str(tmp_path / "es.conllu"))
    assert len(source) == 3
    assert "left out: 2 lines of several words written as one (1-2), " in capsys.readouterr().err
    first = source[0]
    assert {name: first[name] for name in ("newdoc id", "sent_id", "text")} == {
        "newdoc id": "first",
        "sent_id": "1",
        "text": "vámonos al mar",
    }
    assert first["words"] == ["vamos", "nos", "a", "el", "mar"]
    assert first["upos"] == ["VERB", "PRON", "ADP", "DET", "NOUN"]
    assert first["feats"] == ["Number=Plur", None, None, None, None] and first["lemmas"][0] == "ir"
    assert first["deprel"][-1] == "obl" and first["xpos"] == [None] * 5
    assert read_conllu(first["tree"]).heads.tolist() == [-1, 0, 4, 4, 0]
    assert source[2]["words"] == ["_"] and source.column("sent_id") == ["1", "2", "3"]
    assert source.name(1) == f"{tmp_path}/es.conllu from line 12" and source.read_from() == [f"{tmp_path}/es.conllu"]


def test_a_document_is_all_from_one_newdoc_to_the_next(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "es.conllu.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join([VAMONOS, SUE, UNDERSCORE]))
    source = Conllu(str(tmp_path / "es.conllu.gz"), each="document")
    assert len(source) == 2 and source[0]["sent_id"] == "1" and len(source[0]["upos"]) == 11
    parse = read_conllu(source[0]["tree"])
    assert parse.words == tuple(source[0]["words"]) and (parse.heads == -1).sum() == 2
    assert source[1]["words"] == ["_"]


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.conllu").write_text(f"{line()}\n\n1\ta\n")
    with pytest.raises(InputError, match=r"bad\.conllu: line 3: CoNLL-U has 10 columns"):
        Conllu(str(tmp_path / "bad.conllu"))[1]
    (tmp_path / "empty.conllu").write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.conllu: there is no sentence in it"):
        len(Conllu(str(tmp_path / "empty.conllu")))
    with pytest.raises(InputError, match=r"nowhere\.conllu"):
        len(Conllu("nowhere.conllu"))


def test_other_files_are_read_as_the_first(tmp_path: Path) -> None:
    for name, text in (("one", VAMONOS), ("two", SUE)):
        (tmp_path / f"{name}.conllu").write_text(text)
    paths = [str(tmp_path / f"{name}.conllu") for name in ("one", "two")]
    found = Conllu("nowhere.conllu", each="document").at(paths, ["tree"])
    assert [len(record["words"]) for record in (found[0], found[1])] == [5, 6]
    assert Conllu("nowhere.conllu", each="document").at(paths[:1], ["tree"]) == Conllu(paths[0], each="document")
    with pytest.raises(InputError, match=r"neither\.conllu"):
        Conllu(paths[0]).at(["neither.conllu"], ["tree"])

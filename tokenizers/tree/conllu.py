"""CoNLL-U, the format of Universal Dependencies: ten columns with tabs between, a line a word, an empty line after
each sentence (https://universaldependencies.org/format.html)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

from anyformer.data.files import find_file, read_lines
from anyformer.data.source import Source
from anyformer.errors import InputError, say_once
from anyformer.tokenizers.tree.parse import Parse, join_parses, parse_heads, read_head

COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
LISTED = {"words": "form", "lemmas": "lemma", **{name: name for name in ("upos", "xpos", "feats", "deprel")}}
"""The columns of `Conllu` that hold a list with an entry for each word, and which of the ten they are."""
NO_WORD = re.compile(r"\d+[-.]\d+")
"""The ID of several words written as one, `1-2`, and of a word that is not written, `3.1`."""
COMMENT = re.compile(r"#\s*(.*?)\s*(?:=\s*(.*?)\s*)?$")

Line = tuple[int, str]
"""Its number in the file, from 1, and what it holds."""


def split_sentences(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The lines of each sentence, its comments included."""
    for is_empty, group in groupby(lines, key=lambda line: not line[1].strip()):
        if not is_empty:
            yield list(group)


def read_words(sentence: Sequence[Line]) -> list[dict[str, str]]:
    """The ten columns of each word of a sentence, and its line as `line`.

    Comments are left out, and so are the lines that `NO_WORD` means, which have no place in the tree. Raises
    InputError, with the number of the line, for other than ten columns, and an ID that is not the word's number.
    """
    words: list[dict[str, str]] = []
    for number, line in sentence:
        if line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            raise InputError(
                f"line {number}: CoNLL-U has {len(COLUMNS)} columns with tabs between, and there are {len(cells)}: "
                f"{line!r:.60}"
            )
        if NO_WORD.fullmatch(cells[0]):
            continue
        if cells[0] != str(len(words) + 1):
            raise InputError(f"line {number}: the ID must be {len(words) + 1}, as words are counted, got {cells[0]!r}")
        words.append({**dict(zip(COLUMNS, cells, strict=True)), "line": f"line {number}"})
    return words


def read_conllu(text: Any) -> Parse:
    """The parse of one sentence or several. Raises InputError, with the number of the line, for what is none."""
    if not isinstance(text, str):
        raise InputError(f"a parse in CoNLL-U must be a text, got {type(text).__name__}")
    # What else Unicode takes for the end of a line may stand in a word.
    lines = enumerate((line.removesuffix("\r") for line in text.split("\n")), 1)
    sentences = [read_words(each) for each in split_sentences(lines)]
    parses = []
    for words in filter(None, sentences):
        lines, forms = ([word[name] for word in words] for name in ("line", "form"))
        heads = [read_head(word["head"], word["form"], word["line"]) for word in words]
        parses.append(parse_heads(forms, heads, lines))
    if not parses:
        raise InputError("the parse has no words")
    return join_parses(parses)


@dataclass(frozen=True)
class Conllu(Source):
    """The sentences, or the documents, of a CoNLL-U file, gzipped or not.

    Columns: tree, the lines themselves, which `Tree` reads with `format: conllu`; words, lemmas, upos, xpos, feats and
    deprel, lists with an entry for each word, None for `_`; and what comments say, `# sent_id = 7` as `sent_id`, of a
    document those of its first sentence. The file is read when it is first used, into memory. Raises InputError, then,
    for a file that is not there, is empty or no UTF-8, and with the number of the line for what is no CoNLL-U.
    """

    path: str
    """The file: from the current folder, else inside $ANYFORMER_DATA."""
    each: Literal["sentence", "document"] = "sentence"
    """What makes a record: a sentence, or all from one `# newdoc` to the next."""

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        sentences = self._records[range(len(self))[i]]
        try:
            words = [word for sentence in sentences for word in read_words(sentence)]
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None
        comments = (COMMENT.match(line) for _, line in sentences[0] if line.startswith("#"))
        listed = {
            # A word may be written as an underscore.
            name: [None if word[column] == "_" and column != "form" else word[column] for word in words]
            for name, column in LISTED.items()
        }
        text = "\n\n".join("\n".join(line for _, line in sentence) for sentence in sentences)
        return {**{found[1]: found[2] for found in comments if found[2] is not None}, "tree": text, **listed}

    def name(self, i: int) -> str:
        return f"{self.path} from line {self._records[i][0][0][0]}"

    def _at(self, place: str, needed: Collection[str]) -> Conllu:
        find_file(place)
        return replace(self, path=place)

    def read_from(self) -> list[str]:
        return [find_file(self.path)]

    @cached_property
    def _records(self) -> list[list[list[Line]]]:
        """The sentences of each record."""
        records: list[list[list[Line]]] = []
        for sentence in split_sentences(enumerate(read_lines(find_file(self.path)), 1)):
            begins = any(re.match(r"#\s*newdoc\b", line) for _, line in sentence)
            if self.each == "sentence" or begins or not records:
                records.append([])
            records[-1].append(sentence)
        if not records:
            raise InputError(f"{self.path}: there is no sentence in it")
        ids = [line.partition("\t")[0] for record in records for sentence in record for _, line in sentence]
        joined, unwritten = (sum(bool(NO_WORD.fullmatch(each)) and mark in each for each in ids) for mark in "-.")
        if joined or unwritten:
            say_once(
                f"{self.path}: left out: {joined:,} lines of several words written as one (1-2), whose words stand "
                f"below them, and {unwritten:,} of words that are not written (3.1)"
            )
        return records

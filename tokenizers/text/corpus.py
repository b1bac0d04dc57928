"""Documents of text, larger than memory: plain files, JSON lines and Parquet, and the one that comes with Python.

Knows files; knows no tokenizer and no trainer. `document_files.py` reads their files, `token_stream.py` makes an array
of ids of them.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from anyformer.data.files import say_left_out
from anyformer.data.rows.json_rows import DECODER, json_fault
from anyformer.data.rows.rows import no_column
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.local_files import file_version
from anyformer.tokenizers.text.document_files import (
    BLOCK,
    expand_path,
    file_kind,
    find_spans,
    group_sizes,
    is_table,
    read_group,
    read_span,
    row_sizes,
)


class Documents(Source):
    """Records `{"text": ...}`, and the same text block by block, so that none need be held as a whole."""

    part: tuple[float, float]
    """The share of the whole that they are, from and up to."""

    are_files = False
    """Whether each document is a whole file."""

    @abstractmethod
    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, bool]]:
        """The text of documents start to stop, one after another, and whether a document ends there."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Names the text: it changes whenever the text may have changed."""

    def sha256(self) -> str:
        """A hash of the text and of where its documents end, wherever it lies. All of it is read."""
        digest = hashlib.sha256()
        for text, is_end in self.blocks():
            # Which no UTF-8 holds.
            digest.update(text.encode("utf-8", "surrogatepass") + b"\xff" * is_end)
        return digest.hexdigest()

    def __getitem__(self, i: int) -> dict[str, Any]:
        i = range(len(self))[i]
        return {"text": "".join(text for text, _ in self.blocks(i, i + 1))}

    def divide(self, fractions: Mapping[str, float]) -> tuple[Documents, dict[str, Documents]]:
        """Take shares of the text from its end, one before the other. Returns what is left, and the shares by name.

        Raises InputError for fractions that are not between 0 and 1, or leave nothing.
        """
        low, high = self.part
        parts, stop = {}, 1.0
        for name, fraction in fractions.items():
            if not 0 < fraction < stop:
                raise InputError(f"{name} must be a fraction of train above 0 that leaves some of it, got {fraction}")
            shares = (stop - fraction, stop)
            parts[name] = replace(self, part=tuple(low + share * (high - low) for share in shares))
            stop -= fraction
        return replace(self, part=(low, low + stop * (high - low))), parts

    def texts(self) -> Iterator[str]:
        """All text, to learn a vocabulary from: documents, or parts of about a megabyte of those that are longer."""
        return (text for text, _ in self.blocks())


def _check_part(part: tuple[float, float]) -> None:
    if len(part) != 2 or not 0 <= part[0] < part[1] <= 1:
        raise InputError(f"part must be two shares of the whole, as in [0, 0.9], got {list(part)}")


def _share(sizes: np.ndarray, part: tuple[float, float], place: str) -> tuple[int, int]:
    """The first document of a part and the one after its last: those whose middle lies within it."""
    if not len(sizes):
        raise InputError(f"{place}: there is no text in it")
    middles = 2 * np.cumsum(sizes) - sizes
    start, stop = (int(np.searchsorted(middles, share * 2 * sizes.sum())) for share in part)
    if start == stop:
        raise InputError(
            f"{place}: part {list(part)} holds none of the {len(sizes)} documents; take a larger one, "
            "or make more documents with split: paragraph"
        )
    return start, stop


@dataclass(frozen=True)
class PythonDocs(Documents):
    """The language reference that comes with every CPython (`help("for")`): a document for each topic, sorted."""

    part: tuple[float, float] = (0.0, 1.0)
    """The share of the whole to take, from and up to, as for `Corpus`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", tuple(self.part))
        _check_part(self.part)

    def __len__(self) -> int:
        return len(self._topics)

    def name(self, i: int) -> str:
        return f"pydoc topic {self._topics[i][0]!r}"

    id_name = "topic"

    def id_of(self, i: int) -> Any:
        return self._topics[i][0]

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, bool]]:
        return ((text, True) for _, text in self._topics[start:stop])

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self._topics).encode()).hexdigest()

    @cached_property
    def _topics(self) -> list[tuple[str, str]]:
        from pydoc_data.topics import topics

        every = sorted(topics.items())
        start, stop = _share(np.array([len(text.encode()) for _, text in every]), self.part, "pydoc_data.topics")
        return every[start:stop]


class _Index(NamedTuple):
    """Where the documents are."""

    file: np.ndarray
    """(n,) which of the files"""
    start: np.ndarray
    """(n,) int64: first byte in the file, unpacked; or the row of a Parquet file"""
    stop: np.ndarray
    """(n,) int64: one after the last"""
    number: np.ndarray
    """(n,) int64: how many documents of its file lie before it"""


@dataclass(frozen=True)
class Corpus(Documents):
    """The documents of text files, JSON lines and Parquet files; the first two `.gz` or not.

    Files lie in the order given, those of a folder or glob sorted by path. Of a plain text a block at a time is read;
    a row of JSONL and a row group of Parquet are held in memory. Empty files and documents without a character are
    left out. Files are indexed when the corpus is first used (one pass, 28 bytes a document); random access to a
    gzipped file unpacks it from its beginning whenever it goes back.
    Raises InputError, then, for files or a column that are not there, bytes that are no UTF-8, and where there is no
    text at all.
    """

    path: str | tuple[str, ...]
    """Files, folders and globs (`books/**/*.txt`): from the current folder, else inside $ANYFORMER_DATA. Of a folder
    those that end in .txt, .jsonl, .ndjson, .parquet, .txt.gz or .jsonl.gz, and one line counts the others; what is
    named otherwise is read as plain text, but for .json, .csv and .tsv, which a `Table` reads."""
    column: str = "text"
    """Which column of JSONL and Parquet holds the text."""
    split: str | None = None
    """What parts the documents of a plain text: `line`, `paragraph` (blank lines), or characters that stand between
    them, `<|endoftext|>`. A file is one document if left out."""
    part: tuple[float, float] = (0.0, 1.0)
    """The share of the whole to take, from and up to: (0, 0.9) to train and (0.9, 1) to validate share nothing and
    leave nothing out. One plain text is cut at these shares of its bytes, or up to 3 bytes later, where a character
    begins. Of several documents those are taken whose middle lies within these shares of all bytes, the rows of a
    Parquet row group counting alike."""
    errors: Literal["strict", "replace"] = "strict"
    """Whether bytes that are no UTF-8 are an error, or become U+FFFD."""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str):
            object.__setattr__(self, "path", tuple(self.path))
        object.__setattr__(self, "part", tuple(self.part))
        _check_part(self.part)
        if not self.path:
            raise InputError("path must name at least one file, folder or glob")
        if self.split == "":
            raise InputError("split must be line, paragraph or the characters between documents; it is empty")

    def __len__(self) -> int:
        return len(self._index.start)

    def name(self, i: int) -> str:
        index = self._index
        file = self.files[index.file[i]]
        if file_kind(file) != "text":
            return f"{file} row {index.number[i]}"
        return file if self.split is None else f"{file} from byte {index.start[i]}"

    @property
    def are_files(self) -> bool:  # type: ignore[override]
        return self.split is None and all(file_kind(file) == "text" for file in self.files)

    @property
    def id_name(self) -> str:  # type: ignore[override]
        return "file" if self.are_files else super().id_name

    def id_of(self, i: int) -> Any:
        return self.name(i) if self.are_files else super().id_of(i)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The files, once each."""
        found: list[str] = []
        for path in [self.path] if isinstance(self.path, str) else self.path:
            found += expand_path(path)
        return tuple(dict.fromkeys(found))

    def fingerprint(self) -> str:
        files = [(os.path.abspath(file), *file_version(file)) for file in self.files]
        return json.dumps([self.column, self.split, self.part, self.errors, files])

    def at(self, places: Sequence[str], needed: Collection[str]) -> Corpus | None:
        """A file of plain text is read line by line, where nothing else parts it: it would be one record."""
        if any(is_table(place) for place in places):
            return None
        made = replace(self, path=tuple(places), part=(0.0, 1.0))
        is_text = len(made.files) == 1 and file_kind(made.files[0]) == "text"
        return replace(made, split="line") if is_text and self.split is None else made

    def read_from(self) -> list[str]:
        return list(self.files)

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, bool]]:
        index, stop = self._index, len(self) if stop is None else stop
        while start < stop:
            place = self.files[index.file[start]]
            end = min(stop, int(np.searchsorted(index.file, index.file[start], "right")))
            if file_kind(place) == "parquet":
                yield from self._rows(place, int(index.start[start]), int(index.stop[end - 1]))
            else:
                yield from self._lines(place, start, end)
            start = end

    def _lines(self, place: str, start: int, end: int) -> Iterator[tuple[str, bool]]:
        """Documents of a file that consist of bytes, as many at a time as a block holds."""
        index, of_json = self._index, file_kind(place) == "json"
        while start < end:
            first = int(index.start[start])
            several = start + int(np.searchsorted(index.stop[start:end], first + BLOCK, "right"))
            if several > start or of_json:
                several = max(several, start + 1)
                data = read_span(place, first, int(index.stop[several - 1]))
                bounds = zip(index.start[start:several].tolist(), index.stop[start:several].tolist(), strict=True)
                for row, (begin, stop) in enumerate(bounds, int(index.number[start])):
                    text = self._decode(data[begin - first : stop - first], place, begin, True)[0]
                    yield self._cell(text, place, row) if of_json else text, True
                start = several
                continue
            at, stop, rest = first, int(index.stop[start]), b""
            while at < stop:
                data = rest + read_span(place, at, min(at + BLOCK, stop))
                offset, at = at - len(rest), min(at + BLOCK, stop)
                text, used = self._decode(data, place, offset, at == stop)
                rest = data[used:]
                yield text, at == stop
            start += 1

    def _decode(self, data: bytes, place: str, offset: int, final: bool) -> tuple[str, int]:
        try:
            return codecs.utf_8_decode(data, self.errors, final)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{place}: byte {offset + error.start} is no UTF-8 ({error.reason}); "
                "convert the file, or give errors: replace"
            ) from None

    def _cell(self, line: str, place: str, row: int) -> str:
        try:
            record = DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place} row {row} {json_fault(error)}") from None
        if not isinstance(record, dict):
            raise InputError(f"{place} row {row} must be a JSON object, got {type(record).__name__}")
        if self.column not in record:
            raise no_column(f"{place} row {row}", self.column, record)
        return self._text(record[self.column], f"{place} row {row}")

    def _text(self, value: Any, place: str) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise InputError(f"{place}: column {self.column!r} must hold text, got {type(value).__name__}")
        return value

    def _rows(self, place: str, start: int, stop: int) -> Iterator[tuple[str, bool]]:
        first = 0
        for number, n in enumerate(group_sizes(place)):
            rows = range(max(start - first, 0), min(stop - first, n))
            if rows:
                column = read_group(place, number, self.column)
                for row in rows:
                    try:
                        value = column[row].as_py()
                    except UnicodeDecodeError as error:
                        raise InputError(f"{place} row {first + row} is no UTF-8 ({error.reason})") from None
                    yield self._text(value, f"{place} row {first + row}"), True
            first += n

    @cached_property
    def _index(self) -> _Index:
        parts, sizes, empty = [], [], Counter[str]()
        for number, place in enumerate(self.files):
            kind = file_kind(place)
            if kind == "parquet":
                size = row_sizes(place, self.column)
                start = np.arange(len(size))
                stop = start + 1
            else:
                start, stop = find_spans(place, "line" if kind == "json" else self.split)
                size = stop - start
            empty["empty files"] += not len(start)
            parts.append((np.full(len(start), number, np.int32), start, stop, np.arange(len(start))))
            sizes.append(size)
        index = _Index(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        place = ", ".join([self.path] if isinstance(self.path, str) else self.path)
        say_left_out(place, empty)
        if len(index.file) == 1 and file_kind(self.files[index.file[0]]) == "text":
            return self._cut(index)
        start, stop = _share(np.concatenate(sizes), self.part, place)
        return _Index(*(part[start:stop] for part in index))

    def _cut(self, index: _Index) -> _Index:
        """The part of a single text."""
        place, first, last = self.files[index.file[0]], int(index.start[0]), int(index.stop[0])
        bounds = []
        for share in self.part:
            at = first + int(share * (last - first))
            near = read_span(place, at, min(at + 3, last))
            bounds.append(at + next((i for i, byte in enumerate(near) if byte & 0xC0 != 0x80), len(near)))
        if bounds[0] == bounds[1]:
            raise InputError(f"{place}: part {list(self.part)} of its {last - first} bytes holds no character")
        return index._replace(start=np.array(bounds[:1]), stop=np.array(bounds[1:]))

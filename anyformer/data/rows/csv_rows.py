"""The rows of a CSV or TSV file. Every cell is text; an empty one is None."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from anyformer.data.rows.rows import check_names, no_column
from anyformer.data.rows.text_rows import CR, LF, LONGEST, UNCLOSED, TextRows
from anyformer.errors import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""By what the names of the files end in."""
OTHERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""What else tables are written with, for messages."""
QUOTE = ord('"')
MOST_SHARED = 10_000
"""Different texts of a column that are kept to be the same object in all its rows: labels, above all."""

Spans = tuple[np.ndarray, np.ndarray]
"""Of each row the byte after its end, and how many cells it has, (n,) int64 both."""


class CsvRows(TextRows):
    """Rows as RFC 4180 has them: cells may be quoted, and hold line ends then. Lines without anything are passed over.

    Lines end in a line feed, or a carriage return and one; a return alone is one only where there is no line feed.
    Raises InputError for a row that has more or fewer cells than the first line, which has the names of the columns,
    for columns of one name, and for quotation marks that are not closed.

    delimiter: what stands between cells, one ASCII character; as the file's name ends when left out.
    """

    def __init__(self, path: str, delimiter: str | None = None) -> None:
        self.names: list[str] = []
        self._given = delimiter
        self.delimiter = delimiter or DELIMITERS["." + path.lower().removesuffix(".gz").rpartition(".")[2]]
        self.kind = "TSV" if self.delimiter == "\t" else "CSV"
        self.end: str | None = None
        self.has_blanks = False
        set_cell_limit()
        super().__init__(path)

    def __reduce__(self) -> Any:
        return type(self), (self.path, self._given)

    def columns(self) -> Collection[str]:
        return self.names

    def require(self, names: Collection[str]) -> None:
        for name in names:
            if name not in self.names:
                raise InputError(f"{no_column(self.path, name, self.names)}{self._other_delimiter()}")

    def _other_delimiter(self) -> str:
        """What to do where the names of the columns look as if they were one, parted by something else; else ""."""
        header = self.names[0] if len(self.names) == 1 else ""
        found = next((mark for mark in OTHERS if mark != self.delimiter and mark in header), None)
        return "" if found is None else f"; the header holds {OTHERS[found]}: give the table delimiter: {found!a}"

    def find(self, data: bytes, place: int, final: bool) -> int:
        self.end = self.end or ("\n" if b"\n" in data else "\r")
        try:
            ends, cells = split_rows(data, self.delimiter, self.end, final)
        except csv.Error as error:
            raise self.wrong(place + error.args[1], f"{error.args[0]}; {UNCLOSED}") from None
        if not len(ends):
            return 0
        starts = np.concatenate([[0], ends[:-1]])
        first = np.frombuffer(data, np.uint8)[starts]
        is_row = first != ord(self.end)
        # The others that hold nothing: what else is as short as that has as many cells as the header.
        for row in np.flatnonzero((first == CR) | (cells != len(self.names))):
            line = data[starts[row] : ends[row]]
            if not line.strip(b"\r\n" if cells[row] == len(self.names) else None):
                is_row[row] = False
            elif not self.names:
                (self.names,) = self._cells(line)
                check_names(self.path, self.names)
                used = int(ends[row])
                return used + self.find(data[used:], place + used, final)
            elif cells[row] != len(self.names):
                raise self.wrong(place + int(starts[row]), self._other_number(int(cells[row])))
        self.has_blanks |= not is_row.all()
        self.keep(place + starts[is_row])
        return int(ends[-1])

    def _other_number(self, n: int) -> str:
        mend = "name the columns that are more" if n > len(self.names) else "add what is missing"
        hint = self._other_delimiter()
        return f"{n} cells, and the header has {len(self.names)}{hint or f'; {mend}, or quote the cells that need it'}"

    def _cells(self, data: bytes) -> list[list[str]]:
        text = data.decode()
        if is_hidden := "\r" in text and self.end == "\n":
            text = RETURN.sub(HIDDEN, text)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True))
        return [[cell.replace(HIDDEN, "\r") for cell in row] for row in rows] if is_hidden else rows

    def parse(self, data: bytes, place: int) -> list[list[str]]:
        return [row for row in self._cells(data) if len(row) == len(self.names)]

    def record(self, row: list[str], number: int) -> dict[str, Any]:
        return dict(zip(self.names, (cell or None for cell in row), strict=True))

    def select(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[str | None, ...]]:
        places = [self.names.index(name) for name in names]
        shared: dict[str, str] = {}
        for block, part in self.blocks(start, stop):
            data, place = self.block_data(block)
            lines = None if len(places) > 1 or self.has_blanks else _plain_lines(data)
            if lines is None:
                for row in self.parse(data, place)[part]:
                    yield tuple(row[column] or None for column in places)
                continue
            for cell in self._column(lines[part], places[0]):
                if len(shared) < MOST_SHARED:
                    cell = shared.setdefault(cell, cell)
                yield (shared.get(cell, cell) or None,)

    def _column(self, lines: Sequence[bytes], column: int) -> Iterator[str]:
        """One cell of each line, the others left as they are."""
        delimiter, after = self.delimiter.encode(), len(self.names) - 1 - column
        if column <= after:
            return (line.split(delimiter, column + 1)[column].decode() for line in lines)
        return (line.rsplit(delimiter, after + 1)[-1 - after].decode() for line in lines)


HIDDEN, RETURN = "\udc0d", re.compile(r"\r(?!\n)")
"""What stands for a carriage return that is part of a cell, which the package would take for a line end: no UTF-8 holds
it."""


def _plain_lines(data: bytes) -> list[bytes] | None:
    """The lines of rows whose cells are parted by delimiters alone; None where there are others among them."""
    data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
    return None if b'"' in data or b"\r" in data else data.removesuffix(b"\n").split(b"\n")


def split_rows(data: bytes, delimiter: str, end: str, final: bool) -> Spans:
    """Where the rows of a text end that begins with one; where it is not the last of its file, of whole rows alone.

    end: what ends a line, a line feed (also after a carriage return) or a carriage return.
    Raises csv.Error with the reason and the place of what is no CSV.
    """
    spans = _split_regular(data, ord(delimiter), ord(end), final)
    return spans if spans is not None else _split_by_reader(data, delimiter, end, final)


def _split_regular(data: bytes, delimiter: int, end: int, final: bool) -> Spans | None:
    """By whether the number of quotation marks before a line end is even: some ten times as fast as the reader.

    That is the same where all of them stand at the beginning or end of a cell or are doubled; else None.
    """
    content = np.frombuffer(data, np.uint8)
    ends, marks = np.flatnonzero(content == end), np.flatnonzero(content == delimiter)
    quotes = np.flatnonzero(content == QUOTE)
    if len(quotes):
        opening, closing = quotes[::2], quotes[1::2]
        before, after = opening[opening > 0] - 1, closing[closing < len(data) - 1] + 1
        # A line end of two may come after a cell.
        after = after + ((content[after] == CR) & (content[np.minimum(after + 1, len(data) - 1)] == LF))
        is_edge = np.zeros(256, np.bool_)
        is_edge[[delimiter, end, QUOTE]] = True
        if not is_edge[content[np.concatenate([before, after])]].all():
            return None
        if final and len(quotes) % 2:
            raise csv.Error("a quoted cell has no end", int(quotes[-1]))
        ends, marks = (places[np.searchsorted(quotes, places) % 2 == 0] for places in (ends, marks))
    ends = ends + 1
    if final and len(data) and (not len(ends) or ends[-1] < len(data)):
        ends = np.append(ends, len(data))
    return ends, np.diff(np.searchsorted(marks, ends), prepend=0) + 1


def _split_by_reader(data: bytes, delimiter: str, end: str, final: bool) -> Spans:
    text = codecs.utf_8_decode(data, "strict", final)[0]
    text = RETURN.sub(HIDDEN, text) if end == "\n" else text
    at, begin, ends, cells = 0, 0, [], []

    def lines() -> Iterator[str]:
        nonlocal at
        for line in io.StringIO(text, newline="\n" if end == "\n" else ""):
            if not final and not line.endswith(end):
                return
            at += len(line.replace(HIDDEN, "\r").encode())
            yield line

    try:
        for row in csv.reader(lines(), delimiter=delimiter, strict=True):
            begin = at
            ends.append(at)
            cells.append(max(len(row), 1))
    except csv.Error as error:
        if final or "unexpected end of data" not in str(error):
            raise csv.Error(str(error), begin) from None
    return np.array(ends, np.int64), np.array(cells, np.int64)


def set_cell_limit() -> None:
    """Let a cell be as long as a row may be; without, a document or a picture in a cell is too much for the package."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))


def read_cells(text: str, path: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The rows of a small CSV as they stand, each with the number of its last line; those of no cells are left out.

    Raises InputError that names the line of what is no CSV.
    """
    set_cell_limit()
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: no CSV: {error}") from None

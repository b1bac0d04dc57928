"""The rows of a CSV or TSV file. Every cell is text; an empty one is None."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from anyformer.data.rows.rows import check_names
from anyformer.data.rows.text_rows import CR, LF, LONGEST, UNCLOSED, TextRows
from anyformer.errors import InputError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""By what the names of the files end in."""
QUOTE = ord('"')
MOST_SHARED = 10_000
"""Different texts of a column that are kept to be the same object in all its rows: labels, above all."""

Spans = tuple[np.ndarray, np.ndarray]
"""Of each row the byte after its end, and how many cells it has, (n,) int64 both."""


class CsvRows(TextRows):
    """Rows as RFC 4180 has them: cells may be quoted, and hold line ends then. Lines without anything are passed over.

    Raises InputError for a row that has more or fewer cells than the first line, which has the names of the columns,
    for columns of one name, and for quotation marks that are not closed.
    """

    def __init__(self, path: str) -> None:
        self.names: list[str] = []
        self.delimiter = DELIMITERS["." + path.lower().removesuffix(".gz").rpartition(".")[2]]
        self.kind = "CSV" if self.delimiter == "," else "TSV"
        self.has_blanks = False
        set_cell_limit()
        super().__init__(path)

    def columns(self) -> Collection[str]:
        return self.names

    def find(self, data: bytes, place: int, final: bool) -> int:
        try:
            ends, cells = split_rows(data, self.delimiter, final)
        except csv.Error as error:
            raise self.wrong(place + error.args[1], f"{error.args[0]}; {UNCLOSED}") from None
        if not len(ends):
            return 0
        self._take(data, place, ends, cells)
        return int(ends[-1])

    def _take(self, data: bytes, place: int, ends: np.ndarray, cells: np.ndarray) -> None:
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        first = np.frombuffer(data, np.uint8)[starts]
        blank = (first == LF) | (first == CR)
        row = 0
        while not self.names and row < len(ends):
            line = data[starts[row] : ends[row]]
            blank[row] = True
            if line.strip():
                self.names = next(csv.reader(io.StringIO(line.decode(), newline=""), delimiter=self.delimiter))
                check_names(self.path, self.names)
            row += 1
        n = len(self.names)
        for wrong in np.flatnonzero((cells != n) & ~blank):
            if cells[wrong] > 1 or data[starts[wrong] : ends[wrong]].strip():
                found = f"{cells[wrong]} cells, and the header has {n}"
                mend = "name the columns that are more" if cells[wrong] > n else "add what is missing"
                raise self.wrong(place + int(starts[wrong]), f"{found}; {mend}, or quote the cells that need it")
            blank[wrong] = True
        self.has_blanks |= bool(blank[row:].any())
        self.keep(place + starts[~blank])

    def parse(self, data: bytes, place: int) -> list[list[str]]:
        rows = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=self.delimiter, strict=True)
        return [row for row in rows if len(row) == len(self.names)]

    def record(self, row: list[str], number: int) -> dict[str, Any]:
        return dict(zip(self.names, (cell or None for cell in row), strict=True))

    def select(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[str | None, ...]]:
        places = [self.names.index(name) for name in names]
        shared: dict[str, str] = {}
        for block, part in self.blocks(start, stop):
            data, place = self.block_data(block)
            if len(places) == 1 and not self.has_blanks and b'"' not in data:
                for cell in self._column(data, places[0], part):
                    if len(shared) < MOST_SHARED:
                        cell = shared.setdefault(cell, cell)
                    yield (shared.get(cell, cell) or None,)
            else:
                for row in self.parse(data, place)[part]:
                    yield tuple(row[column] or None for column in places)

    def _column(self, data: bytes, column: int, part: slice) -> Iterator[str]:
        """One cell of each row of a block without quotation marks, the others left as they are."""
        delimiter, after = self.delimiter.encode(), len(self.names) - 1 - column
        lines = data.splitlines()[part]
        if column <= after:
            return (line.split(delimiter, column + 1)[column].decode() for line in lines)
        return (line.rsplit(delimiter, after + 1)[-1 - after].decode() for line in lines)


def split_rows(data: bytes, delimiter: str, final: bool) -> Spans:
    """Where the rows of a text end that begins with one; where it is not the last of its file, of whole rows alone.

    Raises csv.Error with the reason and the place of what is no CSV.
    """
    spans = _split_regular(data, ord(delimiter), final)
    return spans if spans is not None else _split_by_reader(data, delimiter, final)


def _split_regular(data: bytes, delimiter: int, final: bool) -> Spans | None:
    """By whether the number of quotation marks before a line end is even: some ten times as fast as the reader.

    That is the same where all of them stand at the beginning or end of a cell or are doubled; else None.
    """
    content = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(content == QUOTE)
    ends, marks = np.flatnonzero(content == LF), np.flatnonzero(content == delimiter)
    if CR in data:
        returns = np.flatnonzero(content == CR)
        # The last one may be followed by a line feed in what comes next.
        returns = returns[returns < len(data) - (not final)]
        alone = content[np.minimum(returns + 1, len(data) - 1)] != LF
        alone |= returns == len(data) - 1
        ends = np.union1d(ends, returns[alone])
    if len(quotes):
        opening, closing = quotes[::2], quotes[1::2]
        beside = np.concatenate([opening[opening > 0] - 1, closing[closing < len(data) - 1] + 1])
        is_edge = np.zeros(256, np.bool_)
        is_edge[[delimiter, LF, CR, QUOTE]] = True
        if not is_edge[content[beside]].all():
            return None
        if final and len(quotes) % 2:
            raise csv.Error("a quoted cell has no end", int(quotes[-1]))
        ends, marks = (places[np.searchsorted(quotes, places) % 2 == 0] for places in (ends, marks))
    ends = ends + 1
    if final and len(data) and (not len(ends) or ends[-1] < len(data)):
        ends = np.append(ends, len(data))
    return ends, np.diff(np.searchsorted(marks, ends), prepend=0) + 1


def _split_by_reader(data: bytes, delimiter: str, final: bool) -> Spans:
    text = codecs.utf_8_decode(data, "strict", final)[0]
    at, ends, cells = 0, [], []

    def lines() -> Iterator[str]:
        nonlocal at
        for line in io.StringIO(text, newline=""):
            if not final and (not line.endswith(("\n", "\r")) or at + len(line.encode()) == len(data)):
                # The end of the line, or the other half of what ends it, is not there yet.
                return
            at += len(line.encode())
            yield line

    begin = 0
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

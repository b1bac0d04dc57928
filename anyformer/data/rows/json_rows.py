"""The rows of a JSON file, an object on each line or a list of objects. A value stays what it is there."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from anyformer.data.rows.rows import no_column
from anyformer.data.rows.text_rows import CR, LF, TextRows
from anyformer.errors import InputError

OPEN, CLOSE = b"{}"
BETWEEN = re.compile(r"[ \t\r\n,\[]*")
"""What stands before the objects of a list."""


class JsonRows(TextRows):
    """Rows in which any column may be left out, and may hold anything. Lines without anything are passed over.

    Raises InputError for what is no object, at once where a line does not begin and end as one, else when it is read;
    and for one that has a name twice.
    """

    kind = "JSON"

    def __init__(self, path: str) -> None:
        self.is_list: bool | None = None
        super().__init__(path)

    def find(self, data: bytes, place: int, final: bool) -> int:
        if self.is_list is None and data.strip():
            self.is_list = data.lstrip().startswith(b"[")
        return self._find_entries(data, place, final) if self.is_list else self._find_lines(data, place, final)

    def _find_lines(self, data: bytes, place: int, final: bool) -> int:
        content = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(content == LF) + 1
        if final and not data.endswith(b"\n"):
            ends = np.append(ends, len(data))
        if not len(ends):
            return 0
        starts = np.concatenate([[0], ends[:-1]])
        # The line end, of one byte or two, or none.
        last = ends - 1 - (content[ends - 1] == LF)
        last -= (last >= starts) & (content[np.maximum(last, 0)] == CR)
        is_row = (last > starts) & (content[starts] == OPEN) & (content[np.maximum(last, 0)] == CLOSE)
        for row in np.flatnonzero(~is_row):
            line = data[starts[row] : ends[row]].strip()
            if line and not (line.startswith(b"{") and line.endswith(b"}")):
                raise self.wrong(place + int(starts[row]), f"{NEEDED}, got {line[:40].decode(errors='replace')!r}")
            is_row[row] = bool(line)
        self.keep(place + starts[is_row])
        return int(ends[-1])

    def _find_entries(self, data: bytes, place: int, final: bool) -> int:
        """The objects of a list. They are parsed for that, since strings may hold brackets."""
        text = codecs.utf_8_decode(data, "strict", final)[0]
        places, at, used = [], 0, 0
        while (begin := BETWEEN.match(text, at).end()) < len(text) and text[begin] != "]":
            start = place + used + begin - at
            if text[begin] != "{":
                raise self.wrong(start, f"{NEEDED}, got {text[begin : begin + 40]!r}")
            try:
                end = DECODER.raw_decode(text, begin)[1]
            except (ValueError, RecursionError) as error:
                if final or not isinstance(error, json.JSONDecodeError):
                    raise self.wrong(start, json_fault(error)) from None
                break
            places.append(start)
            used, at = used + begin - at + len(text[begin:end].encode()), end
        self.keep(np.array(places, np.int64))
        if begin < len(text) and text[begin] == "]":
            if text[begin + 1 :].strip():
                raise self.wrong(place + used, "the list of rows ends here, and more follows")
            return len(data)
        if final and text.strip():
            raise self.wrong(place + used, "the list of rows has no end; is the file cut off?")
        return used

    def parse(self, data: bytes, place: int) -> Sequence[Any]:
        if not self.is_list:
            return [line for line in data.split(b"\n") if line.strip()]
        text, at, rows = data.decode(), 0, []
        while (at := BETWEEN.match(text, at).end()) < len(text) and text[at] == "{":
            row, at = DECODER.raw_decode(text, at)
            rows.append(row)
        return rows

    def record(self, row: Any, number: int) -> dict[str, Any]:
        if isinstance(row, dict):
            return row
        try:
            return DECODER.decode(row.decode())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: cannot be read as JSON: row {number} {json_fault(error)}") from None

    def columns(self) -> Collection[str]:
        """All that any row has, for which all are read."""
        return dict.fromkeys(name for row in self._rows(0, len(self)) for name in row)

    def require(self, names: Collection[str]) -> None:
        there: dict[str, None] = {}
        for row in self._rows(0, len(self)):
            there |= dict.fromkeys(row)
            if all(name in there for name in names):
                return
        for name in names:
            if name not in there:
                raise no_column(self.path, name, there)

    def select(self, names: Sequence[str], start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        return (tuple(row.get(name) for name in names) for row in self._rows(start, stop))

    def _rows(self, start: int, stop: int) -> Iterator[dict[str, Any]]:
        for block, part in self.blocks(start, stop):
            for row, parsed in enumerate(self.parse(*self.block_data(block))[part], self._first[block] + part.start):
                yield self.record(parsed, row)


NEEDED = "a row must be a JSON object, {...}, on a line of its own or in one list of them"


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {twice!r} twice; give each value a name of its own")
    return record


DECODER = json.JSONDecoder(object_pairs_hook=_no_name_twice)


def json_fault(error: Exception) -> str:
    """What is wrong with an object, in one line."""
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return f"is no JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)

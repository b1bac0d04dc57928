"""What a killed prediction goes on with: rows in files that are whole or absent, beside the table that they will be.

`out.csv.parts/` holds `about.json`, which says what is predicted, and `000000000000-000000001024.jsonl` and so on: the
rows of records 0 to 1,023. A record's rows are in one file, so that none is there twice or in part.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anyformer.errors import InputError
from anyformer.faults import writing
from anyformer.local_files import read_json
from anyformer.parsing.plain import difference
from anyformer.runs.predictions.tables import Row, read_rows, to_json
from anyformer.saving.atomic import PART, write_whole
from anyformer.tasks.base.given import AT_ONCE

ABOUT = "about.json"
NAME = re.compile(r"(\d{12})-(\d{12})\.jsonl")
MOST_RECORDS = 1024
"""Of a part, about."""
MOST_SECONDS = 10.0
"""After which a part is written, however few records it has."""


class Parts:
    """The parts of one table. Used within `locked(folder)`."""

    def __init__(self, output: Path, about: Mapping[str, Any]) -> None:
        """about: plain values that say what is predicted.

        Raises InputError where the parts that are there are of something else, or damaged.
        """
        self.output, self.folder = output, folder_of(output)
        self._rows: list[Row] = []
        path = self.folder / ABOUT
        if path.exists() and self._files():
            self._compare(read_json(path), about)
        else:
            write_whole(path, json.dumps(about) + "\n")
        for path in self.folder.glob(f"*{PART}"):
            path.unlink()
        self.n_begun = self._written = self._end = self._last()
        """How many records there were when it was opened."""
        self._since = time.monotonic()

    def _compare(self, before: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        # As a file gives it back.
        about = json.loads(json.dumps(about))
        for what, now in about.items():
            if before.get(what) != now:
                how = difference(before.get(what), now, what) if what == "options" else None
                raise InputError(
                    f"{self.folder} holds a part of other predictions: {how or f'the {what} has changed since'}; give "
                    f"the same command to go on with them, or remove {self.folder} to begin anew"
                )

    def _files(self) -> list[tuple[int, int, Path]]:
        found = ((NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(name[1]), int(name[2]), path) for name, path in found if name)

    def _last(self) -> int:
        end = 0
        for first, stop, path in self._files():
            if first != end or stop <= first:
                raise InputError(f"{path}: the part before it is missing; remove {self.folder} to begin anew")
            end = stop
        return end

    def add(self, rows: Sequence[Row]) -> None:
        """Take the rows of the next record."""
        self._rows += rows
        self._end += 1
        # Of what is predicted together: what is gone on with is then predicted in the same batches.
        is_due = self._end - self._written >= MOST_RECORDS or time.monotonic() - self._since >= MOST_SECONDS
        if is_due and self._end % AT_ONCE == 0:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a part."""
        if self._end > self._written:
            text = "".join(to_json(row) + "\n" for row in self._rows)
            write_whole(self.folder / f"{self._written:012}-{self._end:012}.jsonl", text)
        self._rows, self._written, self._since = [], self._end, time.monotonic()

    def read(self) -> Iterator[Row]:
        """The rows of all parts."""
        for _, _, path in self._files():
            yield from read_rows(path)

    def remove(self) -> None:
        with writing(self.folder):
            shutil.rmtree(self.folder)


def folder_of(output: Path) -> Path:
    """Where the parts of a table are."""
    return output.with_name(output.name + ".parts")

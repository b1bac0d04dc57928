"""From the records of a source to rows of predictions, a few records at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from anyformer.data.rows.rows import no_column
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.faults import MachineError
from anyformer.runs.predictions.tables import ERROR, Row
from anyformer.tasks.base.given import AT_ONCE
from anyformer.tasks.base.task import Task


class RowsOfSource:
    """Predicts the records of a source one after another, as rows: what tells a record apart, its true value where it
    has one (`true_label`), and what is predicted."""

    def __init__(
        self,
        task: Task,
        source: Source,
        options: Any = None,
        *,
        id_column: str | None = None,
        whole: bool = False,
        failed: Callable[[str], None] | None = None,
    ) -> None:
        """
        options: of `task.predict`. id_column: what tells the records apart; their numbers, or files, when left out.
        whole: whether rows hold all of a result, lists and dicts too; else what `Task.row` gives.
        failed: is told what is wrong with a record that cannot be used, which then has a row with its error; without it
            such a record raises InputError, with its name.
        """
        self.task, self.source, self.options = task, source, options
        self.id_column, self.whole, self.failed = id_column, whole, failed

    def after(self, start: int = 0) -> Iterator[list[Row]]:
        """The rows of each record from number `start` on."""
        n = len(self.source)
        for first in range(start, n, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, n))
            try:
                found = self._predict(numbers)
            except MachineError:
                raise
            except InputError:
                found = map(self._alone, numbers)
            yield from found

    def _predict(self, numbers: Sequence[int]) -> list[list[Row]]:
        heads, records = [], []
        for i in numbers:
            if self.id_column is None and not self.task.truths:
                heads.append({self.source.id_name: self.source.id_of(i)})
                records.append(self.task.read_record(self.source, i))
                continue
            record = self.source[i]
            heads.append(self._head(i, record))
            records.append(self.task.take_record(record, self.source.folder_of(i)))
        results = self.task.predict(records, self.options)
        return [self._rows(head, result) for head, result in zip(heads, results, strict=True)]

    def _alone(self, i: int) -> list[Row]:
        try:
            return self._predict([i])[0]
        except MachineError:
            raise
        except InputError as error:
            name, said = self.source.name(i), str(error)
            line = said if name in said else f"{name}: {said}"
            if self.failed is None:
                raise InputError(line) from None
            self.failed(line)
            head = {} if self.id_column is not None else {self.source.id_name: self.source.id_of(i)}
            return [{**head, ERROR: line}]

    def _head(self, i: int, record: Row) -> dict[str, Any]:
        name = self.id_column
        if name is not None and name not in record:
            raise no_column(f"--id: {self.source.name(i)}", name, record)
        head = {self.source.id_name: self.source.id_of(i)} if name is None else {name: record[name]}
        return head | {f"true_{name}": value for name, value in self.task.true_values(record).items()}

    def _rows(self, head: dict[str, Any], result: Any) -> list[Row]:
        rows = self.task.rows(result, self.whole)
        for row in rows:
            if shared := head.keys() & row.keys():
                raise InputError(f"--id: {min(shared)!r} is what a prediction is called too; give another column")
        return [{**head, **row} for row in rows]

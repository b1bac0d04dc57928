"""Tables written for the tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table in the format that the file's name asks for."""
    opened = gzip.open if path.suffix == ".gz" else open
    kind = path.name.split(".")[1]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with opened(path, "wt", encoding="utf-8") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            file.write(",".join(rows[0]) + "\n")
            file.writelines(",".join(str(value) for value in row.values()) + "\n" for row in rows)
    return path


def write_features(path: Path, columns: dict[str, list[Any]], **features: Any) -> Path:
    """A Parquet file that says of its columns what `datasets` would."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns, schema=datasets.Features(features).arrow_schema), path)
    return path


PETS = [{"file": f"{i}.png", "kind": "cat" if i % 2 else "dog"} for i in range(5)]

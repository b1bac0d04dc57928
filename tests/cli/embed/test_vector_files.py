"""Vectors in files, read back by pyarrow and numpy: all of them, as they were, and the records that have none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from anyformer.cli.embed import vector_files
from anyformer.cli.embed.vector_files import check_target, plain, write_vectors
from anyformer.cli.outputs import Outcome
from anyformer.errors import InputError
from anyformer.model.vectors import VectorConfig

POOLED = VectorConfig(-1, "mean", ("a", "b"), None, False)
TOKENS = VectorConfig(-1, "tokens", ("a", "b"), None, False)
RANDOM = np.random.default_rng(0)


def vector(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def outcomes(results: list[Any]) -> list[Outcome]:
    errors = ["" if result is not None else "no good" for result in results]
    return [Outcome({"record": f"r{i}"}, *both) for i, both in enumerate(zip(results, errors, strict=True))]


@pytest.mark.parametrize("rows", [2, 100])
def test_vectors_and_what_has_none_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(vector_files, "ROWS", rows)
    results = [vector(3), None, vector(3), vector(3), None]
    for name in ("v.parquet", "v.npz"):
        write_vectors(tmp_path / name, outcomes(results), 5, 3, POOLED, named=True)
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pydict()
    assert table["record"] == ["r0", "r1", "r2", "r3", "r4"]
    assert table["error"] == [None, "no good", None, None, "no good"]
    assert table["vector"] == [None if own is None else own.tolist() for own in results]
    assert pyarrow.parquet.ParquetFile(tmp_path / "v.parquet").num_row_groups == (3 if rows == 2 else 1)
    with np.load(tmp_path / "v.npz") as file:
        assert file["records"].tolist() == table["record"] and file["vectors"].dtype == np.float32
        for found, own in zip(file["vectors"], results, strict=True):
            assert np.isnan(found).all() if own is None else (found == own).all()


@pytest.mark.parametrize("tokens", [3, 1000])
def test_vectors_of_tokens_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr(vector_files, "TOKENS", tokens)
    results = [{"a": vector(2, 3), "b": vector(1, 3)}, {"b": vector(4, 3)}, None, {"a": vector(1, 3)}]
    for name in ("v.parquet", "v.npz"):
        write_vectors(tmp_path / name, outcomes(results), 4, 3, TOKENS, named=False)
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet").to_pydict()
    for field in ("a", "b"):
        wanted = [own[field].tolist() if own is not None and field in own else None for own in results]
        assert table[field] == wanted
    assert table["error"] == [None, None, "no good", None]
    with np.load(tmp_path / "v.npz") as file:
        assert sorted(file.files) == ["0/a", "0/b", "1/b", "3/a"]
        assert all(
            (file[f"{i}/{name}"] == own).all() for i, each in enumerate(results) for name, own in (each or {}).items()
        )


def test_records_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_files, "ROWS", 4)
    sizes = []

    def watched() -> Iterator[Outcome]:
        for outcome in outcomes([vector(1000) for _ in range(12)]):
            sizes.append((tmp_path / "v.parquet.part").stat().st_size)
            yield outcome

    write_vectors(tmp_path / "v.parquet", watched(), 12, 1000, POOLED, named=True)
    assert sizes[0] < 100 and sizes[4] > 4000 and sizes[8] > sizes[4] + 4000
    assert [path.name for path in tmp_path.iterdir()] == ["v.parquet"]


def test_json_has_the_numbers_or_the_error() -> None:
    assert plain(Outcome({"record": "x"}, np.float32([1, 2])), POOLED) == {"record": "x", "vector": [1.0, 2.0]}
    assert plain(Outcome({"record": "x"}, {"a": np.float32([[1]])}), TOKENS) == {
        "record": "x",
        "vectors": {"a": [[1.0]]},
    }
    assert plain(Outcome({"record": "x"}, None, "no"), POOLED) == {"record": "x", "error": "no"}


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^output must end in \.parquet or \.npz, got v\.csv$"):
        check_target("v.csv")
    with pytest.raises(InputError, match=r"there is no folder .*nowhere$"):
        check_target(str(tmp_path / "nowhere" / "v.npz"))

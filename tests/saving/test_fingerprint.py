"""What the records of a source are known by."""

from __future__ import annotations

import json
import os
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from anyformer.data.source import Joined, Pick
from anyformer.data.tables import Table
from anyformer.saving.fingerprint import changed, fingerprint, identity
from anyformer.tokenizers.image.sources import Digits


def table(path: Path, *labels: str) -> Table:
    path.write_text("x,label\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    return Table(str(path))


def test_a_table_is_known_by_the_facts_of_its_file_which_nothing_can_be_put_back_to(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    first = identity(table(path, "a", "b"))
    assert identity(Table(str(path))) == first != identity(Table(str(path), rows=(0, 1)))
    times = os.stat(path)
    # The same size and time of change, in place and by another file.
    table(path, "b", "a")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = identity(Table(str(path)))
    table(tmp_path / "b.csv", "b", "b")
    os.utime(tmp_path / "b.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(tmp_path / "b.csv", path)
    assert len({str(found) for found in (first, second, identity(Table(str(path))))}) == 3


def test_a_folder_is_known_by_each_of_its_parts_and_a_table_in_a_zip_by_the_zip(tmp_path: Path) -> None:
    folder, archive = tmp_path / "parts", tmp_path / "t.zip"
    folder.mkdir()
    table(folder / "part-0.csv", "a")
    table(folder / "part-1.csv", "b")
    first = identity(Table(str(folder)))
    assert json.loads(json.dumps(first)) == first == identity(Table(str(folder)))
    # In place, which the folder itself does not tell, and a part more.
    table(folder / "part-1.csv", "c")
    second = identity(Table(str(folder)))
    table(folder / "part-2.csv", "d")
    assert len({str(found) for found in (first, second, identity(Table(str(folder))))}) == 3

    inside = Table(f"{archive}/train.csv")
    found = []
    for label in ("a", "b"):
        with ZipFile(archive, "w") as file:
            file.writestr("train.csv", f"x,label\n0,{label}\n")
        found.append(identity(inside))
        assert found[-1] == identity(inside)
    assert found[0] != found[1]


def test_parts_of_a_table_are_known_by_their_rows_and_what_is_read_from_elsewhere_is_not_known(tmp_path: Path) -> None:
    source = table(tmp_path / "a.csv", "a", "b", "a")
    parts = [source.take([0, 1]), source.take([1, 0]), Pick(source, each=1), Pick(source), Joined((source, source))]
    found = [str(identity(part)) for part in (source, *parts)]
    assert len(set(found)) == len(found) and "None" not in found
    assert identity(Digits()) is identity(Digits().take([0])) is identity(Joined((source, Digits()))) is None


def test_a_fingerprint_says_what_has_changed(tmp_path: Path) -> None:
    before = fingerprint(table(tmp_path / "a.csv", "a", "b"), ["label", "absent"])
    assert before["rows"] == 2 and before["columns"] == ["label", "x"] and list(before["sha256"]) == ["label"]
    assert changed(before, fingerprint(table(tmp_path / "elsewhere.csv", "a", "b"), ["label"])) is None
    assert changed(before, fingerprint(table(tmp_path / "b.csv", "b", "a"), ["label"])) == (
        "the values of label have changed"
    )
    assert changed(before, fingerprint(table(tmp_path / "c.csv", "a", "b", "c"), ["label"])) == ("2 records are now 3")
    (tmp_path / "d.csv").write_text("y,label\n0,a\n1,b\n")
    assert changed(before, fingerprint(Table(str(tmp_path / "d.csv")), ["label"])) == (
        "the columns label, x are now label, y"
    )


def test_a_column_that_the_first_record_lacks_is_hashed_too(tmp_path: Path) -> None:
    found = []
    for label in ("a", "b"):
        path = tmp_path / f"{label}.jsonl"
        path.write_text(json.dumps({"x": 1}) + "\n" + json.dumps({"x": 2, "label": label}) + "\n")
        found.append(fingerprint(Table(str(path)), ["label", "absent"]))
    assert changed(*found) == "the values of label have changed" and list(found[0]["sha256"]) == ["label"]


def test_values_of_every_kind_are_hashed(tmp_path: Path) -> None:
    class Source(Digits):
        values = (None, "1", 1, 1.0, True, [1], np.array([1]), np.array([1.0]), np.array([[1]]), b"1")

        def known(self, name: str) -> list:
            return [self.values[self.n]]

    hashes = set()
    for n in range(len(Source.values)):
        source = Source()
        object.__setattr__(source, "n", n)
        hashes.add(fingerprint(source, ["label"])["sha256"]["label"])
    # "1" and 1 are one label.
    assert len(hashes) == len(Source.values) - 1

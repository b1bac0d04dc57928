"""Records from class folders, on the disk or in a zip; and what a path holds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from anyformer.data.files import PICTURES, find_file, is_folder, list_files, list_folders
from anyformer.data.rows.opening import is_parted
from anyformer.data.source import Source, no_column, select_fields
from anyformer.data.tables import Table
from anyformer.errors import InputError


@dataclass(frozen=True)
class Folders(Source):
    """The files of class folders, `cat/1.png` and `dog/deep/2.jpg`: a record each, sorted by path.

    Columns: file, the path below the folder; folder, the name of the first folder on it. What is hidden and what lies
    beside the class folders is left out. Without `folder` among the columns any folder of files will do. Raises
    InputError, when it is first used, for a folder that is not there or holds no such files, or less than two classes.
    """

    path: str
    """The folder, a zip, or a folder inside a zip: from the current folder, else inside $ANYFORMER_DATA."""
    columns: dict[str, str] = field(default_factory=lambda: {"image": "file", "label": "folder"})
    """Which column, file or folder, each field is read from."""
    endings: tuple[str, ...] = PICTURES
    """What the names of files end in, in capitals or not; others are left out."""

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> dict[str, Any]:
        file = self._files[i]
        return select_fields({"file": file, "folder": file.partition("/")[0]}, self.columns)

    def name(self, i: int) -> str:
        return os.path.join(self.path, self._files[i])

    @cached_property
    def folder(self) -> str:
        return find_file(self.path)

    @cached_property
    def _files(self) -> list[str]:
        for column in self.columns.values():
            if column not in ("file", "folder"):
                raise no_column(self.path, column, ("file", "folder"))
        every = list_files(self.folder)
        if not every:
            raise InputError(f"{self.path}: the folder is empty; {self._needed}")
        files = [file for file in every if file.lower().endswith(tuple(ending.lower() for ending in self.endings))]
        if not files:
            wanted = ", ".join(self.endings)
            raise InputError(f"{self.path}: no file ends in {wanted}; there are {_endings_of(every)}; {self._needed}")
        return self._classified(files, every) if "folder" in self.columns.values() else files

    def _classified(self, files: list[str], every: list[str]) -> list[str]:
        """The files that lie in class folders."""
        classes, inside = ({file.partition("/")[0] for file in part if "/" in file} for part in (files, every))
        if not classes:
            raise InputError(f"{self.path}: {files[0]} and the others lie in no class folder; {self._needed}")
        # What is empty shows in no list of files.
        if useless := sorted({*inside, *list_folders(self.folder)} - classes):
            held = [file for file in every if file.startswith(f"{useless[0]}/")]
            what = (
                f"holds no file that ends in {', '.join(self.endings)}, but {_endings_of(held)}" if held else "is empty"
            )
            raise InputError(f"{self.path}: the class folder {useless[0]!r} {what}; fill it, or take it away")
        if len(classes) == 1:
            (alone,) = classes
            deeper = len({file.split("/")[1] for file in files if file.count("/") > 1}) > 1
            hint = f"give {os.path.join(self.path, alone)}, if its folders are the classes" if deeper else self._needed
            raise InputError(f"{self.path}: there is only one class folder, {alone!r}; {hint}")
        return [file for file in files if "/" in file]

    @property
    def _needed(self) -> str:
        if "folder" not in self.columns.values():
            return "give a folder that holds some"
        return f"needed is a folder for each class, as in {os.path.join(self.path, f'cat/1{self.endings[0]}')}"


def _endings_of(files: Sequence[str]) -> str:
    """Which endings there are, the most frequent first."""
    counts = Counter(os.path.splitext(file)[1] or "no ending" for file in files)
    return ", ".join(f"{ending} ({n})" for ending, n in counts.most_common(8))


def open_source(path: str) -> Source:
    """Class folders where a folder or a zip is of this path, else a table: a file, or a folder that holds its parts."""
    try:
        place = find_file(path)
    except InputError:
        return Table(path)  # It says so when it is used.
    if os.path.isdir(place) and is_parted(place):
        return Table(path)
    return Folders(path) if is_folder(place) or place.lower().endswith(".zip") else Table(path)

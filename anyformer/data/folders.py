"""Records from class folders, on the disk or in a zip; and what a path holds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from anyformer.data.files import (
    PICTURES,
    count_endings,
    find_file,
    is_folder,
    list_folders,
    list_kinds,
    say_left_out,
    survey_files,
)
from anyformer.data.rows.opening import is_parted
from anyformer.data.rows.rows import no_column
from anyformer.data.source import Source, select_fields
from anyformer.data.tables import Table
from anyformer.errors import InputError, nearest
from anyformer.reference.source import subclasses


@dataclass(frozen=True)
class Folders(Source):
    """The files of class folders, `cat/1.png` and `dog/deep/2.jpg`: a record each, sorted by path.

    Columns: file, the path below the folder; folder, the name of the first folder on it. What is hidden, what ends
    otherwise and what lies beside the class folders is left out, and so are empty folders; how much, one line says.
    Without `folder` among the columns any folder of files will do. Raises InputError, when it is first used, for a
    folder that is not there or holds no such files, or parts as train/ and test/ where classes should be.
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
        every, left_out = survey_files(self.folder)
        if not every:
            raise InputError(f"{self.path}: the folder is empty; {self._needed}")
        endings = tuple(ending.lower() for ending in self.endings)
        files = [file for file in every if file.lower().endswith(endings)]
        left_out += count_endings(file for file in every if not file.lower().endswith(endings))
        if not files:
            wanted = ", ".join(self.endings)
            kinds = list_kinds(count_endings(every))
            raise InputError(f"{self.path}: no file ends in {wanted}; there are {kinds}; {self._needed}")
        if self._is_classified:
            files = self._classified(files, every, left_out)
        say_left_out(self.path, left_out)
        return files

    def _classified(self, files: list[str], every: list[str], left_out: Counter[str]) -> list[str]:
        """The files that lie in class folders; the others are counted."""
        classes, inside = ({file.partition("/")[0] for file in part if "/" in file} for part in (files, every))
        if not classes:
            raise InputError(f"{self.path}: {files[0]} and the others lie in no class folder; {self._needed}")
        if parts := find_parts(classes):
            asked = ", ".join(f"{os.path.join(self.path, name)} as {part}" for part, name in parts.items())
            raise InputError(f"{self.path}: holds parts of a data set, and no class folders; give {asked}")
        if useless := sorted(inside - classes):
            kinds = list_kinds(count_endings(file for file in every if file.startswith(f"{useless[0]}/")))
            raise InputError(
                f"{self.path}: the class folder {useless[0]!r} holds no file that ends in {', '.join(self.endings)}, "
                f"but {kinds}; fill it, or take it away"
            )
        left_out["beside the class folders"] += sum("/" not in file for file in files)
        # What is empty shows in no list of files.
        if empty := [name for name in list_folders(self.folder) if name not in inside]:
            left_out[f"empty class folders, as {empty[0]}"] += len(empty)
        return [file for file in files if "/" in file]

    id_name = "file"

    def id_of(self, i: int) -> str:
        return self.name(i)

    def _at(self, place: str, needed: Collection[str]) -> Folders | None:
        found = find_file(place)
        if not is_folder(found) or (os.path.isdir(found) and is_parted(found)):
            return None
        endings = tuple(ending.lower() for ending in self.endings)
        files = [file for file in survey_files(found)[0] if file.lower().endswith(endings)]
        tops = {file.partition("/")[0] for file in files}
        # Labels are known where every file lies in a class folder.
        is_classified = all("/" in file for file in files) and not find_parts(tops)
        columns = {
            name: column
            for name, column in self.columns.items()
            if column != "folder" or is_classified or name in needed
        }
        return replace(self, path=place, columns=columns)

    def read_from(self) -> list[str]:
        return [os.path.join(self.folder, file) for file in self._files]

    def require_classes(self) -> None:
        """Raise InputError where there is only one class folder, from which nothing can be learnt."""
        if not self._is_classified or len(classes := {file.partition("/")[0] for file in self._files}) > 1:
            return
        (alone,) = classes
        deeper = len({file.split("/")[1] for file in self._files if file.count("/") > 1}) > 1
        hint = f"give {os.path.join(self.path, alone)}, if its folders are the classes" if deeper else self._needed
        raise InputError(f"{self.path}: there is only one class folder, {alone!r}; {hint}")

    @property
    def _is_classified(self) -> bool:
        return "folder" in self.columns.values()

    @property
    def _needed(self) -> str:
        if not self._is_classified:
            return "give a folder that holds some"
        return f"needed is a folder for each class, as in {os.path.join(self.path, f'cat/1{self.endings[0]}')}"


PARTS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What the folders of a data set are called that are parts of it."""


def find_parts(names: Collection[str]) -> dict[str, str]:
    """Which of the names, capitals or not, is train, validation and test, where there are two of these or more.

    Raises InputError where two names are one part.

    >>> find_parts(["val", "Train", "notes"]), find_parts(["train", "bus"])
    ({'train': 'Train', 'validation': 'val'}, {})
    """
    found = {part: sorted(name for name in names if name.lower() in known) for part, known in PARTS.items()}
    found = {part: several for part, several in found.items() if several}
    if len(found) < 2:
        return {}
    for part, several in found.items():
        if len(several) > 1:
            raise InputError(f"{' and '.join(several)} may each be the {part} part; give data.{part} and the others")
    return {part: name for part, (name,) in found.items()}


def open_source(path: str) -> Source:
    """Class folders where a folder or a zip is of this path, else a table: a file, or a folder that holds its parts."""
    try:
        place = find_file(path)
    except InputError as error:
        # One without an ending may have been meant as the name of a class.
        if near := "" if os.path.splitext(path)[1] else nearest(path, [cls.name for cls in subclasses("Source")], 1):
            raise InputError(f"{path}: there is no such file and no such source{near}") from error
        return Table(path)  # It says so when it is used.
    if os.path.isdir(place) and is_parted(place):
        return Table(path)
    return Folders(path) if is_folder(place) or place.lower().endswith(".zip") else Table(path)

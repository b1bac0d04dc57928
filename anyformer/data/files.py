"""Files wherever they lie: on the disk, under $ANYFORMER_DATA, or inside a zip that is read in place; written whole."""

from __future__ import annotations

import gzip
import io
import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

from anyformer.errors import InputError, nearest, say_once
from anyformer.faults import writing
from anyformer.local_files import (
    DAMAGE,
    check_unpacked,
    file_version,
    no_such_file,
    open_file,
    places,
    read_bytes,
    special_kind,
    unpacked_blocks,
)

PICTURES = (
    *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".jfif", ".jpe", ".mpo", ".apng", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".qoi", ".ico", ".psd"),
)
"""What the names of files with pictures end in."""


MAX_FILE = 2**32
"""Bytes of a file that is read as a whole."""


def find_file(path: str | Path) -> str:
    """Where a file, folder or file in a zip is: as given from the current folder, else inside $ANYFORMER_DATA (`data`).

    Raises InputError that names the places tried, and for a device, a pipe or a socket.
    """
    return _find(path, beside=False)


def find_beside(path: str | Path) -> str:
    """As `find_file`, and then beside $ANYFORMER_DATA, where a folder of models stands: `models/whisper_tiny_en`."""
    return _find(path, beside=True)


def _find(path: str | Path, beside: bool) -> str:
    for place in places(path, beside):
        if kind := special_kind(place):
            raise InputError(f"{path} is {kind} and no file; give the path of a file or folder")
        if os.path.exists(place) or _zip_of(place):
            return place
    raise InputError(no_such_file(path, beside))


def read_file(path: str | Path) -> bytes:
    """The bytes of a file, which may lie in a zip: `train.zip/cat/1.png`. Zips are read in place, never unpacked.

    Raises InputError if there is no such file or it cannot be read.
    """
    path = str(path)
    try:
        return read_bytes(path, MAX_FILE)
    except (FileNotFoundError, NotADirectoryError):
        inside = _zip_of(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if inside is None:
        folder, name = os.path.split(path)
        names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        raise InputError(f"{path}: no such file{nearest(name, names)}")
    try:
        opened, facts = _find_member(path, *inside)
        return opened.read(facts)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{path}: cannot be read from the zip: {error}") from None


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder, a zip, or a folder inside a zip of this path."""
    if os.path.isdir(path) or (os.path.isfile(path) and zipfile.is_zipfile(path)):
        return True
    inside = _zip_of(str(path))
    return inside is not None and any(name.startswith(f"{inside[1]}/") for name in _members(inside[0]))


def list_files(path: str | Path) -> list[str]:
    """The files of a folder, a zip or a folder inside a zip, and of all folders below, as paths from there.

    Sorted by their characters, with / between folders, so that the sequence is the same on every machine. What is
    hidden is left out (a name that begins with a dot), and so are the __MACOSX folders that a Mac puts into zips.
    Raises InputError for anything else, or what cannot be read.
    """
    return survey_files(path)[0]


def survey_files(path: str | Path) -> tuple[list[str], Counter[str]]:
    """The same, and how much was left out, by kind: a hidden folder is one, whatever it holds."""
    path, left_out = str(path), Counter[str]()
    if os.path.isdir(path):
        try:
            files = _walk(path, "", (), left_out)
        except OSError as error:
            raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from None
        return sorted(files), left_out
    archive, inside = _zip_of(path) or (path, "")
    if not os.path.isfile(archive):
        raise InputError(f"{path}: no such folder")
    folder = f"{inside}/" if inside else ""
    files = [name[len(folder) :] for name in _members(archive) if name.startswith(folder) and not name.endswith("/")]
    if inside and not files:
        raise InputError(f"{archive}: holds no folder {inside!r}")
    hidden = {file: LEFT_OUT.search(file) for file in files}
    if n := len({file[: found.end(2)] for file, found in hidden.items() if found}):
        left_out["hidden"] = n
    return sorted({file for file, found in hidden.items() if not found}), left_out


# The empty part is that of a path from the root, which a zip made with ill intent may hold.
LEFT_OUT = re.compile(r"(^|/)(\.[^/]*|__MACOSX|)(/|$)")


def count_endings(files: Iterable[str]) -> Counter[str]:
    """How many files there are of each ending."""
    return Counter(os.path.splitext(file)[1].lower() or "no ending" for file in files)


def list_kinds(counts: Counter[str]) -> str:
    """Counts by kind, the most frequent first: `.heic (2), no ending (1)`."""
    named = counts.most_common(8)
    rest = counts.total() - sum(n for _, n in named)
    return ", ".join(f"{kind} ({n})" for kind, n in [*named, *([("others", rest)] if rest else [])])


def say_left_out(place: str, counts: Counter[str]) -> None:
    """Say, once, what of the files of a place is not read, where there are such."""
    if counts.total():
        say_once(f"{place}: left out: {list_kinds(+counts)}")


def list_folders(path: str | Path) -> list[str]:
    """The names of the folders directly in a folder, a zip or a folder inside a zip, sorted; empty ones too."""
    if os.path.isdir(path):
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not LEFT_OUT.search(entry.name))
    archive, inside = _zip_of(str(path)) or (str(path), "")
    folder = f"{inside}/" if inside else ""
    below = {name[len(folder) :] for name in _members(archive) if name.startswith(folder)}
    found = {name.partition("/")[0] for name in below if "/" in name}
    return sorted(name for name in found if not LEFT_OUT.search(name))


def _walk(folder: str, below: str, above: tuple[str, ...], left_out: Counter[str]) -> list[str]:
    """Files below a folder, links followed, but for those that lead back to a folder above."""
    place = os.path.realpath(os.path.join(folder, below))
    if place in above:
        left_out["links to a folder above"] += 1
        return []
    files = []
    with os.scandir(place) as entries:
        for entry in entries:
            if LEFT_OUT.search(entry.name):
                left_out["hidden"] += 1
            elif entry.is_dir():
                files += _walk(folder, f"{below}{entry.name}/", (*above, place), left_out)
            elif entry.is_file():
                files.append(below + entry.name)
            else:
                left_out["broken links" if entry.is_symlink() else "devices and pipes"] += 1
    return files


def _members(archive: str) -> Collection[str]:
    try:
        return _open_zip(archive, file_version(archive), os.getpid())[1]
    except DAMAGE as error:
        raise InputError(f"{archive}: neither a folder nor a zip that can be read: {error}") from None


def _zip_of(path: str) -> tuple[str, str] | None:
    """The zip file that a path leads into, and the name inside."""
    for parent in Path(path).parents:
        # Path's own raise for what is too long or may not be looked at.
        if os.path.isfile(parent):
            return str(parent), Path(path).relative_to(parent).as_posix()
        if os.path.isdir(parent):
            return None
    return None


@lru_cache(maxsize=8)
def _open_zip(path: str, version: tuple[int, ...], process: int) -> tuple[zipfile.ZipFile, dict[str, str]]:
    """A zip, and the names in it as they are there, by how they are called: some programs put `./` before all."""
    # By process, because a forked worker that shared the handle would move its parent's place in the file.
    opened = zipfile.ZipFile(path)
    return opened, {name.removeprefix("./"): name for name in opened.namelist()}


def _find_member(path: str, archive: str, member: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
    """A zip and what it says of a file in it. Raises InputError where that is not there, or would fill the memory."""
    opened, members = _open_zip(archive, file_version(archive), os.getpid())
    if member not in members:
        raise InputError(f"{archive}: holds no {member!r}{nearest(member, members)}")
    facts = opened.getinfo(members[member])
    check_unpacked(path, facts.compress_size, facts.file_size)
    return opened, facts


class Lines(Sequence[str]):
    """The lines of a text as bytes and where each begins: a list of strings would take several times the memory, and
    every worker would come to have a copy of it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        ends = np.flatnonzero(np.frombuffer(content, np.uint8) == ord("\n"))
        # What follows the last line end is a line too, if there is anything.
        self._stops = np.append(ends, len(content)) if not content.endswith(b"\n") and content else ends

    def __len__(self) -> int:
        return len(self._stops)

    def __getitem__(self, i: int) -> str:  # type: ignore[override]
        i = range(len(self))[i]
        start = int(self._stops[i - 1]) + 1 if i else 0
        return self._content[start : self._stops[i]].removesuffix(b"\r").decode()


def read_unpacked(path: str) -> bytes:
    """The bytes of a file, unpacked where it is gzipped. Raises InputError for what cannot be read."""
    content = read_file(path)
    if content[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            return b"".join(unpacked_blocks(file, path, len(content)))
    return content


def read_lines(path: str) -> Lines:
    """The lines of a UTF-8 text, gzipped or not, on the disk or in a zip.

    A line ends in a line feed, or a carriage return and one; what else Unicode takes for the end of a line stays
    inside, as in every tool that counts lines. A byte order mark at the beginning is left out.
    Raises InputError for what cannot be read, and names the line of a byte that is no UTF-8.
    """
    content = read_unpacked(path).removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: is no UTF-8 ({error.reason}); convert the file") from None
    return Lines(content)


def open_binary(path: str) -> IO[bytes]:
    """A file opened to be read from any place: one that ends in .gz, or lies in a zip, is unpacked for that into a
    temporary file, which has no name and is gone when it is closed.

    Raises InputError for what cannot be read or is no file, and WriteError where there is no room to unpack it.
    """
    inside, is_gzipped = _zip_of(path), path.lower().endswith(".gz")
    try:
        if inside is None:
            opened, packed = open_file(path), os.path.getsize(path)
            if not is_gzipped:
                return opened
        else:
            archive, facts = _find_member(path, *inside)
            opened, packed = archive.open(facts), facts.compress_size
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except DAMAGE as error:
        raise InputError(f"{path}: cannot be read: {error}") from None

    def unpack(unpacked: IO[bytes]) -> None:
        for block in unpacked_blocks(gzip.GzipFile(fileobj=opened) if is_gzipped else opened, path, packed):
            unpacked.write(block)

    with opened:
        return fill_temporary(path, unpack)


def fill_temporary(name: str, fill: Callable[[IO[bytes]], None]) -> IO[bytes]:
    """A file without a name, which is gone when it is closed, filled and to be read from its beginning.

    name: whose content it holds. Raises WriteError for any OSError while it is filled, so that `fill` must raise
    InputError for those of what it reads.
    """
    with writing("a temporary file", "TMPDIR"):
        place = os.path.join(tempfile.gettempdir(), f"{os.path.basename(name)}, unpacked,")
    with writing(place, "TMPDIR"), ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        fill(file)
        file.seek(0)
        stack.pop_all()
        return file


def file_stamp(path: str) -> tuple[int, ...]:
    """The version of a file, or of the zip that it lies in: another once it has changed."""
    inside = _zip_of(path)
    return file_version(inside[0] if inside else path)

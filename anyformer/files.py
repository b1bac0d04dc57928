"""Files wherever they lie: on the disk, under $ANYFORMER_DATA, or inside a zip that is read in place."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from anyformer.errors import InputError


def find_file(path: str | Path) -> str:
    """Where a file, folder or file in a zip is: as given from the current folder, else inside $ANYFORMER_DATA (`data`).

    Raises InputError that names the places tried.
    """
    tried = [str(path)]
    if not os.path.isabs(path):
        tried.append(os.path.join(os.environ.get("ANYFORMER_DATA", "data"), path))
    for place in tried:
        if os.path.exists(place) or _zip_of(place):
            return place
    raise InputError(
        f"{path}: no such file; looked for {' and '.join(tried)}. "
        "Give another path, or set ANYFORMER_DATA to the folder of your data sets"
    )


def read_file(path: str | Path) -> bytes:
    """The bytes of a file, which may lie in a zip: `train.zip/cat/1.png`. Zips are read in place, never unpacked.

    Raises InputError if there is no such file or it cannot be read.
    """
    path = str(path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        inside = _zip_of(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if inside is None:
        folder, name = os.path.split(path)
        names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        raise InputError(f"{path}: no such file{nearest(name, names)}")
    archive, member = inside
    try:
        opened = _open_zip(archive, os.stat(archive).st_mtime_ns, os.getpid())
        return opened.read(member)
    except KeyError:
        raise InputError(f"{archive}: holds no {member!r}{nearest(member, opened.namelist())}") from None
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zipfile.zlib.error) as error:
        raise InputError(f"{path}: cannot be read from the zip: {error}") from None


def _zip_of(path: str) -> tuple[str, str] | None:
    """The zip file that a path leads into, and the name inside."""
    for parent in Path(path).parents:
        if parent.is_file():
            return str(parent), Path(path).relative_to(parent).as_posix()
        if parent.is_dir():
            return None
    return None


@lru_cache(maxsize=8)
def _open_zip(path: str, changed: int, process: int) -> zipfile.ZipFile:
    # By process, because a forked worker that shared the handle would move its parent's place in the file.
    return zipfile.ZipFile(path)


def nearest(name: str, names: Collection[str], n: int = 3) -> str:
    close = get_close_matches(name, names, n=n, cutoff=0.6)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""

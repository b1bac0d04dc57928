"""Files that a user names, opened by what they are: no device, pipe or socket, and no more of them than fits in memory.

All that opens a file by its path comes through here.
"""

from __future__ import annotations

import json
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from anyformer.errors import InputError

MAX_JSON = 2**27
"""Bytes of a JSON file: the largest vocabularies take a quarter of it."""
BLOCK = 2**20
"""Bytes that are read at once of a file whose size is not known."""
MAX_UNPACKED, MAX_RATIO = 2**28, 100
"""What is packed may come to so many bytes, or to so many times its own: text comes to 3 to 30, a bomb to 1000."""

DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What is raised where a gzipped file or a zip is damaged, locked or packed in an unknown way. With ValueError that is
InputError too: let it through first."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def special_kind(path: str | Path) -> str | None:
    """What a path is, where it leads to something that is neither a file nor a folder; without a look into it."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # The latter for a NUL.
        return None
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else _kind(mode)


def _kind(mode: int) -> str:
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "no file")


def places(path: str | Path, beside: bool = False) -> list[str]:
    """Where a path is looked for: from the current folder, then inside $ANYFORMER_DATA (`data`), then beside it."""
    data = os.environ.get("ANYFORMER_DATA", "data")
    folders = [data, os.path.dirname(os.path.abspath(data))] if beside else [data]
    return [str(path), *(os.path.join(folder, path) for folder in folders if not os.path.isabs(path))]


def no_such_file(path: str | Path, beside: bool = False) -> str:
    """What is said of a path where nothing is."""
    return (
        f"{path}: no such file; looked for {' and '.join(places(path, beside))}. "
        "Give another path, or set ANYFORMER_DATA to the folder of your data sets"
    )


def check_file(path: str | Path) -> os.stat_result:
    """The facts of a file. Raises InputError for anything else that is there, and OSError where nothing is."""
    try:
        facts = os.stat(path)
    except ValueError as error:
        raise InputError(f"{str(path)!r} cannot be the name of a file: {error}") from None
    if not stat.S_ISREG(facts.st_mode):
        raise InputError(f"{path} is {_kind(facts.st_mode)} and no file; give the path of a file")
    return facts


def file_version(path: str | Path) -> tuple[int, int, int, int]:
    """What changes whenever a file does, without a look into it: size, mtime, ctime (which nobody sets) and inode."""
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def open_file(path: str | Path) -> IO[bytes]:
    """A file, for reading. Raises InputError for anything else that is there, and OSError where nothing is."""
    check_file(path)
    return open(path, "rb")


def read_bytes(path: str | Path, most: int) -> bytes:
    """The bytes of a file. Raises InputError as `open_file`, and where they are more than so many."""
    size = check_file(path).st_size
    with open(path, "rb") as file:
        content = file.read(size) if size <= most else b""
        # What grows, or has no size of its own as in /proc, is not trusted either.
        while size <= most and (block := file.read(min(BLOCK, most + 1 - len(content)))):
            content, size = content + block, len(content) + len(block)
    if size > most:
        raise InputError(f"{path} has {size:,} bytes, and at most {most:,} are read")
    return content


def check_archive(path: str | Path) -> None:
    """Raise InputError where a file of a zip would fill the memory when it is unpacked."""
    with open_file(path) as file:
        if file.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    check_unpacked(f"{path}: {member.filename}", member.compress_size, member.file_size)


def read_value(path: str | Path) -> Any:
    """The value in a JSON file. Raises InputError if it is damaged or no file."""
    try:
        return json.loads(read_bytes(path, MAX_JSON))
    except (OSError, RecursionError, ValueError) as error:
        raise InputError(f"{path} is damaged or no JSON ({' '.join(str(error).split())}); copy it anew") from None


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError if it is damaged, no file, or holds something else."""
    values = read_value(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def check_unpacked(name: str | Path, packed: int, unpacked: int) -> None:
    """Raise InputError where so many bytes come to so many more that they were made to fill the memory."""
    if unpacked > max(MAX_UNPACKED, MAX_RATIO * packed):
        raise InputError(
            f"{name}: its {packed:,} bytes unpack to {unpacked:,} or more, over {MAX_RATIO} times as many; unpack it "
            "yourself if you trust it"
        )


def unpacked_blocks(file: IO[bytes], name: str | Path, packed: int, stop: int | None = None) -> Iterator[bytes]:
    """What a file that unpacks as it is read holds, from where it is up to a byte, a block at a time.

    packed: its bytes on the disk. Raises InputError where it is damaged, or holds more than is believed.
    """
    try:
        while block := file.read(BLOCK if stop is None else min(BLOCK, stop - file.tell())):
            check_unpacked(name, packed, file.tell())
            yield block
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"{name}: damaged or truncated: {error}") from None

"""The cache of what is made of a corpus once: its vocabulary here, its ids in `token_stream.py`.

A folder of the cache is named by the text and by the options of what is made, and is there whole or not at all. Its
manifest says what its files are; a folder that is damaged is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from anyformer.data.rows.rows import no_column
from anyformer.data.source import Source
from anyformer.errors import InputError, say
from anyformer.faults import WriteError
from anyformer.saving.fingerprint import identity
from anyformer.saving.manifest import MANIFEST, damage, describe_file, read_manifest, write_manifest
from anyformer.tokenizers.text.corpus import Documents


def learn_once(
    source: Source, key: str, learn: Callable[[Iterable[str]], str], cache: str | None = None, field: str = "text"
) -> str:
    """A vocabulary of the texts of a source, learnt once and cached for later runs of the same text and options.

    key: names the options. learn: texts -> the vocabulary. cache, field: see `token_stream`.
    """

    def write(part: Path) -> None:
        vocabulary = learn(text for text, _ in texts_of(source, field))
        (part / "vocabulary").write_bytes(vocabulary.encode())

    return (remember(source, [key], cache, field, write) / "vocabulary").read_bytes().decode()


def remember(source: Source, keys: Sequence[Any], cache: str | None, field: str, write: Callable[[Path], None]) -> Path:
    """The folder in the cache that is named by the text of a source and by keys; made now, whole or not at all, if it
    is not there."""
    where = Path(cache or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "anyformer"))
    digest = hashlib.sha256(json.dumps([2, _fingerprint(source, field), *keys]).encode()).hexdigest()[:32]
    folder = where / digest
    wrong = None
    if folder.is_dir():
        wrong = _damage(folder)
        if wrong is None:
            return folder
    try:
        where.mkdir(parents=True, exist_ok=True)
        _sweep(where)
        if wrong is not None:
            _discard(folder, wrong)
        part = Path(tempfile.mkdtemp(prefix=f"{digest}.", suffix=".part", dir=where))
        try:
            write(part)
            files = sorted(part.iterdir())
            for path in files:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            write_manifest(part, [describe_file(path) for path in files])
            try:
                os.rename(part, folder)
            except OSError:
                # Another process was first, with the same content.
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except WriteError:
        raise
    except OSError as error:
        if error.filename is not None and not Path(error.filename).is_relative_to(where):
            raise InputError(f"{error.filename}: {error.strerror}") from None
        raise WriteError(where / "what is made of the corpus", error, variable="XDG_CACHE_HOME") from None
    return folder


def _damage(folder: Path) -> str | None:
    """What is wrong with a folder of the cache; None if all in it is as it was written."""
    try:
        lines = read_manifest(folder)
        wrong = next((f"{line['file']}: {found}" for line in lines if (found := damage(folder, line))), None)
    except (InputError, OSError) as error:
        return str(error)
    if wrong is None and {path.name for path in folder.iterdir()} != {MANIFEST, *(line["file"] for line in lines)}:
        wrong = "a file is not listed"
    return wrong


_discarded: set[Path] = set()
"""The damaged folders of the cache that this process has had made anew."""


def _discard(folder: Path, wrong: str) -> None:
    """Take a damaged folder out of the way, and say so.

    Raises InputError where it is damaged for the second time: what was just written does not stay as it is.
    """
    if folder in _discarded:
        raise InputError(
            f"{folder}: damaged again after it was made anew ({wrong}): its disk or another program changes it; set "
            "XDG_CACHE_HOME to a folder elsewhere"
        )
    _discarded.add(folder)
    say(f"{folder}: the cache is damaged ({wrong}); it is made anew")
    away = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    with suppress(FileNotFoundError):  # Another process may have been first.
        os.rename(folder, away)
    shutil.rmtree(away, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what processes have left that were killed more than a day ago."""
    for part in folder.glob("*.part"):
        try:
            if time.time() - max(path.stat().st_mtime for path in (part, *part.iterdir())) > 86_400:
                shutil.rmtree(part, ignore_errors=True)
        except FileNotFoundError:  # Just being renamed.
            continue


def texts_of(source: Source, field: str) -> Iterator[tuple[str, bool]]:
    """Blocks of the text of a source, and whether a document ends there."""
    if isinstance(source, Documents):
        yield from source.blocks()
        return
    for i in range(len(source)):
        record = source[i]
        if field not in record:
            raise no_column(source.name(i), field, record)
        text = record[field]
        if not isinstance(text, str | None):
            raise InputError(f"{source.name(i)}: {field} must be a string, got {type(text).__name__}")
        yield text or "", True


def numbers_with_text(source: Source, field: str) -> list[int]:
    """The numbers of the documents that hold a character."""
    found, number, has_text = [], 0, False
    for text, is_end in texts_of(source, field):
        has_text = has_text or bool(text)
        if is_end:
            found += [number] * has_text
            number, has_text = number + 1, False
    return found


def _fingerprint(source: Source, field: str) -> str:
    if isinstance(source, Documents):
        return source.fingerprint()
    if (known := identity(source)) is not None:
        return json.dumps([field, known])
    digest = hashlib.sha256()
    for text, is_end in texts_of(source, field):
        digest.update(text.encode("utf-8", "surrogatepass") + b"\xff" * is_end)
    return digest.hexdigest()

"""Sources of recordings with transcripts, where they lie as well-known sets have them.

Nothing is decoded here: records hold paths, which the tokenizer of the field opens.
"""

from __future__ import annotations

import os
import posixpath
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from anyformer.data.files import find_file, is_folder, list_files, read_lines
from anyformer.data.rows.rows import no_column
from anyformer.data.source import Source, select_fields
from anyformer.errors import InputError, nearest
from anyformer.tokenizers.audio.sound_files import SOUNDS

TRANSCRIPTS = ".trans.txt"


@dataclass(frozen=True)
class LibriSpeech(Source):
    """Recordings in folders as LibriSpeech has them (Panayotov et al. 2015): a record each, sorted by path.

    `speaker/chapter/` holds the recordings, `speaker-chapter-0000.flac` and so on, and `speaker-chapter.trans.txt`,
    whose lines are the name of a recording without its ending, a space, and what is said. The folders may lie at any
    depth, so that `LibriSpeech/` is all of its parts. Columns: audio, the path below the folder; text; speaker;
    chapter. Raises InputError, when it is first used, for a folder that is not there or holds no transcripts, for a
    recording without a line and a line without a recording.
    """

    path: str
    """The folder, a zip, or a folder inside a zip: from the current folder, else inside $ANYFORMER_DATA."""
    columns: dict[str, str] | None = None
    """Which column each field is read from: `{sound: audio, words: text}`. All, by their own names, if left out."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return select_fields(dict(zip(COLUMNS, self._rows[i], strict=True)), self.columns)

    def name(self, i: int) -> str:
        return os.path.join(self.path, self._rows[i][0])

    id_name = "file"

    def id_of(self, i: int) -> str:
        return self.name(i)

    def _at(self, place: str, needed: Collection[str]) -> LibriSpeech | None:
        found = find_file(place)
        has_transcripts = is_folder(found) and any(file.endswith(TRANSCRIPTS) for file in list_files(found))
        return replace(self, path=place) if has_transcripts else None

    def read_from(self) -> list[str]:
        return [os.path.join(self.folder, file) for file in list_files(self.folder)]

    @cached_property
    def folder(self) -> str:
        return find_file(self.path)

    @cached_property
    def _rows(self) -> list[tuple[str, str, str, str]]:
        for column in (self.columns or {}).values():
            if column not in COLUMNS:
                raise no_column(self.path, column, COLUMNS)
        files = list_files(self.folder)
        # A recording by the path without its ending.
        recordings = {posixpath.splitext(file)[0]: file for file in files if file.lower().endswith(SOUNDS)}
        transcripts = [file for file in files if file.endswith(TRANSCRIPTS)]
        if not transcripts:
            raise InputError(
                f"{self.path}: no file ends in {TRANSCRIPTS}; needed are folders as LibriSpeech has them, "
                "speaker/chapter/speaker-chapter.trans.txt beside its recordings"
            )
        rows = []
        for transcript in transcripts:
            folder = posixpath.dirname(transcript)
            speaker, chapter = ("/" + folder).split("/")[-2:]
            for number, line in enumerate(read_lines(os.path.join(self.folder, transcript)), 1):
                if not line:
                    continue
                name, _, text = line.partition(" ")
                file = recordings.pop(posixpath.join(folder, name), None)
                if file is None:
                    raise InputError(
                        f"{self.path}/{transcript} line {number}: there is no recording {name!r} beside it"
                    )
                rows.append((file, text, speaker, chapter))
        if recordings:
            first = min(recordings.values())
            raise InputError(
                f"{self.path}: {len(recordings)} recordings have no transcript, {first} is one; "
                "add their lines, or take them away"
            )
        return sorted(rows)


COLUMNS = ("audio", "text", "speaker", "chapter")


@dataclass(frozen=True)
class TorchAudio(Source):
    """A data set of torchaudio by the name of its class, `torchaudio.datasets.LIBRISPEECH`.

    Columns are what the class hands out, by the names in `HANDED_OUT`, text being what is said as it is to be learned;
    of Common Voice also the columns of its own table. A list (the phonemes of CMUDict) becomes a text with spaces. The
    class finds the files and never opens them. Raises InputError, when it is first used, for a set or column that is
    not there.
    """

    dataset: str
    """The class: LIBRISPEECH, SPEECHCOMMANDS, YESNO, ..."""
    root: str
    """The folder that it lies in: from the current folder, else inside $ANYFORMER_DATA."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the class, as `{url: dev-clean}`. With `download: true` what is missing comes from the
    network, otherwise nothing does."""
    columns: dict[str, str] | None = None
    """Which column each field is read from: `{audio: audio, text: label}`. All, by their own names, if left out."""

    def __post_init__(self) -> None:
        if self.dataset not in HANDED_OUT:
            near = nearest(self.dataset, HANDED_OUT) or f"; there are {', '.join(HANDED_OUT)}"
            raise InputError(f"there is no set {self.dataset!r} of torchaudio's that is served here{near}")

    def __len__(self) -> int:
        return len(self._set)

    def __getitem__(self, i: int) -> dict[str, Any]:
        i = range(len(self))[i]
        with self._asked(self.name(i)):
            values = list(self._set[i])
        names = HANDED_OUT[self.dataset]
        record = {} if len(names) == len(values) else dict(values.pop())
        record |= dict(zip(names, values, strict=True))
        if "sentence" in record:
            record["text"] = record["sentence"]
        record = {name: _plain(value) for name, value in record.items()}
        for column in (self.columns or {}).values():
            if column not in record:
                raise no_column(f"{self.root} ({self.dataset})", column, record)
        return select_fields(record, self.columns)

    def name(self, i: int) -> str:
        return f"{self.root} ({self.dataset}) record {i}"

    @cached_property
    def _set(self) -> Any:
        import torchaudio

        root = find_file(self.root)
        with self._asked(f"{self.root} ({self.dataset})"):
            return getattr(torchaudio.datasets, self.dataset)(root, **self.arguments)

    @contextmanager
    def _asked(self, place: str) -> Iterator[None]:
        """While the class is asked: it gets the place of a recording for its sound, and no network; what it raises
        becomes an InputError.

        torchaudio itself reads by way of FFmpeg since 2.9, and some classes fetch their lists even when told not to
        download.
        """
        import torchaudio

        module = sys.modules[getattr(torchaudio.datasets, self.dataset).__module__]
        replaced = [(torchaudio, "load", _locate)]
        if not self.arguments.get("download") and hasattr(module, "download_url_to_file"):
            replaced.append((module, "download_url_to_file", _refuse))
        with _REPLACING:
            held = [getattr(owner, name) for owner, name, _ in replaced]
            try:
                for owner, name, stand_in in replaced:
                    setattr(owner, name, stand_in)
                yield
            except InputError:
                raise
            except Exception as error:
                raise InputError(f"{place}: {' '.join(str(error).split()) or type(error).__name__}") from None
            finally:
                for (owner, name, _), value in zip(replaced, held, strict=True):
                    setattr(owner, name, value)


_REPLACING = threading.RLock()


def _plain(value: Any) -> Any:
    """A list as a text; a text without the line end that some classes leave on it."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return value.strip() if isinstance(value, str) else value


def _locate(path: Any, frame_offset: int = 0, num_frames: int = -1, **_: Any) -> tuple[Any, int]:
    """In place of `torchaudio.load`: the path, or that and the seconds from and to which it counts; and the rate."""
    import soundfile

    try:
        rate = soundfile.info(str(path)).samplerate
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: no recording that can be read ({error})") from None
    if frame_offset == 0 and num_frames == -1:
        return str(path), rate
    place = {"path": str(path), "start": frame_offset / rate}
    return (place if num_frames == -1 else place | {"end": (frame_offset + num_frames) / rate}), rate


def _refuse(url: str, *_: Any, **__: Any) -> None:
    raise InputError(f"{url} is needed and not there; fetch it, or give arguments: {{download: true}}")


_LIBRI = ("audio", "rate", "text", "speaker", "chapter", "utterance")
HANDED_OUT = {
    "CMUARCTIC": ("audio", "rate", "text", "utterance"),
    "CMUDict": ("text", "phonemes"),
    "COMMONVOICE": ("audio", "rate"),
    "DR_VCTK": ("audio", "rate", "noisy", "noisy_rate", "speaker", "utterance", "source", "channel"),
    "FluentSpeechCommands": ("audio", "rate", "file", "speaker", "text", "action", "object", "location"),
    "GTZAN": ("audio", "rate", "label"),
    "IEMOCAP": ("audio", "rate", "file", "label", "speaker"),
    "LIBRISPEECH": _LIBRI,
    "LIBRITTS": ("audio", "rate", "original", "text", "speaker", "chapter", "utterance"),
    "LJSPEECH": ("audio", "rate", "original", "text"),
    "LibriLightLimited": _LIBRI,
    "LibriSpeechBiasing": (*_LIBRI, "biasing"),
    "QUESST14": ("audio", "rate", "file"),
    "SPEECHCOMMANDS": ("audio", "rate", "text", "speaker", "utterance"),
    "Snips": ("audio", "rate", "file", "text", "slots", "intent"),
    "TEDLIUM": ("audio", "rate", "text", "talk", "speaker", "utterance"),
    "VCTK_092": ("audio", "rate", "text", "speaker", "utterance"),
    "VoxCeleb1Identification": ("audio", "rate", "speaker", "file"),
    "VoxCeleb1Verification": ("audio", "other", "rate", "same", "file", "other_file"),
    "YESNO": ("audio", "rate", "text"),
}
"""What a record of each class consists of, one after another."""

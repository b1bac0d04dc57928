"""Recordings with transcripts, where they lie as well-known sets have them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from anyformer.data.source import join_files
from anyformer.data.tables import Hub, Table
from anyformer.errors import InputError
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.sources import HANDED_OUT, LibriSpeech, TorchAudio
from tests.helpers.table_files import write, write_features


def sound(path: Path, seconds: float = 0.1, rate: int = 16_000) -> Path:
    """A small real file of the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * rate)) / rate
    options: dict[str, Any] = {"format": "NIST", "subtype": "PCM_16"} if path.suffix == ".sph" else {}
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * t), rate, **options)
    return path


def libri(folder: Path) -> Path:
    """Two speakers as LibriSpeech has them, three recordings."""
    for name in ("dev/84/12/84-12-0000", "dev/84/12/84-12-0001", "dev/9/3/9-3-0000"):
        sound(folder / f"{name}.flac")
    (folder / "dev/84/12/84-12.trans.txt").write_text("84-12-0001 GO ON\n84-12-0000 DO YOU HEAR\n")
    (folder / "dev/9/3/9-3.trans.txt").write_text("9-3-0000 YES\n")
    return folder


def test_folders_as_librispeech_has_them_are_a_record_a_recording(tmp_path):
    folder = str(libri(tmp_path / "LibriSpeech"))
    for source in (LibriSpeech(folder), LibriSpeech(f"{folder}/dev")):
        assert source.column("text") == ["DO YOU HEAR", "GO ON", "YES"]
        assert source.column("speaker") == ["84", "84", "9"]
        assert source[2]["chapter"] == "3"
        assert os.path.isfile(os.path.join(source.folder, source[0]["audio"]))
        assert source.name(1) == os.path.join(source.path, source[1]["audio"])
    assert source[1]["audio"] == "84/12/84-12-0001.flac"
    assert LibriSpeech(folder, {"sound": "audio", "words": "text"})[2] == {
        "sound": "dev/9/3/9-3-0000.flac",
        "words": "YES",
    }


def test_folders_as_librispeech_has_them_are_read_in_a_zip(tmp_path):
    folder = libri(tmp_path / "libri")
    with zipfile.ZipFile(tmp_path / "libri.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path))
    source = LibriSpeech(str(tmp_path / "libri.zip" / "libri"))
    assert source.column("text") == LibriSpeech(str(folder)).column("text")
    assert source.column("audio") == LibriSpeech(str(folder)).column("audio")


def test_what_is_missing_between_recordings_and_transcripts_is_named(tmp_path):
    folder = libri(tmp_path / "a")
    (folder / "dev/9/3/9-3.trans.txt").write_text("9-3-0000 YES\n9-3-0001 NO\n")
    with pytest.raises(InputError, match=r"a/dev/9/3/9-3.trans.txt line 2: there is no recording '9-3-0001' beside it"):
        len(LibriSpeech(str(folder)))
    (folder / "dev/9/3/9-3.trans.txt").write_text("")
    with pytest.raises(InputError, match=r"a: 1 recordings have no transcript, dev/9/3/9-3-0000.flac is one; add"):
        len(LibriSpeech(str(folder)))
    (folder / "dev/9/3/9-3.trans.txt").write_bytes(b"9-3-0000 YES\n\xff")
    with pytest.raises(InputError, match=r"9-3.trans.txt line 2: is no UTF-8"):
        len(LibriSpeech(str(folder)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no file ends in .trans.txt; needed are folders as LibriSpeech has"):
        len(LibriSpeech(str(tmp_path / "empty")))
    with pytest.raises(InputError, match=r"no column 'txt'; there are audio, text, speaker, chapter; did you mean"):
        len(LibriSpeech(str(folder), {"text": "txt"}))


# Sources that know nothing of sound


def test_recordings_of_tables_and_of_sets_as_the_hub_has_them_are_opened_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "kept"))
    path = sound(tmp_path / "wav" / "a.wav")
    rows = {"audio": [{"bytes": path.read_bytes(), "path": "a.wav"}], "text": ["one"]}
    (tmp_path / "hub" / "data").mkdir(parents=True)
    file = write_features(
        tmp_path / "hub" / "data" / "train-00000-of-00001.parquet",
        rows,
        audio=datasets.Audio(sampling_rate=8000),
        text=datasets.Value("string"),
    )
    table = write(tmp_path / "t.csv", [{"file": "a.wav", "said": "one"}])
    sources = [
        Table(str(file)),
        Hub(str(tmp_path / "hub")),
        Table(str(table), {"audio": "file", "text": "said"}, root="wav"),
        TorchAudio("YESNO", str(tmp_path), columns={"audio": "audio"}),
    ]
    yesno(tmp_path)
    soundfile.write(tmp_path / "waves_yesno" / "0_1_1.wav", *soundfile.read(path))
    audio = Audio()
    records = [join_files(source[0], source.folder, {"audio": audio}) for source in sources]
    assert [record.get("text") for record in records] == ["one", "one", "one", None]
    first, *others = (audio.encode(record["audio"]).content for record in records)
    assert len(first) == audio.count(records[0]["audio"]) > 1
    assert all(torch.equal(first, other) for other in others)


# torchaudio's classes


def yesno(root: Path) -> dict[str, Any]:
    sound(root / "waves_yesno" / "0_1_1.wav", rate=8000)
    return {"audio": str(root / "waves_yesno" / "0_1_1.wav"), "rate": 8000, "text": "0 1 1"}


def speech_commands(root: Path) -> dict[str, Any]:
    path = sound(root / "SpeechCommands" / "speech_commands_v0.02" / "yes" / "0a7c_nohash_1.wav")
    return {"audio": str(path), "rate": 16_000, "text": "yes", "speaker": "0a7c", "utterance": 1}


def librispeech(root: Path) -> dict[str, Any]:
    libri(root / "LibriSpeech")
    (root / "LibriSpeech" / "dev").rename(root / "LibriSpeech" / "train-clean-100")
    path = root / "LibriSpeech" / "train-clean-100" / "84" / "12" / "84-12-0000.flac"
    numbers = {"speaker": 84, "chapter": 12, "utterance": 0}
    return {"audio": str(path), "rate": 16_000, "text": "DO YOU HEAR", **numbers}


def ljspeech(root: Path) -> dict[str, Any]:
    path = sound(root / "LJSpeech-1.1" / "wavs" / "LJ001-0001.wav", rate=22_050)
    (root / "LJSpeech-1.1" / "metadata.csv").write_text("LJ001-0001|In 1455|In fourteen fifty-five\n")
    return {"audio": str(path), "rate": 22_050, "original": "In 1455", "text": "In fourteen fifty-five"}


def common_voice(root: Path) -> dict[str, Any]:
    path = sound(root / "clips" / "a.mp3", rate=48_000)
    (root / "train.tsv").write_text("client_id\tpath\tsentence\nme\ta.mp3\tGuten Tag\n")
    row = {"client_id": "me", "path": "a.mp3", "sentence": "Guten Tag", "text": "Guten Tag"}
    return {"audio": str(path), "rate": 48_000, **row}


def tedlium(root: Path) -> dict[str, Any]:
    folder = root / "TEDLIUM_release1" / "train"
    path = sound(folder / "sph" / "Talk.sph", seconds=2)
    (folder / "stm").mkdir()
    (folder / "stm" / "Talk.stm").write_text("Talk 1 speaker 0.50 1.25 <o,f0,male> hello all\n")
    audio = {"path": str(path), "start": 0.5, "end": 1.25}
    return {
        "audio": audio,
        "rate": 16_000,
        "text": "hello all",
        "talk": "Talk",
        "speaker": "speaker",
        "utterance": "<o,f0,male>",
    }


@pytest.mark.parametrize(
    ("dataset", "make"),
    [
        ("YESNO", yesno),
        ("SPEECHCOMMANDS", speech_commands),
        ("LIBRISPEECH", librispeech),
        ("LJSPEECH", ljspeech),
        ("COMMONVOICE", common_voice),
        ("TEDLIUM", tedlium),
    ],
)
def test_a_class_of_torchaudio_finds_its_files_and_they_stay_closed(tmp_path, monkeypatch, dataset, make):
    record = make(tmp_path)
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path.parent))
    load = torchaudio.load
    source = TorchAudio(dataset, str(tmp_path))
    assert source[0] == record
    assert list(source[0]) == list(source[len(source) - 1])
    assert TorchAudio(dataset, tmp_path.name, columns={"a": "audio", "b": "text"})[0]["b"] == record["text"]
    assert source.name(0) == f"{tmp_path} ({dataset}) record 0"
    assert torchaudio.load is load
    with pytest.raises(IndexError):
        source[len(source)]


def test_every_class_that_is_served_exists():
    assert all(hasattr(torchaudio.datasets, name) for name in HANDED_OUT)


def test_a_set_that_is_not_there_says_so_and_nothing_is_fetched(tmp_path):
    with pytest.raises(InputError, match=r"^there is no set 'LIBRISPEACH' of torchaudio's .*mean 'LIBRISPEECH'"):
        TorchAudio("LIBRISPEACH", str(tmp_path))
    with pytest.raises(InputError, match=r"\(YESNO\): Dataset not found. Please use `download=True`"):
        len(TorchAudio("YESNO", str(tmp_path)))
    with pytest.raises(InputError, match=r"\(YESNO\): .*unexpected keyword argument 'subset'"):
        len(TorchAudio("YESNO", str(tmp_path), {"subset": "a"}))
    # This class fetches the list of its parts whatever it is told.
    (tmp_path / "wav").mkdir()
    with pytest.raises(InputError, match=r"^http.*txt is needed and not there; fetch it, or give arguments: {download"):
        len(TorchAudio("VoxCeleb1Identification", str(tmp_path)))
    yesno(tmp_path)
    with pytest.raises(InputError, match=r"\(YESNO\): no column 'label'; there are audio, rate, text$"):
        TorchAudio("YESNO", str(tmp_path), columns={"text": "label"})[0]
    (tmp_path / "waves_yesno" / "0_1_1.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"0_1_1.wav: no recording that can be read \("):
        TorchAudio("YESNO", str(tmp_path))[0]


def test_such_folders_elsewhere_are_read_alike_and_others_by_what_they_are(tmp_path):
    before = LibriSpeech("LibriSpeech", {"sound": "audio", "words": "text"})
    made = before.at([str(libri(tmp_path / "new"))], ["sound"])
    assert made[1] == {"sound": "dev/84/12/84-12-0001.flac", "words": "GO ON"} and made.id_name == "file"
    assert made.id_of(0) == made.name(0) and len(made.read_from()) == 5
    assert before.at([str(tmp_path / "new" / "dev" / "9" / "3" / "9-3-0000.flac")], ["sound"]) is None

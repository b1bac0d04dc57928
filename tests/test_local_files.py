"""Files are opened by what they are, and no more of them than fits in memory, wherever a user names one."""

from __future__ import annotations

import gzip
import json
import os
import socket
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from anyformer.cli.records import find_records
from anyformer.data.files import find_file, is_folder, open_binary, read_file, read_lines
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.local_files import MAX_RATIO, check_archive, open_file, read_bytes, read_json
from anyformer.parsing.check import read_yaml
from anyformer.tokenizers.arrays import read_array
from anyformer.tokenizers.audio.reading import read_sound
from anyformer.tokenizers.episode.array_files import read_hdf5, read_npz
from anyformer.tokenizers.episode.files import Episodes
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.image.reading import open_image
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.video import Video
from anyformer.weights.huggingface import find_model
from anyformer.weights.tensors import read_tensors

READERS: dict[str, Callable[[str], Any]] = {
    ".csv": lambda path: len(Table(path)),
    ".parquet": lambda path: len(Table(path)),
    ".txt": lambda path: len(Corpus(path)),
    ".jsonl": lambda path: len(Corpus(path)),
    ".lines": read_lines,
    ".png": open_image,
    ".wav": lambda path: read_sound(path, 16_000),
    ".npy": read_array,
    ".mp4": lambda path: Video((16, 16), 2).encode(path),
    ".npz": lambda path: len(Episodes(path)),
    ".safetensors": read_tensors,
    ".json": lambda path: Text(file=path).fit(()),
    ".yaml": read_yaml,
    ".model": find_model,
    ".any": open_file,
    ".field": lambda path: read_file(find_records({"image": path}, {"image": ImagePatches((8, 8), 4)})[0][0]["image"]),
}


@pytest.fixture
def special(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Makes what is no file, of a kind and an ending."""
    monkeypatch.chdir(tmp_path)
    opened = []

    def make(kind: str, ending: str) -> str:
        path = f"x{ending}"
        if kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a socket":
            opened.append(socket.socket(socket.AF_UNIX))
            opened[-1].bind(path)
        elif kind == "a device":
            Path(path).symlink_to("/dev/zero")
        else:
            Path(path).mkdir()
        return path

    yield make
    for one in opened:
        one.close()


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a device"])
@pytest.mark.parametrize("ending", READERS)
def test_what_is_no_file_is_refused_by_what_it_is_and_never_waited_for(special, kind: str, ending: str) -> None:
    with pytest.raises(InputError, match=rf"x{ending}.* is {kind} and no file"):
        READERS[ending](special(kind, ending))


@pytest.mark.parametrize("ending", [".png", ".yaml", ".npy", ".any"])
def test_a_folder_is_no_file(special, ending: str) -> None:
    with pytest.raises(InputError, match=rf"x{ending} is a folder and no file"):
        READERS[ending](special("a folder", ending))


def test_a_pipe_is_no_folder_and_is_not_looked_into(special) -> None:
    assert not is_folder(special("a pipe", ".zip"))
    with pytest.raises(InputError, match=r"is a pipe and no file"):
        find_file("x.zip")


ZEROS = bytes(2**20)


def bomb(path: Path) -> Path:
    """400 MB in 400 kB."""
    if path.parent.suffix == ".zip":
        packed = bomb(path.parents[1] / path.name)
        with zipfile.ZipFile(path.parent, "w") as archive:
            archive.write(packed, path.name)
        return path
    if path.suffix == ".gz":
        with gzip.open(path, "wb") as file:
            for _ in range(400):
                file.write(ZEROS)
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (400 * 2**20,)})
        for _ in range(400):
            file.write(ZEROS)
    return path


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("x.zip", lambda path: read_file(path / "a.npy")),
        ("x.npz", lambda path: read_array(str(path))),
        ("x.npz", lambda path: read_npz(str(path))),
        ("x.zip", check_archive),
        ("x.txt.gz", lambda path: read_lines(str(path))),
        ("x.txt.gz", lambda path: len(Corpus(str(path), split="line"))),
        ("x.csv.gz", lambda path: len(Table(str(path)))),
        ("x.zip/a.csv.gz", lambda path: len(Table(str(path)))),
        ("x.zip", lambda path: open_binary(str(path / "a.npy"))),
    ],
)
def test_what_unpacks_to_a_thousand_times_its_size_is_refused_in_little_memory(tmp_path: Path, name: str, read) -> None:
    path = bomb(tmp_path / name)
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"{name}.* unpack to .* over {MAX_RATIO} times as many"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**28, f"{peak:,} bytes"


def test_hdf5_that_says_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for name in ("observations", "actions", "rewards", "terminals"):
            file.create_dataset(name, (10**12,), "f4", chunks=(1000,))
    with pytest.raises(InputError, match=r"x.hdf5: actions: its 0 bytes unpack to 4,000,000,000,000"):
        read_hdf5(str(tmp_path / "x.hdf5"))


def test_a_file_of_more_bytes_than_are_read_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "sparse.png", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"sparse.png has 1,099,511,627,776 bytes, and at most"):
        open_image(tmp_path / "sparse.png")
    (tmp_path / "a").write_bytes(b"abc")
    assert read_bytes(tmp_path / "a", 3) == b"abc"
    with pytest.raises(InputError, match=r"a has 3 bytes, and at most 2 are read"):
        read_bytes(tmp_path / "a", 2)
    # A file that gives no size of its own.
    with pytest.raises(InputError, match=r"and at most 2 are read"):
        read_bytes("/proc/self/status", 2)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 10_000, '{"a": \xff}', "\0"])
def test_json_that_is_no_object_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"a.json (is damaged or no JSON|must hold a JSON object)"):
        read_json(tmp_path / "a.json")


def test_a_vocabulary_of_a_billion_ids_for_a_few_tokens_is_refused(tmp_path: Path) -> None:
    text = json.loads(Text("bpe", vocab_size=300).fit(["to be or not to be"]).vocabulary)
    text["added_tokens"][0]["id"] = 10**9
    text["model"]["vocab"] = {**text["model"]["vocab"], "zz": 10**9 - 1}
    (tmp_path / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(InputError, match=r"the tokenizer.json has \d+ tokens and ids up to 999,999,999"):
        _ = Text("bpe", file=str(tmp_path / "tokenizer.json")).fit(()).n_ids

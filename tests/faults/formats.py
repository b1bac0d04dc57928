"""Files of every format, damaged, and read through the door that its records come through."""

from __future__ import annotations

import csv
import io
import json
import random
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.harness import NotHeldError, Row, bound_memory, damaged

WORDS = ("all", "is", "well", "naïve", "=1+1", "1e5", "NA", "007", 'say "so"', "")


def fuzz(name: str, make: Callable[[], bytes], read: Callable[[Path], Any]) -> Row:
    """A row of damaged files of one format.

    read: reads all of a file at a path. It must raise InputError of one line, or give a value.
    """
    cached = cache(make)

    def attack(draw: random.Random, place: Path) -> None:
        from anyformer.errors import InputError

        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = cached()
        path.write_bytes(content)
        bound_memory()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
            changed = damaged(content, draw)
            path.write_bytes(changed)
            try:
                read(path)
            except InputError as error:
                if "\n" in str(error).strip() or not str(error).strip():
                    raise NotHeldError(f"not one line: {str(error)[:200]!r}") from None

    return Row(f"damaged {name}", attack, trials=2000, gate=2, seconds=120)


# Files.


def rows(n: int = 12) -> Iterator[dict[str, Any]]:
    draw = np.random.default_rng(0)
    for i in range(n):
        yield {"number": float(draw.normal()), "text": WORDS[i % len(WORDS)], "label": ("cat", "dog")[i % 2], "n": i}


def separated(delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, ["number", "text", "label", "n"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows())
    return file.getvalue().encode()


def parquet(columns: dict[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def table_columns() -> dict[str, Any]:
    return {name: [row[name] for row in rows()] for name in ("number", "text", "label", "n")}


def picture(kind: str, **options: Any) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def sound(kind: str) -> bytes:
    import soundfile

    wave = 0.3 * np.sin(np.arange(8000) * 0.2) + np.random.default_rng(0).normal(0, 0.01, 8000)
    file = io.BytesIO()
    soundfile.write(file, wave.astype(np.float32), 16_000, format=kind)
    return file.getvalue()


def mp3_that_says(n: int) -> bytes:
    """A sound whose first frame says that it has so many bytes."""
    content = bytearray(sound("MP3"))
    # The tag, flags that there are frames and bytes, and the number of frames come before.
    at = max(content.find(b"Xing"), content.find(b"Info")) + 12
    content[at : at + 4] = n.to_bytes(4, "big")
    return bytes(content)


def film(kind: str) -> bytes:
    import av

    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 16, 32, 3), dtype=np.uint8)
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream("libx264" if kind == "mp4" else "mpeg4", rate=8)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv420p"
        for frame in pixels:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def steps() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "observations": draw.normal(size=(30, 3)).astype(np.float32),
        "actions": draw.integers(0, 2, 30),
        "rewards": draw.normal(size=30).astype(np.float32),
    }


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).normal(size=(3, 20)))
    return file.getvalue()


def hdf5() -> bytes:
    import h5py

    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        for name, values in steps().items():
            opened[name] = values
        opened["terminals"] = np.arange(30) % 10 == 9
        opened.create_dataset("timeouts", data=np.zeros(30, bool), compression="gzip")
    return file.getvalue()


@cache
def minari_folder() -> Path:
    """A Minari set of CartPole."""
    import tempfile

    from anyformer.tasks.decide.collect import collect

    folder = Path(tempfile.mkdtemp(prefix="minari.")) / "cart-v0"
    collect("CartPole-v1", ["random"], 3, 0, folder)
    return folder


def safetensors() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"a": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(5, dtype=torch.int64)})


def tokenizer_json() -> bytes:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(["all is well"] * 9, trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet))
    return made.to_str().encode()


def config_yaml() -> bytes:
    from tests.helpers.small_cli import CONFIG

    return CONFIG.encode()


# Doors.


def read_table(path: Path) -> None:
    from anyformer.data.tables import Table

    table = Table(str(path))
    for i in range(len(table)):
        table[i]


def read_picture(path: Path) -> None:
    from anyformer.tokenizers.image.patches import ImagePatches

    ImagePatches(size=(8, 8), patch=4, channels=3).encode(str(path))


def read_sound(path: Path) -> None:
    from anyformer.tokenizers.audio.audio import Audio

    Audio().encode(str(path))


def read_film(path: Path) -> None:
    from anyformer.tokenizers.video import Video

    Video(size=(8, 8), patch=4, frames=4, tubelet=2).encode(str(path))


def read_series(path: Path) -> None:
    from anyformer.tokenizers.arrays import read_array

    read_array(str(path))


def read_columns(path: Path) -> None:
    from anyformer.tokenizers.arrays import read_columns

    read_columns(str(path))


def read_episodes(path: Path) -> None:
    from anyformer.tokenizers.episode.files import Episodes

    episodes = Episodes(str(path))
    for i in range(len(episodes)):
        episodes[i]
    _ = episodes.spaces


def read_minari(path: Path) -> None:
    """Of a set whose other file stands beside it."""
    for other in (minari_folder() / "data").iterdir():
        if not (path.parent / other.name).exists():
            (path.parent / other.name).write_bytes(other.read_bytes())
    read_episodes(path.parents[1])


def read_weights(path: Path) -> None:
    from anyformer.weights.tensors import read_tensors

    read_tensors(path)


def read_vocabulary(path: Path) -> None:
    from anyformer.tokenizers.text.text import Text

    Text(file=str(path)).fit(["all is well"]).encode("all is well")


def read_config(path: Path) -> None:
    from anyformer.runs.experiment import Unmade, parse

    parse("plan", [str(path)], [], [], kind=Unmade)


def read_corpus(path: Path) -> None:
    from anyformer.tokenizers.text.corpus import Corpus

    for _ in Corpus(str(path)).blocks():
        pass


def _minari(name: str) -> bytes:
    return (minari_folder() / "data" / name).read_bytes()


ROWS = [
    fuzz("a.csv", lambda: separated(","), read_table),
    fuzz("a.tsv", lambda: separated("\t"), read_table),
    fuzz("a.jsonl", lambda: "".join(json.dumps(row) + "\n" for row in rows()).encode(), read_table),
    fuzz("a.parquet", lambda: parquet(table_columns()), read_table),
    fuzz("a.txt", lambda: "\n".join(WORDS * 20).encode(), read_corpus),
    fuzz("a.png", lambda: picture("PNG"), read_picture),
    fuzz("a.jpeg", lambda: picture("JPEG"), read_picture),
    fuzz("a.webp", lambda: picture("WEBP"), read_picture),
    fuzz("a.tiff", lambda: picture("TIFF", compression="tiff_lzw"), read_picture),
    fuzz("a.gif", lambda: picture("GIF"), read_picture),
    fuzz("a.bmp", lambda: picture("BMP"), read_picture),
    fuzz("a.wav", lambda: sound("WAV"), read_sound),
    fuzz("a.flac", lambda: sound("FLAC"), read_sound),
    fuzz("a.ogg", lambda: sound("OGG"), read_sound),
    fuzz("a.mp3", lambda: sound("MP3"), read_sound),
    fuzz("no_length.mp3", lambda: mp3_that_says(0), read_sound),
    fuzz("too_long.mp3", lambda: mp3_that_says(2**32 - 1), read_sound),
    fuzz("a.aiff", lambda: sound("AIFF"), read_sound),
    fuzz("a.mp4", lambda: film("mp4"), read_film),
    fuzz("a.avi", lambda: film("avi"), read_film),
    fuzz("a.npy", npy, read_series),
    fuzz("array.npz", lambda: npz(a=np.zeros((3, 9))), read_series),
    fuzz("columns.csv", lambda: b"a,b\n1,2\n3,\n5,6e3\n", read_columns),
    fuzz("episodes.npz", lambda: npz(**steps(), episode_lengths=np.array([10, 20])), read_episodes),
    fuzz("episodes.hdf5", hdf5, read_episodes),
    fuzz(
        "episodes.parquet",
        lambda: parquet(
            {
                "episode": np.arange(30) // 10,
                "observation": list(steps()["observations"]),
                "action": steps()["actions"],
                "reward": steps()["rewards"],
            }
        ),
        read_episodes,
    ),
    fuzz("minari/data/main_data.hdf5", lambda: _minari("main_data.hdf5"), read_minari),
    fuzz("minari/data/metadata.json", lambda: _minari("metadata.json"), read_minari),
    fuzz("a.safetensors", safetensors, read_weights),
    fuzz("tokenizer.json", tokenizer_json, read_vocabulary),
    fuzz("a.yaml", config_yaml, read_config),
]

"""Speech made in the run: phrases of a small vocabulary, said by a speech synthesiser. Nothing is downloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.tokenizers.audio.synthesizer import RATE

WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("red", "green", "blue", "yellow", "black", "white"),
    *("up", "down", "left", "right", "open", "close", "start", "stop"),
    *("door", "window", "light", "music", "kitchen", "garden"),
)
"""The vocabulary."""
ACCENTS = ("en", "en-us", "en-us-nyc", "en-029", "en-gb-scotland", "en-gb-x-rp")
VOICES = {
    "train": (
        *("m1", "m2", "m4", "m5", "m7", "adam", "caleb", "Gene", "ian", "Lee", "Michael", "victor"),
        *("f1", "f2", "f4", "Annie", "belinda", "linda", "steph"),
    ),
    "validation": ("m3", "f3"),
    "test": ("m8", "f5"),
}
"""Voices by the part in which they speak."""
TOGETHER = 100
"""Recordings that one process of the synthesiser makes: a recording hangs on those before it there."""
LARGEST = 20_000
"""Recordings of a source: there are some 80,000 phrases to validate by, and a gigabyte of memory."""


@dataclass(frozen=True)
class SpokenWords(Source):
    """Recordings of 1 to 4 words of a vocabulary of 30, said by eSpeak NG in several voices and speeds, with noise.

    What is said in one part, in this very sequence, is said in no other, and validation and test say nothing twice;
    each part has voices of its own. Columns: audio, `{"array": (samples,) int16, "sampling_rate": 22050}`; text; voice.
    On one machine a recording is a function of part, seed and its number. All are made when the source is first used,
    some hundreds a second, and kept in memory. Raises InputError, then, where the synthesiser cannot be started.
    """

    part: Literal["train", "validation", "test"] = "train"
    """Which phrases and voices."""
    n: int = 2000
    """How many recordings."""
    seed: int = 0
    """Draws phrases, voices and noise."""
    snr: tuple[float, float] = (5.0, 30.0)
    """How many decibels the speech is above the noise, from and to."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "snr", tuple(self.snr))
        if not 1 <= self.n <= LARGEST:
            raise InputError(f"n must be from 1 to {LARGEST:,}, got {self.n}")
        if len(self.snr) != 2 or self.snr[0] > self.snr[1]:
            raise InputError(f"snr must be two levels in decibels, low <= high, got {list(self.snr)}")

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        text, voice, *_ = self._scripts[range(self.n)[i]]
        return {"audio": {"array": self._recordings[i], "sampling_rate": RATE}, "text": text, "voice": voice}

    def name(self, i: int) -> str:
        return f"spoken words, {self.part} recording {i}"

    def column(self, name: str) -> list[Any]:
        return [script[0] for script in self._scripts] if name == "text" else super().column(name)

    @cached_property
    def _scripts(self) -> list[tuple[str, str, int, int]]:
        """What is said in each recording, by which voice, at how many words a minute, and how high."""
        parts = list(VOICES)
        random = np.random.default_rng((self.seed, parts.index(self.part)))
        scripts, said = [], set()
        while len(scripts) < self.n:
            text = " ".join(random.choice(WORDS, random.integers(1, 5)))
            # Of ten phrases, by what they are, eight are for training.
            is_ours = parts[max(zlib.crc32(text.encode()) % 10 - 7, 0)] == self.part
            if is_ours and (self.part == "train" or text not in said):
                said.add(text)
                voice = f"{random.choice(ACCENTS)}+{random.choice(VOICES[self.part])}"
                scripts.append((text, voice, int(random.integers(130, 221)), int(random.integers(25, 76))))
        return scripts

    @cached_property
    def _recordings(self) -> list[np.ndarray]:
        """(samples,) int16 each."""
        chunks = [self._scripts[i : i + TOGETHER] for i in range(0, self.n, TOGETHER)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            speeches = [speech for chunk in pool.map(synthesize, chunks) for speech in chunk]
        number = list(VOICES).index(self.part)
        generators = (np.random.default_rng((self.seed, number, i)) for i in range(self.n))
        return [self._in_a_room(speech, random) for speech, random in zip(speeches, generators, strict=True)]

    def _in_a_room(self, speech: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Speech with silence about it, noise and a level of its own. (samples,) int16 to the same, longer."""
        sound = np.pad(speech.astype(np.float32), (random.random(2) * 0.2 * RATE).astype(int))
        noise = random.standard_normal(len(sound), dtype=np.float32)
        # Between hissing and humming.
        hum = np.repeat(random.standard_normal(len(sound) // 8 + 1, dtype=np.float32), 8)
        noise += random.uniform(0, 2) * hum[: len(sound)]
        softer = 10 ** (random.uniform(*self.snr) / 20)
        sound += noise * (np.sqrt(np.square(sound).mean() / np.square(noise).mean()) / softer)
        return (sound * (32_000 * random.uniform(0.1, 1) / np.abs(sound).max())).astype(np.int16)


def synthesize(scripts: list[tuple[str, str, int, int]]) -> list[np.ndarray]:
    """Say texts one after another, each a tuple of text, voice, words a minute and pitch (0 to 99).

    Returns (samples,) int16 each, at `RATE`. Raises InputError where the synthesiser cannot be started.
    """
    lines = "".join(json.dumps(script) + "\n" for script in scripts)
    # By its path, as it needs nothing of the packages that it lies in.
    program = [sys.executable, "-P", str(Path(__file__).with_name("synthesizer.py"))]
    done = subprocess.run(program, input=lines.encode(), capture_output=True)
    if done.returncode != 0:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"the speech synthesiser espeakng-loader cannot be used: {reason}")
    sounds, at = [], 0
    while at < len(done.stdout):
        n = int.from_bytes(done.stdout[at : at + 4], sys.byteorder)
        sounds.append(np.frombuffer(done.stdout, np.int16, n, at + 4))
        at += 4 + 2 * n
    return sounds

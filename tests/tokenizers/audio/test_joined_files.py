"""Recordings one after another in a file are one, or refused."""

from __future__ import annotations

import io
import wave
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.audio.joined_files import find_recordings
from anyformer.tokenizers.audio.reading import pieces, read_sound, sound_length
from tests.helpers.sounds import hiss, sound_file, tone

KINDS = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "PCM_24"), ("AIFF", "PCM_16")]
ID3 = b"ID3\x03\x00\x00\x00\x00\x00\x14" + bytes(20)
NAMED = b"TAG" + bytes(125)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0, 1), (0, 0)])
@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_joined_recordings_are_read_as_one(tmp_path, kind, subtype, numbers):
    parts = [sound_file(sound, kind=kind, subtype=subtype) for sound in (tone(440).float(), hiss(40_000))]
    content = b"".join(parts[i] for i in numbers)
    expected = torch.cat([read_sound(parts[i]) for i in numbers])
    (tmp_path / "a.sound").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.sound", content)
    for record in (content, tmp_path / "a.sound", f"{tmp_path}/a.zip/a.sound"):
        assert torch.allclose(read_sound(record), expected, atol=1e-6)
        assert sound_length(record) == len(expected)
    border = len(read_sound(parts[numbers[0]])) / 16_000
    part = read_sound({"bytes": content, "start": border - 0.25, "end": border + 0.5})
    at = round(border * 16_000)
    assert torch.allclose(part, expected[at - 4000 : at + 8000], atol=1e-4)
    joined = torch.cat([piece.samples for piece in pieces(content, max_seconds=1.5)])
    assert torch.allclose(joined, expected, atol=1e-6)


@pytest.mark.parametrize("n", [4000, 4001])
@pytest.mark.parametrize("fill", [b"", b"\0"], ids=["as Python's wave", "as is the rule"])
def test_an_odd_number_of_bytes_may_be_filled_up_or_not(n, fill):
    parts = []
    for length in (n, 3000, n):
        file = io.BytesIO()
        with wave.open(file, "wb") as written:
            written.setparams((1, 1, 16_000, 0, "NONE", ""))
            written.writeframes(bytes(128 + i % 50 for i in range(length)))
        parts.append(file.getvalue() + fill * (length % 2))
    content = b"".join(parts)
    assert find_recordings(io.BytesIO(content), "a")[2][0] == len(parts[0]) + len(parts[1])
    assert len(read_sound(content)) == n + 3000 + n


def test_tags_about_the_parts_of_an_mp3_are_no_sound():
    parts = [sound_file(hiss(n), kind="MP3") for n in (20_000, 30_000)]
    for content in (
        ID3 + parts[0] + ID3 + parts[1],
        parts[0] + NAMED + ID3 + parts[1] + NAMED,
        parts[0] + NAMED + parts[1],
    ):
        assert len(read_sound(content)) == 50_000
    for behind in (NAMED, b"APETAGEX" + bytes(range(256)), bytes(900)):
        assert len(read_sound(parts[0] + behind)) == 20_000


@pytest.mark.parametrize("n", [0, 1, 2**32 - 1])
def test_an_mp3_that_does_not_say_its_length_is_one_recording(n):
    content = bytearray(sound_file(hiss(20_000), kind="MP3"))
    at = max(content.find(b"Xing"), content.find(b"Info")) + 12
    assert int.from_bytes(content[at : at + 4], "big") == len(content)
    content[at : at + 4] = n.to_bytes(4, "big")
    for tag in (b"", ID3):
        assert find_recordings(io.BytesIO(tag + content), "a") == [(0, len(tag + content))]


@pytest.mark.parametrize("kind", ["OGG", "WAV", "FLAC", "AIFF"])
def test_what_follows_a_recording_and_is_none_is_not_read(kind):
    content = sound_file(hiss(20_000), kind=kind)
    assert len(read_sound(content + NAMED)) == len(read_sound(content + bytes(range(256)))) == 20_000


def test_wav_files_out_of_pipes_are_joined_too():
    content = bytearray(sound_file(hiss(9000)))
    content[4:8] = content[40:44] = b"\xff" * 4
    assert len(read_sound(bytes(content * 3))) == 27_000


@pytest.mark.parametrize("where", ["bytes", "path"])
def test_joined_flacs_are_refused_where_their_end_is_read(tmp_path, where):
    content = sound_file(hiss(20_000), kind="FLAC") * 2
    record = {"bytes": content, "path": "two.flac"}
    if where == "path":
        (tmp_path / "two.flac").write_bytes(content)
        record = {"path": str(tmp_path / "two.flac")}
    with pytest.raises(InputError, match=r"two.flac: holds 2 recordings one after another.* take them apart") as caught:
        read_sound(record)
    assert "\n" not in str(caught.value)
    assert len(read_sound(record | {"end": 1.0})) == 16_000


def test_parts_that_do_not_go_together_are_refused():
    for other, said in (
        (sound_file(hiss(9000), 8000, kind="OGG"), "8,000"),
        (sound_file(hiss(9000), 48_000, kind="OGG"), "48,000"),
    ):
        with pytest.raises(InputError, match=rf"holds 2 recordings one after another, of which number 2 has {said}"):
            read_sound(sound_file(hiss(9000), kind="OGG") + other)
    # The first pages of two streams come before all others.
    first, other = (sound_file(hiss(9000), kind="OGG") for _ in range(2))
    cut = first.find(b"OggS", 4)
    with pytest.raises(InputError, match="holds 2 recordings side by side, of which one alone would be read"):
        read_sound(first[:cut] + other[: other.find(b"OggS", 4)] + first[cut:])


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_damage_anywhere_is_refused_in_one_line_or_read(kind, subtype):
    content, random = sound_file(hiss(6000), kind=kind, subtype=subtype) * 2, np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content[: int(random.integers(1, len(content) + 1))])
        damaged[int(random.integers(len(damaged)))] ^= int(random.integers(1, 256))
        with suppress(InputError):
            read_sound(bytes(damaged))


def test_empty_and_other_files_are_one_part():
    for content in (b"", b"a", b"OggS", b"RIFF", b"ID3", b"\xff", b"\xff\xfb" * 40, b"FORM" + bytes(8)):
        assert find_recordings(io.BytesIO(content), "a") == [(0, len(content))]

"""Files and arrays that are no sound, and headers that say too little."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from anyformer.errors import InputError
from anyformer.tokenizers.audio import sound_files
from anyformer.tokenizers.audio.reading import pieces, read_sound, sound_length, sound_seconds
from tests.helpers.sounds import hiss, set_block, sound_file, tone


def test_unsigned_samples_are_silent_in_the_middle():
    assert read_sound(np.array([0, 128, 192], dtype=np.uint8)).tolist() == [-1, 0, 0.5]


@pytest.mark.parametrize("kind", ["int16", "int32", "int64", "uint8", "uint16", "uint32"])
def test_integers_are_as_loud_as_the_floats_that_they_stand_for(kind):
    wave = 0.5 * np.sin(np.arange(4000) / 10)
    bits, is_unsigned = (16 if kind == "int64" else 8 * np.dtype(kind).itemsize), kind[0] == "u"
    samples = ((wave + is_unsigned) * 2 ** (bits - 1)).astype(kind)
    for array in (samples, np.stack([samples, samples]), np.stack([samples, samples], 1)):
        assert np.allclose(read_sound((array, 16_000)).numpy(), wave, atol=2 / 2 ** min(bits - 1, 20))


@pytest.mark.parametrize("bits", [16, 24])
def test_samples_in_the_upper_bits_are_as_loud(bits):
    wave = 0.004 * np.sin(np.arange(4000) / 10)
    samples = (wave * 2 ** (bits - 1)).astype(np.int32) << (32 - bits)
    assert np.allclose(read_sound(samples).numpy(), wave, atol=2 ** (1 - bits))


@pytest.mark.parametrize(("bits", "kind"), [(16, "int32"), (24, "int32"), (24, "int64"), (32, "int64"), (8, "int64")])
def test_samples_in_an_array_that_is_too_wide_are_refused(bits, kind):
    samples = (0.5 * 2 ** (bits - 1) * np.sin(np.arange(4000) / 10)).astype(kind)
    with pytest.raises(InputError, match=rf"^samples of {kind} lie between -[0-9,]+ and [0-9,]+, so that their width"):
        read_sound(torch.from_numpy(samples))
    for unsigned in ("uint16", "uint32", "uint64"):
        with pytest.raises(InputError, match=rf"^samples of {unsigned} lie between 0 and 255"):
            read_sound(np.arange(256).astype(unsigned))


def test_silence_is_of_any_width():
    for kind in ("int8", "int16", "int32", "int64"):
        assert not read_sound(np.zeros(99, kind)).any()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_files_of_every_width_are_as_loud(subtype):
    samples = tone(440, level=0.25).float()
    assert torch.allclose(read_sound(sound_file(samples, subtype=subtype)), samples, atol=0.01)


WAV, FLAC = sound_file(hiss(4000)), sound_file(hiss(40_000), kind="FLAC")


def with_bytes(content: bytes, place: int, kind: str, value: int) -> bytes:
    return content[:place] + struct.pack(kind, value) + content[place + struct.calcsize(kind) :]


BAD = {
    "a text": (b"hello, this is a text\n" * 9, "not a sound that can be read"),
    "nothing": (b"", "the file is empty"),
    "no samples": (sound_file(torch.zeros(0)), "holds no samples"),
    "half a wav": (WAV[: len(WAV) // 2], r"damaged or truncated: the header says 8,044 bytes, the file has 4,022"),
    "a wav short of a byte": (WAV[:-1], "damaged or truncated"),
    "the head of a wav": (WAV[:20], "not a sound that can be read"),
    "half a flac": (FLAC[: len(FLAC) // 2], "damaged or truncated"),
    "half an mp3": (sound_file(hiss(32_000), kind="MP3")[:5000], "damaged or truncated: the header says 2 seconds"),
    "half an ogg": (sound_file(hiss(80_000), kind="OGG")[:9000], "damaged or truncated: it breaks off"),
    "half an aiff": (sound_file(hiss(4000), kind="AIFF")[:5000], "damaged or truncated: the header says 8,054 bytes"),
    "2 GHz": (
        with_bytes(WAV, 24, "<I", 2_000_000_000),
        "header says 2,000,000,000 samples a second, channels: 1; needed",
    ),
    "4 Hz": (with_bytes(WAV, 24, "<I", 4), "the header says 4 samples a second"),
    "NaN": (sound_file(torch.cat([hiss(2000), torch.tensor([torch.nan])]), subtype="FLOAT"), "sample 2,000 is nan"),
    "infinity": (sound_file(torch.tensor([0, -torch.inf]), subtype="FLOAT"), "sample 1 is -inf; repair it"),
    "not scaled": (sound_file(hiss(50, level=9000), subtype="FLOAT"), "samples must lie between -1 and 1, got -"),
    "a number": (3, "a recording must be a path, the bytes of a file, an array, .* got int"),
    "a list of words": (["a", "b"], "a recording must be numbers, in lists or in columns of their own, got"),
    "a list of gaps": ([0.1, None], "a recording must be numbers, in lists or in columns of their own, got"),
    "JSON that is cut off": ('{"path": "a.wav", }', "stands in brackets as JSON does, and is none"),
    "a time that is none": ({"array": np.zeros(9000), "start": "soon"}, "start must hold a number, got 'soon'"),
    "a rate that is none": ({"array": np.zeros(9000), "sampling_rate": "high"}, "sampling_rate must hold a number"),
    "half a rate": ({"array": np.zeros(9000), "sampling_rate": 1.5}, "the rate of an array must be an integer"),
    "an empty dict": ({"bytes": None, "path": None}, "got NoneType"),
    "words": (
        np.array(["a"]),
        r"an array must be numbers, .*, to be sound, got <U1 \(1,\)",
    ),
    "a cube": (np.zeros((2, 2, 2)), r"to be sound, got float64 \(2, 2, 2\)"),
    "an empty array": (np.zeros(0), "holds no samples"),
    "no rate": ((np.zeros(9), "fast"), "the rate of an array must be an integer, .* got 'fast'"),
    "65 channels": (np.zeros((65, 99)), "channels: 65; needed are 1,000 to 768,000 samples and at most 64 channels"),
    "exchanged": ((16_000, np.zeros(9)), "got int"),
    "before it": ({"array": np.zeros(9000), "start": -1}, "has 0.5625 seconds, and no part from -1 to its end"),
    "behind it": ({"array": np.zeros(9000), "start": 0.7}, "no part from 0.7 to its end"),
    "too far": ({"array": np.zeros(9000), "end": 0.9}, "no part from 0 to 0.9 seconds"),
    "backwards": ({"array": np.zeros(9000), "start": 0.3, "end": 0.2}, "no part from 0.3 to 0.2 seconds"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_sound_says_why_in_one_line(tmp_path, kind):
    record, message = BAD[kind]
    with pytest.raises(InputError, match=message) as caught:
        read_sound(record)
    assert "\n" not in str(caught.value)
    if isinstance(record, bytes):
        (tmp_path / "bad.wav").write_bytes(record)
        (tmp_path / "bad.raw").write_bytes(record)
        for named in (tmp_path / "bad.wav", {"path": "bad.wav", "bytes": record}, tmp_path / "bad.raw"):
            with pytest.raises(InputError, match=rf"bad\.(wav|raw): .*({message}|not a sound)"):
                read_sound(named)
        with pytest.raises(InputError, match=message):
            list(pieces(record))


def test_a_missing_file_and_a_folder_say_so(tmp_path):
    (tmp_path / "hello.wav").write_bytes(WAV)
    with pytest.raises(InputError, match=r"helo\.wav: no such file; did you mean 'hello\.wav'"):
        read_sound(tmp_path / "helo.wav")
    with pytest.raises(InputError, match=r"is a folder and no file"):
        sound_seconds(tmp_path)


def test_a_header_that_knows_no_length_is_read_to_its_end(monkeypatch):
    piped = with_bytes(with_bytes(WAV, 4, "<I", 0xFFFFFFFF), 40, "<I", 0xFFFFFFFF)
    assert torch.equal(read_sound(piped), read_sound(WAV)) and sound_length(piped) == 4000
    piped = FLAC[:21] + bytes([FLAC[21] & 0xF0, 0, 0, 0, 0]) + FLAC[26:]
    set_block(monkeypatch, 9000)
    assert torch.equal(read_sound(piped), read_sound(FLAC)) and sound_length(piped) == 40_000
    assert torch.equal(read_sound({"bytes": piped, "start": 1}), read_sound(FLAC)[16_000:])


def test_a_file_is_walked_through_again_only_once_it_has_changed(tmp_path):
    path = tmp_path / "a.ogg"
    one, other = (sound_file(hiss(n), kind="OGG") for n in (20_000, 30_000))
    for content, n in ((one, 20_000), (one + other, 50_000)):
        path.write_bytes(content)
        before = sound_files._find_once.cache_info().misses
        assert sound_length(path) == len(read_sound(path)) == n
        assert len(read_sound({"path": str(path), "start": 0.25, "end": 0.5})) == 4000
        assert sound_files._find_once.cache_info().misses == before + 1
    path.write_bytes(other[:-400])
    with pytest.raises(InputError, match=r"a.ogg: damaged or truncated: it breaks off"):
        read_sound(path)

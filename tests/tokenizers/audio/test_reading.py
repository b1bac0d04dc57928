"""Sound: what comes through the door, what does not, and long recordings."""

from __future__ import annotations

import json
import math
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyformer.errors import InputError
from anyformer.tokenizers.audio import reading
from anyformer.tokenizers.audio.reading import pieces, read_sound, sound_length, sound_seconds, windows
from tests.helpers.sounds import hiss, set_block, sound_file, tone

LOSSLESS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("FLAC", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("RF64", "PCM_16"),
]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("WAV", "ULAW")]


@pytest.mark.parametrize(("kind", "subtype"), LOSSLESS)
def test_a_file_a_zip_bytes_and_arrays_give_the_same_samples(tmp_path, kind, subtype):
    samples = (hiss(3000) * 2**15).round().clamp(-(2**15), 2**15 - 1) / 2**15
    content = sound_file(samples, kind=kind, subtype=subtype)
    (tmp_path / "a.sound").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.sound", content)
    for record in (
        content,
        tmp_path / "a.sound",
        f"{tmp_path}/a.zip/in/a.sound",
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(tmp_path / "a.sound")},
        {"array": samples.double().numpy(), "sampling_rate": 16_000},
        (samples[None], 16_000),
        (samples.numpy(), np.int64(16_000)),
        samples,
        (samples * 2**15).to(torch.int16),
        (samples.double() * 2**31).to(torch.int32),
    ):
        read = read_sound(record)
        assert read.dtype == torch.float32 and torch.equal(read, samples)
        assert (sound_length(record), sound_seconds(record)) == (3000, 3000 / 16_000)


@pytest.mark.parametrize(("kind", "subtype"), LOSSY)
def test_lossy_files_keep_the_tone_and_the_length(kind, subtype):
    samples = tone(440).float()
    content = sound_file(samples, kind=kind, subtype=subtype)
    read = read_sound(content)
    assert len(read) == sound_length(content) == 16_000
    assert (read - samples)[800:-800].abs().max() < 0.05


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_mixed(channels):
    every = torch.stack([hiss(500, i) for i in range(channels)], 1)
    for record in (sound_file(every, subtype="FLOAT"), every, every.T, {"array": every.T.numpy()}):
        torch.testing.assert_close(read_sound(record), every.mean(1))
        assert sound_length(record) == 500


@pytest.mark.parametrize(("kind", "subtype"), LOSSLESS[:4] + LOSSY)
def test_only_the_part_that_is_wanted_is_read(kind, subtype):
    content = sound_file(torch.cat([tone(300), tone(900)]), kind=kind, subtype=subtype)
    whole, record = read_sound(content), {"bytes": content, "start": 0.75, "end": 1.25}
    torch.testing.assert_close(read_sound(record), whole[12_000:20_000], rtol=0, atol=0.02)
    assert sound_length(record, 8000) == 4000 and sound_seconds(record) == 0.5
    assert len(read_sound({"bytes": content, "start": 0.75})) == 20_000
    assert len(read_sound({"array": whole, "end": 2.05})) == 32_000


def test_times_and_rates_may_be_text_and_a_record_json():
    samples = tone(440, 1.0, 8000)
    part = {"array": samples, "sampling_rate": 8000, "start": 0.25, "end": 0.5}
    expected = read_sound(part, 8000)
    spelled = part | {"sampling_rate": "8000.0", "start": "0.25", "end": " 0.5"}
    assert torch.equal(read_sound(spelled, 8000), expected)
    assert torch.equal(read_sound(json.dumps(part | {"array": samples.tolist()}), 8000), expected)
    assert sound_length(spelled, 8000) == len(expected) == 2000
    whole = read_sound(samples, 8000)
    assert torch.equal(read_sound(part | {"start": "", "end": math.nan, "sampling_rate": None}, 8000), whole)


def test_lists_of_numbers_and_columns_of_samples_are_sound():
    samples = hiss(100).numpy()
    expected = read_sound(samples)
    assert torch.equal(read_sound(samples.tolist()), expected)
    assert torch.equal(read_sound([samples.tolist()] * 2), expected)
    assert torch.equal(read_sound(str(samples.tolist())), expected)
    assert torch.equal(read_sound({f"t{i}": str(value) for i, value in enumerate(samples.tolist())}), expected)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_16")])
def test_a_part_begins_where_it_is_asked_for(kind, subtype):
    content = sound_file(hiss(40_000), kind=kind, subtype=subtype)
    whole = read_sound(content)
    for start in (0.3, 1.0, 2.1, 2.45):
        part = read_sound({"bytes": content, "start": start})
        assert torch.allclose(part, whole[round(start * 16_000) :], atol=1e-4)


def test_a_long_file_is_decoded_for_a_part_of_it_alone(monkeypatch):
    content, asked = sound_file(hiss(100_000)), []
    read = reading.read_block
    monkeypatch.setattr(reading, "read_block", lambda file, n, name: asked.append(n) or read(file, n, name))
    assert len(read_sound({"bytes": content, "start": 5, "end": 5.5}, max_seconds=1)) == 8000
    assert asked == [8000]


@pytest.mark.parametrize(("kind", "subtype"), LOSSLESS + LOSSY)
def test_what_is_read_in_blocks_is_put_together(monkeypatch, kind, subtype):
    content = sound_file(tone(300), kind=kind, subtype=subtype)
    whole = read_sound(content)
    set_block(monkeypatch, 3000)
    torch.testing.assert_close(read_sound(content), whole, rtol=0, atol=1e-6)
    assert torch.equal(read_sound((whole, 16_000)), whole)


def test_the_last_block_of_a_lossy_file_may_be_short():
    content = sound_file(hiss(32_000), kind="MP3")
    whole, short = read_sound(content), read_sound(content[:-150])
    assert len(short) == sound_length(content[:-150]) == 32_000
    assert torch.equal(short[:28_000], whole[:28_000]) and whole[-300:].any() and not short[-300:].any()
    with pytest.raises(InputError, match="damaged or truncated: the header says 2 seconds"):
        read_sound(content[:-4000])


def test_what_is_too_long_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(reading._Part, "blocks", None)
    for ask in (read_sound, sound_length):
        with pytest.raises(InputError, match=r"recording: 2 seconds long, more than max_seconds=1.5; cut it, raise"):
            ask(sound_file(tone(440, 2)), max_seconds=1.5)
    with pytest.raises(InputError, match=r"1:02:05 hours long, more than max_seconds=30;"):
        sound_length((np.broadcast_to(np.float32(0), 3725 * 1000), 1000), max_seconds=30)


# Long recordings


def test_a_long_recording_is_cut_in_its_pauses():
    speech = [tone(300, seconds) for seconds in (2.5, 1.8, 2.2, 3.1, 0.9)]
    silence = torch.zeros(6400, dtype=torch.float64)
    record = torch.cat([part for spoken in speech for part in (spoken, silence)])
    cut = list(pieces(record, max_seconds=4))
    assert torch.equal(torch.cat([piece.samples for piece in cut]), record.float())
    ends = np.cumsum([len(spoken) + 6400 for spoken in speech]) / 16_000
    for piece, following in zip(cut, [*cut[1:], None], strict=True):
        assert round((piece.end - piece.start) * 16_000) == len(piece.samples) <= 4 * 16_000
        if following is not None:
            assert piece.end == following.start and min(abs(ends - 0.2 - piece.end)) < 0.1
            assert piece.end - piece.start >= 2
    assert cut[0].start == 0 and cut[-1].end == len(record) / 16_000


@given(st.integers(1, 9 * 2000), st.sampled_from([1.0, 1.3, 3.5]), st.integers(0, 5))
def test_pieces_joined_are_the_recording_and_none_is_too_long(n, max_seconds, seed):
    record = hiss(n, seed)
    cut = list(pieces((record, 2000), 2000, max_seconds))
    assert torch.equal(torch.cat([piece.samples for piece in cut]), record)
    lengths = [len(piece.samples) / 2000 for piece in cut]
    assert all(max_seconds / 2 - 0.01 <= length <= max_seconds for length in lengths[:-1])
    assert len(cut) == 1 or min(1, max_seconds / 4) - 0.01 <= lengths[-1] <= max_seconds


def test_a_pause_near_the_end_leaves_no_crumb():
    record = hiss(49_600)
    record[46_400:48_000] = 0
    first, last = pieces(record, max_seconds=3)
    assert len(first.samples) + len(last.samples) == 49_600
    # A quarter of the longest at least, though it is nowhere as quiet as a tenth of a second before the end.
    assert len(last.samples) >= 12_000


def test_pieces_come_at_the_rate_that_is_asked_for():
    cut = list(pieces((tone(440, 7, 8000), 8000), 16_000, max_seconds=3))
    assert sum(len(piece.samples) for piece in cut) == 7 * 16_000 and cut[-1].end == 7
    with pytest.raises(InputError, match=r"a recording is cut into pieces of a second or more, got max_seconds=0\.9"):
        next(pieces(hiss(9), max_seconds=0.9))


def test_three_hours_pass_in_bounded_memory(tmp_path: Path):
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 4000, 1, "PCM_U8") as file:
        for minute in range(180):
            file.write(np.full(60 * 4000, minute / 200, dtype=np.float32))
    with pytest.raises(InputError, match=r"long\.wav: 3:00:00 hours long, more than max_seconds=30"):
        read_sound(tmp_path / "long.wav", max_seconds=30)
    tracemalloc.start()
    lengths = [len(piece.samples) for piece in pieces(tmp_path / "long.wav", 4000)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(lengths) == 3 * 3600 * 4000 and max(lengths) <= 30 * 4000
    assert most < 12e6  # All of it would be 173 MB.


def test_windows_begin_where_they_are_told() -> None:
    sound = np.arange(50_000, dtype=np.float32) / 50_000
    every = windows((sound, 10_000), 10_000, 2.0)
    found, sent = [], None
    for move in (0.5, None, 9.0, -1.0, None):
        found.append(every.send(sent))
        sent = move
    begins = [round(piece.start, 4) for piece in found]
    # At most to the end of the window, and at least one sample on.
    assert begins == [0.0, 0.5, 2.5, 4.5, 4.5001]
    assert [round(piece.end, 4) for piece in found] == [2.0, 2.5, 4.5, 5.0, 5.0]
    for piece in found:
        assert np.array_equal(piece.samples, sound[round(piece.start * 10_000) : round(piece.end * 10_000)])
    with pytest.raises(StopIteration):
        every.send(None)
    assert len(list(windows((sound, 10_000), 10_000, 2.0))) == 3

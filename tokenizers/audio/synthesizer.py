"""The eSpeak NG speech synthesiser, in a process of its own: a script that imports nothing of anyformer.

Its library keeps something of what it has said, so that a sound is the same again only where all before it were; and it
stays out of the processes that learn. A line of standard input is `[text, voice, words a minute, pitch]` in JSON; what
comes out are 4 bytes with the number of samples, and the samples: 16 bits each, in the machine's sequence of bytes.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable

RATE = 22_050
"""Samples a second."""

# Of espeak-ng's speak_lib.h.
SYNCHRONOUS, NEVER_EXIT = 2, 1 << 15
WORDS_A_MINUTE, PITCH = 1, 3
CHARACTERS, UTF8 = 1, 1
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def start() -> Callable[[str, str, int, int], bytes]:
    """Load the library. Returns what says a text, as the bytes of its samples."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), NEVER_EXIT)
    if rate != RATE:
        raise RuntimeError(f"espeak_Initialize returned {rate}, not {RATE}")
    blocks: list[bytes] = []

    @CALLBACK
    def keep(samples: ctypes._Pointer, n: int, events: int) -> int:
        if samples and n > 0:
            blocks.append(ctypes.string_at(samples, 2 * n))
        return 0

    library.espeak_SetSynthCallback(keep)

    def say(text: str, voice: str, words_a_minute: int, pitch: int, _: object = keep) -> bytes:
        blocks.clear()
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"there is no voice {voice!r}")
        library.espeak_SetParameter(WORDS_A_MINUTE, words_a_minute, 0)
        library.espeak_SetParameter(PITCH, pitch, 0)
        # Or its breath would be another each time.
        library.espeak_ng_SetRandSeed(ctypes.c_long(0))
        spelt = text.encode() + b"\0"
        if library.espeak_Synth(spelt, ctypes.c_size_t(len(spelt)), 0, CHARACTERS, 0, UTF8, None, None) != 0:
            raise RuntimeError(f"{text!r} cannot be said")
        return b"".join(blocks)

    return say


def main() -> None:
    say = start()
    for line in sys.stdin:
        sound = say(*json.loads(line))
        sys.stdout.buffer.write((len(sound) // 2).to_bytes(4, sys.byteorder) + sound)


if __name__ == "__main__":
    main()

"""The page of a run's worst cases, `worst.html`: what went in, what should have come out and what did, errors marked.

One file that needs no other: sounds and pictures are inside.
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from anyformer.metrics.text import align_words
from anyformer.saving.atomic import write_whole

MAX_SECONDS = 30
"""Of a sound on the page."""
MAX_SIDE = 512
"""Pixels of the longer side of a picture on the page."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A recording, to be listened to."""

    samples: np.ndarray
    """(t,) float, from -1 to 1"""
    rate: int
    """Samples a second."""


@dataclass(frozen=True, eq=False)
class Case:
    """One text that came out, and what it came from."""

    source: Mapping[str, str | Sound | np.ndarray]
    """By field: a text; a sound; a picture, (rows, columns, 3) uint8."""
    reference: str
    """What should have come out."""
    hypothesis: str
    """What came out."""
    score: float
    """The higher, the worse."""
    name: str = ""
    """Where the record comes from."""


def write_worst(
    path: Path, cases: Sequence[Case], n: int = 50, title: str = "Worst cases", score: str = "word error rate"
) -> None:
    """Write the page of the n worst cases, the worst first. The file is whole or absent.

    score: what the scores of the cases are.
    """
    worst = sorted(cases, key=lambda case: -case.score)[:n]
    cards = "\n".join(_card(number, case, score) for number, case in enumerate(worst, start=1))
    write_whole(path, PAGE.format(title=escape(title), n=len(worst), of=len(cases), score=escape(score), cards=cards))


def _card(number: int, case: Case, score: str) -> str:
    name = f" &middot; {escape(case.name)}" if case.name else ""
    source = "\n".join(
        f'<div class="field"><span class="name">{escape(field)}</span>{_source(value)}</div>'
        for field, value in case.source.items()
    )
    pairs = "".join(
        f'<span class="pair {kind}" title="{kind}"><span>{escape(left) or "&nbsp;"}</span>'
        f"<span>{escape(right) or '&nbsp;'}</span></span>\n"
        for kind, left, right in align_words(case.reference, case.hypothesis)
    )
    return (
        f"<article>\n<h2>{number}. {escape(score)} {case.score:.4g}{name}</h2>\n{source}\n"
        f'<div class="pairs" dir="auto"><span class="pair names"><span>reference</span><span>hypothesis</span></span>\n'
        f"{pairs}</div>\n</article>"
    )


def _source(value: str | Sound | np.ndarray) -> str:
    if isinstance(value, str):
        return f'<p dir="auto">{escape(value)}</p>'
    if isinstance(value, Sound):
        seconds = len(value.samples) / value.rate
        left_out = f" the first {MAX_SECONDS} of {seconds:.0f} s" if seconds > MAX_SECONDS else ""
        return f'<audio controls preload="none" src="{_data("audio/wav", _wav(value))}"></audio>{left_out}'
    image, buffer = Image.fromarray(value), io.BytesIO()
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    image.save(buffer, "PNG")
    return f'<img alt="" src="{_data("image/png", buffer.getvalue())}">'


def _wav(sound: Sound) -> bytes:
    """A wav file of 16 bits."""
    samples = np.nan_to_num(sound.samples[: MAX_SECONDS * sound.rate]).clip(-1, 1)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --edge: #8884; --sub: #e6a70055; --ins: #2a7de155; --del: #d33a; }}
body {{ font: 15px/1.4 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
article {{ border: 1px solid var(--edge); border-radius: 8px; padding: 0 1rem 1rem; margin: 1rem 0; }}
h2 {{ font-size: 1rem; }}
.field {{ display: flex; gap: 1rem; align-items: center; margin: .4rem 0; }}
.field p {{ margin: 0; white-space: pre-wrap; }}
.name, .names {{ opacity: .6; min-width: 6rem; }}
.pair {{ display: inline-flex; flex-direction: column; margin: .3rem .35rem .3rem 0; vertical-align: top; }}
.pair span {{ padding: 0 .15rem; border-radius: 3px; }}
.substituted span, .key .substituted {{ background: var(--sub); }}
.inserted span:last-child, .key .inserted {{ background: var(--ins); }}
.deleted span:first-child, .key .deleted {{ background: var(--del); text-decoration: line-through; }}
audio, img {{ max-width: 100%; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="key">The {n} of {of} cases with the highest {score}. Words:
<span class="substituted">substituted</span> <span class="inserted">inserted</span>
<span class="deleted">deleted</span></p>
{cards}
</body>
</html>
"""

"""What a model generates of one record at every validation: lines for the terminal, and `generated.jsonl`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from anyformer.faults import writing
from anyformer.saving.atomic import write_whole
from anyformer.tasks.base.examples import Generated

FILE = "generated.jsonl"
WIDEST = 160
"""Characters of a text in a line for the terminal; the file has all."""


def generated_lines(examples: Iterable[Generated]) -> list[str]:
    """Lines for the terminal: the reference above the hypothesis, or what a language model goes on with."""
    lines = []
    for each in examples:
        what = f"{each.name} " if each.name else ""
        texts = {"reference": each.reference, "hypothesis": each.text}
        if each.reference is None:
            texts = {"continuation": each.text}
        lines += [f"  {what}{name}: {_in_a_line(text)}" for name, text in texts.items()]
    return lines


def _in_a_line(text: str) -> str:
    return json.dumps(textwrap.shorten(text, WIDEST, placeholder=" ..."), ensure_ascii=False)


def add_generated(run: Path, step: int, epoch: int, examples: Sequence[Generated]) -> None:
    """Add what was generated at a step to a run's `generated.jsonl`.

    Lines of this step and later, of a run that was broken off behind its last checkpoint, are dropped.
    """
    if not examples:
        return
    path = run / FILE
    new = [json.dumps({"step": step, "epoch": epoch, **each.as_row()}, ensure_ascii=False) for each in examples]
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in before if (at := _step_of(line)) is not None and at < step]
    if len(kept) < len(before):
        write_whole(path, "".join(f"{line}\n" for line in [*kept, *new]))
        return
    with writing(path), open(path, "a", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in new)


def _step_of(line: str) -> int | None:
    """None of a line that was not written to its end."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None

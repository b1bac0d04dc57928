"""The worst cases of an evaluation, as the page of a run folder shows them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from anyformer.drawing.worst_cases import Case, Sound, write_worst
from anyformer.errors import InputError
from anyformer.metrics.text import edit_distance
from anyformer.tasks.base.examples import Generated
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.audio.reading import read_sound
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Tokenizer

N_WORST = 30
"""Cases on the page."""
STAGES = {"": "", "val": " of validation", "test": " of the test"}


class WorstCases:
    """What an evaluation has seen, by word error rate, the worst first; the inputs of the worst alone are kept."""

    def __init__(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        """tokenizers: of the inputs."""
        self.tokenizers = tokenizers
        self.stage: Literal["", "val", "test"] = ""
        """Which evaluation it is, where that is known."""
        self.all: list[Case] = []
        self.first: Case | None = None
        """That of the first record, the same in every evaluation of the same records."""

    def add(
        self,
        sources: Sequence[Mapping[str, Any]],
        references: Sequence[str],
        hypotheses: Sequence[str],
        names: Sequence[str] = (),
    ) -> None:
        """Take in a batch. sources: the inputs as they stand in the records. names: of the records, if any."""
        names = names or [""] * len(references)
        for source, reference, hypothesis, name in zip(sources, references, hypotheses, names, strict=True):
            words = reference.split()
            score = edit_distance(words, hypothesis.split()) / max(len(words), 1)
            self.all.append(Case(source, reference, hypothesis, score, name))
            self.first = self.first or replace(self.all[-1], source={})
        self.all.sort(key=lambda case: -case.score)
        # They may be recordings.
        self.all[N_WORST:] = [replace(case, source={}) for case in self.all[N_WORST:]]

    def generated(self, name: str = "") -> list[Generated]:
        """The first case, as `Task.generate_examples` gives it. name: of the target, where there are several."""
        if self.first is None:
            return []
        return [Generated(self.first.hypothesis, self.first.reference, name, self.first.name)]

    def draw(self, folder: Path, suffix: str = "") -> None:
        """Write `worst.html`, if there has been a case. suffix: of the file's name."""
        if self.all:
            worst = [replace(case, source=self._shown(case.source)) for case in self.all[:N_WORST]]
            title = f"Worst cases{STAGES[self.stage]}"
            write_worst(folder / f"worst{suffix}.html", worst + self.all[N_WORST:], N_WORST, title)

    def _shown(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a case as a page can show them."""
        return {name: self._show(self.tokenizers[name], value) for name, value in source.items()}

    def _show(self, tokenizer: Tokenizer, value: Any) -> Any:
        try:
            if isinstance(tokenizer, Text):
                return str(value)
            if isinstance(tokenizer, Audio):
                return Sound(read_sound(value, tokenizer.mel.rate).numpy(), tokenizer.mel.rate)
            tokens = tokenizer.encode(value)
            picture = None if isinstance(tokens, dict) else tokenizer.show(tokens)
        except InputError as error:
            # The file may have gone since.
            return str(error)
        return textwrap.shorten(str(value), 200) if picture is None else picture

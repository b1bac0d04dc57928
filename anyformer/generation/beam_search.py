"""Beam search: of each prompt the likeliest continuations so far go on side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anyformer.choices import Values
from anyformer.errors import InputError
from anyformer.generation.continuation import Continuation, Step
from anyformer.generation.detokenizer import ShownText
from anyformer.generation.method import Move
from anyformer.generation.options import check_counts
from anyformer.generation.running_batch import Rows


@dataclass(frozen=True, kw_only=True)
class BeamOptions(Values):
    """How wide beams are, and which is the best."""

    n_beams: int = 1
    """Width of beam search; 1 for none."""
    length_penalty: float = 1.0
    """A beam's score is the sum of its log-probabilities over its length to this power (after Wu et al. 2016, 7): above
    0 favours longer ones."""

    def __post_init__(self) -> None:
        check_counts(self, "n_beams")
        if not math.isfinite(self.length_penalty):
            raise InputError(f"length_penalty must be a number, got {self.length_penalty}")


class BeamSearch:
    """Without a repetition penalty that of transformers, step for step (its early_stopping: false)."""

    not_streamed = "beams are not streamed, as which is best shows at their end only; take n_beams: 1"

    def __init__(self, rows: Rows, options: BeamOptions) -> None:
        self.rows, self.options, self.n_rows = rows, options, options.n_beams
        prompts = range(len(rows.prompt_ids))
        # Of each prompt: its beams' ids and scores, a row each, and what has ended, best first.
        self._beams: list[list[list[int]]] = [[[] for _ in range(self.n_rows)] for _ in prompts]
        # All beams start alike, so only the first may go on.
        self._scores = [[0.0] + [-np.inf] * (self.n_rows - 1) for _ in prompts]
        self._ended: list[list[Continuation]] = [[] for _ in prompts]
        self._live = list(prompts)
        self._length = 0

    @staticmethod
    def is_asked(options: BeamOptions) -> bool:
        return options.n_beams > 1

    @property
    def ids(self) -> list[list[int]]:
        return [beam for prompt in self._live for beam in self._beams[prompt]]

    def step(self, logits: Tensor, is_last: bool) -> tuple[list[Step], Move | None]:
        n, live, stop_ids = self.n_rows, self._live, self.rows.options.stop_ids
        n_kept = n * (1 + max(1, len(stop_ids)))
        self._length += 1
        divisor = self._length**self.options.length_penalty
        # The best of the logits are those of the log-probabilities, which are worked out for these alone.
        found = logits.topk(min(n_kept, logits.shape[1]))
        log_p = found.values if self.rows.are_scores else found.values - _log_sum_exp_(logits)
        so_far = torch.tensor([score for prompt in live for score in self._scores[prompt]], device=logits.device)
        values = log_p + so_far[:, None]
        values, places = values.view(len(live), -1).topk(min(n_kept, values.shape[1] * n))
        owners = places // found.values.shape[1]
        new = found.indices.view(len(live), -1).gather(1, places)
        keep, chosen, moves = [], [], []
        for i, (prompt, *candidate) in enumerate(
            zip(live, values.tolist(), owners.tolist(), new.tolist(), strict=True)
        ):
            beams, ended, going = self._beams[prompt], self._ended[prompt], []
            for rank, (value, owner, token) in enumerate(zip(*candidate, strict=True)):
                stops = token in stop_ids
                if (stops or is_last) and rank < n and value > -np.inf:
                    own = beams[owner] if stops else [*beams[owner], token]
                    ended.append(Continuation(own, None, "stop" if stops else "length", value / divisor))
                if not stops and len(going) < n:
                    going.append((value, owner, token))
            # A vocabulary smaller than the beams has too few to go on with.
            going += [(-np.inf, *going[0][1:])] * (n - len(going)) if going else []
            ended[:] = sorted(ended, key=lambda beam: -beam.score)[:n]
            best = going[0][0] if going else -np.inf
            is_open = len(ended) < n or best / divisor > ended[-1].score
            if best == -np.inf or not is_open:
                continue
            going, copies = _settle(going)
            moves += [(len(keep) * n + source, len(keep) * n + target) for source, target in copies]
            self._beams[prompt] = [[*beams[owner], token] for _, owner, token in going]
            self._scores[prompt] = [value for value, _, _ in going]
            keep.append(i)
            chosen += [token for _, _, token in going]
        if not keep or is_last:
            return [], None
        kept = None
        if len(keep) < len(live):
            kept = [i * n + beam for i in keep for beam in range(n)]
            self._live = [live[i] for i in keep]
        return [], Move(chosen, kept, moves, sharing=n)

    def continuations(self) -> list[list[Continuation]]:
        decode, n_samples = self.rows.of.decode, self.rows.options.n_samples
        if decode is None:
            return [beams[:n_samples] for beams in self._ended]
        return [
            [replace(beam, text=_spell(decode, prompt, beam.ids)) for beam in beams[:n_samples]]
            for prompt, beams in zip(self.rows.prompt_ids, self._ended, strict=True)
        ]


def _spell(decode: Callable[[Sequence[int]], str], before: Sequence[int], ids: Sequence[int]) -> str:
    """The text of ids behind those of a prompt."""
    text = ShownText(decode, before=before)
    shown = [text.push(new)[0] for new in ids]
    return "".join(shown) + text.flush()[0]


def _log_sum_exp_(logits: Tensor) -> Tensor:
    """As `logsumexp` over the ids, (b, 1), in the place of the logits (b, v), which are lost."""
    greatest = logits.amax(1, keepdim=True)
    return logits.sub_(greatest).exp_().sum(1, keepdim=True).log() + greatest


def _settle(beams: list[tuple[float, int, int]]) -> tuple[list[tuple[float, int, int]], list[tuple[int, int]]]:
    """Give the next beams, (score, parent, id) each, the rows of their parents, as far as these go.

    Returns the beams by row, and for the others (source, target): a row to copy, and one that no beam came from.
    """
    rows: list[tuple[float, int, int] | None] = [None] * len(beams)
    homeless = []
    for beam in beams:
        if rows[beam[1]] is None:
            rows[beam[1]] = beam
        else:
            homeless.append(beam)
    copies = []
    for beam, row in zip(homeless, [i for i, kept in enumerate(rows) if kept is None], strict=True):
        rows[row] = beam
        copies.append((beam[1], row))
    return rows, copies

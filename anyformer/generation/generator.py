"""New tokens of one field after given ones: greedily, drawn or by beam search, over cached keys and values.

It works on ids. Text enters through a `decode` that is given, to find stop strings and to say what can be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.generation.continuation import Continuation, Step
from anyformer.generation.detokenizer import ShownText
from anyformer.generation.prepacked import PackedWeights
from anyformer.generation.running_batch import Allow, Rows, Scorer
from anyformer.generation.sampling import candidates, draw
from anyformer.model.anyformer import Anyformer
from anyformer.tokens import Sample


@dataclass
class _Line:
    """A continuation under way: one row."""

    prompt: int
    sample: int
    random: np.random.Generator | None = None
    text: ShownText | None = None
    ids: list[int] = field(default_factory=list)


class Generator:
    """Continues prompts with a model and a head.

    A prompt is a sample. Its other fields are conditions, which new tokens see as they see the tokens of the prompt;
    new tokens follow one after another, their orders above all others of the sample, their positions counting on.
    On a CPU the generator keeps a rearranged copy of the large matrices (see `PackedWeights`).
    """

    def __init__(
        self,
        model: Anyformer,
        head: Callable[[Tensor], Tensor],
        field: str,
        start: int | None = None,
        decode: Callable[[Sequence[int]], str] | None = None,
        context: int | None = None,
    ) -> None:
        """
        head: hidden vectors (b, d) to logits (b, v).
        field: whose ids are generated; it has one axis of positions or none.
        start: the id that stands before all others where a prompt has no token of the field.
        decode: ids to text.
        context: places of the field that the model can place, from 0. Past it the oldest half of a row is dropped and
            all rows are computed again from what they keep, in one pass, with positions from 0. When left out there
            is no limit but the model's own.
        """
        if field not in model.tokenizers:
            raise InputError(f"no field {field!r} to generate; the model has {', '.join(model.tokenizers)}")
        if len(model.tokenizers[field].axes) > 1:
            raise InputError(f"field {field!r} has several axes, and new tokens follow each other along one")
        if context is not None and context < 2:
            raise InputError(f"context must be at least 2, to drop half of it, got {context}")
        self.model, self.head, self.field = model, head, field
        self.start, self.decode, self.context = start, decode, context
        self.packed = PackedWeights()

    def generate(
        self,
        prompts: Sequence[Sample],
        config: GenerationConfig = GenerationConfig(),
        conditions: Batch | None = None,
        allow: Allow | None = None,
        numbers: Sequence[int] | None = None,
        memory: Tensor | None = None,
        second: Scorer | None = None,
    ) -> list[list[Continuation]]:
        """The n_samples continuations of every prompt; of beams the best first.

        prompts: samples as the task orders them, without the tokens to come.
        conditions: what the encoder reads, a row for each prompt; memory: what it made of them, where that is known.
        allow: constrained decoding: from the ids of a continuation so far the ids that may follow, None for all;
            those that stop are named too.
        numbers: of the prompts, 0, 1, ... when left out. The draws of a continuation depend on the seed and the number
            of its prompt and sample alone, not on the prompts beside it.
        second: what has a say in the next id beside the model, such as `CTCPrefixScorer`.
        Raises InputError for what cannot be continued.
        """
        if config.n_beams > 1:
            return self._beams(prompts, config, conditions, allow, memory, second)
        ids, texts, ended = ({} for _ in range(3))
        for step in self.stream(prompts, config, conditions, allow, numbers, memory, second):
            for new in step:
                key = new.prompt, new.sample
                ids.setdefault(key, []).append(new.id)
                texts.setdefault(key, []).append(new.text)
                ended[key] = new.ended
        results: list[list[Continuation]] = [[] for _ in prompts]
        for prompt, sample in sorted(ids):
            key = prompt, sample
            text = None if self.decode is None else "".join(texts[key])
            own = ids[key][:-1] if ids[key][-1] in config.stop_ids else ids[key]
            results[prompt].append(Continuation(own, text, ended[key]))
        return results

    def stream(
        self,
        prompts: Sequence[Sample],
        config: GenerationConfig = GenerationConfig(),
        conditions: Batch | None = None,
        allow: Allow | None = None,
        numbers: Sequence[int] | None = None,
        memory: Tensor | None = None,
        second: Scorer | None = None,
    ) -> Iterator[list[Step]]:
        """As `generate`, token by token: each time the next token of every continuation that has not ended."""
        if config.n_beams > 1:
            raise InputError("beams are not streamed, as which is best shows at their end only; take n_beams: 1")
        if config.stop and self.decode is None:
            raise InputError("stop strings need a decode to find them in; give stop_ids")
        if not prompts:
            return iter(())
        rows = Rows(self, prompts, config, conditions, config.n_samples, memory, second)
        return self._stream(rows, config, allow, range(len(prompts)) if numbers is None else numbers)

    @torch.inference_mode()
    def _stream(
        self, rows: Rows, config: GenerationConfig, allow: Allow | None, numbers: Sequence[int]
    ) -> Iterator[list[Step]]:
        before = rows.prompt_ids
        lines = [
            _Line(
                prompt,
                sample,
                np.random.default_rng([config.seed, number, sample]) if config.temperature else None,
                None if self.decode is None else ShownText(self.decode, config.stop, before[prompt]),
            )
            for prompt, number in enumerate(numbers)
            for sample in range(config.n_samples)
        ]
        logits = rows.begin()
        for left in reversed(range(config.max_new_tokens)):
            logits = rows.restrict(logits, [line.ids for line in lines], allow)
            if config.temperature:
                chosen = draw(*candidates(logits, config), [line.random.random() for line in lines]).tolist()
            else:
                chosen = logits.argmax(1).tolist()
            steps = [_advance(line, new, not left, config) for line, new in zip(lines, chosen, strict=True)]
            yield steps
            keep = [i for i, step in enumerate(steps) if not step.ended]
            if not keep:
                return
            if len(keep) < len(lines):
                rows.select(keep)
                lines, chosen = ([each[i] for i in keep] for each in (lines, chosen))
            logits = rows.advance(chosen)

    @torch.inference_mode()
    def _beams(
        self,
        prompts: Sequence[Sample],
        config: GenerationConfig,
        conditions: Batch | None,
        allow: Allow | None,
        memory: Tensor | None = None,
        second: Scorer | None = None,
    ) -> list[list[Continuation]]:
        """Beam search; without a repetition penalty that of transformers, step for step (its early_stopping: false)."""
        if not prompts:
            return []
        n, n_kept = config.n_beams, config.n_beams * (1 + max(1, len(config.stop_ids)))
        rows = Rows(self, prompts, config, conditions, n, memory, second)
        before = rows.prompt_ids
        # Of each prompt: its beams' ids and scores, a row each, and what has ended, best first.
        ids: list[list[list[int]]] = [[[] for _ in range(n)] for _ in prompts]
        # All beams start alike, so only the first may go on.
        scores = [[0.0] + [-np.inf] * (n - 1) for _ in prompts]
        ended: list[list[Continuation]] = [[] for _ in prompts]
        live = list(range(len(prompts)))
        logits = rows.begin()
        for length in range(1, config.max_new_tokens + 1):
            logits = rows.restrict(logits, [beam for prompt in live for beam in ids[prompt]], allow)
            # The best of the logits are those of the log-probabilities, which are worked out for these alone.
            found = logits.topk(min(n_kept, logits.shape[1]))
            log_p = found.values if second is not None else found.values - _log_sum_exp_(logits)
            so_far = torch.tensor([score for prompt in live for score in scores[prompt]], device=logits.device)
            values = log_p + so_far[:, None]
            values, places = values.view(len(live), -1).topk(min(n_kept, values.shape[1] * n))
            owners = places // found.values.shape[1]
            new = found.indices.view(len(live), -1).gather(1, places)
            keep, chosen, moves = [], [], []
            for i, (prompt, *candidate) in enumerate(
                zip(live, values.tolist(), owners.tolist(), new.tolist(), strict=True)
            ):
                going = []
                for rank, (value, owner, token) in enumerate(zip(*candidate, strict=True)):
                    stops = token in config.stop_ids
                    if (stops or length == config.max_new_tokens) and rank < n and value > -np.inf:
                        own = ids[prompt][owner] if stops else [*ids[prompt][owner], token]
                        score = value / length**config.length_penalty
                        ended[prompt].append(Continuation(own, None, "stop" if stops else "length", score))
                    if not stops and len(going) < n:
                        going.append((value, owner, token))
                # A vocabulary smaller than the beams has too few to go on with.
                going += [(-np.inf, *going[0][1:])] * (n - len(going)) if going else []
                ended[prompt] = sorted(ended[prompt], key=lambda beam: -beam.score)[:n]
                best = going[0][0] if going else -np.inf
                is_open = len(ended[prompt]) < n or best / length**config.length_penalty > ended[prompt][-1].score
                if best == -np.inf or not is_open:
                    continue
                going, copies = _settle(going)
                moves += [(len(keep) * n + source, len(keep) * n + target) for source, target in copies]
                ids[prompt] = [[*ids[prompt][owner], token] for _, owner, token in going]
                scores[prompt] = [value for value, _, _ in going]
                keep.append(i)
                chosen += [token for _, _, token in going]
            if not keep or length == config.max_new_tokens:
                break
            if len(keep) < len(live):
                rows.select([i * n + beam for i in keep for beam in range(n)], sharing=n)
                live = [live[i] for i in keep]
            rows.copy(moves)
            logits = rows.advance(chosen)
        return [
            [replace(beam, text=self._spell(prompt, beam.ids)) for beam in beams[: config.n_samples]]
            for prompt, beams in zip(before, ended, strict=True)
        ]

    def _spell(self, before: Sequence[int], ids: Sequence[int]) -> str | None:
        """The text of ids behind those of a prompt."""
        if self.decode is None:
            return None
        text = ShownText(self.decode, before=before)
        shown = [text.push(new)[0] for new in ids]
        return "".join(shown) + text.flush()[0]


def _advance(line: _Line, new: int, is_last: bool, config: GenerationConfig) -> Step:
    """Take in a continuation's next token."""
    line.ids.append(new)
    by_id = stopped = new in config.stop_ids
    text = ""
    if line.text is not None:
        if not by_id:
            text, stopped = line.text.push(new)
        if by_id or (is_last and not stopped):
            rest, found = line.text.flush()
            text, stopped = text + rest, by_id or found
    return Step(line.prompt, line.sample, new, text, "stop" if stopped else "length" if is_last else "")


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

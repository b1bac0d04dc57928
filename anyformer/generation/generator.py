"""New tokens of one field after given ones, over cached keys and values; a decoding method chooses among them.

It works on ids. Text enters through a `decode` that is given, to find stop strings and to say what can be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.generation.continuation import Continuation, Step
from anyformer.generation.grammar.constraint import Constraint, Vocabulary
from anyformer.generation.method import Method
from anyformer.generation.prepacked import PackedWeights
from anyformer.generation.running_batch import Allow, Prior, RowModel, Rows, Rule, Scorer
from anyformer.model.anyformer import Anyformer
from anyformer.tokens import Sample


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
        contents: Callable[[], Sequence[bytes | None]] | None = None,
        trims: bool = False,
    ) -> None:
        """
        head: hidden vectors (b, d) to logits (b, v).
        field: whose ids are generated; it has one axis of positions or none.
        start: the id that stands before all others where a prompt has no token of the field.
        decode: ids to text.
        context: places of the field that the model can place, from 0. Past it the oldest half of a row is dropped and
            all rows are computed again from what they keep, in one pass, with positions from 0. When left out there
            is no limit but the model's own.
        contents: gives by id the bytes that it adds to a text, None for none: for texts that keep to a grammar.
        trims: whether a text is shown without the space that it begins with.
        """
        if field not in model.tokenizers:
            raise InputError(f"no field {field!r} to generate; the model has {', '.join(model.tokenizers)}")
        if len(model.tokenizers[field].axes) > 1:
            raise InputError(f"field {field!r} has several axes, and new tokens follow each other along one")
        if context is not None and context < 2:
            raise InputError(f"context must be at least 2, to drop half of it, got {context}")
        self.model, self.head, self.field = model, head, field
        self.start, self.decode, self.context = start, decode, context
        self.contents, self.trims = contents, trims
        self.packed = PackedWeights()
        self._vocabularies: dict[tuple[int, ...], Vocabulary] = {}

    def generate(
        self,
        prompts: Sequence[Sample],
        config: GenerationConfig = GenerationConfig(),
        conditions: Batch | None = None,
        allow: Allow | None = None,
        numbers: Sequence[int] | None = None,
        memory: Tensor | None = None,
        second: Scorer | None = None,
        prior: Prior | None = None,
        rule: Rule | None = None,
    ) -> list[list[Continuation]]:
        """The n_samples continuations of every prompt; of beams the best first.

        prompts: samples as the task orders them, without the tokens to come.
        conditions: what the encoder reads, a row for each prompt; memory: what it made of them, where that is known.
        allow: constrained decoding: from the ids of a continuation so far the ids that may follow, None for all;
            those that stop are named too.
        numbers: of the prompts, 0, 1, ... when left out. The draws of a continuation depend on the seed and the number
            of its prompt and sample alone, not on the prompts beside it.
        second: what has a say in the next id beside the model, such as `CTCPrefixScorer`.
        prior: what is added to the score, such as `PriorScorer`.
        rule: closes what may not follow by what the model says of it, such as `TimeTokens.close`.
        Raises InputError for what cannot be continued.
        """
        if not prompts:
            return []
        method, steps = self._start(prompts, config, conditions, allow, numbers, memory, second, prior, rule)
        for _ in steps:
            pass
        return method.continuations()

    def stream(
        self,
        prompts: Sequence[Sample],
        config: GenerationConfig = GenerationConfig(),
        conditions: Batch | None = None,
        allow: Allow | None = None,
        numbers: Sequence[int] | None = None,
        memory: Tensor | None = None,
        second: Scorer | None = None,
        prior: Prior | None = None,
        rule: Rule | None = None,
    ) -> Iterator[list[Step]]:
        """As `generate`, token by token: each time the next token of every continuation that has not ended."""
        if why := config.decoded_by.not_streamed:
            raise InputError(why)
        if not prompts:
            return iter(())
        return self._start(prompts, config, conditions, allow, numbers, memory, second, prior, rule)[1]

    @property
    def parts(self) -> RowModel:
        """What the rows of a generation need."""
        return RowModel(self.model, self.head, self.field, self.start, self.decode, self.context, self.packed)

    def _start(
        self, prompts: Sequence[Sample], config: GenerationConfig, *given: Any
    ) -> tuple[Method, Iterator[list[Step]]]:
        """The method that the config asks for, and its steps, which are to be gone through; given: as Rows take it."""
        if config.stop and self.decode is None:
            raise InputError("stop strings need a decode to find them in; give stop_ids")
        if config.constrains:
            *others, rule = given
            given = (*others, self._constrained(config, rule))
        rows = Rows(self.parts, prompts, config, *given)
        method = config.decoded_by(rows, config)
        return method, self._steps(rows, method)

    def _constrained(self, config: GenerationConfig, rule: Rule | None) -> Rule:
        """A rule, and the grammar that the config names."""
        if self.contents is None:
            raise InputError(f"{config.constrains} constrains texts, and what is generated here is none")
        if config.stop_ids not in self._vocabularies:
            self._vocabularies[config.stop_ids] = Vocabulary(self.contents(), config.stop_ids)
        constraint = Constraint(config, self._vocabularies[config.stop_ids], self.trims)

        def both(logits: Tensor, ids: Sequence[list[int]]) -> None:
            if rule is not None:
                rule(logits, ids)
            constraint(logits, ids)

        return both

    @torch.inference_mode()
    def _steps(self, rows: Rows, method: Method) -> Iterator[list[Step]]:
        logits = rows.begin(method.n_rows)
        for left in reversed(range(rows.options.max_new_tokens)):
            steps, move = method.step(rows.restrict(logits, method.ids), is_last=not left)
            if steps:
                yield steps
            if move is None:
                return
            if move.keep is not None:
                rows.select(move.keep, move.sharing)
            if move.copies:
                rows.copy(move.copies)
            logits = rows.advance(move.new)

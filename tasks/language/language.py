"""Language modelling: the next token of a text (causal), or those that are masked in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from anyformer.choices import Values
from anyformer.data.source import Source
from anyformer.data.tables import Table
from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.generation.generator import Generator
from anyformer.generation.options import split_answers
from anyformer.metrics.accumulators import Sums
from anyformer.metrics.metric import LOSS, Accumulators, Metric, ratio
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import Head, HeadConfig
from anyformer.model.lora import LoraConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.packing import collate
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.base.given import takes_records
from anyformer.tasks.base.task import Task
from anyformer.tasks.language.batch import Masking, TextChopper, TextExamples
from anyformer.tasks.language.scoring import (
    Document,
    TextConfig,
    score_answers,
    score_ids,
    score_masked,
    score_texts,
    whole_text,
)
from anyformer.tasks.language.windows import Pieces, TextWindows
from anyformer.tokenizers.text.corpus import Corpus, Documents
from anyformer.tokenizers.text.corpus_cache import learn_once, numbers_with_text
from anyformer.tokenizers.text.document_files import is_table
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.token_stream import token_stream
from anyformer.tokens import Sample, Tokenizer, TokenSet

METRICS = {
    "loss": LOSS,
    "perplexity": Metric("min", ("loss", "targets"), lambda loss, n: (loss / n).exp()),
}
CAUSAL = METRICS | {"bits_per_byte": Metric("min", ("loss", "bytes"), lambda loss, n: loss / (n * math.log(2)))}
MASKED = METRICS | {"accuracy": Metric("max", ("right", "targets"), ratio)}

OF_EXAMPLES = GenerationConfig(max_new_tokens=60, temperature=0.8, top_p=0.95)
"""How the example is gone on with at a validation; at the end it is longer."""


@dataclass(frozen=True)
class FillConfig(Values):
    """How a masked language model fills gaps."""

    blank: str = "___"
    """What stands in a text for one token to be found."""
    top: int = 5
    """How many candidates are told of each."""

    def __post_init__(self) -> None:
        if not self.blank:
            raise InputError("blank must not be empty; it marks the gaps in a text, as ___ does")
        if self.top < 1:
            raise InputError(f"top must be at least 1, got {self.top}")


class LanguageModel(Task):
    """Learns a text: to go on with it, or to fill gaps in it."""

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        transformer: TransformerConfig = TransformerConfig(),
        embedding: EmbeddingConfig = EmbeddingConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        output: HeadConfig = HeadConfig(),
        context: int = 256,
        samples: Literal["windows", "documents"] = "windows",
        masking: Masking | None = None,
        example: str | None = "",
        cache: str | None = None,
        init_from: str | None = None,
        freeze: list[str] | None = None,
        lora: LoraConfig | None = None,
    ) -> None:
        """
        Args:
            tokenizers: of the one text field, by the name of its column.
            transformer: sizes of the shared transformer.
            embedding: how content, type and position become a token.
            optimizer: the optimiser and its learning rate over the run.
            output: the layer over the vocabulary.
            context: tokens that the model sees at once.
            samples: windows over the text as one long stream, in training from any place of it; or documents, those
                longer than the context in pieces, which data.pack lays several in a row, each seeing itself alone.
            masking: tokens to find in the text (BERT); the next token is predicted when left out (GPT).
            example: a prompt that is gone on with when training is over; none for null.
            cache: folder of what is made of a corpus once; by default $XDG_CACHE_HOME/anyformer or ~/.cache/anyformer.
            init_from: the model that training starts from: a run folder, or a checkpoint of another library, as
                `import` takes it; what a config leaves out is taken from it.
            freeze: patterns of names of parameters that are not trained, as `model.transformer.blocks.[0-3].*`.
            lora: low-rank adapters on what init_from gives; they and the new parts alone are trained and saved.
        """
        super().__init__(tokenizers, transformer, embedding, optimizer, init_from, freeze, lora=lora)
        if len(tokenizers) != 1 or not isinstance(next(iter(tokenizers.values())), Text):
            raise InputError(f"tokenizers must be of one field, a Text, got {', '.join(tokenizers)}")
        ((self.field, text),) = tokenizers.items()
        if context < 2:
            raise InputError(f"context must be at least 2 tokens, got {context}")
        if text.max_len is not None and text.max_len < context:
            raise InputError(
                f"context is {context} tokens, more than the {text.max_len} of tokenizers.{self.field}.max_len"
            )
        if text.wrap and masking is None:
            raise InputError(
                f"tokenizers.{self.field}.wrap is for a model of masked tokens; leave it out, or give masking"
            )
        if text.max_len is None:
            self.tokenizers[self.field] = replace(text, max_len=context)
        self.output, self.context, self.samples, self.masking = output, context, samples, masking
        self.example, self.cache = example, cache
        self.head: Head | None = None

    @property
    def metric(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def text(self) -> Text:
        return self.tokenizers[self.field]  # type: ignore[return-value]

    @property
    def _stretch(self) -> int:
        """Tokens of the text in a sample: the context but for what is put around them."""
        return self.context - sum(map(len, self.text.around))

    # Data

    @property
    def predicted(self) -> list[str]:
        return [self.field]

    def fit_tokenizers(self, source: Source) -> None:
        text = self.text
        if text.vocabulary is None and text.file is None and text.kind != "bytes":
            key = f"{text.kind} {text.vocab_size} {text.normalize}"
            learnt = learn_once(source, key, lambda texts: text.fit(texts).vocabulary, self.cache, self.field)
            text = replace(text, vocabulary=learnt)
        self.tokenizers[self.field] = text.fit(())

    def values(self, source: Source, name: str) -> Iterator[Any]:
        # A document of a corpus may be larger than memory.
        return source.texts() if isinstance(source, Documents) else super().values(source, name)

    def open(self, path: str) -> Source:
        return Table(path) if is_table(path) else Corpus(path)

    def view(self, source: Source, training: bool) -> Source:
        text = self.text
        stream = token_stream(
            source,
            text.encode_batch,
            field=self.field,
            key=text.key,
            n_ids=text.n_ids,
            eos_id=text.eos_id,
            cache=self.cache,
        )
        if training and self.samples == "windows" and len(stream) <= self.context:
            raise InputError(
                f"the training text has {len(stream)} tokens, not more than one window of context={self.context}; "
                "give more text or a smaller context"
            )
        return (TextWindows if self.samples == "windows" else Pieces)(stream, self.field, self._stretch)

    def chopper(self, training: bool) -> TextChopper:
        jitter = self._stretch if self.samples == "windows" else 0
        return TextChopper(self.tokenizers, self.field, jitter, self.masking)

    # Model

    def build(self) -> None:
        self.model = Anyformer(self.tokenizers, self.transformer, self.embedding)
        self.head = Head(self.model.embeddings.lifts[self.field], self.transformer, self.output)
        self.sums = Accumulators({name: Sums() for name in ("loss", "targets", "bytes", "right")})
        if self.example is not None and self.masking is None:
            try:
                self._prompt({self.field: self.example})
            except InputError as error:
                raise InputError(f"example: {error}") from None

    def loss(self, batch: TextExamples) -> tuple[Tensor, Tensor]:
        hidden = self.model(batch.tokens).flatten(0, 1)[batch.read]
        return self.head.loss(hidden, batch.target), torch.tensor(float(len(batch.target)), device=hidden.device)

    def begin_evaluation(self) -> None:
        self.sums.reset()

    def evaluate(self, batch: TextExamples) -> None:
        hidden = self.model(batch.tokens).flatten(0, 1)[batch.read]
        self.sums.add(loss=self.head.loss(hidden, batch.target), targets=len(batch.target), bytes=batch.n_bytes)
        # All logits at once are few enough where few tokens are masked.
        found = batch.target.new_zeros(()) if self.masking is None else self.head(hidden).argmax(-1) == batch.target
        self.sums.add(right=found.sum())

    def report(self, stage: str) -> dict[str, Tensor]:
        """Nats a token, perplexity, and bits a byte or the share of masked tokens found."""
        return self.sums.compute(CAUSAL if self.masking is None else MASKED)

    # Use

    @property
    def options(self) -> type:  # type: ignore[override]
        return TextConfig if self.masking is None else FillConfig

    def rows_of_test(self, source: Source) -> Iterator[dict[str, Any]]:
        """How probable each text is, or what is found of it where tokens are masked; without the text: a document may
        be larger than memory, and all of them a corpus for the second time."""
        self.eval()
        view = self.view(source, training=False)
        stream = view.stream  # type: ignore[attr-defined]
        numbers = range(len(source))
        if len(stream.ends) < len(source):
            # Texts without a character are not in it.
            numbers = numbers_with_text(source, self.field)
        if self.masking is None:
            ends = map(int, stream.ends)
            # The id that ends a text is none of its own.
            texts = ([stream.ids[start : end - 1]] for start, end in pairwise(chain([0], ends)))
            scores = score_ids(self, texts)
        else:
            scores = enumerate(score_masked(self, self.chopper(training=False), view))
        for i, score in scores:
            yield {source.id_name: source.id_of(int(numbers[i])), **score}

    def take_record(self, record: Mapping[str, Any], folder: str) -> dict[str, Any]:
        # Of a corpus the text is called so whatever the field is.
        return {self.field: record.get(self.field, record.get("text"))}

    def read_record(self, source: Source, i: int) -> dict[str, Any]:
        own, number = source.find(i)
        # A file may be larger than memory, and whole it need not be for a score.
        if self.options is TextConfig and isinstance(own, Documents) and own.are_files:
            return {self.field: Document(own, number)}
        return super().read_record(source, i)

    def generate_examples(self) -> list[Generated]:
        if self.example is None or self.masking is not None:
            return []
        return [Generated(self._go_on(OF_EXAMPLES))]

    def _go_on(self, options: GenerationConfig) -> str:
        """The example with what follows on it."""
        return self.render(self.predict([{self.field: self.example}], options)[0])

    def closing(self) -> str | None:
        if self.example is None or self.masking is not None:
            return None
        options = replace(OF_EXAMPLES, max_new_tokens=200)
        return f"A sample:\n{self._go_on(options)}"

    @cached_property
    def generator(self) -> Generator:
        """Goes on with texts. Kept, because it rearranges the weights once."""
        if self.masking is not None:
            raise InputError("a model of masked tokens does not go on with a text; train one without masking")
        text = self.text
        return Generator(
            self.model,
            self.head,
            self.field,
            start=text.eos_id,
            decode=text.decode,
            context=self.context,
            contents=lambda: text.contents,
        )

    def _given(self, record: Mapping[str, Any]) -> str | Document:
        given = record.get(self.field)
        if not isinstance(given, str | Document):
            raise InputError(f"a record needs the field {self.field!r}, a text; it has {', '.join(record) or 'none'}")
        return given

    def _prompt(self, record: Mapping[str, Any], blank: str | None = None) -> Sample:
        """A text as tokens: in sequence, or at once, with the mask token in the place of each `blank`."""
        given = whole_text(self._given(record))
        parts = [given] if blank is None else given.split(blank)
        if blank is not None and self.text.leads_with_space:
            # The word that is missing would have brought its space.
            parts[:-1] = [part.removesuffix(" ") for part in parts[:-1]]
        first, *others = self.text.encode_batch(parts)
        gaps = [each for other in others for each in ([self.text.mask_id], other)]
        ids = torch.from_numpy(np.concatenate([first, *gaps]).astype(np.int64))
        if self.samples == "documents" and blank is None:
            ids = torch.cat([torch.tensor([self.text.eos_id]), ids])
        if blank is not None:
            before, after = self.text.around
            ids = torch.cat([torch.tensor(before, dtype=torch.int64), ids, torch.tensor(after, dtype=torch.int64)])
        if len(ids) > self.context:
            raise InputError(
                f"field {self.field!r}: the prompt has {len(ids)} tokens, more than the {self.context} of the model's "
                "context; give its last part"
            )
        place = torch.arange(len(ids))
        return {self.field: TokenSet(ids, place[:, None], place if blank is None else None)}

    def samples_of(self, record: Mapping[str, Any]) -> list[Sample]:
        """A text as a prompt is read; a longer one in pieces of the context."""
        is_causal, text = self.masking is None, whole_text(self._given(record))
        around = ([self.text.eos_id] if self.samples == "documents" else [], []) if is_causal else None
        pieces = self.text.encode_pieces(text, self.context, around)
        return [{self.field: piece.at(piece.position[:, 0]) if is_causal else piece} for piece in pieces]

    @property
    def class_field(self) -> str | None:  # type: ignore[override]
        return self.field if self.text.around[0] else None

    def _options(self, options: GenerationConfig) -> GenerationConfig:
        return replace(options, stop_ids=tuple({*options.stop_ids, self.text.eos_id}))

    @takes_records
    def predict(
        self, records: Sequence[Mapping[str, Any]], options: GenerationConfig | FillConfig | None = None
    ) -> list[dict[str, Any]]:
        """What follows on texts: for each the text and the list of its `continuations`. Or what fits into their gaps:
        the text `filled` with the likeliest, and the `candidates` of each gap, pairs of a text and its probability.
        With `score` how probable the texts are: their `tokens`, the `loss` in nats a token, and the `perplexity`; of
        the files of a corpus without the text, as they may be larger than memory. With a `score` of answers, parted by
        |, by answer the `log_probs` behind each text, in nats, and the `likeliest`.

        Raises InputError for a text longer than the context, and one without a gap where gaps are filled.
        """
        self.eval()
        options = options or self.options()
        if self.masking is not None:
            return [self._fill(record, options) for record in records]
        answers = getattr(options, "score", False)
        if isinstance(answers, str):
            scores = score_answers(self, [self._prompt(record) for record in records], split_answers(answers))
            return [
                {self.field: whole_text(record[self.field]), "likeliest": max(own, key=own.get), "log_probs": own}
                for record, own in zip(records, scores, strict=True)
            ]
        if answers:
            return score_texts(self, [self._given(record) for record in records])
        prompts = [self._prompt(record) for record in records]
        # All of one number, so that a seed gives a prompt the same text whatever it comes with.
        found = self.generator.generate(prompts, self._options(options), numbers=[0] * len(prompts))
        results = [
            {self.field: whole_text(record[self.field]), "continuations": [each.text for each in several]}
            for record, several in zip(records, found, strict=True)
        ]
        if options.constrains:
            # Only what has ended is a whole text of its form.
            for result, several in zip(results, found, strict=True):
                result["ended"] = [each.ended for each in several]
        return results

    @torch.inference_mode()
    def _fill(self, record: Mapping[str, Any], options: FillConfig) -> dict[str, Any]:
        text = self.text
        sample = self._prompt(record, options.blank)
        ids = sample[self.field].content.clone()
        place = (ids == text.mask_id).nonzero().squeeze(1)
        if not len(place):
            raise InputError(f"field {self.field!r}: there is no gap to fill; write {options.blank} where one is")
        hidden = self.model(collate([sample], self.model.tokenizers).to(self.device))[0, place]
        logits = self.head(hidden).float()
        logits[:, list(text.special_ids)] = -torch.inf
        p, found = logits.softmax(-1).topk(min(options.top, logits.shape[1]))
        ids[place] = found[:, 0].cpu()
        candidates = [
            [(text.decode([i]), share) for i, share in zip(*row, strict=True)]
            for row in zip(found.tolist(), p.tolist(), strict=True)
        ]
        return {self.field: record[self.field], "filled": text.decode(ids), "candidates": candidates}

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        if "loss" in result:
            return dict(result)
        if "log_probs" in result:
            columns = {f"log_prob({answer})": each for answer, each in result["log_probs"].items()}
            return {self.field: result[self.field], "likeliest": result["likeliest"]} | columns
        if "filled" in result:
            return {self.field: result[self.field], "filled": result["filled"]}
        continuations, ended = (enumerate(result.get(name, ()), 1) for name in ("continuations", "ended"))
        columns = {f"continuation {i}": text for i, text in continuations}
        return {self.field: result[self.field]} | columns | {f"ended {i}": how for i, how in ended}

    def stream(self, record: Mapping[str, Any], options: Any = None) -> Iterator[str]:
        options = options or self.options()
        is_whole = self.masking is not None or getattr(options, "score", False)
        if is_whole or options.decoded_by.not_streamed or options.n_samples > 1:
            yield from super().stream(record, options)
            return
        self.eval()
        steps = self.generator.stream([self._prompt(record)], self._options(options))
        yield record[self.field]
        for (step,) in steps:
            yield step.text

    def render(self, result: Mapping[str, Any]) -> str:
        if "loss" in result:
            return "  ".join(f"{name} {result[name]:.4g}" for name in ("tokens", "loss", "perplexity"))
        if "log_probs" in result:
            ranked = sorted(result["log_probs"].items(), key=lambda each: -each[1])
            return "\n".join(f"{log_prob:10.4f}  {answer!r}" for answer, log_prob in ranked)
        if "filled" in result:
            lines = ["  ".join(f"{word!r} {p:.1%}" for word, p in each) for each in result["candidates"]]
            return "\n".join([result["filled"], *lines])
        return "\n\n".join(result[self.field] + each for each in result["continuations"])

"""Language modelling: the next token of a text (causal), or those that are masked in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import SumMetric

from anyformer.data.chopper import Chopper
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.generation.config import GenerationConfig
from anyformer.generation.generator import Generator
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import Head, HeadConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.packing import collate
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.base.task import Task
from anyformer.tokenizers.text.corpus import Corpus
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.token_stream import TokenStream, learn_once, token_stream
from anyformer.tokens import Sample, Tokenizer, TokenSet


@dataclass(frozen=True)
class Masking:
    """Which tokens a masked language model has to find (BERT, Devlin et al. 2019, 3.1)."""

    share: float = 0.15
    """Of all tokens."""
    replaced: float = 0.8
    """Of those: by the mask token."""
    redrawn: float = 0.1
    """Of those: by any token. The others stay as they are."""
    whole_words: bool = False
    """Whether all tokens of a word are chosen, or none."""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"masking.share must lie between 0 and 1, got {self.share}")
        if min(self.replaced, self.redrawn) < 0 or self.replaced + self.redrawn > 1:
            raise InputError(
                f"masking.replaced and redrawn must not be negative, and at most 1 in sum, got {self.replaced} and "
                f"{self.redrawn}"
            )


@dataclass(frozen=True)
class FillConfig:
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


class Span(NamedTuple):
    """A stretch of a stream of ids."""

    stream: TokenStream
    start: int
    n: int


@dataclass(frozen=True, eq=False)
class Windows(Source):
    """A stream of ids in stretches of a length that lie end to end, the last one shorter."""

    stream: TokenStream
    field: str
    length: int

    def __len__(self) -> int:
        return -(-len(self.stream) // self.length)

    def __getitem__(self, i: int) -> dict[str, Any]:
        start = range(len(self))[i] * self.length
        return {self.field: Span(self.stream, start, min(self.length, len(self.stream) - start))}

    def name(self, i: int) -> str:
        return f"the corpus from token {i * self.length}"


@dataclass(frozen=True, eq=False)
class Pieces(Source):
    """The documents of a stream, those that are longer cut into pieces of a length."""

    stream: TokenStream
    field: str
    length: int

    @cached_property
    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        ends = np.asarray(self.stream.ends)
        starts = np.concatenate([[0], ends[:-1]])
        counts = -(-(ends - starts) // self.length)
        first = np.repeat(starts, counts)
        number = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        start = first + number * self.length
        return start, np.minimum(start + self.length, np.repeat(ends, counts)) - start

    def __len__(self) -> int:
        return len(self._bounds[0])

    def __getitem__(self, i: int) -> dict[str, Any]:
        start, n = self._bounds
        return {self.field: Span(self.stream, int(start[i]), int(n[i]))}

    def name(self, i: int) -> str:
        return f"the corpus from token {self._bounds[0][i]}"


@dataclass
class TextExamples(Examples):
    """Examples whose targets are read at places of the rows."""

    read: Tensor = None  # type: ignore[assignment]
    """(targets,) int64, where in the flattened (rows * length) layout each target is predicted"""
    n_bytes: float = 0.0
    """UTF-8 bytes of the text that the targets stand for."""


@dataclass(frozen=True)
class TextChopper(Chopper):
    """Stretches of ids to (sample, places to read within it, targets, bytes), and batches of them."""

    field: str
    jitter: int = 0
    """In training, stretches begin up to so many tokens later."""
    masking: Masking | None = None
    """None: each token is predicted from those before it."""

    @property
    def text(self) -> Text:
        return self.tokenizers[self.field]  # type: ignore[return-value]

    def __call__(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None
    ) -> tuple[Sample, Tensor, Tensor, float]:
        stream, start, n = record[self.field]
        if random is not None and self.jitter:
            start = min(start + int(random.integers(self.jitter)), max(len(stream) - self.jitter, 0))
            n = min(self.jitter, len(stream) - start)
        n_bytes = n * stream.n_bytes / len(stream)
        if self.masking is None:
            # Before the first token of all stands the end of a text, as before the first of every other document.
            before = stream.window(start - 1, 1) if start else torch.tensor([self.text.eos_id])
            ids = torch.cat([before, stream.window(start, n)])
            place = torch.arange(n)
            return {self.field: TokenSet(ids[:-1], place[:, None], place)}, place, ids[1:], n_bytes
        if random is None:
            random = np.random.default_rng((0, start))
        ids = stream.window(start, n)
        place, seen = self._mask(ids, random)
        before, after = self.text.around
        if after and ids[-len(after) :].tolist() == after:
            # The stream ends a document in what is put after a text.
            after = []
        seen = torch.cat([torch.tensor(before, dtype=torch.int64), seen, torch.tensor(after, dtype=torch.int64)])
        return {self.field: TokenSet(seen, torch.arange(len(seen))[:, None])}, place + len(before), ids[place], n_bytes

    def _mask(self, ids: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The places to predict, and the ids as the model sees them."""
        masking, text = self.masking, self.text
        units = text.words(ids).numpy() if masking.whole_words else np.arange(len(ids))
        open_to = ~np.isin(ids.numpy(), text.special_ids)
        able = np.unique(units[open_to])
        n = max(round(masking.share * len(able)), 1)
        chosen = open_to & np.isin(units, random.permutation(able)[:n])
        place = torch.from_numpy(np.flatnonzero(chosen))
        fate = torch.from_numpy(random.random(len(place)))
        ordinary = np.setdiff1d(np.arange(text.n_ids), text.special_ids)
        drawn = torch.from_numpy(random.choice(ordinary, len(place)))
        new = torch.where(fate < masking.replaced + masking.redrawn, drawn, ids[place])
        new = torch.where(fate < masking.replaced, text.mask_id, new)
        return place, ids.scatter(0, place, new)

    def count(self, record: Mapping[str, Any]) -> int:
        return record[self.field].n + sum(map(len, self.text.around))

    def collate(
        self, items: Sequence[tuple[Sample, Tensor, Tensor, float]], rows: Sequence[int] | None = None
    ) -> TextExamples:
        samples, places, targets, n_bytes = zip(*items, strict=True)
        tokens = collate(samples, self.tokenizers, rows)
        ends = np.cumsum([len(sample[self.field]) for sample in samples])
        starts = torch.from_numpy(np.repeat([0, *ends[:-1]], [len(place) for place in places]))
        read = tokens.fields[self.field].index[starts + torch.cat(places)]
        return TextExamples(tokens, torch.cat(targets), read=read, n_bytes=sum(n_bytes))


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
            init_from: the weights that training starts from: a run folder.
            freeze: patterns of names of parameters that are not trained, as `model.transformer.blocks.[0-3].*`.
        """
        super().__init__(tokenizers, transformer, embedding, optimizer, init_from, freeze)
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

    def learn(self, source: Source) -> None:
        text = self.text
        if text.vocabulary is None and text.file is None and text.kind != "bytes":
            key = f"{text.kind} {text.vocab_size} {text.normalize}"
            learnt = learn_once(source, key, lambda texts: text.fit(texts).vocabulary, self.cache, self.field)
            text = replace(text, vocabulary=learnt)
        self.tokenizers[self.field] = text.fit(())

    def open(self, path: str) -> Source:
        return Corpus(path)

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
        return (Windows if self.samples == "windows" else Pieces)(stream, self.field, self._stretch)

    def chopper(self, training: bool) -> TextChopper:
        jitter = self._stretch if self.samples == "windows" else 0
        return TextChopper(self.tokenizers, self.field, jitter, self.masking)

    # Model

    def build(self) -> None:
        self.model = Anyformer(self.tokenizers, self.transformer, self.embedding)
        self.head = Head(self.model.embeddings.lifts[self.field], self.transformer, self.output)
        # A loss that is no number shows, and is not left out of the sum.
        names = "loss", "targets", "bytes", "right"
        self.sums = torch.nn.ModuleDict({name: SumMetric(nan_strategy="disable") for name in names})
        if self.example is not None and self.masking is None:
            try:
                self._prompt({self.field: self.example})
            except InputError as error:
                raise InputError(f"example: {error}") from None

    def loss(self, batch: TextExamples) -> tuple[Tensor, Tensor]:
        hidden = self.model(batch.tokens).flatten(0, 1)[batch.read]
        return self.head.loss(hidden, batch.target), torch.tensor(float(len(batch.target)), device=hidden.device)

    def begin_evaluation(self) -> None:
        for metric in self.sums.values():
            metric.reset()

    def evaluate(self, batch: TextExamples) -> None:
        hidden = self.model(batch.tokens).flatten(0, 1)[batch.read]
        self.sums["loss"].update(self.head.loss(hidden, batch.target))
        self.sums["targets"].update(len(batch.target))
        self.sums["bytes"].update(batch.n_bytes)
        # All logits at once are few enough where few tokens are masked.
        found = batch.target.new_zeros(()) if self.masking is None else self.head(hidden).argmax(-1) == batch.target
        self.sums["right"].update(found.sum())

    def report(self, stage: str) -> dict[str, Tensor]:
        """Nats a token, perplexity, and bits a byte or the share of masked tokens found."""
        loss, n_targets, n_bytes, right = (self.sums[name].compute() for name in ("loss", "targets", "bytes", "right"))
        mean = loss / n_targets.clamp(min=1)
        values = {"loss": mean, "perplexity": mean.exp()}
        if self.masking is None:
            values["bits_per_byte"] = loss / (n_bytes * math.log(2)).clamp(min=1)
        else:
            values["accuracy"] = right / n_targets.clamp(min=1)
        return values

    # Use

    @property
    def options(self) -> type:  # type: ignore[override]
        return GenerationConfig if self.masking is None else FillConfig

    def closing(self) -> str | None:
        if self.example is None or self.masking is not None:
            return None
        options = GenerationConfig(max_new_tokens=200, temperature=0.8, top_p=0.95)
        return f"A sample:\n{self.render(self.predict([{self.field: self.example}], options)[0])}"

    @cached_property
    def generator(self) -> Generator:
        """Goes on with texts. Kept, because it rearranges the weights once."""
        if self.masking is not None:
            raise InputError("a model of masked tokens does not go on with a text; train one without masking")
        text = self.text
        return Generator(self.model, self.head, self.field, start=text.eos_id, decode=text.decode, context=self.context)

    def _prompt(self, record: Mapping[str, Any], blank: str | None = None) -> Sample:
        """A text as tokens: in sequence, or at once, with the mask token in the place of each `blank`."""
        given = record.get(self.field)
        if not isinstance(given, str):
            raise InputError(f"a record needs the field {self.field!r}, a text; it has {', '.join(record) or 'none'}")
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

    def _options(self, options: GenerationConfig) -> GenerationConfig:
        return replace(options, stop_ids=tuple({*options.stop_ids, self.text.eos_id}))

    def predict(
        self, records: Sequence[Mapping[str, Any]], options: GenerationConfig | FillConfig | None = None
    ) -> list[dict[str, Any]]:
        """What follows on texts: for each the text and the list of its `continuations`. Or what fits into their gaps:
        the text `filled` with the likeliest, and the `candidates` of each gap, pairs of a text and its probability.

        Raises InputError for a text longer than the context, and one without a gap where gaps are filled.
        """
        self.eval()
        options = options or self.options()
        if self.masking is not None:
            return [self._fill(record, options) for record in records]
        prompts = [self._prompt(record) for record in records]
        # All of one number, so that a seed gives a prompt the same text whatever it comes with.
        found = self.generator.generate(prompts, self._options(options), numbers=[0] * len(prompts))
        return [
            {self.field: record[self.field], "continuations": [each.text for each in several]}
            for record, several in zip(records, found, strict=True)
        ]

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
        if "filled" in result:
            return {"filled": result["filled"]}
        return {f"continuation {i}": text for i, text in enumerate(result["continuations"], 1)}

    def stream(self, record: Mapping[str, Any], options: Any = None) -> Iterator[str]:
        options = options or self.options()
        if self.masking is not None or options.n_beams > 1 or options.n_samples > 1:
            yield from super().stream(record, options)
            return
        self.eval()
        steps = self.generator.stream([self._prompt(record)], self._options(options))
        yield record[self.field]
        for (step,) in steps:
            yield step.text

    def render(self, result: Mapping[str, Any]) -> str:
        if "filled" in result:
            lines = ["  ".join(f"{word!r} {p:.1%}" for word, p in each) for each in result["candidates"]]
            return "\n".join([result["filled"], *lines])
        return "\n\n".join(result[self.field] + each for each in result["continuations"])

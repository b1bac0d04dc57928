"""A text as a target: written token after token behind the inputs, in the same set (a prefix-LM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.data.source import Source
from anyformer.data.values import is_absent
from anyformer.errors import InputError
from anyformer.generation.grammar.options import GrammarOptions
from anyformer.metrics.accumulators import Sums
from anyformer.metrics.metric import LOSS, Metric
from anyformer.metrics.text import N_SUMS, TEXT_METRICS, count_errors
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.heads import Head, HeadConfig
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.sequence.decoding import DecodeConfig, Decoder
from anyformer.tasks.sequence.target import read_target, written
from anyformer.tasks.sequence.worst_cases import WorstCases
from anyformer.tasks.targets.aims import Aim, Aims
from anyformer.tasks.targets.classes import check_smoothing
from anyformer.tasks.targets.target import Stage, Target, TargetHead, check_weight, known_values
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.vocabulary import NORMALIZERS
from anyformer.tokens import Sample, Tokenizer, TokenSet


class Writing(NamedTuple):
    """What is to be written of a record."""

    ids: np.ndarray
    reference: str
    """The text as it stands there."""


@dataclass(frozen=True)
class TextTarget(Target):
    """A text. Its tokens see all inputs and what is written of it, and no other target's text."""

    text: Tokenizer
    """The Text that cuts it."""
    output: HeadConfig | None = None
    """The layer over its vocabulary; tied and without a bias when left out."""
    label_smoothing: float = 0.0
    """Mass taken from the right token and spread over all."""
    decoding: DecodeConfig | None = None
    """How texts are found, in validation and in use; greedily when left out."""
    weight: float = 1.0
    """Of its losses among those of other targets."""
    allow_empty: bool = False
    """Whether a text of nothing is learnt, as one that ends at once; an empty cell of a table is still missing."""

    of_samples = False
    means = ("text", "output")

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not isinstance(self.text, Text):
            raise InputError(f"text must be a Text, got {type(self.text).__name__}")
        if self.text.wrap:
            raise InputError("text.wrap: the task itself puts tokens around what is written; leave it out")
        check_smoothing(self.label_smoothing)
        if self.decoding is not None and self.decoding.method not in (None, "attention"):
            raise InputError(f"decoding.method must be attention, got {self.decoding.method}: there is no ctc here")
        if self.decoding is not None and self.decoding.confidence:
            raise InputError(
                "decoding.confidence: a target's text comes without it; leave it out, or take SequenceToSequence"
            )
        if self.decoding is not None and self.decoding.n_best:
            raise InputError(
                "decoding.n_best: a target's text is the best alone; leave it out, or take SequenceToSequence"
            )
        if self.decoding is not None and self.decoding.fallback:
            raise InputError(
                "decoding.fallback: a target's text says nothing of its doubt; leave it out, or take SequenceToSequence"
            )

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Of texts that were written; NaN where the evaluation held none."""
        return {name: TEXT_METRICS[name] for name in ("cer", "wer", "exact_match")} | {"loss": LOSS}

    @property
    def learnt(self) -> Text:
        return self.text

    def with_learnt(self, tokenizer: Tokenizer) -> Self:
        return replace(self, text=tokenizer)

    @property
    def generated(self) -> Text:
        """With places for a text of the greatest length that is written."""
        if self.text.max_len is not None or self.decoding is None or self.decoding.max_new_tokens is None:
            return self.text
        return replace(self.text, max_len=len(self.start) + self.decoding.max_new_tokens)

    @property
    def start(self) -> tuple[int, ...]:
        """What stands before the text."""
        return (self.text.eos_id,)

    def fit(self, name: str, source: Source) -> Self:
        texts = self.texts(name, source)
        text, decoding = self.text.fit(texts), self.decoding or DecodeConfig()
        if decoding.max_new_tokens is None:
            longest = max((len(text.encode_batch([each])[0]) for each in texts), default=0)
            decoding = replace(decoding, max_new_tokens=2 * longest + 2)
        return replace(self, text=text, decoding=decoding)

    def texts(self, name: str, source: Source) -> list[str]:
        """What the records hold of it; those without it are left out."""
        return [text for text in known_values(source, name) if isinstance(text, str)]

    def value(self, name: str, record: Mapping[str, Any]) -> Writing | None:
        if is_absent(record.get(name)):
            return None
        return Writing(read_target(record, name, self.text, len(self.start), self.allow_empty), record[name])

    def count(self, name: str, record: Mapping[str, Any]) -> int:
        value = self.value(name, record)
        return 0 if value is None else len(self.start) + len(value.ids)

    def tokens(self, value: Writing) -> TokenSet:
        """The tokens that are fed: the start and the text, from order 1 on, behind all that is at 0."""
        return written(value.ids, self.start)

    def aim(self, name: str, values: Sequence[Writing | None], batch: Batch) -> Aim:
        """Each token that is fed is read for the one that follows it; the last for the end."""
        known = [(i, value) for i, value in enumerate(values) if value is not None]
        ids = [np.append(value.ids, self.text.eos_id) for _, value in known]
        owners = np.repeat([i for i, _ in known], [len(own) for own in ids]).astype(np.int64)
        places = batch.fields[name].index
        flat = np.concatenate(ids).astype(np.int64) if ids else np.zeros(0, dtype=np.int64)
        return Aim(places, torch.from_numpy(flat), torch.from_numpy(owners))

    def head(self, name: str, model: Anyformer, transformer: TransformerConfig) -> TextTargetHead:
        return TextTargetHead(name, self, model, transformer)

    def render(self, result: str) -> str:
        return result

    def row(self, name: str, result: str) -> dict[str, Any]:
        return {name: result}

    def words(self, value: Writing) -> str:
        return value.reference


class TextTargetHead(TargetHead):
    """The layer over the vocabulary, and what writes with it."""

    def __init__(self, name: str, target: TextTarget, model: Anyformer, transformer: TransformerConfig) -> None:
        super().__init__(target.metrics)
        self.name, self.target = name, target
        self.output = Head(model.embeddings.lifts[name], transformer, target.output or HeadConfig())
        self.sums["errors"] = Sums(N_SUMS)
        # In a tuple, so that the model is no part of its head.
        self._model = (model,)
        self._decoder: Decoder | None = None
        self.cases = WorstCases({})
        self.form = GrammarOptions()
        """What texts are held to beside what the target's `decoding` says, while some are predicted."""

    @property
    def decoder(self) -> Decoder:
        if self._decoder is None:
            target = self.target
            self._decoder = Decoder(self._model[0], self.output, None, self.name, target.text, target.start)
        return self._decoder

    def loss(self, vectors: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """In nats; of a text its tokens and its end count."""
        loss = self.output.loss(vectors, values, self.target.label_smoothing if self.training else 0.0)
        return loss, loss.new_tensor(len(values))

    def evaluate_batch(self, name: str, vectors: Tensor, batch: Aims) -> tuple[Tensor, dict[str, Tensor]]:
        """The scores are of the texts of samples, not of tokens."""
        self.add_loss(vectors, batch.aims[name].values)
        texts = batch.references[name]
        right, said = self.compare([batch.prompts[i] for i in texts], list(texts.values()))
        names = [batch.samples[i] for i in texts if batch.samples]
        self.cases.add([batch.sources[i] for i in texts], right, said, names)
        is_exact = torch.tensor([float(a == b) for a, b in zip(right, said, strict=True)])
        return torch.tensor(list(texts)), {"exact_match": is_exact}

    def compare(self, prompts: Sequence[Sample], references: Sequence[str]) -> tuple[list[str], list[str]]:
        """Write texts and take what is wrong with them into the metrics. Returns what was right, and the texts."""
        normalize = NORMALIZERS[self.target.text.normalize]
        # What the tokenizer makes the same for the model is the same for the metrics.
        references = [normalize(reference).strip() for reference in references]
        texts = self.write(prompts)
        self.sums.add(errors=count_errors(references, texts))
        return references, texts

    def write(self, prompts: Sequence[Sample]) -> list[str]:
        """The text of each sample of inputs."""
        if not prompts:
            return []
        decoder = self.decoder
        config = self.target.decoding or DecodeConfig()
        if self.form.constrains:
            config = replace(config, **{each.name: getattr(self.form, each.name) for each in fields(GrammarOptions)})
        found = decoder.decode(config, [{**prompt, self.name: decoder.prompt} for prompt in prompts])
        return [self.target.text.decode(ids).strip() for ids in found]

    def generated(self, name: str = "") -> list[Generated]:
        return self.cases.generated(name)

    def reset(self) -> None:
        super().reset()
        self.cases = WorstCases({})

    def predict_batch(self, name: str, vectors: Tensor | None, batch: Aims) -> list[str]:
        return self.write(batch.prompts)

    def draw(self, folder: Path, suffix: str, stage: Stage = "", inputs: Mapping[str, Tokenizer] = {}) -> None:
        self.cases.tokenizers, self.cases.stage = inputs, stage
        self.cases.draw(folder, suffix)

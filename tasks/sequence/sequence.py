"""Sequence to sequence: any fields in, text out. A translator and a speech recogniser are this one task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anyformer.batch import Batch
from anyformer.choices import Values
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.metrics.accumulators import Sums
from anyformer.metrics.metric import LOSS, Accumulators
from anyformer.metrics.text import N_SUMS, TEXT_METRICS, count_errors
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, default_positions
from anyformer.model.heads import Head, HeadConfig
from anyformer.model.lora import LoraConfig
from anyformer.model.losses.ctc import CTCHead
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.base.examples import Generated
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.given import takes_records
from anyformer.tasks.base.task import Task
from anyformer.tasks.explain.explainer import Question, Wanted
from anyformer.tasks.sequence.batch import Architecture, Pair, PairChopper, Pairs
from anyformer.tasks.sequence.decoding import DecodeConfig, Decoded, Decoder
from anyformer.tasks.sequence.explained import text_question
from anyformer.tasks.sequence.subtitles import Word
from anyformer.tasks.sequence.transcribe import Transcript, join_transcripts, stream_transcript, transcribe
from anyformer.tasks.sequence.transcripts import TranscriptConfig, parts, show_words
from anyformer.tasks.sequence.worst_cases import WorstCases
from anyformer.tasks.targets.classes import check_smoothing
from anyformer.tokenizers.audio.audio import Audio
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.vocabulary import NORMALIZERS
from anyformer.tokens import Sample, Tokenizer, expand

METRICS = {"loss": LOSS} | TEXT_METRICS
"""Those that may choose the best model."""


@dataclass(frozen=True)
class CTCConfig(Values):
    """A second loss, on the hidden vectors of a sound: without it attention does not find from scratch what to look at
    (Watanabe et al. 2017)."""

    field: str | None = None
    """The field whose vectors are read; the only input when left out."""
    weight: float = 0.3
    """Its share in the loss; attention has the rest. With architecture encoder there is nothing else."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            alone = "; architecture: encoder learns by ctc alone, without a weight" if self.weight == 1 else ""
            raise InputError(f"ctc.weight must be above 0 and below 1, got {self.weight}{alone}")


class EncoderOutput(NamedTuple):
    """What a model has made of the inputs of a batch."""

    memory: Tensor | None = None
    """Of an encoder before a decoder: (rows, length, d)."""
    frames: Tensor | None = None
    """Of the field that CTC reads, (total, d)."""


class SequenceToSequence(Task):
    """Writes the text that belongs to samples of any fields."""

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        transformer: TransformerConfig = TransformerConfig(),
        embedding: EmbeddingConfig = EmbeddingConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        target: str = "text",
        architecture: Architecture = "encoder_decoder",
        encoder: TransformerConfig | None = None,
        output: HeadConfig = HeadConfig(),
        label_smoothing: float = 0.0,
        ctc: CTCConfig | None = None,
        decoding: DecodeConfig = DecodeConfig(),
        shared_vocabulary: bool = False,
        start: list[str | list[str]] | None = None,
        choose: str | None = None,
        language: str = "en",
        fields: FieldsConfig = FieldsConfig(),
        init_from: str | None = None,
        freeze: list[str] | None = None,
        lora: LoraConfig | None = None,
        allow_empty: bool = False,
    ) -> None:
        """
        Args:
            tokenizers: of each input field and of the target, by the name of its column.
            transformer: sizes of the transformer that writes; with architecture encoder, of the one that reads.
            embedding: how content, type and position become a token.
            optimizer: the optimiser and its learning rate over the run.
            target: the field that is written, a Text.
            architecture: an encoder that reads and a decoder that writes; a decoder alone, which reads the inputs as a
                prefix; or an encoder alone, which writes by ctc.
            encoder: sizes of the transformer that reads, if not those of the one that writes; with architecture
                encoder_decoder alone.
            output: the layer over the vocabulary of the target.
            label_smoothing: mass taken from the right token and spread over all.
            ctc: a second loss, where an input is a sound.
            decoding: how texts are found, in validation, and in use unless `predict` is given options.
            shared_vocabulary: whether all Text fields have one vocabulary and one table of embeddings.
            start: special tokens that stand before the target, by their spelling; the end of a text when left out.
                Where several stand in the place of one, as Whisper's languages, the model takes the likeliest of them.
            choose: the metric that chooses the best model: wer, cer, bleu, bleu_moses, exact_match or loss; by default
                bleu where the inputs are texts, else wer.
            language: of the target, for the tokenizer of bleu_moses.
            allow_empty: whether a target that is empty is learnt as silence, a text of nothing; else it is refused.
            fields: which inputs are left out of training samples, who sees whom, what an evaluation asks without.
            init_from: the model that training starts from: a run folder, or a checkpoint of another library, as
                `import` takes it; what a config leaves out is taken from it.
            freeze: patterns of names of parameters that are not trained, as `model.encoder.blocks.[0-3].*`.
            lora: low-rank adapters on what init_from gives; they and the new parts alone are trained and saved.
        """
        super().__init__(tokenizers, transformer, embedding, optimizer, init_from, freeze, fields, lora=lora)
        if not isinstance(self.tokenizers.get(target), Text):
            raise InputError(f"target: {target!r} must be a field of tokenizers that is a Text")
        self.target = target
        if not self.inputs:
            raise InputError(f"tokenizers must name an input beside the target {target!r}")
        if self.tokenizers[target].wrap:
            raise InputError(f"tokenizers.{target}.wrap: the task itself puts tokens around the target; leave it out")
        check_smoothing(label_smoothing)
        if choose is not None and choose not in METRICS:
            raise InputError(f"choose must be one of {', '.join(METRICS)}, got {choose!r}")
        if shared_vocabulary and len({self._design(name) for name in self._texts}) > 1:
            raise InputError(f"shared_vocabulary: {', '.join(self._texts)} must have the same kind, size and file")
        if decoding.method in ("ctc", "joint") and ctc is None and architecture != "encoder":
            raise InputError(f"decoding.method: {decoding.method} needs a model with ctc; give ctc, or take attention")
        if decoding.fallback and (decoding.method == "ctc" or architecture == "encoder"):
            raise InputError("decoding.fallback finds a text anew by drawing, which ctc does not; leave it out")
        if architecture == "encoder":
            if decoding.method not in (None, "ctc"):
                raise InputError(f"decoding.method: architecture encoder writes by ctc, got {decoding.method}")
            given = {"label_smoothing": label_smoothing, "start": start}
            if of_decoder := [name for name, value in given.items() if value]:
                raise InputError(f"{of_decoder[0]}: architecture encoder has no decoder; leave it out")
        self.architecture, self.encoder, self.output = architecture, encoder, output
        self.label_smoothing, self.ctc, self.decoding = label_smoothing, ctc, decoding
        self.shared_vocabulary, self.start, self.choose, self.language = shared_vocabulary, start, choose, language
        self.allow_empty = allow_empty
        self._check_ctc()
        needed = {self.ctc_field: "architecture: encoder"} if architecture == "encoder" else {}
        own = [] if architecture == "encoder" else [target]
        self.fields.check({name: self.tokenizers[name] for name in self.inputs}, own, needed, own)
        self.head: Head | None = None
        self.ctc_head: CTCHead | None = None
        self.cases = WorstCases(self.tokenizers)

    def _check_ctc(self) -> None:
        field = self.ctc_field
        if self.ctc is None and self.architecture != "encoder":
            return
        if field is None:
            raise InputError(f"ctc.field must say which of {', '.join(self.inputs)} it reads")
        if field not in self.inputs:
            raise InputError(f"ctc.field: {field!r} is no input; there are {', '.join(self.inputs)}")

    @property
    def inputs(self) -> list[str]:  # type: ignore[override]
        return [name for name in self.tokenizers if name != self.target]

    @property
    def conditions(self) -> list[str]:  # type: ignore[override]
        read = {name: self.tokenizers[name] for name in self.inputs}
        return list(expand(read)) if self.has_encoder else []

    @property
    def has_encoder(self) -> bool:
        return self.architecture == "encoder_decoder"

    @property
    def read_fields(self) -> dict[str, Tokenizer]:
        # An encoder alone writes text that it never reads.
        names = self.inputs if self.architecture == "encoder" else self.tokenizers
        return {name: self.tokenizers[name] for name in names}

    @property
    def alike(self) -> list[list[str]]:
        return [*super().alike, *([self._texts] if self.shared_vocabulary else [])]

    @property
    def _texts(self) -> list[str]:
        return [name for name, tokenizer in self.tokenizers.items() if isinstance(tokenizer, Text)]

    def _design(self, name: str) -> tuple:
        text = self.tokenizers[name]
        return text.kind, text.vocab_size, text.file, text.normalize

    @property
    def ctc_field(self) -> str | None:
        """The field that CTC reads; None without CTC."""
        if self.ctc is None and self.architecture != "encoder":
            return None
        given = None if self.ctc is None else self.ctc.field
        return self.inputs[0] if given is None and len(self.inputs) == 1 else given

    @property
    def text(self) -> Text:
        """The tokenizer of the target."""
        return self.tokenizers[self.target]  # type: ignore[return-value]

    @property
    def start_ids(self) -> tuple[int, ...]:
        if self.start is None:
            return (self.text.eos_id,)
        return tuple(self.text.ids_of([each if isinstance(each, str) else each[0] for each in self.start]))

    @property
    def start_choices(self) -> dict[int, list[int]]:
        """By place in the start the ids that the model is to choose from."""
        places = enumerate(self.start or ())
        return {place: self.text.ids_of(each) for place, each in places if not isinstance(each, str)}

    @property
    def metrics(self) -> list[str]:
        """What is reported of decoded texts: error rates of what was heard or seen, BLEU of what was translated."""
        are_texts = [isinstance(self.tokenizers[name], Text) for name in self.inputs]
        names = ["bleu", "bleu_moses"] if any(are_texts) else []
        names = [*([] if all(are_texts) else ["wer", "cer"]), *names, "exact_match"]
        return names + [name for name in [self.choose] if name not in (None, "loss", *names)]

    @property
    def metric(self) -> tuple[str, str]:
        name = self.choose or self.metrics[0]
        return f"val/{name}", METRICS[name].best

    def score(self, value: float) -> float:
        return value / 100 if "bleu" in self.metric[0] else super().score(value)

    # Data

    @property
    def answers(self) -> dict[str, list[str]]:
        return {self.target: [self.target]}

    def may_copy(self, name: str) -> bool:
        """A text without capitals may be read from the target's column: the model restores them."""
        text = self.tokenizers[name]
        return isinstance(text, Text) and text.normalize == "lowercase" != self.text.normalize

    def fit_tokenizers(self, source: Source) -> None:
        if self.shared_vocabulary and self.text.vocabulary is None:
            texts = (text for name in self._texts for text in self.values(source, name))
            vocabulary = self.text.fit(texts).vocabulary
            for name in self._texts:
                self.tokenizers[name] = replace(self.tokenizers[name], vocabulary=vocabulary)
        super().fit_tokenizers(source)
        if self.decoding.max_new_tokens is None and self.architecture != "encoder":
            texts = (text for text in self.values(source, self.target) if isinstance(text, str))
            longest = max((len(self.text.encode_batch([text])[0]) for text in texts), default=0)
            self.decoding = replace(self.decoding, max_new_tokens=2 * longest + 2)

    def chopper(self, training: bool) -> PairChopper:
        if training and self.start_choices:
            raise InputError("start: only a model in use can choose; give one token in the place of several to train")
        inputs = {name: self.tokenizers[name] for name in self.inputs}
        return PairChopper(
            inputs,
            self.target,
            self.text,
            () if self.architecture == "encoder" else self.start_ids,
            self.architecture,
            self.ctc_field,
            training,
            self.allow_empty,
            **self.fields.chopping(inputs),
        )

    # Model

    def build(self) -> None:
        inputs = {name: self.tokenizers[name] for name in self.inputs}
        fields, links = dict(inputs), self.fields.linked(inputs)
        has_decoder, reader = self.architecture != "encoder", None
        if has_decoder:
            fields[self.target] = self.text
        if self.has_encoder:
            reader = self.encoder or self.transformer
        texts = [name for name in self._texts if name in fields] if self.shared_vocabulary else []
        shared = self.fields.owners(fields) | dict.fromkeys(texts[1:], texts[0] if texts else "")
        embedding = self._embedding(fields, reader)
        sees = self.fields.visibility(fields)
        self.model = Anyformer(fields, self.transformer, embedding, reader, sees, shared, links=links)
        if has_decoder:
            self.head = Head(self.model.embeddings.lifts[self.target], self.transformer, self.output)
        if self.ctc_field is not None:
            self.ctc_head = CTCHead(self.transformer.d_model, self.text.n_ids)
            torch.nn.init.trunc_normal_(self.ctc_head.output.weight, std=self.transformer.init_std)
            torch.nn.init.zeros_(self.ctc_head.output.bias)
        self.sums = Accumulators({"loss": Sums(), "targets": Sums(), "errors": Sums(N_SUMS)})

    def _embedding(self, fields: Mapping[str, Tokenizer], reader: TransformerConfig | None) -> EmbeddingConfig:
        """The embedding, with tables of positions for the axes that the stack that reads a field does not go by."""
        if self.embedding.positions is not None or reader is None:
            return self.embedding
        placed = default_positions(
            (tokenizer.axes, [self.transformer if name == self.target else reader])
            for name, tokenizer in expand(fields).items()
        )
        return replace(self.embedding, positions=placed)

    def read(self, batch: Pairs) -> EncoderOutput:
        """What the model makes of the inputs, before a word is written."""
        rows = batch.tokens if batch.inputs is None else batch.inputs
        if self.has_encoder:
            memory = self.model.encode(rows)
            return EncoderOutput(memory, self._frames(rows, memory))
        return EncoderOutput() if self.ctc_field is None else EncoderOutput(frames=self._frames(rows, self.model(rows)))

    def _frames(self, batch: Batch, hidden: Tensor) -> Tensor | None:
        """The hidden vectors of the field that CTC reads."""
        return None if self.ctc_field is None else hidden.flatten(0, 1)[batch.fields[self.ctc_field].index]

    def loss(self, batch: Pairs) -> tuple[Tensor, Tensor]:
        return self._loss(batch, None, self.label_smoothing)

    def _loss(self, batch: Pairs, reading: EncoderOutput | None, smoothing: float) -> tuple[Tensor, Tensor]:
        """The sum of the losses, and of the weights of their targets. reading: where there is one already."""
        parts, hidden = [], None
        share = 0.0 if self.ctc_field is None else 1.0 if self.architecture == "encoder" else self.ctc.weight
        if self.architecture != "decoder" and reading is None:
            reading = self.read(batch)
        if self.architecture != "encoder":
            memory = None if reading is None else reading.memory
            hidden = self.model(batch.tokens, batch.inputs, memory=memory)
            loss = self.head.loss(hidden.flatten(0, 1)[batch.read], batch.target, smoothing)
            parts.append((1 - share, loss, len(batch.target)))
        if share:
            # What a decoder alone makes of a prefix does not hang on what follows it.
            frames = self._frames(batch.tokens, hidden) if self.architecture == "decoder" else reading.frames
            heard = self.ctc_head.loss(frames, batch.n_frames, batch.ids, batch.n_ids)
            parts.append((share, heard, batch.n_heard))
        loss = sum(weight * loss for weight, loss, _ in parts)
        return loss, loss.new_tensor(sum(weight * n for weight, _, n in parts))

    # Metrics

    def evaluate(self, batch: Pairs) -> dict[str, Tensor]:
        reading = self.read(batch)
        loss, n_targets = self._loss(batch, reading, 0.0)
        texts = [self.text.decode(ids).strip() for ids in self.write(batch, self.decoding, reading)]
        # What the tokenizer makes the same for the model is the same for the metrics.
        references = [NORMALIZERS[self.text.normalize](reference).strip() for reference in batch.references]
        language = self.language if "bleu_moses" in self.metrics else None
        self.sums.add(loss=loss, targets=n_targets, errors=count_errors(references, texts, language))
        self.cases.add(batch.sources, references, texts, batch.samples)
        exact = [text == reference for text, reference in zip(texts, references, strict=True)]
        return {"exact_match": torch.tensor(exact, dtype=torch.float32)}

    def begin_evaluation(self) -> None:
        self.sums.reset()
        self.cases = WorstCases(self.tokenizers)

    def report(self, stage: str) -> dict[str, Tensor | float]:
        """The loss of a target, and how far the decoded texts are from what they should be."""
        self.cases.stage = stage
        return self.sums.compute({name: METRICS[name] for name in ("loss", *self.metrics)})

    def generate_examples(self) -> list[Generated]:
        return self.cases.generated()

    # Use

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self.model, self.head, self.ctc_head, self.target, self.text, self.start_ids, self.start_choices)

    def write(self, batch: Pairs, config: DecodeConfig, reading: EncoderOutput | None = None) -> list[list[int]]:
        """The ids of the text of each sample."""
        return [found.ids for found in self.find(batch, config, reading)]

    def find(
        self,
        batch: Pairs,
        config: DecodeConfig,
        reading: EncoderOutput | None = None,
        starts: Sequence[Sequence[int]] | None = None,
    ) -> list[Decoded]:
        """The text of each sample. starts: what stands before each; as the model chooses it when left out."""
        reading = self.read(batch) if reading is None else reading
        rows = batch.tokens if batch.inputs is None else batch.inputs
        return self.decoder.find(
            config,
            batch.prompts or [{}] * len(batch.n_frames),
            rows if self.has_encoder else None,
            reading.memory,
            reading.frames,
            batch.n_frames,
            starts,
        )

    @property
    def options(self) -> DecodeConfig:  # type: ignore[override]
        """What the run's config says of decoding; where an input is a recording, with what can be said of its form."""
        if not any(isinstance(self.tokenizers[name], Audio) for name in self.inputs):
            return self.decoding
        given = {each.name: getattr(self.decoding, each.name) for each in fields(DecodeConfig)}
        return TranscriptConfig(**given)

    inference_args = ("decoding",)

    def use_as(self, other: SequenceToSequence) -> None:  # type: ignore[override]
        learnt = self.decoding.max_new_tokens
        super().use_as(other)
        if self.decoding.max_new_tokens is None:
            self.decoding = replace(self.decoding, max_new_tokens=learnt)

    @takes_records
    def predict(
        self, records: Sequence[Mapping[str, Any]], options: DecodeConfig | None = None
    ) -> list[dict[str, Any]]:
        """The texts of records: for each `{target: text, "ended": "stop"}`, or "length" where a text is cut off at
        max_new_tokens; where times are asked for, with `words`, each `{"text", "start", "end"}`; where confidence is,
        with that of the text, and `word_confidence`, each `{"text", "confidence"}`; with `n_best` so many texts, each
        `{"text", "score"}`, the best first; and with a `fallback`
        `doubt`, what is wrong with the text ("silence", "repetition", "improbable", of several pieces several; "" for
        nothing), and `temperature`, the highest at which it was found.

        records: dicts of fields, a value being whatever its tokenizer takes; or what else holds some, see
            `takes_records`. A recording longer than that is cut. Options may be given by their names: beams=4.
        Raises InputError for a record that cannot be used, and for options that the model has no part for.
        """
        options = options or self.options
        found: list[list[Transcript]] = [[] for _ in records]
        for number, piece in transcribe(self, records, options):
            found[number].append(piece)
        return [join_transcripts(self.target, pieces, options) for pieces in found]

    def question(self, record: Mapping[str, Any], wanted: Wanted) -> Question:
        return text_question(self, record, wanted)

    def stream(self, record: Mapping[str, Any], options: DecodeConfig | None = None) -> Iterator[str]:
        return stream_transcript(self, record, options or self.options)

    def samples_of(self, record: Mapping[str, Any]) -> list[Sample]:
        chopper = self.chopper(training=False)
        every = parts(record, chopper.tokenizers, piece_seconds=None)
        return [chopper(part.record, labelled=False).sample for part in every]

    @property
    def class_field(self) -> str | None:  # type: ignore[override]
        name, tokenizer = next(iter(expand({self.inputs[0]: self.tokenizers[self.inputs[0]]}).items()))
        return name if isinstance(tokenizer, Text) and tokenizer.around[0] else None

    def ending(self, options: DecodeConfig | None = None) -> str:
        form = getattr(options, "format", "txt")
        return "" if form == "txt" else f".{form}"

    def render(self, result: Mapping[str, Any], options: DecodeConfig | None = None) -> str:
        if "words" in result:
            words = [Word(**word) for word in result["words"]]
            return show_words(words, getattr(options, "format", "txt"))
        return result[self.target]

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        words = {"words": json.dumps(result["words"])} if "words" in result else {}
        judged = {name: result[name] for name in ("doubt", "temperature") if name in result}
        if "confidence" in result:
            sure = {"confidence": result["confidence"], "word_confidence": json.dumps(result["word_confidence"])}
            judged = judged | sure
        if "n_best" in result:
            judged["n_best"] = json.dumps(result["n_best"])
        return {self.target: result[self.target], "ended": result["ended"], **judged, **words}

    def model_inputs(self, batch: Pairs) -> tuple[Batch, Batch | None]:  # type: ignore[override]
        return batch.tokens, batch.inputs if self.has_encoder else None

    def preview(self, item: Pair) -> tuple[Sample, str]:
        return item.sample, item.reference

    def draw(self, folder: Path) -> None:
        """Write the worst cases of the last evaluation as `worst.html`."""
        self.cases.draw(folder)

"""Language models that learn answers: of a prompt and its answer, or of the messages of a conversation, the loss is on
what is answered alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anyformer.data.source import Source
from anyformer.data.tables import Table
from anyformer.data.values import is_json, is_missing, parse_json
from anyformer.errors import InputError, say_once
from anyformer.generation.config import GenerationConfig
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.lora import LoraConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.language.batch import TextChopper
from anyformer.tasks.language.language import LanguageModel
from anyformer.tokens import Sample, Tokenizer, TokenSet

USER, ASSISTANT = "user", "assistant"
MOST_COUNTED = 2000
"""Records of which the tokens are counted before training."""


class Piece(NamedTuple):
    """A part of a conversation as text."""

    text: str
    is_answer: bool


@dataclass(frozen=True)
class Conversation:
    """How records become text."""

    field: str
    """The column of the prompt, or of the messages."""
    answer: str | None = None
    """The column of the answer; None where the field holds messages."""
    template: str = "{role}:\n{content}\n"
    """Of a message. What is written of an answer is its content, and in the place of what follows that the end of a
    text, which says that the answer is over."""

    def __post_init__(self) -> None:
        if self.template.count("{content}") != 1:
            raise InputError(f"template must hold {{content}} once, and may hold {{role}}, got {self.template!r}")
        if self.answer == self.field:
            raise InputError(f"answer: the column {self.field!r} is the prompt's; name that of the answer")

    def messages(self, record: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Roles and contents; of a prompt that is to be answered, without the answer.

        Raises InputError for what is no text, and no list of messages.
        """
        given = record.get(self.field)
        if self.answer is not None:
            if is_missing(given) or not isinstance(given, str):
                raise InputError(f"field {self.field!r} must be a text, the prompt, got {given!r:.60}")
            found = [(USER, given)]
            if (answer := record.get(self.answer)) is not None:
                if not isinstance(answer, str):
                    raise InputError(f"field {self.answer!r} must be a text, the answer, got {answer!r:.60}")
                found.append((ASSISTANT, answer))
            return found
        given = parse_json(given) if is_json(given) else given
        if isinstance(given, str) and not is_missing(given):
            return [(USER, given)]
        if not isinstance(given, Sequence) or isinstance(given, str) or not given:
            raise InputError(
                f"field {self.field!r} must be a list of messages, as in "
                f'[{{"role": "{USER}", "content": "..."}}, {{"role": "{ASSISTANT}", "content": "..."}}], got '
                f"{given!r:.60}"
            )
        return [self._message(i, message) for i, message in enumerate(given)]

    def _message(self, i: int, message: Any) -> tuple[str, str]:
        parts = [message.get(name) for name in ("role", "content")] if isinstance(message, Mapping) else [None]
        if not all(isinstance(part, str) for part in parts):
            raise InputError(
                f"field {self.field!r}: message {i} must have a role and a content, both texts, got {message!r:.60}"
            )
        return parts[0], parts[1]

    def pieces(self, messages: Sequence[tuple[str, str]], is_prompt: bool = False) -> list[Piece]:
        """The text of a conversation; of a prompt as far as the answer begins."""
        before, _, after = self.template.partition("{content}")
        found = []
        for role, content in [*messages, *([(ASSISTANT, "")] if is_prompt else [])]:
            is_answer = role == ASSISTANT
            found.append(Piece(before.replace("{role}", role), False))
            found.append(Piece(content if is_answer else content + after.replace("{role}", role), is_answer))
        if is_prompt:
            del found[-1]
        # What is not learned and stands together is cut into tokens as one.
        return [
            each
            for is_answer, group in groupby(found, lambda piece: piece.is_answer)
            for each in (group if is_answer else [Piece("".join(piece.text for piece in group), False)])
        ]


@dataclass(frozen=True)
class ChatChopper(TextChopper):
    """Conversations to (sample, places to read within it, targets, bytes): targets are the tokens of answers, and the
    end of a text behind each."""

    conversation: Conversation = field(kw_only=True)
    context: int = field(kw_only=True)

    def __call__(
        self, record: Mapping[str, Any], random: np.random.Generator | None = None
    ) -> tuple[Sample, Tensor, Tensor, float]:
        messages = self.conversation.messages(record)
        if not any(role == ASSISTANT for role, _ in messages):
            what = f"the answer, {self.conversation.answer!r}, is missing"
            if self.conversation.answer is None:
                what = f"no message is of the role {ASSISTANT!r}, whose content is learned"
            raise InputError(f"{what}; it has {', '.join(record)}")
        pieces = self.conversation.pieces(messages)
        ids, is_target = self.ids(pieces)
        self.check_length(len(ids) - 1)
        place = torch.arange(len(ids) - 1)
        n_bytes = sum(len(piece.text.encode("utf-8", "surrogatepass")) for piece in pieces if piece.is_answer)
        sample = {self.field: TokenSet(ids[:-1], place[:, None], place)}
        return sample, place[is_target[1:]], ids[1:][is_target[1:]], float(n_bytes)

    def ids(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
        """The ids of pieces, before which a text has ended, and which of them are learned, both (n,)."""
        end = np.array([self.text.eos_id])
        ids, is_target = [end], [np.zeros(1, np.bool_)]
        for piece, own in zip(pieces, self.text.encode_batch([piece.text for piece in pieces]), strict=True):
            own = np.concatenate([own, end]) if piece.is_answer else own
            ids.append(own)
            is_target.append(np.full(len(own), piece.is_answer))
        found = np.concatenate(ids).astype(np.int64)
        return torch.from_numpy(found), torch.from_numpy(np.concatenate(is_target))

    def check_length(self, n_tokens: int) -> None:
        """Raise InputError where a record has more tokens than the model sees at once."""
        if n_tokens > self.context:
            raise InputError(
                f"the record has {n_tokens} tokens, more than the {self.context} of the model's context; raise "
                "context, or shorten the record"
            )

    def count(self, record: Mapping[str, Any]) -> int:
        return len(self(record)[0][self.field])


class ChatModel(LanguageModel):
    """A language model that learns to answer: the loss, and the perplexity of an evaluation, are on answers alone.

    A record is a sample of its own, which `data.pack` lays in rows with others, each seeing itself alone.
    """

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        answer: str | None = None,
        template: str = "{role}:\n{content}\n",
        transformer: TransformerConfig = TransformerConfig(),
        embedding: EmbeddingConfig = EmbeddingConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        output: HeadConfig = HeadConfig(),
        context: int = 256,
        example: str | None = None,
        init_from: str | None = None,
        freeze: list[str] | None = None,
        lora: LoraConfig | None = None,
    ) -> None:
        """
        Args:
            tokenizers: of the one text field, by the name of its column: that of the prompt, or of messages, lists of
                {role, content}, of which those of the role `assistant` are the answers.
            answer: the column of the answer to the prompt; left out where the field holds messages.
            template: a message as text, with {content} and, if wanted, {role}, of a prompt `user` and of its answer
                `assistant`. Behind an answer stands the end of a text in place of what follows {content}.
            transformer: sizes of the shared transformer.
            embedding: how content, type and position become a token.
            optimizer: the optimiser and its learning rate over the run.
            output: the layer over the vocabulary.
            context: tokens that the model sees at once; a longer record cannot be used.
            example: a prompt that is answered when training is over; none for null.
            init_from: the weights that training starts from: a run folder.
            freeze: patterns of names of parameters that are not trained, as `model.transformer.blocks.[0-3].*`.
            lora: low-rank adapters on what init_from gives; they and the new parts alone are trained and saved.
        """
        super().__init__(
            tokenizers,
            transformer,
            embedding,
            optimizer,
            output,
            context,
            samples="documents",
            example=example,
            init_from=init_from,
            freeze=freeze,
            lora=lora,
        )
        self.answer, self.template = answer, template
        self.conversation = Conversation(self.field, answer, template)

    # Data

    @property
    def predicted(self) -> list[str]:
        return [self.answer or self.field]

    def open(self, path: str) -> Source:
        return Table(path)

    def fit_tokenizers(self, source: Source) -> None:
        self.tokenizers[self.field] = self.text.fit(self._texts(source))

    def _texts(self, source: Source) -> Iterator[str]:
        for i in range(len(source)):
            try:
                messages = self.conversation.messages(source[i])
            except InputError:
                continue  # Whether it stops the run is for `on_bad_sample` to say.
            yield from (piece.text for piece in self.conversation.pieces(messages))

    def view(self, source: Source, training: bool) -> Source:
        if training:
            say_once(self._describe(source))
        return source

    def _describe(self, source: Source) -> str:
        """How much of the training records is learned, in words."""
        chopper, n_tokens, n_targets, n_used = self.chopper(True), 0, 0, 0
        for i in range(min(len(source), MOST_COUNTED)):
            try:
                sample, _, targets, _ = chopper(source[i])
            except InputError:
                continue
            n_tokens, n_targets, n_used = n_tokens + len(sample[self.field]), n_targets + len(targets), n_used + 1
        share = f", {n_targets / n_tokens:.0%}" if n_tokens else ""
        return (
            f"{self.field}: of the {n_tokens:,} tokens of {n_used:,} of the {len(source):,} training records "
            f"{n_targets:,}{share}, are of answers and learned"
        )

    def chopper(self, training: bool) -> ChatChopper:
        return ChatChopper(self.tokenizers, self.field, conversation=self.conversation, context=self.context)

    # Use

    def _prompt(self, record: Mapping[str, Any], blank: str | None = None) -> Sample:
        """A conversation as tokens, as far as the next answer begins."""
        messages = self.conversation.messages({self.field: record.get(self.field)})
        if messages[-1][0] == ASSISTANT:
            raise InputError(f"field {self.field!r}: the last message is an answer; end with what is to be answered")
        chopper = self.chopper(False)
        ids, _ = chopper.ids(self.conversation.pieces(messages, is_prompt=True))
        chopper.check_length(len(ids))
        place = torch.arange(len(ids))
        return {self.field: TokenSet(ids, place[:, None], place)}

    @property
    def options(self) -> type:  # type: ignore[override]
        return GenerationConfig

    @property
    def shows_predictions(self) -> bool:
        """How probable a prompt is, which is what the predictions of a language model say, is not what is learned."""
        return False

    def stream(self, record: Mapping[str, Any], options: Any = None) -> Iterator[str]:
        options = options or self.options()
        if options.decoded_by.not_streamed or options.n_samples > 1:
            yield self.render(self.predict([record], options)[0])
            return
        self.eval()
        for (step,) in self.generator.stream([self._prompt(record)], self._options(options)):
            yield step.text

    def row(self, result: Mapping[str, Any]) -> dict[str, Any]:
        given = result[self.field]
        shown = given if isinstance(given, str) else json.dumps(given)
        return super().row(result) | {self.field: shown}

    def render(self, result: Mapping[str, Any]) -> str:
        return "\n\n".join(result["continuations"])

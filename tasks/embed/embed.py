"""A model without a head: it gives vectors, and tasks are trained from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.base.examples import Examples
from anyformer.tasks.base.task import Task
from anyformer.tasks.targets.pooling import OWN_FIELD, own_tokens
from anyformer.tokenizers.text.text import Text
from anyformer.tokens import Sample, Tokenizer


class Embed(Task):
    """Gives the vectors of texts or pictures, see `embed`. It is made of weights from elsewhere and is not trained
    itself: name its folder as `init_from` of a task."""

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer],
        transformer: TransformerConfig = TransformerConfig(),
        embedding: EmbeddingConfig = EmbeddingConfig(),
        pool: Literal["class", "mean", "last"] = "mean",
        normalize: bool = False,
        causal: bool = False,
        class_token: bool = False,
        piece: int | None = None,
    ) -> None:
        """
        Args:
            tokenizers: of the one input field.
            transformer: sizes of the transformer.
            embedding: how content, type and position become a token.
            pool: the vector of a record, where nothing else is asked for: that of its class token, the mean of its
                tokens, or that of the last.
            normalize: whether vectors are divided by their length.
            causal: whether a token sees none behind it (GPT).
            class_token: whether there is a learned token, with a place of its own, beside those of the field (ViT).
            piece: tokens of a text that are read at once, at most; a longer one is read in pieces, and the mean is over
                the tokens of all. As many as there are positions when left out.
        """
        super().__init__(tokenizers, transformer, embedding, OptimizerConfig())
        if len(tokenizers) != 1:
            raise InputError(f"tokenizers must be of one field, got {', '.join(tokenizers)}")
        ((self.field, tokenizer),) = self.tokenizers.items()
        if piece is not None and (not isinstance(tokenizer, Text) or not 8 <= piece <= (tokenizer.max_len or piece)):
            raise InputError(f"piece must be from 8 to max_len, and is of a Text, got {piece}")
        self.pool, self.normalize, self.causal = pool, normalize, causal
        self.class_token, self.piece = class_token, piece

    @property
    def metric(self) -> tuple[str, str]:
        raise self._headless("is not trained or evaluated")

    def _headless(self, what: str) -> InputError:
        return InputError(
            f"a model without a head {what}: take its vectors by `embed`, or train a task with init_from its folder"
        )

    # Data and model

    @property
    def own_tokens(self) -> dict[str, LearnedTokens]:
        return own_tokens(int(self.class_token), placed=True)

    def fit_tokenizers(self, source: Source) -> None:
        raise self._headless("is not trained")

    def setup(self, stage: str) -> None:
        raise self._headless("is not trained or evaluated")

    def build(self) -> None:
        self.model = Anyformer({**self.tokenizers, **self.own_tokens}, self.transformer, self.embedding)

    def loss(self, batch: Examples) -> tuple[Tensor, Tensor]:
        raise self._headless("has no loss")

    # Use

    def predict(self, records: Sequence[Mapping[str, Any]], options: Any = None) -> list[dict[str, Any]]:
        raise self._headless("predicts nothing")

    @property
    def usage(self) -> str | None:
        return None

    @property
    def default_pool(self) -> Literal["class", "mean", "last"]:  # type: ignore[override]
        return self.pool

    @property
    def normalizes(self) -> bool:  # type: ignore[override]
        return self.normalize

    @property
    def class_field(self) -> str | None:  # type: ignore[override]
        if self.class_token:
            return OWN_FIELD
        tokenizer = self.tokenizers[self.field]
        return self.field if isinstance(tokenizer, Text) and tokenizer.around[0] else None

    def samples_of(self, record: Mapping[str, Any]) -> list[Sample]:
        """A record, a text longer than the model reads at once in pieces."""
        value, tokenizer = record.get(self.field), self.tokenizers[self.field]
        if value is None:
            raise InputError(f"a record needs the field {self.field!r}; it has {', '.join(record) or 'none'}")
        length = self.piece or tokenizer.sizes.get("word")
        try:
            is_cut = isinstance(tokenizer, Text) and length is not None
            pieces = tokenizer.encode_pieces(value, length) if is_cut else [tokenizer.encode(value)]
        except InputError as error:
            raise InputError(f"field {self.field!r}: {error}") from error
        if self.causal:
            pieces = [tokens.at(tokens.position[:, 0]) for tokens in pieces]
        own = {name: learned.encode() for name, learned in self.own_tokens.items()}
        return [{self.field: tokens, **own} for tokens in pieces]

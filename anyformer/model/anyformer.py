"""Token sets in, hidden vectors out: embeddings, the visibility rule and the shared transformer in one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anyformer.batch import Batch, Layout
from anyformer.errors import InputError, nearest
from anyformer.model.attention.bias import RelationBias, RelativeBias, make_relative
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.visibility import Sight, visible
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, Embeddings
from anyformer.model.transformer import Context, Transformer
from anyformer.tokens import Tokenizer, expand


class Anyformer(nn.Module):
    """One transformer for any fields: an encoder, a decoder or a prefix-LM, as the order of the tokens says.

    With `encoder`, a second stack reads the conditions, and the first attends to it (Vaswani et al. 2017); both share
    the embeddings.
    """

    def __init__(
        self,
        tokenizers: Mapping[str, Tokenizer],
        transformer: TransformerConfig,
        embedding: EmbeddingConfig = EmbeddingConfig(),
        encoder: TransformerConfig | None = None,
        sees: Mapping[str, Sequence[str]] | None = None,
        shared: Mapping[str, str] = MappingProxyType({}),
        maskable: Sequence[str] = (),
    ) -> None:
        """
        tokenizers: of every field; a batch is collated with the same ones.
        sees: the fields that the tokens of a field may look at; fields not named here see everything.
        shared: field -> the field whose lift it uses; both have the same kind of content.
        maskable: fields whose content may be masked, a piece a token: see `TokenSet.masked`.
        Raises InputError where the parts do not fit together.
        """
        super().__init__()
        self.tokenizers = expand(tokenizers)
        self.embeddings = Embeddings(self.tokenizers, transformer, embedding, encoder, shared, maskable)
        self.transformer = Transformer(transformer)
        self.encoder = None
        if encoder is not None:
            if encoder.d_model != transformer.d_model:
                raise InputError(f"encoder.d_model must be the decoder's {transformer.d_model}, got {encoder.d_model}")
            if not transformer.cross_attention:
                raise InputError("with an encoder the transformer needs cross_attention: true")
            self.encoder = Transformer(encoder)
        elif transformer.cross_attention:
            raise InputError("cross_attention: true needs an encoder to attend to")
        n_relations = sum(tokenizer.n_relations for tokenizer in self.tokenizers.values())
        self.relation_bias, self.encoder_relation_bias = (
            RelationBias(n_relations, stack.n_heads) if stack and n_relations else None
            for stack in (transformer, encoder)
        )
        self.relative, self.encoder_relative = (
            make_relative(stack.relative, self.embeddings.axes, stack.n_heads) if stack and stack.relative else None
            for stack in (transformer, encoder)
        )
        self.register_buffer("sees", None if sees is None else _matrix(sees, list(self.tokenizers)), persistent=False)

    def forward(
        self,
        batch: Batch,
        conditions: Batch | None = None,
        cache: Cache | None = None,
        read: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """
        batch: the tokens, collated with this model's tokenizers; with a cache, those that are new.
        conditions: what the encoder reads, the same samples under the same segment numbers; with a cache, given once.
        memory: what `encode` made of the conditions, where that is known already.
        cache: filled and used where given, for inference.
        read: (rows, r) int64, places of each row (0 ... length - 1); where only these are wanted, as of a class token,
            the last block leaves the work for the others out.

        Returns (rows, length, d) hidden vectors, 0 at padding, which `Batch.by_field` takes apart; (rows, r, d) with
        `read`.
        """
        memory_sight = Sight()
        if self.transformer.config.cross_attention:
            memory, memory_sight = self._memory(batch, conditions, cache, memory)
        keys = batch.layout if cache is None else cache.admit(batch)
        context = Context(
            sight=self._sight(batch, keys, cache),
            rotation=self.embeddings.rotation(batch),
            memory=memory,
            memory_sight=memory_sight,
            cache=cache,
            segment=None if batch.one_per_row else batch.layout.segment,
            n_samples=batch.n_samples,
        )
        return self._run(self.transformer, batch, context, read)

    def encode(self, conditions: Batch) -> Tensor:
        """The encoder's hidden vectors of the conditions, (rows, length, d), 0 at padding."""
        context = Context(
            sight=self._sight(conditions, conditions.layout, encoder=True),
            rotation=self.embeddings.rotation(conditions, encoder=True),
            segment=None if conditions.one_per_row else conditions.layout.segment,
            n_samples=conditions.n_samples,
        )
        return self._run(self.encoder, conditions, context)

    def _run(self, stack: Transformer, batch: Batch, context: Context, read: Tensor | None = None) -> Tensor:
        hidden = stack(self.embeddings(batch), context, read)
        if not hidden.numel():
            # Attention without queries leaves its mask out of the graph, and no parameter may be without a gradient.
            for bias in self._biases(encoder=stack is self.encoder):
                if bias is not None:
                    hidden = hidden + sum(0 * parameter.sum() for parameter in bias.parameters())
        if read is None and batch.padded:
            hidden = hidden.masked_fill((batch.layout.segment == 0)[:, :, None], 0.0)
        return hidden

    def _memory(
        self, batch: Batch, conditions: Batch | None, cache: Cache | None, memory: Tensor | None
    ) -> tuple[Tensor | None, Sight]:
        """The encoder's output (None where the cache has its keys and values), and what the queries see of it."""
        if conditions is not None:
            if cache is not None and cache.memory_layout is not None:
                raise ValueError("the cache already holds the conditions; give them in its first call only")
            memory, layout = self.encode(conditions) if memory is None else memory, conditions.layout
            is_plain = self.sees is None and conditions.one_per_row and not conditions.padded
            is_plain &= conditions.shape[1] > 0
            if cache is not None:
                cache.memory_layout, cache.memory_plain = layout, is_plain
        elif cache is not None and cache.memory_layout is not None:
            memory, layout, is_plain = None, cache.memory_layout, cache.memory_plain
            if not is_plain and self.sees is None and batch.one_per_row and not batch.padded:
                return None, Sight(cache.memory_mask())
        else:
            raise ValueError("a model with cross-attention needs conditions, at least in the first call with a cache")
        if is_plain and batch.one_per_row:
            return memory, Sight()
        # A condition stands at order 0 for the decoder whatever its order in its own stack.
        layout = layout._replace(order=torch.zeros_like(layout.order))
        asking = batch.layout
        if cache is not None and cache.sharing > 1:
            asking = Layout(*(part.reshape(len(layout.order), -1) for part in asking))
        return memory, Sight(visible(asking, layout, self.sees)[:, None])

    def _biases(self, encoder: bool) -> tuple[RelationBias | None, RelativeBias | None]:
        """What is added to the logits of self-attention in a stack."""
        if encoder:
            return self.encoder_relation_bias, self.encoder_relative
        return self.relation_bias, self.relative

    def _sight(self, batch: Batch, keys: Layout, cache: Cache | None = None, encoder: bool = False) -> Sight:
        """The rule for self-attention: one of its two fast forms where the host knows that it comes down to them."""
        relation_bias, relative = self._biases(encoder)
        plain = self._plain_sight(batch, cache)
        if relative is None and plain is not None:
            return plain
        bias = None if relative is None else relative(batch, keys, cache)
        if plain is not None:
            # The rule is the same in all rows, and so may the bias be: neither is laid out for each.
            n = batch.shape[1]
            future = torch.ones(n, n, dtype=torch.bool, device=bias.device).triu(1) if plain.causal else None
            return Sight(bias if future is None else bias.masked_fill(future, -torch.inf))
        relation = batch.relation
        if relation is not None:
            # A record's relations come whole in one call: new tokens have none to the cached ones.
            relation = F.pad(relation, (keys.segment.shape[1] - batch.shape[1], 0))
            by_relation = relation_bias(relation)
            bias = by_relation if bias is None else bias + by_relation
        mask = visible(batch.layout, keys, self.sees, relation)[:, None]
        return Sight(mask if bias is None else bias.masked_fill(~mask, -torch.inf))

    def _plain_sight(self, batch: Batch, cache: Cache | None) -> Sight | None:
        """The rule where it is the same for all rows, known on the host; None where it takes a mask."""
        if self.sees is None and batch.relation is None:
            if cache is None or len(cache) == batch.shape[1]:
                if batch.kind != "dense":
                    return Sight(causal=batch.kind == "causal")
            elif cache.all_visible_to(batch):
                return Sight()
        return None


def _matrix(sees: Mapping[str, Sequence[str]], names: Sequence[str]) -> Tensor:
    """(fields, fields) boolean: whether tokens of the row's field may look at those of the column's."""
    matrix = torch.ones(len(names), len(names), dtype=torch.bool)
    for name, seen in sees.items():
        for unknown in {name, *seen} - set(names):
            raise InputError(
                f"sees names the field {unknown!r}, which is not among {', '.join(names)}{nearest(unknown, names)}"
            )
        matrix[names.index(name)] = torch.tensor([other in seen for other in names])
    return matrix

"""Token sets in, hidden vectors out: embeddings, the encoder where there is one, and the shared transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from anyformer.batch import Batch, Layout
from anyformer.errors import InputError
from anyformer.links import Link
from anyformer.model.attention.bias import ClippedDistances, RelationBias, RelativeBias, make_relative
from anyformer.model.attention.cache import Cache
from anyformer.model.attention.compression.strided import Windows
from anyformer.model.attention.patterns import Reach, check_compression, check_fields
from anyformer.model.attention.places import Places, places_of
from anyformer.model.attention.sight import Sight
from anyformer.model.attention.visibility import field_matrix, memory_sight, self_sights
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, Embeddings
from anyformer.model.lora import in_samples_with
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
        links: Sequence[Link] = (),
    ) -> None:
        """
        tokenizers: of every field; a batch is collated with the same ones.
        sees: the fields that the tokens of a field may look at; fields not named here see everything.
        shared: field -> the field whose lift it uses; both have the same kind of content.
        maskable: fields whose content may be masked, a piece a token: see `TokenSet.masked`.
        links: edges that columns of the records give.
        Raises InputError where the parts do not fit together.
        """
        super().__init__()
        self.tokenizers = expand(tokenizers)
        self.embeddings = Embeddings(self.tokenizers, transformer, embedding, encoder, shared, maskable)
        if encoder is not None and encoder.d_model != transformer.d_model:
            raise InputError(f"encoder.d_model must be the decoder's {transformer.d_model}, got {encoder.d_model}")
        for name, stack in (("transformer", transformer), ("encoder", encoder)):
            if stack is not None:
                check_fields(stack, self.tokenizers, name)
                is_decoder = encoder is not None and stack is not encoder
                related = [each for each, tokenizer in self.tokenizers.items() if tokenizer.n_relations]
                related += [link.source for link in links]
                check_compression(stack, related, name, is_decoder, sees is not None)
        names = list(self.tokenizers)
        self.transformer = Transformer(transformer, encoder is not None, names)
        self.encoder = None if encoder is None else Transformer(encoder, fields=names)
        n_relations = sum(tokenizer.n_relations for tokenizer in self.tokenizers.values())
        n_relations += sum(link.n_kinds for link in links)
        self.relation_bias, self.encoder_relation_bias = (
            RelationBias(n_relations, stack.n_heads) if stack and n_relations else None
            for stack in (transformer, encoder)
        )
        self.relative, self.encoder_relative = (
            make_relative(stack.relative, self.embeddings.axes, stack.n_heads) if stack and stack.relative else None
            for stack in (transformer, encoder)
        )
        seen = None if sees is None else field_matrix(sees, list(self.tokenizers))
        self.register_buffer("sees", seen, persistent=False)
        apart = {(name, name) for name, tokenizer in self.tokenizers.items() if tokenizer.edges_only}
        apart |= {pair for link in links if link.edges_only for pair in link.pairs}
        edges_only = torch.tensor([[(query, key) in apart for key in names] for query in names]) if apart else None
        # (fields, fields) boolean: tokens of field i look at those of field j along edges alone; None: none do.
        self.register_buffer("edges_only", edges_only, persistent=False)
        # (fields,) boolean: adapters act in samples alone that have one of these; in all while it is None.
        self.register_buffer("adapts_with", None, persistent=False)

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
        seen_memory = Sight()
        if self.encoder is not None:
            seen_memory = memory_sight(batch, conditions, cache, self.sees)
            if conditions is None:
                memory = None
            elif memory is None:
                memory = self.encode(conditions)
        context = self._context(self.transformer, batch, cache)
        context = context._replace(memory=memory, memory_sight=seen_memory)
        if self.adapts_with is not None and self.encoder is not None:
            read_layout = cache.memory_layout if conditions is None else conditions.layout
            keys = batch.layout if cache is None else cache.places
            context = self._adapting_by_memory(context, batch.layout, keys, read_layout)
        return self._run(self.transformer, batch, context, read)

    def encode(self, conditions: Batch) -> Tensor:
        """The encoder's hidden vectors of the conditions, (rows, length, d), 0 at padding."""
        return self._run(self.encoder, conditions, self._context(self.encoder, conditions))

    @property
    def reader(self) -> Transformer:
        """The stack that reads what is given: the encoder, where there is one."""
        return self.transformer if self.encoder is None else self.encoder

    def hidden_at(self, batch: Batch, n_blocks: int) -> Tensor:
        """The hidden vectors behind so many blocks of `reader`, the final norm behind all: (rows, length, d), 0 at
        padding."""
        stack = self.reader
        return self._run(stack, batch, self._context(stack, batch), n_blocks=n_blocks)

    def biases(self, stack: Transformer) -> tuple[RelationBias | None, RelativeBias | ClippedDistances | None]:
        """What is added to the logits of self-attention in a stack, or meets them by distance."""
        if stack is self.encoder:
            return self.encoder_relation_bias, self.encoder_relative
        return self.relation_bias, self.relative

    def engines(self, batch: Batch, conditions: Batch | None = None) -> dict[str, list[str]]:
        """By which engine each layer's self-attention takes a batch: plain, dense (one mask), blocks, or over fewer
        keys compressed or linformer; of either stack, by name."""
        found = {}
        for name, stack, part in (("transformer", self.transformer, batch), ("encoder", self.encoder, conditions)):
            if stack is not None and part is not None:
                sights = self._context(stack, part).sights
                found[name] = [sights[block.pattern].engine for block in stack.blocks]
        return found

    def forget(self, batch: Batch, cache: Cache) -> None:
        """Let keys leave the cache that no token to come can see, where layers have a window.

        batch: the newest token of every row; those to come are of its field, and stand behind it on all axes.
        """
        tracks = zip(cache.tracks, self.transformer.patterns, strict=True)
        due = [
            (track, pattern[-1])
            for track, pattern in tracks
            if track.is_full and isinstance(pattern[-1], Reach | Windows)
        ]
        if not due or self.adapts_with is not None:  # Where adapters act is told by all fields of a sample.
            return
        newest = places_of(batch, self.embeddings.axes, self.transformer.wanted)
        if newest.nth is not None:
            newest = newest._replace(nth=cache.places.nth[:, -1:])
        if newest.step is not None:
            newest = newest._replace(step=cache.places.step[:, -1:])
        for track, reach in due:
            track.trim(reach.still_seen(newest, track.places))

    def _context(self, stack: Transformer, batch: Batch, cache: Cache | None = None) -> Context:
        before = None if cache is None else cache.places
        places = places_of(batch, self.embeddings.axes, stack.wanted, before)
        if cache is not None:
            cache.admit(batch, places, len(stack.patterns))
        keys = places if cache is None else cache.places
        biases, n_fields = self.biases(stack), len(self.tokenizers)
        return Context(
            sights=self_sights(
                stack.patterns, batch, places, n_fields, cache, self.sees, *biases, edges_only=self.edges_only
            ),
            rotation=self.embeddings.rotation(batch, encoder=stack is self.encoder),
            cache=cache,
            adapts=None if self.adapts_with is None else in_samples_with(self.adapts_with, batch.layout, [keys]),
            segment=None if batch.one_per_row else batch.layout.segment,
            n_samples=batch.n_samples,
            real=batch.layout.segment > 0 if batch.padded and stack.config.experts is not None else None,
        )

    def _adapting_by_memory(self, context: Context, query: Layout, keys: Layout | Places, memory: Layout) -> Context:
        """The context of the decoder, where the fields that adapters act by may stand in either stack."""
        n_sharing = len(query.segment) // len(memory.segment)
        of_rows = Layout(*(part.repeat_interleave(n_sharing, 0) for part in memory))
        return context._replace(
            adapts=in_samples_with(self.adapts_with, query, [keys, of_rows]),
            memory_adapts=in_samples_with(self.adapts_with, memory, [memory]),
        )

    def _run(
        self,
        stack: Transformer,
        batch: Batch,
        context: Context,
        read: Tensor | None = None,
        n_blocks: int | None = None,
    ) -> Tensor:
        hidden = stack(self.embeddings(batch), context, read, n_blocks)
        # Attention without queries leaves its mask out of the graph, as what is not there does, and no parameter may be
        # without a gradient.
        has_relations = batch.relation is not None or batch.edges is not None
        for bias in self.biases(stack):
            if bias is not None and not (hidden.numel() and (has_relations or not isinstance(bias, RelationBias))):
                hidden = hidden + sum(0 * parameter.sum() for parameter in bias.parameters())
        for block in () if hidden.numel() else stack.blocks:
            if block.attention.vectors is not None:
                hidden = hidden + sum(0 * parameter.sum() for parameter in block.attention.vectors.parameters())
        if read is None and batch.padded:
            hidden = hidden.masked_fill((batch.layout.segment == 0)[:, :, None], 0.0)
        return hidden

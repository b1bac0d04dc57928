"""Longformer and BigBird of transformers, every parameter redrawn, against a stack with their patterns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.packing import collate
from tests.helpers.patterns import TEXT
from tests.helpers.witnesses import draw_ids, error, redraw

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32, "vocab_size": 11}
NAMES = {
    "attention.self.query": "attention.q",
    "attention.self.key": "attention.k",
    "attention.self.value": "attention.v",
    "attention.output.dense": "attention.o",
    "attention.output.LayerNorm": "attention_residual.norm",
    "intermediate.dense": "mlp.up",
    "output.dense": "mlp.down",
    "output.LayerNorm": "mlp_residual.norm",
}


@torch.no_grad()
def hidden_of_both(reference: nn.Module, pattern: dict[str, Any], n: int, **given: Any) -> tuple[Tensor, Tensor]:
    """The hidden vectors of a text of n tokens, ours and theirs, behind their embeddings."""
    config = TransformerConfig(
        d_model=24, depth=2, n_heads=3, d_ff=32, norm_position="post", norm_eps=1e-12, patterns=(pattern,)
    )
    model = Anyformer({"text": TEXT}, config).eval()
    for block, layer in zip(model.transformer.blocks, reference.encoder.layer, strict=True):
        for theirs, ours in NAMES.items():
            block.get_submodule(ours).load_state_dict(layer.get_submodule(theirs).state_dict())
    embedded: list[Tensor] = []
    handle = reference.embeddings.register_forward_hook(lambda module, inputs, output: embedded.append(output))
    ids = draw_ids(n)
    theirs = reference(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, n), **given).last_hidden_state
    handle.remove()
    batch = collate([{"text": TEXT.encode(ids)}], {"text": TEXT})
    assert model.engines(batch) == {"transformer": ["blocks"] * 2}
    model.embeddings.forward = lambda batch: embedded[0]
    return model(batch), theirs


def test_longformer() -> None:
    module = pytest.importorskip("transformers.models.longformer")
    config = module.LongformerConfig(
        **SIZES, attention_window=[32, 32], max_position_embeddings=700, layer_norm_eps=1e-12, pad_token_id=0
    )
    reference = module.LongformerModel(config, add_pooling_layer=False).eval()
    redraw(reference)
    for layer in reference.encoder.layer:
        own = layer.attention.self
        for name in ("query", "key", "value"):
            getattr(own, f"{name}_global").load_state_dict(getattr(own, name).state_dict())
    is_global = torch.zeros(1, 608, dtype=torch.int64)
    is_global[:, :3] = 1
    pattern = {"window": {"word": 16}, "global": {"text": 3}}
    ours, theirs = hidden_of_both(reference, pattern, 608, global_attention_mask=is_global)
    assert error(ours, theirs) < 1e-5
    narrower, _ = hidden_of_both(reference, {**pattern, "window": {"word": 15}}, 608, global_attention_mask=is_global)
    assert error(narrower, theirs) > 1e-2


def test_bigbird(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("transformers.models.big_bird")
    config = module.BigBirdConfig(
        **SIZES, block_size=64, num_random_blocks=2, max_position_embeddings=1280, hidden_act="gelu", pad_token_id=0
    )
    reference = module.BigBirdModel(config, add_pooling_layer=False).eval()
    redraw(reference)
    random, last = torch.Generator().manual_seed(0), 19
    drawn = []
    for block in range(1, last):
        others = [i for i in range(1, last) if abs(i - block) > 1]
        drawn.append([others[i] for i in torch.randperm(len(others), generator=random)[:2].tolist()])
    sparse = type(reference.encoder.layer[0].attention.self)
    monkeypatch.setattr(
        sparse, "_bigbird_block_rand_mask_with_head", lambda *args, **kwargs: [torch.tensor(drawn).numpy()] * 3
    )
    # The last block sees all and is seen by all, as the first.
    table = [[last], *([*links, last] for links in drawn), list(range(last + 1))]
    pattern = {"window": {"word": 1}, "global": {"text": 64}, "random": table, "block": 64}
    ours, theirs = hidden_of_both(reference, pattern, 1280)
    assert error(ours, theirs) < 1e-5
    table[4] = table[4][1:]
    assert error(hidden_of_both(reference, pattern, 1280)[0], theirs) > 1e-2

"""What a config.json of a ViT says; that its vectors are transformers' is in tests/tasks/convert/test_bare.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anyformer.errors import InputError
from anyformer.weights.huggingface import Settings
from anyformer.weights.vit import VIT


def settings(**values: Any) -> Settings:
    return Settings(values, "config.json")


def test_sizes_are_read_and_what_is_left_out_is_that_of_the_base_model() -> None:
    design = VIT.design(settings(), "ViTModel")
    assert (design.size, design.patch, design.channels) == ((224, 224), 16, 3)
    assert (design.transformer.d_model, design.transformer.depth, design.transformer.n_heads) == (768, 12, 12)
    design = VIT.design(settings(image_size=[32, 48], patch_size=8, num_channels=1, qkv_bias=False), "ViTModel")
    assert (design.size, design.patch, design.channels) == ((32, 48), 8, 1)
    assert not design.transformer.q_bias and design.transformer.o_bias


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch_size": [8, 4]}, r"^config\.json: patch_size: \[8, 4\] cannot be brought in; only squares can$"),
        ({"image_size": [8]}, r"^config\.json: image_size is \[8\], which is not a value for it$"),
        ({"image_size": ["a", 1]}, r"^config\.json: image_size is"),
    ],
)
def test_other_shapes_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        VIT.design(settings(**values), "ViTModel")


def test_the_place_of_the_class_token_stands_apart_from_those_of_the_grid() -> None:
    places = torch.arange(30.0).view(1, 10, 3)
    pieces = VIT.apart({"vit.embeddings.position_embeddings": places}, settings())
    slot, grid = (pieces[f"embeddings.position_embeddings[{part}]"] for part in ("0", "1:"))
    assert torch.equal(torch.cat([slot, grid]), places[0]) and slot.shape == (1, 3)

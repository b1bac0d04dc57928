"""Weights of timm's VisionTransformers go in and come out; what does not fit is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.config import RelativeConfig, RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from anyformer.weights.timm_vit import load_timm, to_timm
from tests.helpers.drawn import noise
from tests.helpers.witnesses import error, redraw

timm_vit = pytest.importorskip("timm.models.vision_transformer")
timm_layers = pytest.importorskip("timm.layers")

SIZES = TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=20, norm_eps=0.1)
IMAGE = ImagePatches(size=(8, 12), patch=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
GRID = PositionConfig(("row", "column"), "joint")
CLASSES = ["a", "b", "c", "d", "e"]


def vit(**choices: Any) -> nn.Module:
    """A VisionTransformer of timm on pictures of 8 x 12, in 2 x 3 patches, with every parameter redrawn."""
    sizes = {"img_size": (8, 12), "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "mlp_ratio": 20 / 12}
    model = timm_vit.VisionTransformer(
        **({"num_classes": 5, "norm_layer": lambda width, **_: nn.LayerNorm(width, eps=0.1)} | sizes | choices)
    )
    redraw(model)
    return model.eval()


def classifier(transformer: TransformerConfig = SIZES, image: ImagePatches = IMAGE, **options: Any) -> Classify:
    """Ours of the same make, with every parameter redrawn, so that none is right by chance."""
    options = {"classes": CLASSES, "place_class": True} | options
    task = Classify({"image": image}, transformer, **options)
    task.build()
    redraw(task)
    return task.eval()


AVERAGED = {"read": "mean", "pool_norm": True, "n_registers": 1}
NO_FINAL = replace(SIZES, final_norm=False)
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "class token": ({}, {}),
    "registers": ({"reg_tokens": 3}, {"n_registers": 3}),
    "registers without positions": (
        {"reg_tokens": 3, "no_embed_class": True},
        {"n_registers": 3, "place_class": False},
    ),
    "layer scale": ({"init_values": 1.0}, {"transformer": replace(SIZES, layer_scale=1.0)}),
    "q/k norm": ({"qk_norm": True}, {"transformer": replace(SIZES, qk_norm="layernorm")}),
    "average pooling and its norm": ({"global_pool": "avg"}, {"transformer": NO_FINAL, **AVERAGED}),
    "average pooling without a class token": (
        {"global_pool": "avg", "class_token": False},
        {"transformer": NO_FINAL, **AVERAGED, "n_registers": 0},
    ),
    "average pooling of registers and patches, normed before": (
        {"global_pool": "avg", "class_token": False, "reg_tokens": 2, "fc_norm": False},
        {"read": "mean", "n_registers": 2},
    ),
    "no class position": ({"no_embed_class": True}, {"place_class": False}),
    "norm before": ({"pre_norm": True}, {"transformer": replace(SIZES, first_norm=True)}),
    "rms norms": (
        {"norm_layer": lambda width, **_: timm_layers.RmsNorm(width, eps=0.1), "qk_norm": True},
        {"transformer": replace(SIZES, norm="rmsnorm", qk_norm="rmsnorm")},
    ),
    "no biases": (
        {"qkv_bias": False, "proj_bias": False},
        {"transformer": replace(SIZES, **dict.fromkeys(("q_bias", "k_bias", "v_bias", "o_bias", "mlp_bias"), False))},
    ),
}


def pair(variant: str, **options: Any) -> tuple[nn.Module, Classify]:
    theirs, ours = VARIANTS[variant]
    return vit(**theirs), classifier(**(ours | options))


def pictures(n: int, rows: int = 8, columns: int = 12) -> list[np.ndarray]:
    return [noise(rows, columns, 3, seed=i) for i in range(n)]


def both_logits(theirs: nn.Module, ours: Classify) -> tuple[Tensor, Tensor]:
    """Of timm and of ours, (b, classes), on the same pictures."""
    size = ours.tokenizers["image"].size
    images = pictures(4, *size)
    chopper = ours.chopper(training=False)
    batch = chopper.collate([chopper({"image": image}, labelled=False) for image in images])
    mean, std = (torch.tensor(part)[:, None, None] for part in (IMAGE.mean, IMAGE.std))
    pixels = torch.stack([(torch.from_numpy(image).permute(2, 0, 1) / 255 - mean) / std for image in images])
    return theirs(pixels), ours(batch.tokens)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two state dicts hold the same names, shapes and bits."""
    return one.keys() == other.keys() and all(
        tensor.shape == other[name].shape and tensor.numpy().tobytes() == other[name].numpy().tobytes()
        for name, tensor in one.items()
    )


# In from timm


@pytest.mark.parametrize("types", [True, False], ids=["with types", "without"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_vit_gives_the_same_logits_and_gradients(tmp_path: Path, variant: str, types: bool) -> None:
    theirs, ours = pair(variant, embedding=EmbeddingConfig(types=types))
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    report = load_timm(ours, tmp_path / "vit.safetensors")
    assert not report.unused and not report.fresh and not report.resized
    expected, found = both_logits(theirs, ours)
    assert error(found, expected) < 1e-4

    noise = torch.randn_like(expected)
    (expected * noise).sum().backward()
    (found * noise).sum().backward()
    # The gradients go the way of the weights: into a model of the same make, and from there to ours' names.
    carried = pair(variant, embedding=EmbeddingConfig(types=types))[1]
    load_timm(carried, {name: p.grad for name, p in theirs.named_parameters()})
    expected_gradients = dict(carried.named_parameters())
    floor = 0.1 * torch.cat([gradient.flatten() for gradient in expected_gradients.values()]).std().item()
    for name, parameter in ours.named_parameters():
        # What timm's model does not have was set to 0 for the weights, and its gradients are of other things.
        if ".types." in name or (name.endswith("image.linear.bias") and "norm_pre.bias" in theirs.state_dict()):
            continue
        wanted = expected_gradients[name]
        assert (parameter.grad - wanted).abs().max() < 1e-4 * max(wanted.std().item(), floor), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_in_and_out_changes_no_bit(variant: str) -> None:
    theirs, ours = pair(variant)
    state = theirs.state_dict()
    # -0 + 0 is 0.
    state["pos_embed"][0, -1, :4] = -0.0
    load_timm(ours, state)
    assert same(to_timm(ours, class_token=theirs.has_class_token), state)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_trained_with_type_vectors_is_the_same_in_timm(variant: str) -> None:
    theirs, ours = pair(variant)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    state = to_timm(ours, class_token=theirs.has_class_token)
    theirs.load_state_dict(state)
    expected, found = both_logits(theirs, ours)
    assert error(found, expected) < 1e-5
    if ours.place_class and "cls_token" in state:
        assert torch.equal(state["cls_token"][0, 0], ours.model.embeddings.lifts["class"].table[0])
    assert same(before, dict(ours.state_dict()))


def test_registers_that_a_mean_leaves_out_are_no_class_token_unless_asked() -> None:
    ours = classifier(NO_FINAL, **AVERAGED)
    assert {"reg_token"} == {"cls_token", "reg_token"} & to_timm(ours).keys()
    assert {"cls_token"} == {"cls_token", "reg_token"} & to_timm(ours, class_token=True).keys()


@pytest.mark.parametrize("old", [(3, 3), (2, 5)], ids=str)
@pytest.mark.parametrize("variant", ["class token", "registers without positions"])
def test_another_image_size_resizes_the_positions_as_timm_does(variant: str, old: tuple[int, int]) -> None:
    theirs, options = VARIANTS[variant]
    ours = classifier(**options)
    rows, columns = old
    model = vit(**theirs, img_size=(4 * rows, 4 * columns))
    # A square is what a file means that says nothing else.
    report = load_timm(ours, model.state_dict(), None if rows == columns else old)
    assert report.resized == ("model.embeddings.positions.0.table",)
    n_prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    expected = timm_layers.resample_abs_pos_embed(model.pos_embed, (2, 3), old, n_prefix)
    torch.testing.assert_close(to_timm(ours)["pos_embed"], expected.detach())
    model.set_input_size((8, 12))
    found = both_logits(model, ours)
    assert error(found[1], found[0]) < 1e-4


def test_another_number_of_classes_gets_a_new_head() -> None:
    theirs, ours = vit(num_classes=7), classifier()
    before = ours.head("label").output.weight.clone()
    report = load_timm(ours, theirs.state_dict())
    assert report.fresh == ("heads.class_head.output.weight", "heads.class_head.output.bias")
    assert report.unused == ("head.weight", "head.bias")
    assert torch.equal(ours.head("label").output.weight, before)
    assert str(report) == (
        "weights from the state dict: 41 tensors taken, "
        "2 fresh (heads.class_head.output.weight, heads.class_head.output.bias), 2 unused (head.weight, head.bias)"
    )


def test_pooling_otherwise_leaves_the_other_norm_fresh() -> None:
    report = load_timm(classifier(NO_FINAL, **AVERAGED), vit().state_dict())
    assert report.fresh == ("pool.norm.weight", "pool.norm.bias")
    assert report.unused == ("norm.weight", "norm.bias")


def test_a_task_that_was_not_built_is(tmp_path: Path) -> None:
    theirs, built = vit(), classifier()
    task = Classify({"image": IMAGE}, SIZES, classes=CLASSES, place_class=True)
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    load_timm(task, tmp_path / "vit.safetensors")
    load_timm(built, theirs.state_dict())
    records = [{"image": image} for image in pictures(2)]
    assert task.predict(records) == built.predict(records)


# What does not fit


def wide(**choices: Any) -> TransformerConfig:
    return replace(SIZES, **choices)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (
            {"embed_dim": 24, "mlp_ratio": 1.0},
            {},
            r"dict: patch_embed\.proj\.weight is \(24, 3, 4, 4\), and the model's "
            r"model\.embeddings\.lifts\.image\.linear\.weight is \(12, 3, 4, 4\); "
            r"make the tokenizer's patch and channels, and transformer\.d_model those of the weights$",
        ),
        ({"patch_size": 2}, {}, r"patch_embed\.proj\.weight is \(12, 3, 2, 2\), and .* is \(12, 3, 4, 4\); make"),
        ({"in_chans": 1}, {}, r"patch_embed\.proj\.weight is \(12, 1, 4, 4\), and .* is \(12, 3, 4, 4\); make"),
        ({"depth": 3}, {}, r"dict holds 3 blocks, and the model 2; set transformer\.depth: 3"),
        (
            {"mlp_ratio": 2.0},
            {},
            r"blocks\.0\.mlp\.fc1\.weight is \(24, 12\), and the model's "
            r"model\.transformer\.blocks\.0\.mlp\.up\.weight is \(20, 12\); make transformer\.d_model, d_ff",
        ),
        (
            {"qk_norm": True, "num_heads": 2},
            {"transformer": wide(qk_norm="layernorm")},
            r"blocks\.0\.attn\.q_norm\.weight is \(6\), and .* is \(4\); make transformer\.qk_norm and n_heads",
        ),
        (
            {"qk_norm": True},
            {},
            r"blocks\.0\.attn\.q_norm\.weight of shape \(4\) has no place in the model; make transformer\.qk_norm",
        ),
        ({}, {"transformer": wide(layer_scale=1.0)}, r"lacks the model's .*scale of shape .*transformer\.layer_scale"),
        ({"pre_norm": True}, {}, r"norm_pre\.weight of shape .* has no place .*transformer\.first_norm"),
        ({"qkv_bias": False}, {}, r"lacks the model's .*attention\.q\.bias of shape .*transformer\.q_bias"),
        (
            {"scale_attn_norm": True},
            {},
            r"blocks\.0\.attn\.norm\.weight of shape .* has no place in the model",
        ),
        (
            {"reg_tokens": 3},
            {},
            r"cls_token and reg_token is \(4, 12\), and .* is \(1, 12\); "
            r"make n_registers, or the field's vocabulary, and transformer\.d_model those of the weights$",
        ),
        (
            {"no_embed_class": True},
            {},
            r"0 of the 6 rows of pos_embed are for class and register tokens; set place_class: false",
        ),
        (
            {},
            {"place_class": False},
            r"1 of the 7 rows of pos_embed are for class and register tokens; set place_class: true",
        ),
        (
            {"img_size": (8, 20)},
            {},
            r"the 11 rows of pos_embed, 1 class and register tokens among them or not, are not a square; say from",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_weights_of_other_sizes_are_refused_and_change_nothing(theirs: dict, ours: dict, message: str) -> None:
    task = classifier(**ours)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    with pytest.raises(InputError, match=message) as raised:
        load_timm(task, vit(**theirs).state_dict())
    assert "\n" not in str(raised.value)
    assert same(before, dict(task.state_dict()))


def test_a_grid_that_does_not_multiply_to_the_rows_is_refused() -> None:
    with pytest.raises(InputError, match=r"the 7 rows of pos_embed, .* are not 2 x 4; say from Python what they"):
        load_timm(classifier(), vit().state_dict(), (2, 4))


def test_a_model_without_one_field_of_pictures_is_refused() -> None:
    two = Classify({"left": IMAGE, "right": IMAGE}, SIZES, classes=CLASSES)
    with pytest.raises(InputError, match=r"one field of pictures, and the model's are: left, right"):
        load_timm(two, vit().state_dict())


def written(path: Path, state: dict[str, Tensor] | None = None) -> Path:
    save_file(vit().state_dict() if state is None else state, path)
    return path


def test_weights_of_another_family_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "other.safetensors", {"wte.weight": torch.zeros(3, 4)})
    with pytest.raises(InputError, match=r"other\.safetensors holds no VisionTransformer of timm, .*give its folder"):
        load_timm(classifier(), path)


# Out to timm


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"image": replace(IMAGE, stem=ConvStem(8))}, "a stem of convolutions"),
        ({"read": "attention"}, "read: attention"),
        ({"read": "first"}, "read: first"),
        ({"pool_dense": True}, "pool_dense"),
        ({"fields": FieldsConfig(sees={"image": ["image"]})}, "sees"),
        ({"embedding": EmbeddingConfig(scale=True)}, r"embedding\.scale"),
        ({"embedding": EmbeddingConfig(norm=True)}, r"embedding\.norm"),
        ({"embedding": EmbeddingConfig(positions=[])}, "positions other than one joint table"),
        (
            {"embedding": EmbeddingConfig(positions=[PositionConfig(("row", "column")), PositionConfig(("slot",))])},
            "positions other than one joint table",
        ),
        ({"transformer": wide(norm_position="post")}, "norm_position: post"),
        ({"transformer": wide(norm="rmsnorm", norm_affine=False)}, "norms without gains"),
        (
            {
                "transformer": wide(rotary=RotaryConfig(("row", "column"))),
                "embedding": EmbeddingConfig(positions=[GRID, PositionConfig(("slot",), "joint")]),
            },
            "rotary positions",
        ),
        (
            {
                "transformer": wide(relative=RelativeConfig("alibi", "row")),
                "embedding": EmbeddingConfig(positions=[GRID, PositionConfig(("slot",), "joint")]),
            },
            "relative positions",
        ),
        ({"transformer": wide(patterns=({"window": {"row": 1}},))}, "patterns of attention"),
        ({"transformer": wide(d_head=5)}, "a d_head that is not d_model / n_heads"),
        ({"transformer": wide(n_kv_heads=1)}, "n_kv_heads"),
        ({"transformer": wide(attention_scale=1.0)}, "an attention_scale other than"),
        ({"transformer": wide(gated=True)}, "a gated MLP"),
        ({"transformer": wide(k_bias=False)}, "q_bias, k_bias and v_bias that differ"),
        ({"transformer": wide(o_bias=False)}, "o_bias and mlp_bias that differ"),
        ({"transformer": wide(qk_norm="rmsnorm")}, "qk_norm: rmsnorm beside norm: layernorm"),
        ({"pool_norm": True}, "final_norm and pool_norm together"),
        (
            {"transformer": wide(norm="rmsnorm", final_norm=False), "pool_norm": True},
            "pool_norm beside norm: rmsnorm",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_timm_has_no_word_for_is_named(options: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=f"timm's VisionTransformer does not support {what}.*; train a model without"):
        to_timm(classifier(**options))


def test_other_fields_have_no_place_in_timm() -> None:
    task = Classify({"left": IMAGE, "right": IMAGE}, SIZES, classes=CLASSES)
    task.build()
    with pytest.raises(InputError, match=r"one field of pictures, and the model's are: left, right"):
        to_timm(task)


def test_a_part_that_a_task_has_beside_ours_has_no_place_in_timm() -> None:
    task = classifier()
    task.extra = nn.Linear(2, 2)
    with pytest.raises(
        InputError, match=r"timm's VisionTransformer does not support extra\.weight; train a model without"
    ):
        to_timm(task)

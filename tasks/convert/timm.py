"""A Vision Transformer of timm as a classifier of pictures: its config.json and weights, as timm writes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from anyformer.errors import InputError, nearest
from anyformer.local_files import read_json
from anyformer.model.config import ActivationName, NormName, TransformerConfig
from anyformer.saving.manifest import find_folder
from anyformer.tasks.base.task import Task
from anyformer.tasks.classify.classify import Classify
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.weights.huggingface import CONFIG, Settings, read_folder
from anyformer.weights.tensors import Report, read_tensors
from anyformer.weights.timm_vit import load_timm

IMAGE = "image"
"""What the field of pictures is called."""


def is_timm(path: Path) -> bool:
    """Whether a folder, or a safetensors file, has a config.json of timm's with it."""
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file() or not (path.is_dir() or path.suffix == ".safetensors"):
        return False
    return find_folder(folder) is None and "architecture" in read_json(folder / CONFIG)


def open_timm(path: Path) -> tuple[Task, Callable[[], Report]]:
    """The classifier of a folder, or of a file with a config.json beside it, not built yet; and what puts its weights
    into it once it is.

    Raises InputError for another architecture than a VisionTransformer, and for options that have no counterpart here.
    """
    folder = path if path.is_dir() else path.parent
    settings = Settings(read_json(folder / CONFIG), str(folder / CONFIG))
    task = _classifier(_theirs(settings), settings)
    state, source = read_folder(folder) if path.is_dir() else (read_tensors(path.absolute()), str(path))
    return task, lambda: _fill(task, state, source)


def _fill(task: Classify, state: dict[str, torch.Tensor], source: str) -> Report:
    report = load_timm(task, {name: tensor.float() for name, tensor in state.items()})
    if report.fresh:
        # Type vectors and the like are set to what adds nothing; what is left was in no tensor.
        raise InputError(f"{source} lacks {', '.join(report.fresh[:4])}; export the whole model anew")
    return Report(source, report.taken, report.resized, report.fresh, report.unused)


def _theirs(settings: Settings) -> Any:
    """timm's own model, without weights."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    name = settings.get("architecture", "").partition(".")[0]
    # With a colon in it, timm would fetch one.
    if not timm.is_model(name):
        raise InputError(
            f"{settings.path}: architecture {name!r} is no model of timm{nearest(name, timm.list_models('vit_*'))}"
        )
    known = inspect.signature(VisionTransformer).parameters
    given = settings.get("model_args", {})
    if unknown := [key for key in given if key not in known]:
        raise InputError(f"{settings.path}: model_args.{unknown[0]} cannot be brought in")
    options = {key: value for key in ("num_classes", "global_pool") if (value := settings.values.get(key)) is not None}
    try:
        with torch.device("meta"):
            model = timm.create_model(name, pretrained=False, **(options | given))
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise InputError(f"{settings.path}: {' '.join(str(error).split())}") from None
    if type(model) is not VisionTransformer:
        raise InputError(
            f"{settings.path}: {name} is a {type(model).__name__}; only a VisionTransformer can be brought in"
        )
    return model


def _classifier(theirs: Any, settings: Settings) -> Classify:
    block, path = theirs.blocks[0], settings.path
    if theirs.global_pool not in ("token", "avg"):
        raise InputError(f"{path}: global_pool: {theirs.global_pool} cannot be brought in; token and avg can")
    if theirs.num_classes < 2:
        raise InputError(f"{path}: num_classes is {theirs.num_classes}, and a classifier has at least 2")
    is_read = theirs.global_pool == "token"
    n_registers = theirs.num_reg_tokens + int(theirs.has_class_token and not is_read)
    transformer = TransformerConfig(
        theirs.embed_dim,
        depth=len(theirs.blocks),
        n_heads=block.attn.num_heads,
        d_ff=block.mlp.fc1.out_features,
        activation=_activation(block.mlp.act, path),
        norm=_norm(block.norm1, path),
        norm_eps=block.norm1.eps,
        first_norm=not isinstance(theirs.norm_pre, nn.Identity),
        final_norm=not isinstance(theirs.norm, nn.Identity),
        qk_norm=None if isinstance(block.attn.q_norm, nn.Identity) else _norm(block.attn.q_norm, path),
        layer_scale=None if isinstance(block.ls1, nn.Identity) else 1.0,
        **dict.fromkeys(("q_bias", "k_bias", "v_bias"), block.attn.qkv.bias is not None),
        o_bias=block.attn.proj.bias is not None,
        mlp_bias=block.mlp.fc1.bias is not None,
    )
    told = settings.get("pretrained_cfg", {})
    channels = theirs.patch_embed.proj.in_channels
    image = ImagePatches(
        size=tuple(theirs.patch_embed.img_size),
        patch=theirs.patch_embed.patch_size[0],
        channels=channels,
        mean=tuple(told.get("mean", theirs.default_cfg["mean"])),
        std=tuple(told.get("std", theirs.default_cfg["std"])),
    )
    names = settings.values.get("label_names") or told.get("label_names") or range(theirs.num_classes)
    return Classify(
        {IMAGE: image},
        transformer,
        classes=[str(name) for name in names],
        read="class" if is_read else "mean",
        place_class=theirs.num_prefix_tokens > 0 and not theirs.no_embed_class,
        n_registers=n_registers,
        pool_norm=not isinstance(theirs.fc_norm, nn.Identity),
    )


def _activation(module: nn.Module, path: str) -> ActivationName:
    called = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "ReLU": "relu", "SiLU": "silu"}.get(type(module).__name__)
    if called is None:
        raise InputError(f"{path}: the activation {type(module).__name__} cannot be brought in")
    return "gelu_tanh" if getattr(module, "approximate", "none") == "tanh" else called


def _norm(module: nn.Module, path: str) -> NormName:
    kinds = {"LayerNorm": "layernorm", "RmsNorm": "rmsnorm", "RMSNorm": "rmsnorm"}
    if type(module).__name__ not in kinds:
        raise InputError(f"{path}: the norm {type(module).__name__} cannot be brought in")
    return kinds[type(module).__name__]

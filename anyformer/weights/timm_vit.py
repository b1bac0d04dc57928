"""timm's VisionTransformer: its weights in and out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.by_field import module_name
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lifts import Projection
from anyformer.weights.tensors import HEAD, Report, joint_grids, misfit, read_tensors, rename, take


@dataclass(frozen=True)
class _Places:
    """Where a model of pictures has the parts of a VisionTransformer."""

    image: str
    """The field of patches."""
    prefix: str | None
    """The field of class and register tokens."""
    grid: str | None
    """The table of positions over rows and columns."""
    slots: str | None
    """The table of positions of class and register tokens."""

    @property
    def patch(self) -> str:
        return f"model.embeddings.lifts.{module_name(self.image)}.linear"

    @property
    def table(self) -> str:
        return f"model.embeddings.lifts.{module_name(str(self.prefix))}.table"

    @property
    def types(self) -> dict[str, str]:
        fields = {"image": self.image, "prefix": self.prefix}
        return {part: f"model.embeddings.types.{module_name(str(name))}" for part, name in fields.items()}


def _places(model: Anyformer) -> _Places:
    images = [name for name, tokenizer in model.tokenizers.items() if tuple(tokenizer.axes) == ("row", "column")]
    if len(images) != 1:
        found = ", ".join(images) or "none"
        raise InputError(f"a VisionTransformer is of one field of pictures, and the model's are: {found}")
    prefix = [name for name, tokenizer in model.tokenizers.items() if isinstance(tokenizer, LearnedTokens)]
    tables = {
        tuple(config.axes): f"model.embeddings.positions.{i}.table"
        for i, config in enumerate(model.embeddings.placed)
        if config.scheme == "joint"
    }
    return _Places(images[0], next(iter(prefix), None), tables.get(("row", "column")), tables.get(("slot",)))


def timm_names(places: _Places) -> dict[str, str]:
    """timm's names, or those of the pieces of its tensors, and ours; * is a word that both share."""
    block = "model.transformer.blocks.*"
    names = {
        "patch_embed.proj.*": f"{places.patch}.*",
        "norm_pre.*": "model.transformer.first_norm.*",
        **{f"blocks.*.attn.qkv.{part}.*": f"{block}.attention.{part}.*" for part in "qkv"},
        **{f"blocks.*.attn.{part}_norm.*": f"{block}.attention.{part}_norm.*" for part in "qk"},
        "blocks.*.attn.proj.*": f"{block}.attention.o.*",
        "blocks.*.norm1.*": f"{block}.attention_residual.norm.*",
        "blocks.*.norm2.*": f"{block}.mlp_residual.norm.*",
        "blocks.*.ls1.gamma": f"{block}.attention_residual.scale",
        "blocks.*.ls2.gamma": f"{block}.mlp_residual.scale",
        "blocks.*.mlp.fc1.*": f"{block}.mlp.up.*",
        "blocks.*.mlp.fc2.*": f"{block}.mlp.down.*",
        "norm.*": "model.transformer.final_norm.*",
        "fc_norm.*": "pool.norm.*",
        "head.*": f"{HEAD}*",
    }
    optional = {"prefix": places.prefix and places.table, "pos_embed.slots": places.slots, "pos_embed": places.grid}
    return names | {theirs: ours for theirs, ours in optional.items() if ours is not None}


PREFIX = ("cls_token", "reg_token")


def load_timm(
    task: nn.Module, source: str | Path | Mapping[str, Tensor], grid: tuple[int, int] | None = None
) -> Report:
    """Set a `Classify` task over pictures to the weights of a timm VisionTransformer, in place.

    A class token that is not read, as with average pooling, is a register here (without registers it is unused, as the
    report says, and so is a norm that stands on the other side of the pooling). What a file does not tell must be set
    as the model had it: n_heads, norm_eps, activation, and the mean and std of the pixels. Type vectors become 0.

    source: a state dict, or a local safetensors file.
    grid: rows and columns of its table of positions; a square by default, or the model's own grid where the number of
        rows is no square.
    Raises InputError, before anything is changed, if the file cannot be read or does not fit.
    """
    if task.model is None:
        task.configure_model()
    is_path = not isinstance(source, Mapping)
    state, source = (read_tensors(source), str(source)) if is_path else (dict(source), "the state dict")
    kernel = state.get("patch_embed.proj.weight")
    if kernel is None or kernel.ndim != 4 or "blocks.0.attn.qkv.weight" not in state:
        raise InputError(
            f"{source} holds no VisionTransformer of timm, with its patch_embed.proj.weight and "
            "blocks.0.attn.qkv.weight; for a run of ours give its folder"
        )
    places = _places(task.model)
    own = task.state_dict()
    shape = _kernel_shape(task.model, places)
    if shape is not None and kernel.shape != shape:
        raise InputError(
            misfit(source, "patch_embed.proj.weight", kernel.shape, f"{places.patch}.weight", torch.Size(shape))
        )
    pieces, grid = _timm_apart(state, places, joint_grids(task).get(places.grid), grid, source)
    table = timm_names(places)
    tensors, names = {}, {}
    for theirs, piece in pieces.items():
        # What is in a block and not in the table is of the trunk nevertheless.
        unknown = f"model.transformer.{theirs}" if theirs.startswith("blocks.") else theirs
        ours = rename(theirs, table) or unknown
        tensors[ours], names[ours] = piece, theirs
    if "prefix" in pieces:
        names[places.table if places.prefix else "prefix"] = " and ".join(name for name in PREFIX if name in state)
    # What theirs does not have adds nothing.
    absent = [f"{places.patch}.bias", places.types["image"], *([places.types["prefix"]] if "prefix" in pieces else [])]
    tensors |= {name: torch.zeros_like(own[name]) for name in absent if name in own and name not in tensors}
    return take(task, tensors, source, names, {} if places.grid is None else {places.grid: grid})


def _kernel_shape(model: Anyformer, places: _Places) -> tuple[int, ...] | None:
    """The shape of the patch embedding as a convolution, (d, c, p, p); None where a stem stands in its place."""
    tokenizer = model.tokenizers[places.image]
    lift = model.embeddings.lifts[places.image]
    if not isinstance(lift, Projection) or not hasattr(tokenizer, "patch"):
        return None
    return lift.linear.out_features, tokenizer.channels, tokenizer.patch, tokenizer.patch


def _timm_apart(
    state: Mapping[str, Tensor],
    places: _Places,
    sizes: tuple[int, int] | None,
    grid: tuple[int, int] | None,
    source: str,
) -> tuple[dict[str, Tensor], tuple[int, int] | None]:
    """The pieces of timm's tensors by name, and the grid of its positions. sizes: the model's grid."""
    pieces = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            stem, _, end = name.rpartition(".")
            pieces |= {f"{stem}.{part}.{end}": piece for part, piece in zip("qkv", tensor.tensor_split(3), strict=True)}
        elif name == "patch_embed.proj.weight":
            pieces[name] = tensor.flatten(1)
        elif name not in (*PREFIX, "pos_embed"):
            pieces[name] = tensor
    prefix = [state[name][0] for name in PREFIX if name in state]
    if prefix:
        pieces["prefix"] = torch.cat(prefix)
    if "pos_embed" not in state:
        return pieces, None
    positions, n_prefix = state["pos_embed"][0], len(pieces.get("prefix", ()))
    n_placed, grid = _timm_grid(len(positions), n_prefix, places.slots is not None, sizes, grid, source)
    if n_prefix and places.prefix is not None and bool(n_placed) != (places.slots is not None):
        raise InputError(
            f"{source}: {n_placed} of the {len(positions)} rows of pos_embed are for class and register tokens; "
            f"set place_class: {str(bool(n_placed)).lower()}"
        )
    if n_placed:
        pieces["pos_embed.slots"] = positions[:n_placed]
    return pieces | {"pos_embed": positions[n_placed:]}, grid


def _timm_grid(
    n_rows: int,
    n_prefix: int,
    placed: bool,
    sizes: tuple[int, int] | None,
    grid: tuple[int, int] | None,
    source: str,
) -> tuple[int, tuple[int, int]]:
    """How many rows of a table of positions are for class and register tokens, and the grid of the others."""
    for n_placed in (n_prefix, 0) if placed else (0, n_prefix):
        n = n_rows - n_placed
        side = math.isqrt(max(n, 0))
        known = [(side, side), *([] if sizes is None else [sizes])] if grid is None else [tuple(grid)]
        for candidate in known:
            if n and math.prod(candidate) == n:
                return n_placed, candidate
    needed = f"{grid[0]} x {grid[1]}" if grid else "a square"
    raise InputError(
        f"{source}: the {n_rows} rows of pos_embed, {n_prefix} class and register tokens among them or not, are not "
        f"{needed}; say from Python what they were trained on: load_timm(task, path, grid=(rows, columns))"
    )


def to_timm(task: nn.Module, class_token: bool | None = None) -> dict[str, Tensor]:
    """The weights of a `Classify` task over pictures as those of a timm VisionTransformer, on the CPU.

    A type vector goes into the table of positions (of class and register tokens without positions, into their own
    vectors), where it adds the same; all else goes out as it is. What the names of tensors do not tell must be set
    there as it is here: num_heads, the norms' eps and act_layer.

    class_token: whether the first of the class and register tokens goes out as `cls_token`; by default if it is read.
    Raises InputError that names what a VisionTransformer does not support.
    """
    if task.model is None:
        raise InputError("the task has no weights yet; fit it, or load a run")
    if wrong := _not_timm(task):
        raise InputError(f"timm's VisionTransformer does not support {wrong}; train a model without it")
    places = _places(task.model)
    own = {name: tensor.detach().cpu().clone() for name, tensor in task.state_dict().items()}
    kinds = {part: own.pop(name, None) for part, name in places.types.items()}
    image, bias = kinds["image"], f"{places.patch}.bias"
    if task.model.transformer.config.first_norm and not own[bias].any():
        del own[bias]
    elif task.model.transformer.config.first_norm:
        # A VisionTransformer whose blocks begin with a norm has patches without a bias.
        image = own.pop(bias) + (0 if image is None else image)
    for vector, name in ((image, places.grid), (kinds["prefix"], places.slots or places.table)):
        # Adding 0 would turn -0 into 0.
        if vector is not None and vector.any():
            own[name] += vector

    table = {ours: theirs for theirs, ours in timm_names(places).items()}
    pieces = {}
    for name, tensor in own.items():
        theirs = rename(name, table)
        if theirs is None:
            raise InputError(f"timm's VisionTransformer does not support {name}; train a model without it")
        pieces[theirs] = tensor
    if class_token is None:
        class_token = task.read == "class"
    return _timm_together(pieces, _kernel_shape(task.model, places), class_token)


def _timm_together(pieces: dict[str, Tensor], kernel: tuple[int, ...], class_token: bool) -> dict[str, Tensor]:
    state = {}
    for name, tensor in pieces.items():
        if ".attn.qkv." in name:
            stem, _, end = name.rpartition(".")
            whole = stem.rpartition(".")[0]
            if stem.endswith(".q"):
                state[f"{whole}.{end}"] = torch.cat([pieces[f"{whole}.{part}.{end}"] for part in "qkv"])
        elif name == "patch_embed.proj.weight":
            state[name] = tensor.view(kernel)
        elif name == "prefix":
            n_class = int(class_token)
            parts = zip(PREFIX, tensor.split([n_class, len(tensor) - n_class]), strict=True)
            state |= {part: vectors[None].clone() for part, vectors in parts if len(vectors)}
        elif name == "pos_embed":
            slots = [pieces["pos_embed.slots"]] if "pos_embed.slots" in pieces else []
            state[name] = torch.cat([*slots, tensor])[None]
        elif name != "pos_embed.slots":
            state[name] = tensor
    return state


def _not_timm(task: nn.Module) -> str | None:
    """What a VisionTransformer cannot be told, beyond what the names of the tensors show."""
    model = task.model
    config, embedding, places = model.transformer.config, model.embeddings.config, _places(model)
    known = {places.image, places.prefix}
    tables = {name for name in (places.grid, places.slots) if name}
    biases = (config.q_bias, config.k_bias, config.v_bias)
    scale = config.attention_scale
    has_final = not isinstance(model.transformer.final_norm, nn.Identity)
    found = {
        f"the fields {', '.join(model.tokenizers)}": set(model.tokenizers) - known,
        "sees": model.sees is not None,
        "a stem of convolutions": _kernel_shape(model, places) is None,
        f"read: {task.read}": task.read in ("attention", "first"),
        "pool_dense": task.pool_dense,
        "embedding.scale": embedding.scale,
        "embedding.norm": embedding.norm,
        "positions other than one joint table over row and column, and one of class and register tokens": (
            len(model.embeddings.placed) != len(tables) or places.grid is None
        ),
        "norm_position: post": config.norm_position != "pre",
        "norms without gains": not config.norm_affine,
        "rotary positions": config.rotary is not None,
        "relative positions": config.relative is not None,
        "patterns of attention": bool(config.patterns),
        "a d_head that is not d_model / n_heads": config.head_width * config.n_heads != config.d_model,
        "n_kv_heads": config.n_kv_heads not in (None, config.n_heads),
        "an attention_scale other than 1 / sqrt(d_head)": scale not in (None, config.head_width**-0.5),
        "a gated MLP": config.gated,
        "q_bias, k_bias and v_bias that differ": len(set(biases)) > 1,
        "o_bias and mlp_bias that differ": config.o_bias != config.mlp_bias,
        f"qk_norm: {config.qk_norm} beside norm: {config.norm}": config.qk_norm not in (None, config.norm),
        "final_norm and pool_norm together": has_final and task.pool_norm,
        f"pool_norm beside norm: {config.norm}": task.pool_norm and config.norm != "layernorm",
    }
    return next((what for what, is_there in found.items() if is_there), None)

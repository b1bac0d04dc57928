"""What carries weights into a task, whatever family they are of: files read, names turned, tensors set, and a report.

Files are local, and nothing is fetched; of a pickle nothing but tensors is loaded.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from anyformer.data.files import find_file
from anyformer.errors import InputError
from anyformer.local_files import check_archive
from anyformer.model.lora import is_adapter
from anyformer.model.positions import JointPositions, resize_grid

HEAD = "heads.class_head.output."
"""The layer of a `Classify` task that gives the logits: the one that another number of classes replaces."""
TRUNK = re.compile(r"model\.(transformer|encoder)\.(?!final_norm)")
"""What must agree tensor by tensor, for half a trunk is none."""

SETTINGS = {
    r"\.lifts\..*\.table": "n_registers, or the field's vocabulary, and transformer.d_model",
    r"\.lifts\.": "the tokenizer's patch and channels, and transformer.d_model",
    r"\.positions\.": "place_class, n_registers and embedding.positions",
    r"\.[qk]_norm\.": "transformer.qk_norm and n_heads",
    r"\.scale$": "transformer.layer_scale",
    r"\.first_norm\.": "transformer.first_norm",
    r"\.attention\..*bias": "transformer.q_bias, k_bias, v_bias and o_bias",
    r"\.attention\.": "transformer.d_model, d_head, n_heads and n_kv_heads",
    r"\.mlp\.": "transformer.d_model, d_ff, gated and mlp_bias",
    r"": "transformer.d_model, norm and norm_affine",
}
"""What to look at where a tensor does not fit, by a part of its name; the first that is found counts."""


@dataclass(frozen=True)
class Report:
    """What became of every tensor."""

    source: str
    """The file or folder that they came from."""
    taken: tuple[str, ...]
    """Ours, set to what the source holds."""
    resized: tuple[str, ...]
    """Ours, set to a table of positions that was stretched to another grid."""
    fresh: tuple[str, ...]
    """Ours, left at their initial values."""
    unused: tuple[str, ...]
    """Theirs, for which there is no place here."""
    notes: tuple[str, ...] = ()
    """What else is to be said."""
    partial: tuple[str, ...] = ()
    """Those of `taken` that have new rows too, as the tables of another vocabulary."""

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} tensors taken"]
        for what in ("resized", "fresh", "unused"):
            names = getattr(self, what)
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{len(names)} {what} ({', '.join(names[:4])}{more})")
        return "; ".join([f"weights from {self.source}: {', '.join(parts)}", *self.notes])


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a local safetensors file, by name, on the CPU.

    path: as given from the current folder, else inside $ANYFORMER_DATA.
    Raises InputError if there is no such file or it is damaged or of another format.
    """
    if "://" in str(path):
        raise InputError(f"weights are a local file, and nothing is loaded from the network, got {path}")
    place = Path(find_file(path))
    if place.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".npz"):
        raise InputError(
            f"{path} may run code when it is read, and is not opened; convert it to safetensors where you trust it: "
            "safetensors.torch.save_file(state_dict, 'weights.safetensors')"
        )
    if not place.is_file():
        raise InputError(f"{path} is no file; give the .safetensors file itself")
    try:
        return load_file(place)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}); copy or convert it anew") from None


def read_pickled(path: str | Path) -> Any:
    """What a file of `torch.save` holds, on the CPU: tensors and plain values, for nothing else is loaded.

    Raises InputError if it is damaged or holds more.
    """
    try:
        check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except InputError:
        raise
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged, or holds more than tensors ({reason[:120]}); copy it anew") from None


def take(
    task: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    names: Mapping[str, str] | None = None,
    grids: Mapping[str, tuple[int, ...]] | None = None,
    strange: Sequence[str] = (),
) -> Report:
    """Set a task's tensors to those given under the same names, in place.

    names: what the source calls them, for messages. grids: rows and columns of its joint tables of positions, by name;
    a table of other rows and columns here is resized. strange: what the names begin with of those that are not taken,
    as they mean something else; nor is a layer behind the model of another shape: a head of other classes or words.
    Raises InputError, before anything is changed, if the trunks differ or a tensor has another shape.
    """
    names, grids = names or {}, grids or {}
    own, sizes = task.state_dict(), joint_grids(task)
    _check_trunk(own, tensors, names, source)
    values, resized = {}, []
    for name, tensor in tensors.items():
        is_other_head = not name.startswith("model.") and name in own and tensor.shape != own[name].shape
        if name not in own or is_other_head or name.startswith(tuple(strange)):
            continue
        if own[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"{source}: {names.get(name, name)} holds {kind} where floating-point numbers are needed, as quantised "
                "models do; take the model as it was before that"
            )
        values[name] = tensor
        if name in grids and len(grids[name]) == 2 == len(sizes.get(name, ())) and grids[name] != sizes[name]:
            values[name] = resize_grid(tensor, grids[name], sizes[name])
            resized.append(name)
        if values[name].shape != own[name].shape:
            raise InputError(misfit(source, names.get(name, name), tensor.shape, name, own[name].shape))
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return Report(
        source,
        taken=tuple(name for name in own if name in values and name not in resized),
        resized=tuple(resized),
        fresh=tuple(name for name in own if name not in values and not is_adapter(name)),
        unused=tuple(names.get(name, name) for name in tensors if name not in values),
    )


def joint_grids(task: nn.Module) -> dict[str, tuple[int, ...]]:
    """The sizes of the axes of every joint table of positions, by the table's name."""
    modules = task.named_modules()
    return {f"{name}.table": module.sizes for name, module in modules if isinstance(module, JointPositions)}


def _check_trunk(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], names: Mapping[str, str], source: str
) -> None:
    ours, theirs = ([name for name in side if TRUNK.match(name) and not is_adapter(name)] for side in (own, tensors))
    depth, wanted = (
        len({match[1] for name in side if (match := re.match(r"model\.transformer\.blocks\.(\d+)\.", name))})
        for side in (ours, theirs)
    )
    if depth != wanted:
        raise InputError(f"{source} holds {wanted} blocks, and the model {depth}; set transformer.depth: {wanted}")
    for name in theirs:
        if name not in own:
            raise InputError(
                f"{source}: {names.get(name, name)} of shape {_shown(tensors[name].shape)} has no place in the model; "
                f"{_advice(name)}"
            )
    for name in ours:
        if name not in tensors:
            shape = _shown(own[name].shape)
            raise InputError(f"{source} lacks the model's {name} of shape {shape}; {_advice(name)}")


def misfit(source: str, theirs: str, shape: torch.Size, name: str, own: torch.Size) -> str:
    return f"{source}: {theirs} is {_shown(shape)}, and the model's {name} is {_shown(own)}; {_advice(name)}"


def _advice(name: str) -> str:
    settings = next(settings for part, settings in SETTINGS.items() if re.search(part, name))
    return f"make {settings} those of the weights"


def _shown(shape: torch.Size) -> str:
    return f"({', '.join(map(str, shape))})"


# Names.


def rename(name: str, table: Mapping[str, str]) -> str | None:
    """The name by a table of patterns, in which * is a word that is kept; None if none is its pattern.

    >>> rename("blocks.3.norm1.bias", {"blocks.*.norm1.*": "block_*.norm.*"})
    'block_3.norm.bias'
    """
    for pattern, new in table.items():
        if match := re.fullmatch(re.escape(pattern).replace(r"\*", r"([^.]+)"), name):
            words = iter(match.groups())
            return re.sub(r"\*", lambda _, words=words: next(words), new)
    return None

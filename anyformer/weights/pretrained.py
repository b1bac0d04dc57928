"""A folder as transformers writes it: what its config.json says of the model, and its tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from anyformer.embeddings import EmbeddingConfig
from anyformer.errors import InputError
from anyformer.files import find_file
from anyformer.heads import HeadConfig
from anyformer.transformer import TransformerConfig
from anyformer.weights.tensors import Report, read_tensors, rename, take

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
"""What transformers calls our activations; the first of several is what goes out."""
OF_TRAINING = {"dropout", "attention_dropout", "drop_path", "init_std", "zero_output", "zero", "checkpointing"}
"""Options of ours that a trained model does without."""


@dataclass(frozen=True)
class Settings:
    """The values of a config.json."""

    values: Mapping[str, Any]
    path: str

    def get(self, name: str, default: Any, kinds: type | tuple[type, ...] = ()) -> Any:
        """A value. Raises InputError if it is of none of the kinds; of the default's kind when left out."""
        value = self.values.get(name, default)
        kinds = kinds or type(default)
        kinds = (int, float) if kinds is float else kinds
        wrong = isinstance(value, bool) and kinds is not bool
        if wrong or not isinstance(value, kinds):
            raise InputError(f"{self.path}: {name} is {value!r}, which is not a value for it")
        return value

    def activation(self, name: str, default: str) -> Any:
        value = self.get(name, default)
        if value not in ACTIVATIONS:
            raise InputError(f"{self.path}: {name}: {value} is none of the activations here: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[value]

    def require(self, **wanted: Any) -> None:
        """Raise InputError for what is not as it must be; what is not there is."""
        for name, value in wanted.items():
            if self.values.get(name, value) != value:
                raise InputError(
                    f"{self.path}: {name}: {self.values[name]!r} cannot be brought in; only models with {name}: "
                    f"{json.dumps(value)} can"
                )


@dataclass(frozen=True)
class Design:
    """What of a model a config.json decides."""

    transformer: TransformerConfig
    embedding: EmbeddingConfig
    max_len: int
    """Places of the table of positions."""
    vocab_size: int
    output: HeadConfig | None = None
    """The layer over the vocabulary, where there is one."""
    head_dropout: float = field(default=0.0, compare=False)
    """Before the layer that tells classes apart."""

    @property
    def plain(self) -> dict[str, Any]:
        """All that shows in what the model says, by name, with what is left out filled in."""
        config = self.transformer
        has_final = config.norm_position == "pre" if config.final_norm is None else config.final_norm
        positions = [(("word",), "learned")]
        if self.embedding.positions is not None:
            # Along one axis a joint table is a learned one.
            positions = [
                (tuple(each.axes), "learned" if each.scheme == "joint" and len(each.axes) == 1 else each.scheme)
                for each in self.embedding.positions
            ]
        filled = {
            "d_head": config.head_width,
            "n_kv_heads": config.n_kv_heads or config.n_heads,
            "d_ff": config.inner_width,
            "attention_scale": config.attention_scale or config.head_width**-0.5,
            "final_norm": has_final,
        }
        embedding = {"scale": self.embedding.scale, "norm": self.embedding.norm, "positions": positions}
        parts = {
            "transformer": asdict(config) | filled,
            "embedding": embedding,
            "output": {} if self.output is None else asdict(self.output),
        }
        return {
            f"{part}.{name}": value
            for part, values in parts.items()
            for name, value in values.items()
            if name not in OF_TRAINING
        }


@dataclass(frozen=True)
class Family:
    """How the models of a family are told and named in transformers, and taken apart."""

    model_type: str
    architectures: Mapping[str, Literal["causal", "masked", "classes"]]
    """By their names what they are here: a language model, one of masked tokens, or one that tells classes apart."""
    design: Callable[[Settings, str], Design]
    """The design that a config.json of an architecture says. Raises InputError for what we have no counterpart of."""
    settings: Callable[[Design], dict[str, Any]]
    """The way back, for a design of which `design` knows every option."""
    names: Mapping[str, str]
    """Their tensors, or the pieces of them, and ours; * is a word that both share, FIELD the name of our field."""
    block: str
    """What the names of tensors of a block begin with."""
    apart: Callable[[Mapping[str, Tensor], Settings], dict[str, Tensor]]
    """Their tensors to the pieces that have a name here."""
    together: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    """The way back, from the pieces of a whole model and its type vector, `type`, if there is one."""

    def architecture(self, use: str) -> str:
        return next(name for name, its in self.architectures.items() if its == use)

    def table(self, task: nn.Module, name: str) -> dict[str, str]:
        """Our names by theirs, for a task whose field has a name."""
        places = task.model.embeddings.positions[0]
        positions = "table" if hasattr(places, "table") else "tables.0"
        return {
            theirs: ours.replace("FIELD", name.replace(".", "/")).replace("POSITIONS", positions)
            for theirs, ours in self.names.items()
        }

    def load(self, task: nn.Module, name: str, state: Mapping[str, Tensor], settings: Settings, source: str) -> Report:
        """Set a task to tensors of the family, in place.

        name: of the task's field. source: of the tensors, for messages.
        Raises InputError, before anything is changed, if they do not fit, and afterwards if one is missing.
        """
        table, tensors, names = self.table(task, name), {}, {}
        for theirs, piece in self.apart(state, settings).items():
            # What is in a block and not in the table is of the trunk nevertheless.
            unknown = f"model.transformer.{theirs}" if theirs.startswith(self.block) else theirs
            ours = rename(theirs, table) or unknown
            tensors[ours], names[ours] = piece, theirs
        try:
            report = take(task, tensors, source, names)
        except InputError as error:
            # Its advice is about a config of ours.
            wrong = str(error).partition("; ")[0]
            raise InputError(f"{settings.path} is not of these weights: {wrong}; take both from one model") from None
        if report.fresh:
            wanted = {ours: theirs for theirs, ours in table.items()}
            lacking = ", ".join(rename(each, wanted) or each for each in report.fresh[:4])
            raise InputError(f"{source} lacks {lacking}; export the whole model anew")
        return report

    def unload(self, task: nn.Module, name: str) -> dict[str, Tensor]:
        """The tensors of a task in the family's names and shapes, on the CPU.

        Raises InputError for a tensor that the family has no word for.
        """
        table = {ours: theirs for theirs, ours in self.table(task, name).items()}
        kind = f"model.embeddings.types.{name.replace('.', '/')}"
        pieces = {}
        for ours, tensor in task.state_dict().items():
            theirs = "type" if ours == kind else rename(ours, table)
            if theirs is None:
                raise InputError(f"{self.model_type} has no word for {ours}; train a model without it")
            pieces[theirs] = tensor.detach().cpu()
        return {theirs: tensor.contiguous().clone() for theirs, tensor in self.together(pieces).items()}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged or no JSON ({' '.join(str(error).split())}); copy it anew") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def find_model(folder: str | Path) -> Path:
    """Where a folder is: as given from the current folder, else inside $ANYFORMER_DATA. Raises InputError for none."""
    if "://" in str(folder):
        raise InputError(f"a model is a local folder, and nothing is loaded from the network, got {folder}")
    place = Path(find_file(folder))
    if not place.is_dir():
        raise InputError(f"{folder} is no folder; give the one that holds {CONFIG} and the weights")
    return place


def read_settings(folder: Path) -> Settings:
    """The config.json of a folder. Raises InputError if there is none."""
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} holds no {CONFIG}; give a folder as save_pretrained of transformers writes it")
    return Settings(read_json(path), str(path))


def read_folder(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a folder, in one file or in shards, and the file that names them.

    Raises InputError if there are none, one is missing or a file is damaged.
    """
    whole, index = folder / WEIGHTS, folder / INDEX
    if whole.is_file():
        return read_tensors(whole.absolute()), str(whole)
    if not index.is_file():
        if pickled := sorted(path.name for path in folder.glob("*.bin")):
            raise InputError(
                f"{folder} holds {pickled[0]} and no {WEIGHTS}; it may run code when it is read, and is not opened: "
                "convert it where you trust it, with save_pretrained of transformers"
            )
        raise InputError(f"{folder} holds no weights: there is no {WEIGHTS}")
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or any(name != Path(str(name)).name for name in shards.values()):
        raise InputError(f"{index} is damaged: its weight_map must name a file of the folder for each tensor")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(shards.values())):
        tensors |= read_tensors((folder / name).absolute())
    if missing := sorted(shards.keys() - tensors.keys()):
        raise InputError(f"{index} names {missing[0]}, which {shards[missing[0]]} does not hold; copy the folder anew")
    return tensors, str(index)

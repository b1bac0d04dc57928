"""A folder as transformers writes it: what its config.json says of the model, and its tensors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anyformer.choices import Checked
from anyformer.data.files import find_beside
from anyformer.errors import InputError
from anyformer.local_files import read_json
from anyformer.model.by_field import module_name
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.heads import HeadConfig
from anyformer.model.positions import PositionConfig
from anyformer.weights.tensors import Report, read_pickled, read_tensors, rename, take

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""The older form of the weights, of which nothing but tensors is loaded."""
DTYPES = {torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool}
"""Of weights, and of the places and masks that files hold beside them."""
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


def called(activation: str) -> str | None:
    """What transformers calls an activation of ours, if anything."""
    return next((name for name, ours in ACTIVATIONS.items() if ours == activation), None)


UNUSED_ONCE_TRAINED = {"dropout", "attention_dropout", "drop_path", "init_std", "zero_output", "zero", "checkpointing"}
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
    max_len: int | None
    """Tokens of a text at the most; None where any number has its positions."""
    vocab_size: int
    output: HeadConfig | None = None
    """The layer over the vocabulary, where there is one."""
    encoder: TransformerConfig | None = None
    """The stack that reads the source, where there are two; they share a width."""
    n_mels: int | None = None
    """Bins of a source of sound."""
    head_dropout: float = field(default=0.0, compare=False)
    """Before the layer that tells classes apart."""
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Of the task, by the names of its arguments: what all models of the architecture have alike."""

    @property
    def plain(self) -> dict[str, Any]:
        """All that shows in what the model says, by name, with what is left out filled in."""
        positions = [(("word",), "learned")]
        if self.embedding.positions is not None:
            positions = sorted(map(_plain_positions, self.embedding.positions))
        embedding = {name: getattr(self.embedding, name) for name in ("scale", "norm", "offset")}
        embedding["positions"] = positions
        parts = {
            "transformer": plain_stack(self.transformer),
            "encoder": {} if self.encoder is None else plain_stack(self.encoder),
            "embedding": embedding,
            "output": {} if self.output is None else asdict(self.output),
        }
        return {
            f"{part}.{name}": value
            for part, values in parts.items()
            for name, value in values.items()
            if name not in UNUSED_ONCE_TRAINED
        }


def plain_stack(config: TransformerConfig) -> dict[str, Any]:
    """The options of a stack, with what is left out filled in; of experts without the loss, which is of training."""
    has_final = config.norm_position == "pre" if config.final_norm is None else config.final_norm
    experts = config.experts
    if experts is not None:
        experts = asdict(experts) | {"d_ff": config.expert_width, "normalize": experts.is_normalized}
        del experts["balance"]
    return asdict(config) | {
        "d_head": config.head_width,
        "n_kv_heads": config.kv_heads,
        "d_ff": config.inner_width,
        "attention_scale": config.head_width**-0.5 if config.attention_scale is None else config.attention_scale,
        "final_norm": has_final,
        "experts": experts,
    }


def _plain_positions(config: PositionConfig) -> tuple[Any, ...]:
    axes, scheme = tuple(config.axes), config.scheme
    if scheme == "sinusoidal":
        # Those with sizes are a table, which says all.
        return (axes, "table") if config.sizes else (axes, scheme, config.sines, config.base)
    # Along one axis a joint table is a learned one.
    return axes, "learned" if scheme == "joint" and len(axes) == 1 else scheme


Kind = Literal["language", "masked", "classify", "sequence", "speech", "decide", "bare"]
"""What a model is here: a language model, one of masked tokens, or one that tells classes apart; an encoder-decoder
that reads a text, or speech, and writes a text; one that acts; or one without a head, which gives vectors."""


@dataclass(frozen=True)
class Speech:
    """What a family that writes down speech says in other files than config.json."""

    opening: Callable[[Mapping[str, int], Settings, Design, str | None], list[str | list[str]]]
    """What stands before a transcript, from the ids of tokens by their spelling, generation_config.json, the design and
    the language that is asked for. Raises InputError for one that the model does not know."""
    suppressed: Callable[
        [Mapping[str, int], Callable[[list[str]], Any], int, Settings], tuple[tuple[int, ...], tuple[int, ...]]
    ]
    """Ids that are not to be written, and not to be written first; from the ids by spelling, what cuts texts into ids,
    the id that ends a text, and generation_config.json."""
    silence: Callable[[Mapping[str, int]], int | None]
    """The id that says that nothing is said, from the ids by spelling; None where there is none."""
    times: Callable[[Mapping[str, int], Design], int | None]
    """The id of 0.00 seconds, from the ids by spelling and the design; None where there are no tokens of times."""
    alignment: Callable[[Settings, Design], tuple[tuple[int, int], ...]]
    """Layer and head of the cross-attention that follows what is said, from generation_config.json and the design."""
    generation: Callable[[Mapping[str, int], Sequence[str | list[str]]], dict[str, Any]]
    """Of generation_config.json what the tokens and the opening decide."""
    sound: Callable[[Design], dict[str, Any]]
    """preprocessor_config.json."""
    tokenizer: Mapping[str, str]
    """Of tokenizer_config.json."""


@dataclass(frozen=True)
class Family(Checked):
    """How the models of a family are told and named in transformers, and taken apart."""

    model_type: str
    architectures: Mapping[str, Kind]
    """By their names."""
    design: Callable[[Settings, str], Design]
    """The design that a config.json of an architecture says. Raises InputError for what we have no counterpart of."""
    settings: Callable[[Design], dict[str, Any]] | None
    """The way back, for a design of which `design` knows every option; None where models of the family come in
    alone."""
    names: Mapping[str, str]
    """Their tensors, or the pieces of them, and ours. * is a word that both share; FIELD is our field of text, SOURCE
    what an encoder reads, and positions.WORD the table of the axis `word`."""
    block: str | tuple[str, ...]
    """What the names of tensors of a block begin with."""
    apart: Callable[[Mapping[str, Tensor], Settings], dict[str, Tensor]]
    """Their tensors to the pieces that have a name here."""
    together: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None
    """The way back, from the pieces of a whole model. The type vectors of our field of text and of another are among
    them, as `type` and `type.source`, if there are any; those without a text are in `names`."""
    bare: Mapping[str, Kind] = field(default_factory=dict)
    """By their names, architectures without a head, which come in and do not go out."""
    settled: Callable[[Settings, Mapping[str, Tensor]], Settings] = lambda settings, state: settings
    """The settings as the tensors show them to be, where a config.json does not tell the whole."""
    vocabulary: Literal["tokenizer.json", "spiece.model", "source.spm"] = "tokenizer.json"
    """The file of the vocabulary where there is no tokenizer.json; vocab.json with merges.txt, and vocab.txt, are found
    without being named."""
    speech: Speech | None = None
    """Of a family that writes down speech."""
    read_file: Callable[[str], tuple[Settings, dict[str, Tensor]]] | None = None
    """Reads the single file, FILE.pt, of the family's own library: as a config.json and tensors of transformers."""
    write_file: Callable[[Mapping[str, Any], Mapping[str, Tensor]], dict[str, Any]] | None = None
    """The way back: what that file holds."""

    @property
    def kinds(self) -> dict[str, Kind]:
        """What each architecture that comes in is."""
        return {**self.architectures, **self.bare}

    def architecture(self, kind: Kind) -> str:
        return next(name for name, its in self.architectures.items() if its == kind)

    def says(self, design: Design, kind: Kind) -> tuple[dict[str, Any], Design]:
        """What a config.json says of a design, and the design that this says again."""
        architecture = self.architecture(kind)
        settings = {"architectures": [architecture], "model_type": self.model_type, **self.settings(design)}
        return settings, self.design(Settings(settings, CONFIG), architecture)

    def table(self, task: nn.Module, name: str | None) -> dict[str, str]:
        """Our names by theirs, for a task whose field of text has a name, or that has none."""
        embeddings, words = task.model.embeddings, {}
        if name is not None:
            key = module_name(name)
            # Fields that share a table have it under one of their names.
            table = embeddings.lifts[key].table
            owner = next(own for own, each in embeddings.lifts.named_parameters() if each is table)
            source = next((other for other in embeddings.lifts if other != key), key)
            words = {"types.FIELD": f"types.{key}", "FIELD.table": owner, "SOURCE": source}
        for i, (config, positions) in enumerate(zip(embeddings.placed, embeddings.positions, strict=True)):
            words |= {f"positions.{config.axes[0].upper()}": f"positions.{i}.{part}" for part in positions.state_dict()}
        pattern = re.compile("|".join(map(re.escape, words)))
        return {theirs: pattern.sub(lambda word: words[word[0]], ours) for theirs, ours in self.names.items()}

    def load(
        self, task: nn.Module, name: str | None, state: Mapping[str, Tensor], settings: Settings, source: str
    ) -> Report:
        """Set a task to tensors of the family, in place.

        name: of the task's field of text, if there is one. source: of the tensors, for messages.
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

    def unload(self, task: nn.Module, name: str | None, state: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The tensors of a task in the family's names and shapes, on the CPU.

        state: others in their place, under the same names.

        Raises InputError for a tensor that the family does not support.
        """
        table = {ours: theirs for theirs, ours in self.table(task, name).items()}
        kinds = {}
        if name is not None:
            kinds = {
                f"model.embeddings.types.{key}": "type" if key == module_name(name) else "type.source"
                for key in task.model.embeddings.types
            }
        pieces = {}
        for ours, tensor in (task.state_dict() if state is None else state).items():
            theirs = kinds.get(ours) or rename(ours, table)
            if theirs is None:
                raise InputError(f"{self.model_type} does not support {ours}; train a model without it")
            pieces[theirs] = tensor.detach().cpu()
        return {theirs: tensor.contiguous().clone() for theirs, tensor in self.together(pieces).items()}


def untyped(pieces: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """The pieces without type vectors, which add nothing. Raises InputError if one does."""
    kinds = ("type", "type.source")
    if any(pieces[kind].any() for kind in kinds if kind in pieces):
        raise InputError(f"{family} does not support the type vectors of fields; train with embedding.types: false")
    return {name: piece for name, piece in pieces.items() if name not in kinds}


def find_model(folder: str | Path) -> Path:
    """Where a folder is: as given from the current folder, else inside $ANYFORMER_DATA or beside it.

    Raises InputError for none.
    """
    if "://" in str(folder):
        raise InputError(f"a model is a local folder, and nothing is loaded from the network, got {folder}")
    place = Path(find_beside(folder))
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
    """The tensors of a folder, in one file or in shards, of safetensors or else of torch, and the file that names them.

    Raises InputError if there are none, one is missing or no float, or a file is damaged or holds more than tensors.
    """
    found = [name for name in (WEIGHTS, INDEX, *PICKLED) if (folder / name).is_file()]
    if not found:
        raise InputError(f"{folder} holds no weights: there is no {WEIGHTS}, nor {PICKLED[0]}")
    source = folder / found[0]
    tensors = _read_shards(source) if source.suffix == ".json" else _read_file(source)
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(
                f"{source}: {name} is of {kind}, as of quantised weights, which cannot be brought in; save the model "
                "in float32, bfloat16 or float16"
            )
    return tensors, str(source)


def _read_shards(index: Path) -> dict[str, Tensor]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or any(name != Path(str(name)).name for name in shards.values()):
        raise InputError(f"{index} is damaged: its weight_map must name a file of the folder for each tensor")
    files = sorted(set(shards.values()))
    if absent := [name for name in files if not (index.parent / name).is_file()]:
        raise InputError(f"{index} names {absent[0]}, which is not there; copy the folder anew")
    tensors = {name: tensor for file in files for name, tensor in _read_file(index.parent / file).items()}
    if missing := sorted(shards.keys() - tensors.keys()):
        raise InputError(f"{index} names {missing[0]}, which {shards[missing[0]]} does not hold; copy the folder anew")
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path.absolute())
    loaded = read_pickled(path)
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path} holds more than tensors by name; save the model anew, as safetensors")
    return dict(loaded)

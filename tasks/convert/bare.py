"""Models without a head as tasks that give vectors; how a vector is read, of a folder of sentence-transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anyformer.errors import InputError
from anyformer.local_files import read_json, read_value
from anyformer.tasks.embed.embed import Embed
from anyformer.tokenizers.image.patches import ImagePatches
from anyformer.tokenizers.text.huggingface import read_vocabulary, sized_text
from anyformer.tokenizers.text.sentencepiece import t5_vocabulary
from anyformer.weights.huggingface import Design, Family, Settings
from anyformer.weights.vit import PictureDesign

MODULES = "modules.json"
"""Of sentence-transformers: what a text goes through, one after another."""
POOLS = {
    "pooling_mode_cls_token": "class",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "cls": "class",
    "mean": "mean",
    "lasttoken": "last",
}
"""What of theirs is here, by the flags of older files and by the word of newer ones."""


@dataclass(frozen=True)
class Sentences:
    """What a folder of sentence-transformers says beside the model."""

    model: Path
    """The folder of the model itself."""
    pool: str = "mean"
    normalize: bool = False
    piece: int | None = None
    """Tokens that are read at once."""


def read_sentences(folder: Path) -> Sentences | None:
    """How a folder of sentence-transformers makes a vector of a text; None for a folder of another kind.

    Raises InputError for a step that has no counterpart here.
    """
    path = folder / MODULES
    if not path.is_file():
        return None
    modules = read_value(path)
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules) or not modules:
        raise InputError(f"{path} must hold a list of modules")
    kinds = [str(each.get("type", "")).rpartition(".")[2] for each in modules]
    found = Sentences(folder / str(modules[0].get("path", "")))
    if kinds[0] != "Transformer":
        raise InputError(f"{path}: the first module is {kinds[0]!r}; only a Transformer can be brought in")
    for kind, module in zip(kinds[1:], modules[1:], strict=True):
        if kind == "Normalize":
            found = replace(found, normalize=True)
        elif kind == "Pooling":
            found = replace(found, pool=_read_pool(folder / str(module.get("path", "")) / "config.json"))
        else:
            raise InputError(f"{path}: a module {kind!r} cannot be brought in; only Pooling and Normalize can")
    if (path := found.model / "sentence_bert_config.json").is_file():
        settings = Settings(read_json(path), str(path))
        settings.require(do_lower_case=False)
        found = replace(found, piece=settings.get("max_seq_length", None, (int, type(None))))
    if (path := folder / "config_sentence_transformers.json").is_file():
        # A text that stands before each would have to be given.
        Settings(read_json(path), str(path)).require(default_prompt_name=None)
    return found


def _read_pool(path: Path) -> str:
    values = read_json(path)
    if isinstance(values.get("pooling_mode"), str):
        chosen = [values["pooling_mode"]]
    else:
        chosen = [name for name, value in values.items() if name.startswith("pooling_mode_") and value is True]
    if len(chosen) != 1 or chosen[0] not in POOLS:
        given = ", ".join(chosen) or "none"
        raise InputError(f"{path}: the pooling is {given}; only the mean, the class token or the last token can be had")
    return POOLS[chosen[0]]


def bare_task(family: Family, design: Design, settings: Settings, folder: Path, sentences: Sentences | None) -> Embed:
    """The task of a folder, without its weights. Raises InputError for a tokenizer that is missing or another's."""
    if isinstance(design, PictureDesign):
        pictures = {"image": _pictures(design, folder)}
        return Embed(pictures, design.transformer, design.embedding, pool="class", **design.options)
    if family.vocabulary == "spiece.model" and not (folder / "tokenizer.json").is_file():
        if not (folder / family.vocabulary).is_file():
            raise InputError(f"{folder} holds no tokenizer: neither tokenizer.json nor {family.vocabulary} is there")
        vocabulary = t5_vocabulary(folder)
    else:
        if family.model_type in ("roberta", "xlm-roberta") and not (folder / "tokenizer.json").is_file():
            raise InputError(f"{folder} holds no tokenizer.json; write one with AutoTokenizer of transformers")
        vocabulary = read_vocabulary(folder)
    text = sized_text(vocabulary, design.max_len, design.vocab_size, settings.path)
    options: dict[str, Any] = {}
    if sentences is not None:
        # More than there are positions they cannot read either.
        longest = min(sentences.piece or design.max_len or 0, design.max_len or sentences.piece or 0) or None
        options = {"pool": sentences.pool, "normalize": sentences.normalize, "piece": longest}
    wrapped = {"text": replace(text, wrap=text.can_wrap)}
    return Embed(wrapped, design.transformer, design.embedding, **design.options, **options)


def _pictures(design: PictureDesign, folder: Path) -> ImagePatches:
    """As preprocessor_config.json says; pixels from -1 to 1 where there is none, as with all ViTs of Google's."""
    size, mean, std = design.size, (0.5,), (0.5,)
    if (path := folder / "preprocessor_config.json").is_file():
        told = Settings(read_json(path), str(path))
        told.require(do_resize=True, do_rescale=True, do_center_crop=False)
        if told.get("do_normalize", True):
            mean, std = (tuple(told.get(f"image_{name}", [0.5])) for name in ("mean", "std"))
        else:
            mean, std = (0.0,), (1.0,)
        asked = told.get("size", None, (dict, int, type(None)))
        asked = {"height": asked, "width": asked} if isinstance(asked, int) else asked
        if asked is not None and (asked.get("height"), asked.get("width")) != size:
            raise InputError(f"{path}: size is {json.dumps(asked)}, and the model reads {size[0]} x {size[1]} pixels")
    return ImagePatches(size, design.patch, design.channels, mean, std, resize="stretch")

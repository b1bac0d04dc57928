"""anyformer: chop it up and feed it in.

Beside the names here are public, for authors of their own parts: `anyformer.model`, `anyformer.tokens`,
`anyformer.batch`, `anyformer.tasks.base`, `anyformer.data` and `anyformer.testing`. All else is private.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anyformer.batch import Batch as Batch
    from anyformer.data.folders import Folders as Folders
    from anyformer.data.source import Joined as Joined
    from anyformer.data.source import Pick as Pick
    from anyformer.data.source import Source as Source
    from anyformer.data.tables import Hub as Hub
    from anyformer.data.tables import Table as Table
    from anyformer.errors import InputError as InputError
    from anyformer.generation.config import GenerationConfig as GenerationConfig
    from anyformer.generation.generator import Generator as Generator
    from anyformer.model.anyformer import Anyformer as Anyformer
    from anyformer.model.config import ExpertsConfig as ExpertsConfig
    from anyformer.model.config import RelativeConfig as RelativeConfig
    from anyformer.model.config import RotaryConfig as RotaryConfig
    from anyformer.model.config import TransformerConfig as TransformerConfig
    from anyformer.model.embeddings import EmbeddingConfig as EmbeddingConfig
    from anyformer.model.heads import HeadConfig as HeadConfig
    from anyformer.model.lora import LoraConfig as LoraConfig
    from anyformer.model.positions import PositionConfig as PositionConfig
    from anyformer.optim.optimizer import OptimizerConfig as OptimizerConfig
    from anyformer.planning.dry_run import plan as plan
    from anyformer.runs.averaging.average import average as average
    from anyformer.runs.averaging.merge import merge as merge
    from anyformer.runs.checkpointing import Saving as Saving
    from anyformer.runs.fit import evaluate as evaluate
    from anyformer.runs.fit import fit as fit
    from anyformer.saving.model_folder import load as load
    from anyformer.saving.model_folder import save as save
    from anyformer.tasks.base.fields import FieldsConfig as FieldsConfig
    from anyformer.tasks.base.records import Records as Records
    from anyformer.tasks.base.task import Task as Task
    from anyformer.tasks.classify.classify import Classify as Classify
    from anyformer.tasks.decide.actor import PlayConfig as PlayConfig
    from anyformer.tasks.decide.actor import Policy as Policy
    from anyformer.tasks.decide.collect import Collected as Collected
    from anyformer.tasks.decide.decide import Decide as Decide
    from anyformer.tasks.embed.embed import Embed as Embed
    from anyformer.tasks.ensemble.ensemble import Ensemble as Ensemble
    from anyformer.tasks.language.batch import Masking as Masking
    from anyformer.tasks.language.chat import ChatModel as ChatModel
    from anyformer.tasks.language.language import LanguageModel as LanguageModel
    from anyformer.tasks.mixture.data import Mixed as Mixed
    from anyformer.tasks.mixture.mixture import Mixture as Mixture
    from anyformer.tasks.predict.predict import Predict as Predict
    from anyformer.tasks.sequence.decoding import DecodeConfig as DecodeConfig
    from anyformer.tasks.sequence.sequence import CTCConfig as CTCConfig
    from anyformer.tasks.sequence.sequence import SequenceToSequence as SequenceToSequence
    from anyformer.tasks.sequence.transcripts import TranscriptConfig as TranscriptConfig
    from anyformer.tasks.targets.action import ActionTarget as ActionTarget
    from anyformer.tasks.targets.category import Category as Category
    from anyformer.tasks.targets.labels import Labels as Labels
    from anyformer.tasks.targets.masked import Masked as Masked
    from anyformer.tasks.targets.regression import Regression as Regression
    from anyformer.tasks.targets.tags import Tags as Tags
    from anyformer.tasks.targets.target import Target as Target
    from anyformer.tasks.targets.text import TextTarget as TextTarget
    from anyformer.testing.tokenizer import check_tokenizer as check_tokenizer
    from anyformer.tokenizers.audio.audio import Audio as Audio
    from anyformer.tokenizers.audio.augmentation import SoundAugmentation as SoundAugmentation
    from anyformer.tokenizers.audio.augmentation import SpecAugment as SpecAugment
    from anyformer.tokenizers.audio.mel import MelConfig as MelConfig
    from anyformer.tokenizers.audio.sources import LibriSpeech as LibriSpeech
    from anyformer.tokenizers.audio.sources import TorchAudio as TorchAudio
    from anyformer.tokenizers.audio.spoken_words import SpokenWords as SpokenWords
    from anyformer.tokenizers.episode.continuous import Returns as Returns
    from anyformer.tokenizers.episode.continuous import Vector as Vector
    from anyformer.tokenizers.episode.discrete import Bins as Bins
    from anyformer.tokenizers.episode.discrete import Categories as Categories
    from anyformer.tokenizers.episode.discrete import Letters as Letters
    from anyformer.tokenizers.episode.episode import EnvironmentConfig as EnvironmentConfig
    from anyformer.tokenizers.episode.files import Episodes as Episodes
    from anyformer.tokenizers.episode.files import Minari as Minari
    from anyformer.tokenizers.episode.frames import Frames as Frames
    from anyformer.tokenizers.facets import Facets as Facets
    from anyformer.tokenizers.graph import Graph as Graph
    from anyformer.tokenizers.image.augmentation import Augmentation as Augmentation
    from anyformer.tokenizers.image.digit_questions import DigitQuestions as DigitQuestions
    from anyformer.tokenizers.image.digit_sensors import DigitSensors as DigitSensors
    from anyformer.tokenizers.image.patches import ConvStem as ConvStem
    from anyformer.tokenizers.image.patches import ImagePatches as ImagePatches
    from anyformer.tokenizers.image.sources import Digits as Digits
    from anyformer.tokenizers.image.sources import Idx as Idx
    from anyformer.tokenizers.mixing import Mixing as Mixing
    from anyformer.tokenizers.molecule import Molecule as Molecule
    from anyformer.tokenizers.points import Points as Points
    from anyformer.tokenizers.pretrained import Pretrained as Pretrained
    from anyformer.tokenizers.row import Row as Row
    from anyformer.tokenizers.series.series import Series as Series
    from anyformer.tokenizers.synthetic.associative_recall import AssociativeRecall as AssociativeRecall
    from anyformer.tokenizers.synthetic.listops import ListOps as ListOps
    from anyformer.tokenizers.text.aligned import Aligned as Aligned
    from anyformer.tokenizers.text.corpus import Corpus as Corpus
    from anyformer.tokenizers.text.corpus import PythonDocs as PythonDocs
    from anyformer.tokenizers.text.docstrings import Docstrings as Docstrings
    from anyformer.tokenizers.text.ngrams import NGrams as NGrams
    from anyformer.tokenizers.text.text import Text as Text
    from anyformer.tokenizers.tree.conllu import Conllu as Conllu
    from anyformer.tokenizers.tree.tree import Tree as Tree
    from anyformer.tokenizers.video import Video as Video
    from anyformer.tokens import Tokenizer as Tokenizer
    from anyformer.tokens import TokenSet as TokenSet

__version__ = "0.1.0"

_HOMES = {
    "Aligned": "tokenizers.text.aligned",
    "Anyformer": "model.anyformer",
    "AssociativeRecall": "tokenizers.synthetic.associative_recall",
    "Audio": "tokenizers.audio.audio",
    "Augmentation": "tokenizers.image.augmentation",
    "Batch": "batch",
    "Bins": "tokenizers.episode.discrete",
    "CTCConfig": "tasks.sequence.sequence",
    "Categories": "tokenizers.episode.discrete",
    "Category": "tasks.targets.category",
    "Classify": "tasks.classify.classify",
    "Collected": "tasks.decide.collect",
    "Conllu": "tokenizers.tree.conllu",
    "ConvStem": "tokenizers.image.patches",
    "Corpus": "tokenizers.text.corpus",
    "Decide": "tasks.decide.decide",
    "DecodeConfig": "tasks.sequence.decoding",
    "DigitQuestions": "tokenizers.image.digit_questions",
    "DigitSensors": "tokenizers.image.digit_sensors",
    "Digits": "tokenizers.image.sources",
    "ActionTarget": "tasks.targets.action",
    "Docstrings": "tokenizers.text.docstrings",
    "Embed": "tasks.embed.embed",
    "EmbeddingConfig": "model.embeddings",
    "Ensemble": "tasks.ensemble.ensemble",
    "EnvironmentConfig": "tokenizers.episode.episode",
    "Episodes": "tokenizers.episode.files",
    "Facets": "tokenizers.facets",
    "Graph": "tokenizers.graph",
    "FieldsConfig": "tasks.base.fields",
    "Folders": "data.folders",
    "Frames": "tokenizers.episode.frames",
    "GenerationConfig": "generation.config",
    "Generator": "generation.generator",
    "HeadConfig": "model.heads",
    "Hub": "data.tables",
    "Idx": "tokenizers.image.sources",
    "ImagePatches": "tokenizers.image.patches",
    "InputError": "errors",
    "Joined": "data.source",
    "Labels": "tasks.targets.labels",
    "ChatModel": "tasks.language.chat",
    "LanguageModel": "tasks.language.language",
    "Letters": "tokenizers.episode.discrete",
    "LoraConfig": "model.lora",
    "LibriSpeech": "tokenizers.audio.sources",
    "Masked": "tasks.targets.masked",
    "Masking": "tasks.language.batch",
    "MelConfig": "tokenizers.audio.mel",
    "Minari": "tokenizers.episode.files",
    "Mixed": "tasks.mixture.data",
    "Mixing": "tokenizers.mixing",
    "Mixture": "tasks.mixture.mixture",
    "Molecule": "tokenizers.molecule",
    "Regression": "tasks.targets.regression",
    "NGrams": "tokenizers.text.ngrams",
    "OptimizerConfig": "optim.optimizer",
    "Pick": "data.source",
    "PlayConfig": "tasks.decide.actor",
    "Points": "tokenizers.points",
    "Policy": "tasks.decide.actor",
    "PositionConfig": "model.positions",
    "Predict": "tasks.predict.predict",
    "Pretrained": "tokenizers.pretrained",
    "PythonDocs": "tokenizers.text.corpus",
    "Records": "tasks.base.records",
    "ExpertsConfig": "model.config",
    "RelativeConfig": "model.config",
    "Returns": "tokenizers.episode.continuous",
    "RotaryConfig": "model.config",
    "Row": "tokenizers.row",
    "Saving": "runs.checkpointing",
    "SequenceToSequence": "tasks.sequence.sequence",
    "Series": "tokenizers.series.series",
    "SoundAugmentation": "tokenizers.audio.augmentation",
    "Source": "data.source",
    "SpecAugment": "tokenizers.audio.augmentation",
    "SpokenWords": "tokenizers.audio.spoken_words",
    "ListOps": "tokenizers.synthetic.listops",
    "Table": "data.tables",
    "Tags": "tasks.targets.tags",
    "Target": "tasks.targets.target",
    "Task": "tasks.base.task",
    "Text": "tokenizers.text.text",
    "TokenSet": "tokens",
    "Tokenizer": "tokens",
    "TorchAudio": "tokenizers.audio.sources",
    "TranscriptConfig": "tasks.sequence.transcripts",
    "TransformerConfig": "model.config",
    "Tree": "tokenizers.tree.tree",
    "Vector": "tokenizers.episode.continuous",
    "Video": "tokenizers.video",
    "TextTarget": "tasks.targets.text",
    "average": "runs.averaging.average",
    "check_tokenizer": "testing.tokenizer",
    "evaluate": "runs.fit",
    "fit": "runs.fit",
    "load": "saving.model_folder",
    "merge": "runs.averaging.merge",
    "plan": "planning.dry_run",
    "save": "saving.model_folder",
}
"""Where the names offered here live; importing the package alone imports none of them, nor torch."""

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anyformer' has no attribute {name!r}")
    return getattr(import_module(f"anyformer.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

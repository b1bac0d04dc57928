"""Episodes of an agent: states, actions and returns as tokens, their files, and environments."""

from anyformer.tokenizers.episode.continuous import Returns, Vector
from anyformer.tokenizers.episode.discrete import Bins, Categories, Letters
from anyformer.tokenizers.episode.environments import make, make_vector
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode, EpisodeSource
from anyformer.tokenizers.episode.files import Episodes, Minari
from anyformer.tokenizers.episode.frames import Frames
from anyformer.tokenizers.episode.steps import StepTokenizer

__all__ = [
    "Bins",
    "Categories",
    "EnvironmentConfig",
    "Episode",
    "EpisodeSource",
    "Episodes",
    "Frames",
    "Letters",
    "Minari",
    "Returns",
    "StepTokenizer",
    "Vector",
    "make",
    "make_vector",
]

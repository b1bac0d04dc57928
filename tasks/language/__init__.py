"""Language models, causal and masked."""

from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.chat import ChatModel
from anyformer.tasks.language.language import LanguageModel

__all__ = ["ChatModel", "LanguageModel", "Masking"]

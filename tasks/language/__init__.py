"""Language models, causal and masked."""

from anyformer.tasks.language.batch import Masking
from anyformer.tasks.language.language import LanguageModel

__all__ = ["LanguageModel", "Masking"]

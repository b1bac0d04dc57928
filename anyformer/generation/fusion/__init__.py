"""What else is known of a text that is searched for: n-grams, a bonus for words, a lexicon."""

from anyformer.generation.fusion.ngrams import NGrams
from anyformer.generation.fusion.options import LanguageOptions, make_prior
from anyformer.generation.fusion.prior import TextPrior

__all__ = ["LanguageOptions", "NGrams", "TextPrior", "make_prior"]

"""Texts that keep to a regular expression, a grammar or a JSON Schema."""

from anyformer.generation.grammar.constraint import Constraint
from anyformer.generation.grammar.options import GrammarOptions

__all__ = ["Constraint", "GrammarOptions"]

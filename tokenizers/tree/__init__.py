"""Words with a parse: how they hang together in a tree, of dependencies or of constituents."""

from anyformer.tokenizers.tree.conllu import Conllu
from anyformer.tokenizers.tree.tree import Tree

__all__ = ["Conllu", "Tree"]

"""Data made in the run to try what a model can learn at all."""

from anyformer.tokenizers.synthetic.associative_recall import AssociativeRecall
from anyformer.tokenizers.synthetic.listops import ListOps

__all__ = ["AssociativeRecall", "ListOps"]

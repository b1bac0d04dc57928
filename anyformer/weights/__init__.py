"""Weights in from other models and out to them: which tensor is which, and a report of what went where.

Nothing is folded on the way in, so the way back out is exact. A family of models is a file with a table of names and a
pair of functions: one takes the family's tensors apart into the pieces that have a name here, the other puts them
together again.
"""

from anyformer.weights.bert import BERT
from anyformer.weights.decision_transformer import DECISION_TRANSFORMER
from anyformer.weights.gpt2 import GPT2
from anyformer.weights.huggingface import Design, Family, read_folder
from anyformer.weights.marian import MARIAN
from anyformer.weights.t5 import T5
from anyformer.weights.tensors import Report, joint_grids, read_tensors, take
from anyformer.weights.timm_vit import load_timm, to_timm
from anyformer.weights.whisper import WHISPER

__all__ = [
    "BERT",
    "DECISION_TRANSFORMER",
    "GPT2",
    "MARIAN",
    "T5",
    "WHISPER",
    "Design",
    "Family",
    "Report",
    "joint_grids",
    "load_timm",
    "read_folder",
    "read_tensors",
    "take",
    "to_timm",
]

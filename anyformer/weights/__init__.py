"""Weights in from other models and out to them: which tensor is which, and a report of what went where.

Nothing is folded on the way in, so the way back out is exact. A family of models is a file with a table of names and a
pair of functions: one takes the family's tensors apart into the pieces that have a name here, the other puts them
together again; families.py lists them.
"""

from anyformer.weights.families import FAMILIES, choose_family, find_family
from anyformer.weights.huggingface import Design, Family, Settings, read_folder
from anyformer.weights.tensors import Report, joint_grids, read_tensors, take
from anyformer.weights.timm_vit import load_timm, to_timm

__all__ = [
    "FAMILIES",
    "Design",
    "Family",
    "Report",
    "Settings",
    "choose_family",
    "find_family",
    "joint_grids",
    "load_timm",
    "read_folder",
    "read_tensors",
    "take",
    "to_timm",
]

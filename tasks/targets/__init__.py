"""Kinds of target of Predict."""

from anyformer.tasks.targets.action import Done
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Numbers
from anyformer.tasks.targets.target import Target, TargetHead
from anyformer.tasks.targets.text import Written

__all__ = ["Category", "Done", "Labels", "Masked", "Numbers", "Target", "TargetHead", "Written"]

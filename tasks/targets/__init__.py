"""Kinds of target of Predict."""

from anyformer.tasks.targets.action import ActionTarget
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.labels import Labels
from anyformer.tasks.targets.masked import Masked
from anyformer.tasks.targets.regression import Regression
from anyformer.tasks.targets.target import Target, TargetHead
from anyformer.tasks.targets.text import TextTarget

__all__ = ["ActionTarget", "Category", "Labels", "Masked", "Regression", "Target", "TargetHead", "TextTarget"]

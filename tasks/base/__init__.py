"""What all tasks share."""

from anyformer.tasks.base.examples import Examples
from anyformer.tasks.base.fields import FieldsConfig
from anyformer.tasks.base.records import Records
from anyformer.tasks.base.task import Task

__all__ = ["Examples", "FieldsConfig", "Records", "Task"]

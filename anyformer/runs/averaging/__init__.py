"""One model of several runs: the average of their predictions, or of their weights."""

from anyformer.runs.averaging.average import average

__all__ = ["average"]

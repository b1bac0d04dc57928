"""Any fields in, any targets out."""

from anyformer.tasks.predict.predict import Predict

__all__ = ["Predict"]

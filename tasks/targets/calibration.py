"""How sure a classifier is: one number that its logits are divided by, so that of what it says with 80 % four in five
are right (temperature scaling; Guo et al. 2017, "On Calibration of Modern Neural Networks", 4.2)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

LIMIT = 100.0
"""The temperature lies between its inverse and itself; one that would lie beyond is of a model that says nothing."""


def fit_temperature(logits: Tensor, values: Tensor) -> float | str:
    """The temperature at which the cross-entropy is least; or, in words, why there is none.

    logits: (n, classes), of records that were not trained on. values: (n,) the right classes. It changes no prediction,
    but how probable it is said to be.
    """
    if not len(values):
        return "no validation record has a value of the target"
    if bool((logits.argmax(1) == values).all()):
        return "all validation records are right, which says nothing of how sure to be"
    logits = logits.double()
    found = minimize_scalar(
        lambda log_t: F.cross_entropy(logits / math.exp(log_t), values).item(),
        bounds=(-math.log(LIMIT), math.log(LIMIT)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    if abs(found.x) > math.log(LIMIT) - 1e-3:
        return (
            f"the temperature that fits is beyond {1 / LIMIT:g} to {LIMIT:g}, as where a model is no better than chance"
        )
    return math.exp(found.x)

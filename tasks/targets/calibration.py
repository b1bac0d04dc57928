"""How sure a classifier is: one number that its logits are divided by, so that of what it says with 80 % four in five
are right (temperature scaling; Guo et al. 2017, "On Calibration of Modern Neural Networks", 4.2)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

LIMIT = 100.0
"""The temperature lies between its inverse and itself."""


def fit_temperature(logits: Tensor, values: Tensor) -> float | None:
    """The temperature at which the cross-entropy is least; None where that is no measure, as all are right or none is
    there: the surer the better then.

    logits: (n, classes), of records that were not trained on. values: (n,) the right classes. It changes no prediction,
    but how probable it is said to be.
    """
    if bool((logits.argmax(1) == values).all()):
        return None
    logits = logits.double()
    found = minimize_scalar(
        lambda log_t: F.cross_entropy(logits / math.exp(log_t), values).item(),
        bounds=(-math.log(LIMIT), math.log(LIMIT)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(found.x)

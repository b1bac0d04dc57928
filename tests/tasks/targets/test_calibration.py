"""The temperature that makes an over-confident classifier as sure as it is right."""

import pytest
import torch

from anyformer.metrics.classification import calibration_error, count_bins
from anyformer.tasks.targets.calibration import fit_temperature


def drawn(n=20000, classes=4):
    """Logits whose softmax is how often each class is right, and what is right."""
    generator = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(n, classes, generator=generator)
    return logits, logits.softmax(1).multinomial(1, generator=generator)[:, 0]


def error(logits, values):
    probabilities, found = logits.softmax(1).max(1)
    return calibration_error(count_bins(probabilities, found == values)).item()


@pytest.mark.parametrize("factor", [0.5, 1.0, 6.0], ids=["too unsure", "right", "too sure"])
def test_logits_that_are_too_large_or_too_small_are_set_right(factor):
    logits, values = drawn()
    temperature = fit_temperature(factor * logits, values)
    assert temperature == pytest.approx(factor, rel=0.03)
    assert error(factor * logits / temperature, values) < 0.01
    assert factor == 1 or error(factor * logits, values) > 0.1


def test_the_loss_is_least_there():
    logits, values = drawn(500)
    best = fit_temperature(3 * logits, values)
    losses = [
        torch.nn.functional.cross_entropy(3 * logits.double() / t, values).item()
        for t in (0.98 * best, best, 1.02 * best)
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_where_all_is_right_or_nothing_there_no_temperature_is_best():
    logits, _ = drawn(50)
    assert fit_temperature(logits, logits.argmax(1)).startswith("all validation records are right")
    none = torch.zeros(0, dtype=torch.int64)
    assert fit_temperature(logits[:0], none) == "no validation record has a value of the target"


@pytest.mark.parametrize("factor", [-1.0, 1e4, 1e-4], ids=["worse than chance", "too sure", "too unsure"])
def test_at_a_limit_nothing_is_fitted(factor):
    logits, values = drawn(500)
    why = fit_temperature(factor * logits, values)
    assert why == "the temperature that fits is beyond 0.01 to 100, as where a model is no better than chance"

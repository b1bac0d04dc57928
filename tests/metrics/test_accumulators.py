import torch

from anyformer.metrics.accumulators import Kept, Sums


def test_what_was_taken_in_is_forgotten_by_a_reset():
    sums, kept = Sums(2), Kept(3)
    for _ in range(2):
        sums.update(torch.tensor([1.0, 2.0]))
        kept.update(torch.ones(4, 3))
    assert sums.compute().tolist() == [2, 4] and kept.compute().shape == (8, 3)
    for metric in (sums, kept):
        metric.reset()
    assert sums.compute().tolist() == [0, 0] and kept.compute().shape == (0, 3)

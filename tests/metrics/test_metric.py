import torch

from anyformer.metrics.accumulators import Kept, Sums
from anyformer.metrics.metric import LOSS, Accumulators, Metric

METRICS = {"spread": Metric("min", ("kept",), lambda rows: rows.std()), "loss": LOSS}


def test_metrics_are_made_of_what_all_batches_added_up_since_the_reset():
    sums = Accumulators({"loss": Sums(), "targets": Sums()})
    assert sums.compute(METRICS)["loss"].isnan()
    for _ in range(2):
        sums.add(loss=torch.tensor(3.0), targets=2)
    assert sums.compute(METRICS) == {"loss": 1.5}
    sums.reset()
    assert sums.compute(METRICS)["loss"].isnan()


def test_a_metric_is_there_where_its_accumulators_are_and_the_loss_comes_first():
    sums = Accumulators({"loss": Sums(), "targets": Sums()})
    assert sums.has(LOSS) and not sums.has(METRICS["spread"])
    sums["kept"] = Kept(1)
    sums.add(kept=torch.tensor([[1.0], [1.0]]))
    assert list(sums.compute(METRICS)) == ["loss", "spread"] and sums.compute(METRICS)["spread"] == 0


def test_sums_are_float64():
    sums = Accumulators({"loss": Sums(), "targets": Sums()})
    for _ in range(10):
        sums.add(loss=torch.tensor(0.1), targets=1)
    sums.add(loss=torch.tensor(2.0**25), targets=1)
    assert sums["loss"].compute() == 10 * torch.tensor(0.1).double() + 2.0**25

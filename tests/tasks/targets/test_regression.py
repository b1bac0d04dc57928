import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.tasks.targets.regression import Regression
from tests.tasks.targets.test_target import Rows, column

SMALL = TransformerConfig(d_model=6, depth=1, n_heads=2, init_std=0.5)


def head_and_values(target, name, values, n=None):
    torch.manual_seed(0)
    head = target.head(name, None, SMALL).eval()
    aim = target.aim(name, [target.value(name, {name: value}) for value in values], None)
    return head, torch.randn(len(aim.read), 6), aim.values


@pytest.mark.parametrize("scaling", ["standard", "log", "none"])
def test_numbers_are_scaled_by_what_training_says_and_come_back(scaling):
    numbers = [1.0, 10.0, 100.0, 55.5]
    fitted = Regression(scaling=scaling).fit("price", column("price", [*numbers, None, math.nan]))
    scaled = torch.stack([fitted.value("price", {"price": number}) for number in numbers])
    if scaling != "none":
        assert scaled.mean().item() == pytest.approx(0, abs=1e-6)
        assert scaled.std(correction=0).item() == pytest.approx(1)
    assert fitted.unscale(scaled).flatten().tolist() == pytest.approx(numbers)


def test_several_numbers_come_of_a_list_or_of_columns():
    of_list = Regression().fit("sizes", column("sizes", [[1.0, 10.0], [3.0, None], None]))
    assert (of_list.n, of_list.mean) == (2, (2.0, 10.0))
    value = of_list.value("sizes", {"sizes": np.array([3.0, np.nan])})
    assert value[0] == 1 and value[1].isnan()
    of_columns = Regression(columns=["wide", "high"]).fit("size", Rows(({"wide": 1, "high": "4"}, {"wide": 3})))
    assert (of_columns.n, of_columns.mean, of_columns.std) == (2, (2.0, 4.0), (1.0, 1.0))
    assert of_columns.columns_of("size") == ("wide", "high")
    assert of_columns.value("size", {"wide": None}) is None
    head, vectors, _ = head_and_values(of_list, "sizes", [[1.0, 10.0]])
    assert len(head.results(head(vectors))[0]) == 2
    assert of_list.row("sizes", [1.0, 2.0]) == {"sizes_0": 1.0, "sizes_1": 2.0}
    assert list(head_and_values(of_columns, "size", [])[0].results(head(vectors))[0]) == ["wide", "high"]


@pytest.mark.parametrize(
    ("loss", "reference"),
    [("squared", F.mse_loss), ("absolute", F.l1_loss), ("huber", F.huber_loss)],
)
def test_a_missing_number_is_not_counted(loss, reference):
    target = Regression(n=2, loss=loss, scaling="none")
    head, vectors, values = head_and_values(target, "sizes", [[1.0, 9.0], None, [3.0, None], [0.1, -0.2]])
    assert len(values) == 3
    known = ~values.isnan()
    total, n = head.loss(head(vectors), values)
    assert n == 5
    torch.testing.assert_close(total / n, reference(head.output(vectors)[known], values[known]))
    total.backward()
    assert head.output.weight.grad.isfinite().all()


def test_the_figures_of_numbers_are_in_the_units_of_the_data(tmp_path):
    given = [2.0, 30.0, 7.0, 400.0]
    target = Regression(scaling="log").fit("price", column("price", given))
    head, vectors, values = head_and_values(target, "price", given)
    for part in (slice(0, 3), slice(3, None), slice(0, 0)):
        head.evaluate(head(vectors[part]), values[part])
    said, true = np.array(head.results(head(vectors))), np.array(given)
    metrics = {name: value.item() for name, value in head.compute().items()}
    assert metrics["rmse"] == pytest.approx(np.sqrt(((said - true) ** 2).mean()))
    assert metrics["mae"] == pytest.approx(np.abs(said - true).mean())
    assert metrics["r2"] == pytest.approx(1 - ((said - true) ** 2).sum() / ((true - true.mean()) ** 2).sum())
    seen = torch.cat(head.seen)[:, :, 0]
    assert seen[:, 0].tolist() == pytest.approx(given) and seen[:, 1].tolist() == pytest.approx(said.tolist())
    head.draw(tmp_path, "")
    assert (tmp_path / "scatter.png").exists()
    head.reset()
    assert math.isnan(head.compute()["rmse"].item()) and not head.seen


@pytest.mark.parametrize("given", [[3.1] * 7, [3.1], [0.0] * 7])
def test_numbers_that_are_all_the_same_have_no_r2(given):
    target = Regression(mean=(0.3,), std=(0.7,), n=1)
    head, vectors, values = head_and_values(target, "price", given)
    head.evaluate(head(vectors), values)
    metrics = head.compute()
    assert metrics["r2"].isnan() and metrics["rmse"].isfinite()
    # Beside others that differ it does not count.
    both = Regression(columns=("same", "other"), scaling="none").head("size", None, SMALL)
    both.evaluate(both(torch.zeros(3, 6)), torch.tensor([[3.1, 1.0], [3.1, 2.0], [3.1, 3.0]]))
    assert both.compute()["r2"] == pytest.approx(1 - 14 / 2)


def test_numbers_with_columns_have_an_error_each():
    target = Regression(columns=("wide", "high"), scaling="none")
    head = target.head("size", None, SMALL)
    values = torch.tensor([[1.0, 2.0], [torch.nan, 4.0]])
    with torch.no_grad():
        head.output.weight.zero_()
    # By sample it is the mean over the numbers that are known.
    assert head.evaluate(head(torch.zeros(2, 6)), values)["mae"].tolist() == [1.5, 4.0]
    metrics = head.compute()
    assert metrics["mae"].item() == pytest.approx((1.0 + 3.0) / 2)
    assert metrics["rmse_wide"] == 1 and metrics["rmse_high"].item() == pytest.approx(math.sqrt(10))
    assert metrics["rmse"].item() == pytest.approx((1 + math.sqrt(10)) / 2)


@pytest.mark.parametrize(
    ("target", "value", "message"),
    [
        (Regression(n=1, scaling="none"), "n/a", "field 'price' must hold a number, got 'n/a'; mend it"),
        (Regression(n=1, scaling="none"), math.inf, "field 'price' must hold a finite number, got inf"),
        (
            Regression(n=1, scaling="none"),
            10**400,
            "field 'price' must hold a number below 1e308, got a whole number that",
        ),
        (Regression(n=2, scaling="none"), [1.0], "field 'price' must hold 2 numbers, got 1"),
        (Regression(n=1, scaling="log", mean=(0.0,), std=(1.0,)), -2, r"must hold numbers above 0, .* got -2"),
    ],
)
def test_what_is_no_number_is_named(target, value, message):
    with pytest.raises(InputError, match=message):
        target.value("price", {"price": value})


def test_a_column_of_text_is_no_column_of_numbers():
    with pytest.raises(
        InputError, match=r"^row 1: field 'price' must hold a number, got 'cheap'; mend it, or leave it empty$"
    ):
        Regression().fit("price", column("price", ["1.5", "cheap"]))
    with pytest.raises(InputError, match=r"^targets\.price: mean and std are 2, and the numbers are 1$"):
        Regression(mean=(1.0, 2.0), std=(1.0, 1.0)).fit("price", column("price", ["1.5"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": 3, "columns": ["a"]}, "columns must be 3, as n says, got 1"),
        ({"mean": [1.0]}, "mean and std belong together"),
        ({"mean": [1.0], "std": [1.0, 2.0]}, "mean and std belong together"),
        ({"mean": [1.0], "std": [0.0]}, r"std must be above 0, got \(0.0,\)"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Regression(**arguments)


@pytest.mark.parametrize("scaling", ["standard", "log", "none"])
def test_the_mean_of_numbers_is_taken_in_the_units_of_the_data(scaling):
    target = Regression(scaling=scaling).fit("price", column("price", [1.0, 10.0, 100.0]))
    head, vectors, _ = head_and_values(target, "price", [1.0, 10.0])
    outputs = head(vectors)
    torch.testing.assert_close(head.from_mean(head.to_mean(outputs)).float(), outputs)
    mean = head.from_mean((head.to_mean(outputs[:1]) + head.to_mean(outputs[1:])) / 2)
    assert head.results(mean)[0] == pytest.approx(np.mean(head.results(outputs)))

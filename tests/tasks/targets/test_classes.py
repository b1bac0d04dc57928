import pytest
import torch

from anyformer.errors import InputError
from anyformer.tasks.targets.classes import balance, check_smoothing, class_index, class_names, likeliest, sort_classes


def test_numbers_are_sorted_as_numbers_and_names_by_the_alphabet():
    assert sort_classes(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert sort_classes(["10", "9", "a"]) == ["10", "9", "a"]


def test_balanced_classes_weigh_the_same_in_sum():
    labels = ["a", "a", "a", "b"]
    weights = dict(zip("ab", balance(labels, ["a", "b"]), strict=True))
    assert 3 * weights["a"] == weights["b"] == pytest.approx(2)
    assert balance(["a"], ["a", "never"]) == (0.5, 0.5)


def test_the_likeliest_class_comes_first():
    (row,) = likeliest(torch.tensor([[0.25, 0.75]]), ["no", "yes"])
    assert list(row.items()) == [("yes", 0.75), ("no", 0.25)]


def test_classes_may_be_given_as_numbers():
    assert class_names([3, "a"]) == ("3", "a") and class_names(None) is None
    assert class_index("kind", 3, ("a", "3")) == 1


def test_a_label_that_is_no_class_is_named_with_some_that_are():
    with pytest.raises(InputError, match=r"field 'kind': the label '99' was not seen .* are 0, 1, .*, \.\.\."):
        class_index("kind", 99, tuple(map(str, range(30))))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_is_a_share(smoothing):
    with pytest.raises(InputError, match=f"label_smoothing must be at least 0 and below 1, got {smoothing}"):
        check_smoothing(smoothing)

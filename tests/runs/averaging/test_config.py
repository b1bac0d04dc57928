import pytest
import yaml

from anyformer.runs.averaging.config import common_data, join_configs, read_config
from anyformer.tasks.base.records import Records
from anyformer.tokenizers.image.sources import Digits

DATA = {"train": "Digits", "validation": 0.1, "test": 0.2, "stratify": "label", "folds": None, "fold": 0}


def test_runs_of_other_seeds_share_their_records():
    config = {"seed_everything": 1, "trainer": {"max_epochs": 3}, "model": {"class_path": "Predict"}, "data": DATA}
    other = {**config, "seed_everything": 2, "data": {**DATA, "seed": 2, "n_workers": 4, "batch_size": 9}}
    joined, said = join_configs([config, other], {"class_path": "Ensemble"})
    assert joined == {**config, "model": {"class_path": "Ensemble"}} and said == ""


def test_of_folds_no_validation_is_left_and_test_is_the_same():
    folds = [{**DATA, "folds": 3, "fold": fold} for fold in range(3)]
    data, said = common_data(folds)
    assert data["validation"] is data["folds"] is None and data["test"] == 0.2
    assert said.startswith("each run was trained on the other folds' validation records: the average has no validation")
    before, now = (
        Records(Digits(), **{k: each[k] for k in ("validation", "test", "stratify", "folds", "fold")})
        for each in (folds[1], data)
    )
    assert not now.holds("validation")
    for records in (before, now):
        records.setup("test")
    indices = [[records.sources["test"].name(i) for i in range(359)] for records in (before, now)]
    assert indices[0] == indices[1]


def test_within_an_outer_fold_that_fold_is_left():
    nested = {**DATA, "folds": 3, "fold": 2, "inner_folds": 4}
    data, said = common_data([{**nested, "inner_fold": inner} for inner in range(2)])
    assert "fold 2" in said
    before, now = (
        Records(Digits(), **{k: v for k, v in each.items() if k in ("validation", "test", "stratify") or "fold" in k})
        for each in ({**nested, "inner_fold": 1}, data)
    )
    before.setup("test")
    now.setup("validate")
    names = [
        [source.name(i) for i in range(len(source))] for source in (before.sources["test"], now.sources["validation"])
    ]
    assert names[0] == names[1]


def test_of_all_outer_folds_no_validation_is_left():
    nested = [{**DATA, "folds": 2, "fold": fold, "inner_folds": 4, "inner_fold": fold} for fold in range(2)]
    data, said = common_data(nested)
    assert data["validation"] is data["folds"] is data["inner_folds"] is None and "no validation" in said


def test_of_folds_the_records_of_train_and_validation_are_those_that_test_is_taken_from():
    folds = [{**DATA, "train": ["a", "b"], "validation": "c", "folds": 2, "fold": fold} for fold in (0, 1)]
    assert common_data(folds)[0]["train"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("change", "test", "left"),
    [
        ({"split_seed": 1}, None, "the runs differ in data.split_seed: the average has no validation nor test records"),
        ({"train": "other.csv"}, None, "the runs differ in data.train: the average has no validation nor test records"),
    ],
)
def test_runs_on_other_records_leave_none_that_all_have_not_seen(change, test, left):
    data, said = common_data([DATA, {**DATA, **change}])
    assert data["validation"] is None and data["test"] is test and said.startswith(left)


def test_a_test_part_of_its_own_stays():
    data, said = common_data([{**DATA, "test": "t.csv"}, {**DATA, "test": "t.csv", "train": "other.csv"}])
    assert data["test"] == "t.csv" and "no validation records" in said
    assert common_data([{**DATA, "test": "t.csv"}, {**DATA, "test": "u.csv"}])[0]["test"] is None


def test_a_config_is_read_where_there_is_one(tmp_path):
    assert read_config(tmp_path) is None
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": DATA}))
    assert read_config(tmp_path) == {"data": DATA}

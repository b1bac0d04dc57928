"""Sources, splits, the plan of batches, and a loader that goes on where it stopped."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyformer.data import Draw, Loader, Samples, Source, Table, find_file, plan_batches, read_file, split
from anyformer.errors import InputError

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))


@dataclass(frozen=True)
class Numbers(Source):
    """Records {"x": i, "kind": "even" | "odd"}."""

    n: int

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": i, "kind": "odd" if i % 2 else "even"}

    def name(self, i: int) -> str:
        return f"numbers row {i}"


@dataclass
class Sums:
    """A batch as lists."""

    items: list[tuple[int, float]]
    rows: list[int] | None
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pairs:
    """Chops a record into its number and a random number; some numbers cannot be used."""

    bad: tuple[int, ...] = ()
    tokenizers: dict = field(default_factory=dict)

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> tuple[int, float]:
        if record["x"] in self.bad:
            raise InputError(f"field 'x': {record['x']} is bad")
        return record["x"], -1.0 if random is None else float(random.random())

    def count(self, record: dict[str, Any]) -> int:
        if record["x"] in self.bad:
            raise InputError(f"field 'x': {record['x']} is bad")
        return 1 + record["x"] % 7

    def collate(self, items: list, rows: list[int] | None = None) -> Sums:
        return Sums(items, rows)


def loader(
    n: int = 10, n_workers: int = 0, batch_size: int = 3, bad: tuple[int, ...] = (), skip: bool = False, **plan: Any
) -> Loader:
    samples = Samples(Numbers(n), Pairs(bad), training=True, on_bad_sample="skip" if skip else "fail")
    return Loader(samples, plan_batches(n, batch_size=batch_size, **plan), n_workers)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A table in the format that the file's name asks for."""
    opened = gzip.open if path.suffix == ".gz" else open
    kind = path.name.split(".")[1]
    if kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with opened(path, "wt", encoding="utf-8") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            file.write(",".join(rows[0]) + "\n")
            file.writelines(",".join(str(value) for value in row.values()) + "\n" for row in rows)
    return path


PETS = [{"file": f"{i}.png", "kind": "cat" if i % 2 else "dog"} for i in range(5)]


# Files


def test_a_file_is_found_from_here_and_else_in_the_data_folder(tmp_path, monkeypatch):
    here, data = tmp_path / "here", tmp_path / "sets"
    for folder in (here, data):
        folder.mkdir()
    (data / "a.csv").write_text("in the data folder")
    monkeypatch.chdir(here)
    monkeypatch.setenv("ANYFORMER_DATA", str(data))
    assert read_file(find_file("a.csv")) == b"in the data folder"
    (here / "a.csv").write_text("here")
    assert read_file(find_file("a.csv")) == b"here"
    monkeypatch.delenv("ANYFORMER_DATA")
    (here / "data").mkdir()
    (here / "data" / "b.csv").write_text("default")
    assert read_file(find_file("b.csv")) == b"default"


def test_a_missing_file_names_both_places_tried(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    with pytest.raises(
        InputError, match=rf"^nothing.csv: no such file; looked for nothing.csv and {tmp_path}/nothing.csv"
    ):
        find_file("nothing.csv")
    with pytest.raises(InputError, match=r"nothing.csv: no such file; looked for nothing.csv and"):
        len(Table("nothing.csv"))


def test_a_path_may_point_into_a_zip_which_is_read_in_place(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("cat/1.png", b"meow")
    assert read_file(tmp_path / "train.zip" / "cat" / "1.png") == b"meow"
    assert find_file(str(tmp_path / "train.zip/cat/1.png")).endswith("train.zip/cat/1.png")
    assert [path.name for path in tmp_path.iterdir()] == ["train.zip"]


def test_missing_members_and_files_name_the_nearest(tmp_path):
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("cat_0001.png", b"meow")
    with pytest.raises(InputError, match=r"train.zip: holds no 'cat_001.png'; did you mean 'cat_0001.png'\?"):
        read_file(tmp_path / "train.zip" / "cat_001.png")
    with pytest.raises(InputError, match=r"trian.zip: no such file; did you mean 'train.zip'\?"):
        read_file(tmp_path / "trian.zip")
    with pytest.raises(InputError, match=r"none/train.zip: no such file$"):
        read_file(tmp_path / "none" / "train.zip")


def test_what_is_no_zip_or_a_damaged_one_says_so(tmp_path):
    (tmp_path / "not.zip").write_bytes(b"text")
    with pytest.raises(InputError, match=r"not.zip/a: cannot be read from the zip: File is not a zip file"):
        read_file(tmp_path / "not.zip" / "a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"0123456789")
    damaged = (tmp_path / "a.zip").read_bytes().replace(b"012345", b"012346")
    (tmp_path / "a.zip").write_bytes(damaged)
    with pytest.raises(InputError, match=r"a.zip/a: cannot be read from the zip: Bad CRC-32"):
        read_file(tmp_path / "a.zip" / "a")
    with pytest.raises(InputError, match="Is a directory"):
        read_file(tmp_path)


# Tables


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_every_format_gives_the_same_records_and_writes_nothing(tmp_path, name):
    table = Table(str(write(tmp_path / name, PETS)), columns={"image": "file", "label": "kind"})
    assert len(table) == 5
    assert table[2] == {"image": "2.png", "label": "dog"}
    assert [table[i]["label"] for i in range(5)] == table.column("label") == ["dog", "cat", "dog", "cat", "dog"]
    assert Table(table.path)[4] == {"file": "4.png", "kind": "dog"}
    assert table.folder == str(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_text_in_a_csv_stays_text_and_an_empty_cell_is_none(tmp_path):
    (tmp_path / "t.csv").write_text('\ufeffcode,word,note\n007,NA,"a\nb, c"\n1e3,null,\n')
    table = Table(str(tmp_path / "t.csv"))
    assert table[0] == {"code": "007", "word": "NA", "note": "a\nb, c"}
    assert table[1] == {"code": "1e3", "word": "null", "note": None}


def test_a_jsonl_keeps_numbers_and_lists(tmp_path):
    write(tmp_path / "t.jsonl", [{"x": 1, "y": [[0.5, 1], [2, 3]]}, {"x": 2, "y": [[4]]}])
    assert Table(str(tmp_path / "t.jsonl"))[1] == {"x": 2, "y": [[4.0]]}


def test_rows_cut_a_table_and_names_count_in_the_file(tmp_path):
    path = str(write(tmp_path / "t.csv", PETS))
    table = Table(path, rows=(1, 4))
    assert (len(table), table[0]["file"], table.name(0)) == (3, "1.png", f"{path} row 1")
    assert table.column("file") == ["1.png", "2.png", "3.png"]
    with pytest.raises(IndexError):
        table[3]
    with pytest.raises(InputError, match=r"t.csv: rows 3 to 6 were asked for, the table has rows 0 to 5"):
        len(Table(path, rows=(3, 6)))


def test_the_root_is_beside_the_table_and_may_follow_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYFORMER_DATA", str(tmp_path))
    write(tmp_path / "val.csv", PETS)
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        archive.writestr("1.png", b"1")
    assert Table("val.csv", root="{stem}.zip").folder == str(tmp_path / "val.zip")
    assert Table("val.csv", root="val.zip").folder == str(tmp_path / "val.zip")
    with pytest.raises(InputError, match=r"none.zip: no such file"):
        _ = Table("val.csv", root="none.zip").folder


def test_a_missing_column_names_the_nearest(tmp_path):
    path = str(write(tmp_path / "t.csv", PETS))
    with pytest.raises(InputError, match=r"t.csv: no column 'knd'; there are file, kind; did you mean 'kind'\?"):
        Table(path, columns={"label": "knd"})[0]
    with pytest.raises(InputError, match=r"t.csv: no column 'lable'; there are label; did you mean 'label'\?"):
        Table(path, columns={"label": "kind"}).column("lable")
    with pytest.raises(InputError, match=r"numbers row 0: no column 'y'; there are x, kind"):
        Numbers(3).column("y")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.csv", b"", "the file is empty"),
        ("t.csv", b"a,b\n", "the table has no rows"),
        ("t.txt", b"a", "a table must end in .csv, .jsonl, .json, .parquet, with or without .gz"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "cannot be read as CSV: .*line 3"),
        ("t.csv.gz", b"a,b\n1,2\n", "cannot be read as CSV: .*gzip"),
        ("t.csv", b"a,b\n\xff\xfe,2\n", "cannot be read as CSV: .*utf-8"),
        ("t.jsonl", b'{"a": 1}\n{"a": \n', "cannot be read as JSON: "),
        ("t.parquet", b"PAR1 but not really", "cannot be read as PARQUET: "),
    ],
)
def test_a_table_that_cannot_be_read_says_so_in_one_line(tmp_path, capfd, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: {reason}") as caught:
        len(Table(str(tmp_path / name)))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_changed_table_is_read_again(tmp_path):
    path = write(tmp_path / "t.csv", PETS)
    assert len(Table(str(path))) == 5
    write(path, PETS[:2])
    os.utime(path, ns=(1, 1))
    assert len(Table(str(path))) == 2


@pytest.mark.skipif(not (DATA / "cifar10_small").exists(), reason="needs the cifar10_small set")
def test_pictures_of_a_real_set_lie_in_its_zip():
    table = Table("cifar10_small/train.csv", {"image": "file", "label": "class"}, root="{stem}.zip")
    assert len(table) == 8000
    assert read_file(os.path.join(table.folder, table[17]["image"]))[:2] == b"\xff\xd8"
    assert Counter(table.column("label")) == dict.fromkeys(set(table.column("label")), 800)


# Splits


def test_a_split_is_a_partition_that_keeps_the_order():
    rest, parts = split(Numbers(103), {"test": 0.2, "validation": 0.1}, seed=3)
    taken = [[part[i]["x"] for i in range(len(part))] for part in (rest, parts["test"], parts["validation"])]
    assert sorted(flat(taken)) == list(range(103))
    assert [len(part) for part in taken] == [72, 21, 10]
    assert all(part == sorted(part) for part in taken)
    assert parts["test"].name(0) == f"numbers row {taken[1][0]}"


def test_the_test_part_does_not_depend_on_the_validation_part():
    _, both = split(Numbers(50), {"test": 0.2, "validation": 0.3}, seed=1)
    _, alone = split(Numbers(50), {"test": 0.2}, seed=1)
    _, other = split(Numbers(50), {"test": 0.2}, seed=2)
    assert both["test"].indices.tolist() == alone["test"].indices.tolist() != other["test"].indices.tolist()


def test_a_stratified_split_gives_every_part_each_value_in_proportion(tmp_path):
    rows = [{"label": label} for label in ["a"] * 60 + ["b"] * 30 + ["c"] * 10 + ["d"] * 2]
    table = Table(str(write(tmp_path / "t.csv", rows)))
    rest, parts = split(table, {"test": 0.2, "validation": 0.1}, stratify="label")
    assert Counter(parts["test"].column("label")) == {"a": 12, "b": 6, "c": 2}
    assert Counter(parts["validation"].column("label")) == {"a": 6, "b": 3, "c": 1}
    assert Counter(rest.column("label")) == {"a": 42, "b": 21, "c": 7, "d": 2}


@given(st.lists(st.integers(2, 9), min_size=1, max_size=6), st.floats(0.05, 0.95), st.integers(0, 5))
def test_a_stratified_split_leaves_one_of_each_and_is_off_by_less_than_one(counts, fraction, seed):
    values = [value for value, count in enumerate(counts) for _ in range(count)]

    class Values(Numbers):
        def column(self, name: str) -> list[int]:
            return values

    try:
        rest, parts = split(Values(len(values)), {"part": fraction}, seed, stratify="value")
    except InputError as error:
        assert "is none at all" in str(error)
        return
    left = Counter(rest.column("value"))
    for value, count in enumerate(counts):
        assert left[value] >= 1
        assert abs((count - left[value]) - min(fraction * count, count - 1)) < 1
    assert abs(len(parts["part"]) - min(fraction * len(values), len(values) - len(counts))) <= len(counts)


def test_impossible_splits_say_why(tmp_path):
    table = Table(str(write(tmp_path / "t.csv", [{"label": label} for label in ["a", "b", "a", "a"]])))
    with pytest.raises(
        InputError, match=r"stratify needs at least 2 records of each 'label', but 'b' has 1 \(.*t.csv row 1\)"
    ):
        split(table, {"test": 0.5}, stratify="label")
    with pytest.raises(InputError, match="no column 'kind'; there are label"):
        split(table, {"test": 0.5}, stratify="kind")
    for fraction in (0.0, 1.0, -0.5, 20.0):
        with pytest.raises(InputError, match=rf"test must be a fraction between 0 and 1 .* got {fraction}"):
            split(table, {"test": fraction})
    with pytest.raises(InputError, match="test and validation take 1 of train and leave nothing of it"):
        split(table, {"test": 0.5, "validation": 0.5})
    with pytest.raises(InputError, match=r"test=0.1 of 4 records is none at all"):
        split(table, {"test": 0.1})


# Plans

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def flat(lists: Any) -> list[Any]:
    return list(chain.from_iterable(lists))


def indices(batches: Any) -> list[list[int]]:
    return [[draw.index for draw in batch] for batch in batches]


def test_batches_hold_batch_size_samples_and_the_rest_comes_last():
    plan = plan_batches(10, batch_size=4)
    assert [len(batch) for batch in plan.epoch(0)] == [4, 4, 2] and len(plan) == 3
    assert indices(plan_batches(5, batch_size=2, shuffle=False).epoch(7)) == [[0, 1], [2, 3], [4]]


def test_the_order_is_a_function_of_seed_and_epoch():
    first = [indices(plan_batches(20, batch_size=3, seed=seed).epoch(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    again = [indices(plan_batches(20, batch_size=3, seed=seed).epoch(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert first == again
    assert len({str(order) for order in first}) == 4
    assert indices(plan_batches(20, batch_size=3).epoch(1, start=4)) == first[1][4:]
    assert next(plan_batches(20, batch_size=3).epoch(5))[0].epoch == 5


@given(LENGTHS, st.integers(40, 200), st.sampled_from([None, 3]), st.booleans())
def test_a_token_budget_is_kept_padding_included_and_every_sample_comes_once(lengths, max_tokens, batch_size, shuffle):
    plan = plan_batches(len(lengths), max_tokens=max_tokens, lengths=lengths, batch_size=batch_size, shuffle=shuffle)
    for epoch in range(2):
        batches = indices(plan.epoch(epoch))
        assert sorted(flat(batches)) == list(range(len(lengths)))
        assert len(batches) == len(plan)
        for batch in batches:
            assert len(batch) * max(lengths[i] for i in batch) <= max_tokens
            assert len(batch) <= (batch_size or len(batch))


def test_samples_of_like_length_come_together_and_mix():
    lengths = np.random.default_rng(0).integers(10, 200, 2000)
    plan = plan_batches(2000, max_tokens=3000, lengths=lengths)
    real = sum(lengths) / sum(len(batch) * lengths[batch].max() for batch in indices(plan.epoch(0)))
    assert real > 0.9
    neighbours = [{i: frozenset(batch) for batch in indices(plan.epoch(epoch)) for i in batch} for epoch in (0, 1)]
    assert np.mean([neighbours[0][i] == neighbours[1][i] for i in range(2000)]) < 0.01


@given(LENGTHS, st.integers(40, 200))
def test_packed_rows_and_their_number_keep_the_budget(lengths, max_tokens):
    plan = plan_batches(len(lengths), max_tokens=max_tokens, lengths=lengths, pack=True)
    for epoch in range(2):
        batches = list(plan.epoch(epoch))
        assert sorted(flat(indices(batches))) == list(range(len(lengths)))
        assert len(batches) == len(plan)
        for batch in batches:
            fill = np.bincount([draw.row for draw in batch], [lengths[draw.index] for draw in batch])
            assert fill.max() <= max(lengths) and len(fill) * max(lengths) <= max_tokens and fill.all()


def test_packing_fills_rows():
    lengths = np.random.default_rng(0).integers(3, 100, 5000)
    plan = plan_batches(5000, max_tokens=1000, lengths=lengths, pack=True)
    assert lengths.sum() / (1000 * len(plan)) > 0.9


@given(LENGTHS, st.integers(1, 4), st.sampled_from(["size", "tokens", "pack"]))
def test_ranks_share_all_samples_in_equal_numbers_of_batches(lengths, world, kind):
    options = {"size": {"batch_size": 4}}.get(kind, {"max_tokens": 90, "lengths": lengths, "pack": kind == "pack"})
    try:
        plans = [plan_batches(len(lengths), rank=rank, world=world, **options) for rank in range(world)]
    except InputError as error:
        assert "cannot be shared by" in str(error) and world > 1 and (len(lengths) < 2 * world or kind == "pack")
        return
    batches = [list(plan.epoch(1)) for plan in plans]
    assert len({len(rank) for rank in batches}) == 1 == len({len(plan) for plan in plans})
    assert sorted(flat(indices(flat(batches)))) == list(range(len(lengths)))
    assert all(batch for rank in batches for batch in rank)
    for batch in flat(batches):
        if kind == "pack":
            assert set(np.unique([draw.row for draw in batch])) == set(range(max(draw.row for draw in batch) + 1))


def test_plans_that_cannot_be_say_why():
    with pytest.raises(
        InputError, match=r"max_tokens=8 is less than the 9 tokens of numbers row 1; raise it to at least 9"
    ):
        plan_batches(2, max_tokens=8, lengths=[3, 9], name=Numbers(2).name)
    with pytest.raises(InputError, match="1 samples cannot be shared by 2 processes"):
        plan_batches(1, batch_size=4, world=2)


def test_a_large_plan_is_quick():
    lengths = np.random.default_rng(0).integers(3, 500, 200_000)
    plan = plan_batches(200_000, max_tokens=16_384, lengths=lengths)
    assert next(plan.epoch(0))


# The loader


def drain(batches: Any) -> list[Any]:
    return [(batch.items, batch.samples) for batch in batches]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_epochs_follow_one_another_and_the_number_of_workers_does_not_matter(n_workers):
    here, there = loader(), loader(n_workers=n_workers)
    assert [drain(here) for _ in range(3)] == [drain(there) for _ in range(3)]
    assert drain(here) != drain(here)
    assert here.epoch == 4


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 3, 4])
def test_a_loader_goes_on_where_the_other_stopped(n_workers, stop):
    whole = loader()
    expected = drain(whole) + drain(whole)
    first = loader(n_workers=n_workers)
    taken = [batch for batch, _ in zip(first, range(stop), strict=False)]  # one more is handed out, but for stop = 4
    state = first.state_dict()
    assert state["offset"] == min(stop + 1, 4)
    state = state | {"offset": stop}
    second = loader(n_workers=2 - n_workers)
    second.load_state_dict(json.loads(json.dumps(state)))
    assert drain(taken) + drain(second) + (drain(second) if stop < 4 else []) == expected


def test_an_epoch_cut_short_is_followed_by_the_next():
    short, whole = loader(), loader()
    next(iter(short))
    drain(whole)
    assert drain(short) == drain(whole)


def test_calling_iter_without_asking_for_a_batch_changes_nothing():
    tried = loader()
    iter(tried), iter(tried)
    assert drain(tried) == drain(loader())


@pytest.mark.parametrize("n_workers", [0, 2])
def test_loading_does_not_touch_the_global_generators(n_workers):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    drain(loader(n_workers=n_workers))
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()


def test_what_is_drawn_for_a_sample_depends_on_seed_epoch_and_index_alone():
    samples = Samples(Numbers(9), Pairs(), training=True)
    assert samples[Draw(2, 5)] == samples[Draw(2, 5, row=3)]
    others = [samples[Draw(3, 5)], samples[Draw(2, 6)], Samples(Numbers(9), Pairs(), training=True, seed=1)[Draw(2, 5)]]
    assert samples[Draw(2, 5)] not in others
    assert Samples(Numbers(9), Pairs())[Draw(2, 5)] == (5, -1.0)


def test_a_place_in_other_data_is_refused():
    state = loader(n=10).state_dict()
    with pytest.raises(
        InputError, match="cannot go on inside an epoch: the checkpoint was made with n_batches=4, this run has 5"
    ):
        loader(n=13).load_state_dict(state)
    with pytest.raises(InputError, match="the checkpoint was made with seed=0, this run has 1"):
        loader(seed=1).load_state_dict(state)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_bad_sample_fails_with_its_name(n_workers):
    with pytest.raises(InputError, match=r"^numbers row 4: field 'x': 4 is bad$"):
        drain(loader(bad=(4,), n_workers=n_workers))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_skipped_samples_are_counted_and_reported_at_the_end_of_the_epoch(n_workers, caplog):
    skipping = loader(bad=(1, 3, 4, 8, 9), skip=True, n_workers=n_workers)
    seen = [number for batch in skipping for number, _ in batch.items]
    assert set(seen) == {0, 2, 5, 6, 7}
    (line,) = caplog.messages
    assert line.startswith("epoch 0 of training left out 5 samples: numbers row ") and line.endswith(", and 2 more")
    assert line.count("is bad") == 3
    drain(skipping)
    assert len(caplog.messages) == 2


def test_a_batch_of_bad_samples_is_filled_in_training_and_left_out_in_evaluation():
    training = loader(n=4, batch_size=1, bad=(0, 1), skip=True)
    batches = [batch.items[0][0] for batch in training]
    assert len(batches) == len(training) == 4 and set(batches) == {2, 3}
    samples = Samples(Numbers(4), Pairs((0, 1)), on_bad_sample="skip")
    evaluation = Loader(samples, plan_batches(4, batch_size=1, shuffle=False))
    assert [batch.items for batch in evaluation] == [[(2, -1.0)], [(3, -1.0)]]
    with pytest.raises(InputError, match=r"numbers row .: field 'x'"):
        drain(loader(n=2, bad=(0, 1), skip=True))


def test_the_count_of_skipped_samples_survives_a_restart(caplog):
    first = loader(bad=(0, 1, 2, 3, 4, 5, 6, 7), skip=True)
    for _ in zip(range(2), first, strict=False):
        pass
    second = loader(bad=(0, 1, 2, 3, 4, 5, 6, 7), skip=True)
    second.load_state_dict(first.state_dict())
    drain(second)
    assert "left out 8 samples" in caplog.text


def test_a_row_that_lost_all_its_samples_is_gone():
    samples = Samples(Numbers(4), Pairs((1,)), on_bad_sample="skip")
    batch = samples.__getitems__([Draw(0, 0, 0), Draw(0, 1, 1), Draw(0, 3, 2)]).batch
    assert batch.rows == [0, 1] and batch.samples == ("numbers row 0", "numbers row 3")


def test_lengths_are_counted_once_a_sample_and_name_the_bad_one():
    assert Samples(Numbers(9), Pairs()).lengths() == [1, 2, 3, 4, 5, 6, 7, 1, 2]
    assert Samples(Numbers(3), Pairs((1,)), on_bad_sample="skip").lengths() == [1, 1, 3]
    with pytest.raises(InputError, match="numbers row 1: field 'x': 1 is bad"):
        Samples(Numbers(3), Pairs((1,))).lengths()


def test_samples_travel_to_workers_that_are_not_forked(tmp_path):
    table = Table(str(write(tmp_path / "t.csv", PETS)))
    assert pickle.loads(pickle.dumps(Samples(table.take([3, 1]), Pairs()))).source[0]["file"] == "3.png"


def test_forked_workers_read_one_zip_at_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for i in range(40):
            archive.writestr(f"{i}.bin", bytes([i]) * 5000)

    files = loader(n=40, n_workers=2, batch_size=4)
    files.samples = Samples(Numbers(40), Zipped(str(tmp_path / "t.zip")))
    read_file(tmp_path / "t.zip" / "0.bin")  # so that the workers inherit an open handle
    assert sorted(item for batch in files for item in batch.items) == [(i, 5000) for i in range(40)]


@dataclass(frozen=True)
class Zipped(Pairs):
    path: str = ""

    def __init__(self, path: str) -> None:
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "tokenizers", {})

    def __call__(self, record: dict[str, Any], random: np.random.Generator | None) -> tuple[int, int]:
        content = read_file(f"{self.path}/{record['x']}.bin")
        assert set(content) == {record["x"]}
        return record["x"], len(content)

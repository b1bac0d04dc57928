import re
from dataclasses import replace

import pytest
import torch

from anyformer.errors import InputError
from anyformer.runs.averaging.weights import check_weights_alike, checkpoint_weights, mean_weights
from anyformer.runs.checkpoint_io import Checkpoints
from anyformer.runs.checkpointing import Saving
from anyformer.saving.manifest import CHECKPOINT, read_manifest
from anyformer.tasks.targets.category import Category
from anyformer.tasks.targets.regression import Regression
from tests.helpers.small_run import small_fit
from tests.tasks.ensemble.test_ensemble import member
from tests.tasks.predict.test_predict import turned


def started(seed=0, init_from=None):
    return {"seed_everything": seed, "model": {"init_args": {"init_from": init_from}}}


def test_the_mean_of_weights_is_that_of_each_and_counts_are_the_last():
    several = [{"w": torch.tensor([1.0, value]), "n": torch.tensor(n)} for value, n in ((3.0, 3), (0.0, 5), (4.0, 4))]
    mean = mean_weights(several)
    assert mean["w"].tolist() == pytest.approx([1.0, 7 / 3]) and mean["w"].dtype == torch.float32
    assert mean["n"] == 4


def test_the_kept_checkpoints_are_averaged_once_for_each_step(tmp_path):
    small_fit(tmp_path / "run", saving=Saving(None, None, keep=3))
    folder = tmp_path / "run" / "checkpoints"
    names = [line["file"] for line in read_manifest(folder) if CHECKPOINT.fullmatch(line["file"])]
    # The first two are of the same step.
    kinds = [tuple(re.split("[-.]", name)[1:3]) for name in names]
    assert kinds == [("00000006", "validation"), ("00000006", "epoch"), ("00000012", "epoch")]
    each = [Checkpoints().load_checkpoint(folder / name) for name in names]
    weights = mean_weights(checkpoint_weights(tmp_path / "run"))
    name = "model.transformer.blocks.0.attention.q.weight"
    expected = torch.stack([checkpoint["average"][name] for checkpoint in each[1:]]).mean(0)
    torch.testing.assert_close(weights[name], expected)
    assert not torch.equal(expected, each[-1]["state_dict"][name])


def test_one_checkpoint_has_no_mean(tmp_path):
    with pytest.raises(InputError, match="holds checkpoints of 0 steps, and an average needs two or more; train with"):
        checkpoint_weights(tmp_path)


def test_weights_learned_otherwise_from_one_start_have_a_mean():
    one, other = member(0, tokenizers=turned()), member(0, head_dropout=0.5, choose="loss")
    check_weights_alike({"a": one, "b": other}, {"a": started(3), "b": started(3)})
    for made, temperature in ((one, 2.0), (other, 0.5)):
        made.targets["kind"] = replace(made.targets["kind"], calibrate=made is one, temperature=temperature)
    check_weights_alike({"a": one, "b": other}, {"a": started(0, "runs/first"), "b": started(1, "runs/first")})


@pytest.mark.parametrize(
    ("make", "configs", "message"),
    [
        (
            lambda: member(0),
            (started(0), started(1)),
            r"a and b did not start .*\(seed_everything: 0; seed_everything: 1\)",
        ),
        (
            lambda: member(0),
            (started(0, "runs/x"), started(0)),
            r"a and b did not start from the same weights \(init_from: runs/x; seed_everything: 0\)",
        ),
        (lambda: member(0), (started(0), None), "b has no config.yaml, so nothing says which weights it started from"),
        (
            lambda: member(0, n_registers=1),
            (started(0), started(0)),
            "the weights of a and b mean different things: n_registers was 0 and is now 1; average their predictions",
        ),
        (
            lambda: member(0, {"kind": Category(("even", "odd")), "width": Regression(mean=(1.0,), std=(2.0,))}),
            (started(0), started(0)),
            "the weights of a and b mean different things: targets.tags is gone",
        ),
    ],
)
def test_weights_without_a_mean_are_refused(make, configs, message):
    with pytest.raises(InputError, match=message):
        check_weights_alike({"a": member(0), "b": make()}, dict(zip("ab", configs, strict=True)))

"""The Decision Transformer of transformers goes in from its folder and comes out again: the same actions and bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.helpers.witnesses import error

pytest.importorskip("transformers")

from transformers import DecisionTransformerModel

from anyformer.packing import collate
from anyformer.tasks.convert.huggingface import from_transformers, take_in, to_transformers
from anyformer.tasks.decide.decide import Decide
from anyformer.tokenizers.episode.steps import Stretch
from anyformer.weights.decision_transformer import DECISION_TRANSFORMER
from tests.helpers.transformers_folders import decision_transformer, disagreement

VARIANTS: dict[str, dict[str, Any]] = {
    "small": {},
    "larger, with an MLP of its own width": {"hidden_size": 32, "n_layer": 3, "n_head": 4, "n_inner": 50},
    "actions without bounds": {"action_tanh": False},
    "gelu, without a scale": {"activation_function": "gelu_new", "scale_attn_weights": False},
    "things to do": {"action_tanh": False, "discrete_actions": True},
}
LENGTHS, STARTS, N = (6, 2, 5), (0, 28, 4), 6
"""Of windows padded on the left: of a whole episode, at the end of one, from within."""
REAL = torch.arange(N) >= N - torch.tensor(LENGTHS)[:, None]
STEPS = (torch.arange(N) - N + (torch.tensor(LENGTHS) + torch.tensor(STARTS))[:, None]) * REAL
UNUSED = ("encoder.wte.weight", "encoder.wpe.weight.1:")


def windows(discrete: bool, seed: int = 0) -> dict[str, Tensor]:
    """As their model takes them, padding filled with what must not be seen."""
    random = torch.Generator().manual_seed(seed)
    actions = torch.rand(3, N, 3, generator=random) * 2 - 1
    if discrete:
        actions = nn.functional.one_hot(actions.argmax(-1), 3).float()
    return {
        "states": torch.randn(3, N, 5, generator=random),
        "actions": actions,
        "returns_to_go": torch.randn(3, N, 1, generator=random),
        "timesteps": STEPS,
        "attention_mask": REAL.long(),
    }


def theirs_at_real(theirs: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """All that their model predicts at the real steps, (steps, actions + states + 1)."""
    found = theirs(**batch)
    return torch.cat([found.action_preds, found.state_preds, found.return_preds], -1)[REAL]


def ours(task: Decide, batch: dict[str, Tensor]) -> Tensor:
    """The same of ours."""
    samples = []
    for i, real in enumerate(REAL):
        actions = batch["actions"][i, real]
        if task.tokenizers["action"].empty().content.dtype == torch.int64:
            actions = actions.argmax(-1)
        values = {"return": batch["returns_to_go"][i, real, 0], "state": batch["states"][i, real], "action": actions}
        samples.append(
            {
                name: task.model.tokenizers[name].encode(Stretch(each.numpy(), STEPS[i, real].numpy()))
                for name, each in values.items()
            }
        )
        for j, (name, tokens) in enumerate(samples[-1].items()):
            samples[-1][name] = tokens.at(3 * torch.arange(len(tokens)) + j)
    laid = collate(samples, task.model.tokenizers)
    hidden = laid.by_field(task.model(laid))
    head = task.heads["action"]
    actions = head.output(hidden["state"]) if hasattr(head, "counts") else head(hidden["state"])[0]
    states, returns = (task.heads[name](hidden["action"])[0] for name in ("state", "return"))
    return torch.cat([actions, states, returns[:, 1:]], -1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_gives_the_same_predictions_and_gradients(tmp_path: Path, variant: str) -> None:
    theirs = decision_transformer(tmp_path / "hub", **VARIANTS[variant])
    task, report = take_in(tmp_path / "hub")
    assert not report.fresh and report.unused == UNUSED
    batch = windows("discrete_actions" in VARIANTS[variant])
    found, expected = ours(task, batch), theirs_at_real(theirs, batch)
    # That of the action is the bias of theirs.
    types = [f"model.embeddings.types.{name}" for name in ("return/", "state")]
    assert disagreement(DECISION_TRANSFORMER, tmp_path / "hub", theirs, expected, task, found, types) < 1e-4


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("transformer", {"activation": "gelu"}),
        ("transformer", {"norm_eps": 0.1}),
        ("transformer", {"final_norm": False}),
        ("transformer", {"attention_scale": 1.0}),
        ("transformer", {"n_heads": 2}),
        ("embedding", {"norm": False}),
        ("embedding", {"offset": False}),
        ("embedding", {"positions": []}),
        ("tokenizers", {"action": {"tanh": False}}),
        ("tokenizers", {"state": {"normalize": True, "mean": (0.3,) * 5, "std": (1.0,) * 5}}),
        ("tokenizers", {"return": {"scale": 2.0}}),
    ],
    ids=str,
)
def test_an_option_set_wrong_is_seen(tmp_path: Path, part: str, wrong: dict[str, Any]) -> None:
    theirs = decision_transformer(tmp_path)
    task = from_transformers(tmp_path)
    weights = task.state_dict()
    if part == "tokenizers":
        task.tokenizers |= {name: replace(task.tokenizers[name], **changes) for name, changes in wrong.items()}
    else:
        setattr(task, part, replace(getattr(task, part), **wrong))
    task.build()
    assert not task.load_state_dict(weights, strict=False).missing_keys
    batch = windows(discrete=False)
    assert error(ours(task.eval(), batch), theirs_at_real(theirs, batch)) > 1e-2


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_way_in_and_out_changes_no_bit(tmp_path: Path, variant: str) -> None:
    theirs = decision_transformer(tmp_path / "hub", **VARIANTS[variant])
    with torch.no_grad():
        # -0 + 0 is 0.
        theirs.embed_state.bias[0] = -0.0
        theirs.embed_action.bias[0] = -0.0
    theirs.save_pretrained(tmp_path / "hub")
    to_transformers(from_transformers(tmp_path / "hub"), tmp_path / "out")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hub", "out"))
    assert before.keys() == after.keys()
    # What is never looked up is left behind.
    before["encoder.wpe.weight"] = before["encoder.wpe.weight"][:1]
    before["encoder.wte.weight"] = torch.zeros_like(before["encoder.wte.weight"])
    assert all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    loaded, info = DecisionTransformerModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    batch = windows("discrete_actions" in VARIANTS[variant])
    # The same bits elsewhere in memory may be summed in another sequence.
    assert error(theirs_at_real(loaded.eval(), batch), theirs_at_real(theirs, batch)) < 1e-6
    settings, there = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("out", "hub"))
    told = settings.keys() & there.keys() - {"n_inner", "n_positions"}
    assert len(told) > 15
    assert {name: settings[name] for name in told} == {name: there[name] for name in told}
    to_transformers(from_transformers(tmp_path / "out"), tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()

"""Decision Transformers of transformers act in an environment as they do there; what has no counterpart is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file
from torch import nn

from tests.helpers.witnesses import redraw

pytest.importorskip("transformers")

from transformers import DecisionTransformerModel

from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.packing import collate
from anyformer.tasks.convert.huggingface import export, from_transformers, to_transformers
from anyformer.tasks.decide.actor import PlayConfig
from anyformer.tasks.decide.decide import Decide
from anyformer.tokenizers.episode.continuous import Returns, Vector
from anyformer.tokenizers.episode.discrete import Bins
from anyformer.tokenizers.episode.spaces import plain
from anyformer.tokenizers.episode.steps import StepTokenizer, Stretch
from tests.helpers.transformers_folders import decision_transformer, gpt2
from tests.tasks.convert.test_huggingface import settings
from tests.weights.test_decision_transformer import theirs_at_real, windows

CARTPOLE = {"state_dim": 4, "act_dim": 2, "action_tanh": False, "max_ep_len": 500}
PENDULUM = {"state_dim": 3, "act_dim": 1, "action_tanh": False, "max_ep_len": 200}
SCALING = {"state_mean": [0.1, -0.2, 0.0, 0.3], "state_std": [0.1, 0.2, 0.02, 0.3], "return_scale": 40.0}


class Theirs:
    """Their model in one environment, as its users play it: the last steps are computed anew for each action."""

    def __init__(self, model: nn.Module, context: int, asked: float, scaling: dict[str, Any]) -> None:
        self.model, self.context, self.left = model, context, asked
        self.mean, self.std = (np.array(scaling.get(f"state_{part}", fill)) for part, fill in (("mean", 0), ("std", 1)))
        self.scale = scaling.get("return_scale", 1.0)
        self.states, self.actions, self.returns = [], [], []

    @torch.no_grad()
    def __call__(self, observation: np.ndarray, reward: float | None, taken: np.ndarray | None) -> torch.Tensor:
        """What follows on the newest step: an action, or the logits of all."""
        if taken is not None:
            self.actions[-1] = taken
        self.left -= reward or 0.0
        self.states.append((observation - self.mean) / self.std)
        self.actions.append(np.zeros(self.model.config.act_dim))
        self.returns.append([self.left / self.scale])
        parts = {"states": self.states, "actions": self.actions, "returns_to_go": self.returns}
        batch = {name: torch.tensor(np.array(part[-self.context :]))[None].float() for name, part in parts.items()}
        steps = torch.arange(len(self.states))[None, -self.context :]
        return self.model(**batch, timesteps=steps, attention_mask=torch.ones_like(steps)).action_preds[0, -1]


@pytest.mark.parametrize(
    ("name", "options", "scaling"),
    [("CartPole-v1", CARTPOLE, SCALING), ("Pendulum-v1", PENDULUM, {})],
    ids=["choices", "numbers"],
)
def test_an_imported_policy_acts_as_it_did_there(
    tmp_path: Path, name: str, options: dict[str, Any], scaling: dict[str, Any]
) -> None:
    model = decision_transformer(tmp_path, **options)
    # So that actions are now this, now that.
    seen = np.random.default_rng(0).normal(scale=0.2, size=(9, options["state_dim"]))
    first = Theirs(model, 3, 50.0, scaling)
    model.predict_action[0].bias.data -= torch.stack([first(each, 1.0, None) for each in seen]).mean(0)
    model.save_pretrained(tmp_path)
    settings(tmp_path, context_length=3, **scaling)
    task = from_transformers(tmp_path, environment=name)
    assert task.environment.id == name and task.context == 3
    policy = task.policy(50.0, PlayConfig(past_context="exact"))
    theirs = Theirs(model, 3, 50.0, scaling)
    environment = gymnasium.make(name)
    observation, _ = environment.reset(seed=3)
    reward = taken = None
    done = []
    for _ in range(8):
        said = theirs(observation, reward, taken)
        action = policy(observation, reward)
        if isinstance(environment.action_space, spaces.Discrete):
            assert action == said.argmax()
            taken = np.eye(2)[action]
        else:
            taken = np.clip(said.numpy(), -2, 2)
            np.testing.assert_allclose(action, taken, atol=1e-5)
        done.append(taken.tolist())
        observation, reward, *_ = environment.step(action)
    environment.close()
    assert len({tuple(each) for each in done}) > 1, "a policy that always does the same shows little"


def test_what_is_beside_the_weights_comes_back(tmp_path: Path) -> None:
    decision_transformer(tmp_path / "hub", **CARTPOLE)
    settings(tmp_path / "hub", context_length=3, return_range=[8.0, 500.0], **SCALING)
    task = from_transformers(tmp_path / "hub", environment="CartPole-v1")
    task.environment = replace(task.environment, max_episode_steps=70, wrappers=("TimeAwareObservation",))
    to_transformers(task, tmp_path / "out")
    again = from_transformers(tmp_path / "out")
    assert again.config() == task.config()
    assert again.known_returns == (8.0, 500.0)
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {name: told[name] for name in SCALING} == SCALING
    # It outlasts their hands.
    DecisionTransformerModel.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "theirs")
    assert from_transformers(tmp_path / "theirs").config() == task.config()


def test_without_more_than_theirs_the_spaces_are_open(tmp_path: Path) -> None:
    decision_transformer(tmp_path)
    task = from_transformers(tmp_path)
    seen, done = task.spaces
    assert seen == spaces.Box(-np.inf, np.inf, (5,), np.float32)
    assert done == spaces.Box(-1, 1, (3,), np.float32)
    assert task.environment is None and task.tokenizers["return"].scale == 1


# In


@pytest.mark.parametrize(
    ("changes", "environment", "message"),
    [
        ({"layer_norm_epsilon": 0.1}, None, r"layer_norm_epsilon: 0\.1 cannot be brought in"),
        ({"add_cross_attention": True}, None, r"add_cross_attention: True cannot"),
        ({"n_head": 5}, None, r"config\.json: n_heads must divide d_model"),
        ({"max_ep_len": 31}, None, r"not of these weights: .*embed_timestep\.weight is \(30, 12\), and .* \(31, 12\)"),
        ({"act_dim": 4}, None, r"not of these weights: .*(embed|predict)_action\S* is .*take both from one model"),
        ({}, "CartPole-v1", r"model sees 5 numbers and does 3, and env CartPole-v1 shows Box.* takes Discrete\(2\);"),
        ({}, "CartPol-v1", r"CartPol-v1.*CartPole-v1"),
        ({"state_mean": 3}, None, r"config\.json: state_mean is 3, which is not a value for it"),
        ({"state_mean": [1.0], "state_std": [1.0]}, None, r"config\.json: tokenizers\.state: mean must have 5 numbers"),
        ({"state_mean": [0.0] * 5}, None, r"config\.json: state_mean stands without state_std; give both or none"),
        ({"state_mean": [0.0, "a"]}, None, r"config\.json: state_mean must be a list of numbers, got \[0\.0, 'a'\]"),
        ({"return_range": [3]}, None, r"config\.json: return_range must be the lowest and the highest return, got \[3"),
        ({"environment": {"name": "x"}}, None, r"config\.json: environment must have an id, kwargs and wrappers, got"),
        ({"action_space": "Box"}, None, r"config\.json: .*Minari"),
        ({"return_scale": 0}, None, r"config\.json: scale must be above 0, got 0"),
    ],
    ids=str,
)
def test_what_cannot_be_brought_in_is_named(
    tmp_path: Path, changes: dict[str, Any], environment: str | None, message: str
) -> None:
    decision_transformer(tmp_path)
    settings(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as raised:
        from_transformers(tmp_path, environment=environment)
    assert "\n" not in str(raised.value)


def test_options_of_others_are_refused(tmp_path: Path) -> None:
    decision_transformer(tmp_path / "acts")
    gpt2(tmp_path / "writes")
    with pytest.raises(InputError, match="language and pad are for Whisper; leave them out"):
        from_transformers(tmp_path / "acts", language="de")
    with pytest.raises(InputError, match="env is for Decision Transformers; leave it out"):
        from_transformers(tmp_path / "writes", environment="CartPole-v1")


# Out

SIZES = TransformerConfig(d_model=12, n_heads=3, depth=2, d_ff=20, activation="relu")
SEEN, DONE = spaces.Box(-9, 9, (5,), np.float32), spaces.Box(-1, 1, (3,), np.float32)
NORMED = Vector(mean=(0.5, -1.0, 0.0, 2.0, 0.1), std=(0.5, 1.0, 2.0, 3.0, 1.0))
PLAIN = Vector(normalize=False, tanh=True)


def trained(done: spaces.Space = DONE, **options: Any) -> Decide:
    """A task as it is after training, of spaces that nothing is played in."""
    given: dict[str, StepTokenizer] = {"state": NORMED, "return": Returns(scale=20.0)}
    if isinstance(done, spaces.Box):
        given["action"] = PLAIN
    given = {name: each for name, each in (given | options.pop("given", {})).items() if each is not None}
    given = {name: replace(each, max_steps=30) for name, each in given.items()}
    options = {"transformer": SIZES, "embedding": EmbeddingConfig(norm=True), "play": None} | options
    task = Decide(given, observation_space=plain(SEEN), action_space=plain(done), **options)
    task.build()
    redraw(task)
    return task.eval()


@pytest.mark.parametrize("done", [DONE, spaces.Discrete(3)], ids=["numbers", "choices"])
@pytest.mark.parametrize("heads", [True, False], ids=["all heads", "one head"])
def test_a_model_trained_here_is_the_same_there(tmp_path: Path, done: spaces.Space, heads: bool) -> None:
    """With types, and a joint table of steps."""
    task = trained(done, state_loss=0.5 * heads, return_loss=0.5 * heads)
    export(task, tmp_path / "out")
    theirs = DecisionTransformerModel.from_pretrained(tmp_path / "out").eval()
    batch = windows(discrete=isinstance(done, spaces.Discrete))
    real = batch["attention_mask"].bool()
    samples = []
    for i in range(3):
        raw = {
            "return": batch["returns_to_go"][i, real[i], 0] * 20,
            "state": batch["states"][i, real[i]] * torch.tensor(NORMED.std) + torch.tensor(NORMED.mean),
            "action": batch["actions"][i, real[i]],
        }
        if isinstance(done, spaces.Discrete):
            raw["action"] = raw["action"].argmax(-1)
        sample = {}
        for j, (name, values) in enumerate(raw.items()):
            tokens = task.tokenizers[name].encode(Stretch(values.numpy(), batch["timesteps"][i, real[i]].numpy()))
            sample[name] = tokens.at(3 * torch.arange(len(tokens)) + j)
        samples.append(sample)
    laid = collate(samples, task.model.tokenizers)
    hidden = laid.by_field(task.model(laid))
    found = task.heads["action"].choose(hidden["state"])
    expected = theirs_at_real(theirs, batch)
    if isinstance(done, spaces.Discrete):
        assert torch.equal(found, expected[:, :3].argmax(-1))
        assert len(found.unique()) > 1
    else:
        torch.testing.assert_close(found, expected[:, :3], rtol=1e-4, atol=1e-4)
    if heads:
        states, returns = (task.heads[name](hidden["action"])[0] for name in ("state", "return"))
        torch.testing.assert_close(torch.cat([states, returns[:, 1:]], -1), expected[:, 3:], rtol=1e-4, atol=1e-4)
    else:
        assert not expected[:, 3:].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: trained(returns=False, given={"return": None}), r"not support returns: false; train a model without"),
        (lambda: trained(spaces.MultiDiscrete([2, 3])), r"not support actions of several choices"),
        (lambda: trained(given={"action": Bins(8)}), r"not support an action other than one vector or one choice"),
        (lambda: trained(given={"state": Bins(8)}), r"not support an observation other than one vector"),
        (
            lambda: trained(given={"action": Vector(normalize=False, loss="gaussian")}),
            r"not support loss: gaussian",
        ),
        (lambda: trained(spaces.Box(-2, 2, (3,), np.float32)), r"not support tanh on bounds other than -1 to 1"),
        (lambda: trained(embedding=EmbeddingConfig()), r"not support embedding\.norm: False"),
        (lambda: trained(transformer=replace(SIZES, gated=True)), r"not support transformer\.gated: True"),
        (lambda: trained(transformer=replace(SIZES, norm_eps=0.1)), r"not support transformer\.norm_eps: 0\.1"),
    ],
)
def test_what_transformers_has_no_word_for_is_named(tmp_path: Path, make: Callable[[], Decide], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        export(make(), tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_model_that_acts_is_written_as_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a model that acts is written as a folder; leave \.safetensors out"):
        export(trained(), tmp_path / "model.safetensors")


def test_the_command_line_brings_in_plays_and_takes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    decision_transformer(Path("hub"), **CARTPOLE, n_positions=1)
    settings(Path("hub"), context_length=4, **SCALING)
    assert main(["import", "hub", "runs/cart", "--env", "CartPole-v1"]) == 0
    assert "anyformer predict runs/cart --episodes" in capsys.readouterr().out
    assert main(["predict", "runs/cart", "--episodes", "2", "--target_return", "30"]) == 0
    assert "return" in capsys.readouterr().out
    assert main(["export", "runs/cart", "out"]) == 0
    before, after = (load_file(Path(name) / "model.safetensors") for name in ("hub", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if name != "encoder.wte.weight")

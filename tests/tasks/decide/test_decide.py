"""Decisions: what is read where, spaces and normalisation from the data, runs that play, and what cannot be learned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from anyformer.__main__ import main
from anyformer.batch import read_before
from anyformer.errors import InputError
from anyformer.model.config import RotaryConfig, TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.positions import PositionConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.parsing.instantiate import instantiate
from anyformer.runs.checkpointing import Saving
from anyformer.runs.fit import evaluate, fit
from anyformer.runs.metrics_file import read_metrics, read_rows
from anyformer.saving.model_folder import load
from anyformer.tasks.base.records import Records
from anyformer.tasks.decide.actor import PlayConfig, choose_target_return
from anyformer.tasks.decide.batch import ACTION, RETURN, STATE
from anyformer.tasks.decide.collect import Collected, write_minari
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.decide.play import episodes
from anyformer.tasks.decide.rollout import RandomActor, episode_seed
from anyformer.tasks.decide.rollout import play as play_out
from anyformer.tokenizers.episode.continuous import Returns, Vector
from anyformer.tokenizers.episode.discrete import Bins, Categories
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode
from anyformer.tokenizers.episode.frames import Frames
from anyformer.tokenizers.image.sources import Digits
from tests.helpers.worlds import decider, walks, world

SMALL = TransformerConfig(d_model=16, depth=1, n_heads=2, rotary=RotaryConfig(axes=("step",)))
PLAY = PlayConfig(episodes=3)
CONFIGS = Path(__file__).parents[3] / "configs"


def learned(source: Any, run: Path, epochs: int = 1, **options: Any) -> Decide:
    torch.manual_seed(0)
    task = Decide(**{"transformer": SMALL, "context": 5, "play": PLAY} | options)
    fit(task, Records(source, 0.25, 0.25, batch_size=8), run, max_epochs=epochs, **QUIET)
    return task


QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False}


def examples(task: Decide, source: Any, n: int = 6) -> Any:
    windows, chopper = task.view(source, False), task.chopper(False)
    return chopper.collate([chopper({"windows": windows, "number": i}) for i in range(n)])


def hidden_of(task: Decide, batch: Any) -> torch.Tensor:
    """The hidden vectors of all places of the layout, (places, d); 0 where nothing is read."""
    rows, length = batch.tokens.shape
    places = (batch.read + length * torch.arange(rows)[:, None]).flatten()
    hidden = task.read(batch)
    return hidden.new_zeros(rows * length, hidden.shape[1]).index_copy(0, places, hidden)


# The loss


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("picture", {}),
        ("text", {"returns": False}),
        ("pair", {"state_loss": 0.0}),
        ("box", {"tokenizers": {"action": Bins(n_bins=7)}}),
        ("box", {}),
    ],
)
def test_a_loss_is_read_where_its_token_is_next_and_depends_on_nothing_later(kind: str, options: dict) -> None:
    source = walks(kind)
    task = decider(source, **options)
    batch = examples(task, source)
    last = task.step_fields.actions[-1]

    def terms() -> dict[str, torch.Tensor]:
        """Of every token of the action by itself, by field."""
        hidden = hidden_of(task, batch)
        found = {}
        for name in task.step_fields.actions:
            places, which = read_before(batch.tokens, name)
            assert which.tolist() == list(range(len(batch.tokens.fields[name].content)))
            content = batch.tokens.fields[name].content
            found[name] = torch.stack(
                [task.head(name).loss(hidden[p : p + 1], content[i : i + 1]) for i, p in enumerate(places)]
            )
        return found

    before = {name: term.detach() for name, term in terms().items()}
    total, n_targets = task.loss(batch)
    torch.testing.assert_close(total, sum(term.sum() for term in before.values()), rtol=1e-4, atol=1e-4)
    assert n_targets == sum(map(len, before.values()))
    tokens = batch.tokens.fields[last]
    orders = {name: batch.tokens.layout.order.flatten()[batch.tokens.fields[name].index] for name in before}
    n = len(tokens.content)
    for j in (1, n // 2, n - 2):
        old = tokens.content[j].clone()
        tokens.content[j] = old + 0.7 if old.is_floating_point() else _other(task, last, int(old))
        after = {name: term.detach() for name, term in terms().items()}
        tokens.content[j] = old
        changed = 0
        for name, own in before.items():
            sample = batch.tokens.fields[name].sample
            may = (sample == tokens.sample[j]) & (orders[name] > orders[last][j])
            if name == last:
                # Its own term has it as the target.
                may[j] = True
            assert torch.equal(after[name][~may], own[~may])
            changed += int((after[name][may] != own[may]).sum())
        assert changed
    if tokens.content.is_floating_point():
        # Nor does any term look at its own token.
        content = tokens.content.clone().requires_grad_()
        object.__setattr__(tokens, "content", content)
        hidden = hidden_of(task, batch)
        places, _ = read_before(batch.tokens, last)
        for j in (0, n // 2):
            (gradient,) = torch.autograd.grad(hidden[places[j]].sum(), content, retain_graph=True)
            assert not gradient[j].any()


def _other(task: Decide, name: str, old: int) -> int:
    """Another id of the same element."""
    cutter = task.tokenizers[name]
    if isinstance(cutter, Bins):
        return (old + 1) % cutter.n_bins
    ends = np.cumsum(cutter.counts)
    element = int(np.searchsorted(ends, old, "right"))
    start = int(ends[element - 1]) if element else 0
    return start + (old - start + 1) % cutter.counts[element]


@pytest.mark.parametrize("options", [{"state_loss": 0.5}, {}], ids=["two heads", "one head"])
def test_the_last_block_works_out_what_is_read_alone(options: dict) -> None:
    source = walks("box")
    task = decider(source, **options)
    batch = examples(task, source)
    places = [read_before(batch.tokens, ACTION)[0]]
    if options:
        places.append(batch.tokens.fields[ACTION].index)
    found, whole = hidden_of(task, batch), task.model(batch.tokens).flatten(0, 1)
    torch.testing.assert_close(found[torch.cat(places)], whole[torch.cat(places)])
    n_steps = [int(n) for n in batch.tokens.fields[ACTION].sample.bincount()]
    assert found.any(1).sum() == len(n_steps) * max(n_steps) * len(places) < whole.any(1).sum()


@pytest.mark.parametrize("n_each", [1, 2])
def test_the_heads_of_the_next_state_and_the_return_read_the_end_of_the_action(n_each: int) -> None:
    source, options = walks("box"), {} if n_each == 1 else {"tokenizers": {"action": Bins(n_bins=7)}}
    plain, more = decider(source, **options), decider(source, state_loss=0.5, return_loss=0.25, **options)
    more.load_state_dict(plain.state_dict(), strict=False)
    batch = examples(more, source)
    hidden, fields = hidden_of(more, batch), batch.tokens.fields
    done = hidden[fields[ACTION].index[n_each - 1 :: n_each]]
    expected, _ = plain.loss(batch)
    for i in range(len(done)):
        expected = expected + n_each * 0.25 * more.head(RETURN).loss(done[i : i + 1], batch.target[i : i + 1])
        if i + 1 < len(done) and fields[STATE].sample[i] == fields[STATE].sample[i + 1]:
            expected = expected + n_each * 0.5 * more.head(STATE).loss(
                done[i : i + 1], fields[STATE].content[i + 1 : i + 2]
            )
    total, n_targets = more.loss(batch)
    torch.testing.assert_close(total, expected)
    assert n_targets == n_each * len(done)


# What the data decides


def test_spaces_scales_and_the_known_returns_come_from_the_data() -> None:
    source = walks("picture")
    task = decider(source, tokenizers={"state.picture": Frames(patch=2)})
    assert list(task.tokenizers) == ["return", "state.picture", "state.where", "action"]
    assert task.tokenizers["state.picture"].patch == 2
    assert task.tokenizers["action"] == Categories(shape=(), dtype="int64", max_steps=12, counts=(2,), starts=(0,))
    seen = np.concatenate([source.episode(i).observations["where"][:-1] for i in range(len(source))])
    assert task.tokenizers["state.where"].mean == pytest.approx(seen.mean(0), abs=1e-5)
    totals = [source.episode(i).total for i in range(len(source))]
    assert task.known_returns == (min(totals), max(totals))
    assert task.environment == world("picture")
    assert choose_target_return(task.acting_model()) == max(totals)
    again = instantiate(task.config())
    assert json.dumps(again.config()) == json.dumps(task.config())


def test_the_playing_environment_has_the_bounds_that_a_file_does_not_tell(tmp_path: Path) -> None:
    n = 12
    np.savez(
        tmp_path / "demos.npz",
        observations=np.random.default_rng(0).random((n, 3), dtype=np.float32),
        actions=np.zeros((n, 1), np.float32),
        rewards=np.zeros(n, np.float32),
        episode_lengths=np.array([5, 7]),
    )
    task = Decide(transformer=SMALL, environment=EnvironmentConfig("Pendulum-v1"), context=5)
    task.fit_tokenizers(task.open(str(tmp_path / "demos.npz")))
    assert (task.tokenizers["action"].low, task.tokenizers["action"].high) == ((-2.0,), (2.0,))
    assert task.tokenizers["state"].max_steps == 200
    not_played = Decide(transformer=SMALL, context=5)
    not_played.fit_tokenizers(not_played.open(str(tmp_path / "demos.npz")))
    assert not_played.tokenizers["action"].low == (None,)
    assert not_played.metric == ("val/loss", "min")
    elsewhere = Decide(transformer=SMALL, environment=EnvironmentConfig("Pendulum-v1"), context=5, play=None)
    elsewhere.fit_tokenizers(elsewhere.open(str(tmp_path / "demos.npz")))
    assert elsewhere.tokenizers["state"].max_steps == 200, "it may be played later"
    unknown = Decide(transformer=SMALL, environment=EnvironmentConfig("Pendulums-v1"), context=5, play=None)
    unknown.fit_tokenizers(walks("box"))
    with pytest.raises(InputError, match=r"environment Pendulums-v1.*; to train without playing set model.play"):
        Decide(transformer=SMALL, environment=EnvironmentConfig("Pendulums-v1"), context=5).fit_tokenizers(walks("box"))


# Runs


@pytest.mark.parametrize("kind", ["picture", "pair"])
def test_a_run_plays_and_comes_back(kind: str, tmp_path: Path) -> None:
    task = learned(walks(kind), tmp_path, return_dropout=0.1, return_loss=0.1, reference=(-6.0, 6.0))
    metrics = read_metrics(tmp_path)
    assert metrics.keys() >= {"val/loss", "val/accuracy", "val/return", "val/length", "test/return", "test/accuracy"}
    assert metrics["val/score"] == pytest.approx(100 * (metrics["val/return"] + 6) / 12, rel=1e-4)
    assert metrics["best/val/return"] == pytest.approx(metrics["val/return"])
    back = load(tmp_path)
    assert back.config() == task.config()
    ours, theirs = ([e.actions for e in episodes(each.acting_model())] for each in (task, back))
    assert json.dumps(ours, default=np.ndarray.tolist) == json.dumps(theirs, default=np.ndarray.tolist)
    # Another asked return is for the evaluation to choose.
    back.play = PlayConfig(episodes=2, target_return=1.0)
    assert evaluate(back, Records(walks(kind), 0.25, 0.25), "validate", None, **QUIET)["val/length"] > 0


def test_the_test_plays_other_episodes_than_the_validation() -> None:
    """How long an episode of this environment is, its seed decides alone."""
    counter = EnvironmentConfig("Counter-v0")
    play = PlayConfig(episodes=6, seed=4)
    task = decider(Collected(counter, ("random",), 30), environment=counter, context=3, play=play)
    source = Collected(counter, ("random",), 4)
    found = {}
    for stage in ("validate", "test"):
        found |= evaluate(task, Records(source, source, source), stage, None, **QUIET)
    lengths = {seed: [length_of(seed, k) for k in range(6)] for seed in (4, 5)}
    assert found["val/length"] == pytest.approx(np.mean(lengths[4]))
    assert found["test/length"] == pytest.approx(np.mean(lengths[5]))
    predicted = [row["length"] for row in task.rollout()]
    assert predicted == lengths[5] and np.mean(lengths[4]) != np.mean(lengths[5])


def length_of(seed: int, number: int) -> int:
    return int(np.random.default_rng(np.random.PCG64(episode_seed(seed, number))).integers(1, 10))


@pytest.mark.parametrize("by", ["validate", "test", "rollout", "episodes", "policy"])
def test_the_temperature_reaches_the_actor(by: str) -> None:
    """So high a temperature makes all actions as likely, so low a one takes the likeliest, whoever plays."""
    task = decider(walks("picture"), known_returns=(-6.0, 5.0))

    def returned(temperature: float) -> float:
        """The mean return, which tells how often the policy went to the right."""
        play = PlayConfig(episodes=24, temperature=temperature, seed=1)
        if by in ("validate", "test"):
            task.play = play
            records = Records(walks(), walks("picture", 2), walks("picture", 2))
            metrics = evaluate(task, records, by, None, **QUIET)
            return metrics["test/return" if by == "test" else "val/return"]
        if by == "rollout":
            task.play = play
            return float(np.mean([row["return"] for row in task.rollout()]))
        if by == "episodes":
            return float(np.mean([e.total for e in episodes(task.acting_model(), play=play)]))
        actor = task.policy(play=play).actor
        return float(np.mean([e.total for e in play_out(world(), actor, 24, 1)]))

    greedy, cold, warm, hot = (returned(temperature) for temperature in (0.0, 1e-4, 1.0, 1e4))
    assert cold == pytest.approx(greedy)
    assert len({round(each, 3) for each in (cold, warm, hot)}) == 3
    random = float(np.mean([e.total for e in play_out(world(), RandomActor(task.spaces[1], 5), 200, 1)]))
    assert abs(hot - random) < abs(greedy - random) / 2


def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    optimizer = OptimizerConfig("muon", lr=0.01, warmup=0.0, schedule="constant", ema=0.9)
    options = {"return_dropout": 0.3, "play": None, "optimizer": optimizer}
    learned(walks("box"), tmp_path / "whole", epochs=2, **options)
    learned(walks("box"), tmp_path / "parts", **options)
    task = Decide(**{"transformer": SMALL, "context": 5} | options)
    data = Records(walks("box"), 0.25, 0.25, batch_size=8)
    fit(task, data, tmp_path / "parts", resume=True, max_epochs=2, saving=Saving(), **QUIET)
    whole, parts = (read_rows(tmp_path / name / "metrics.csv") for name in ("whole", "parts"))
    assert [row["val/loss"] for row in whole] == [row["val/loss"] for row in parts]


def test_a_model_learns_the_order_of_good_and_bad(tmp_path: Path) -> None:
    """Episodes of both, told apart by their returns alone: the target return is the one obtained."""
    torch.manual_seed(0)
    optimizer = OptimizerConfig("muon", lr=0.02, adamw_lr=0.01)
    task = Decide({"action": Bins(n_bins=4)}, SMALL, optimizer=optimizer, context=5, play=None)
    data = Records(Collected(world("box"), ("random",), 100), batch_size=16)
    fit(task, data, tmp_path, max_epochs=16, **QUIET)
    most, least = (
        np.mean(
            [
                e.total
                for e in episodes(
                    task.acting_model(), play=PlayConfig(20, target_return=target_return, temperature=1.0)
                )
            ]
        )
        for target_return in (5.0, -6.0)
    )
    assert most > least + 2


def test_weights_of_another_run_come_with_its_scales(tmp_path: Path) -> None:
    first = learned(walks("box"), tmp_path / "first", play=None)
    task = Decide(transformer=SMALL, context=5, play=None, init_from=str(tmp_path / "first"))
    fit(task, Records(walks("box", 8), batch_size=8), tmp_path / "next", max_epochs=1, **QUIET)
    for name in ("return", "state", "action"):
        ours, theirs = task.tokenizers[name], first.tokenizers[name]
        assert (getattr(ours, "mean", None), getattr(ours, "scale", None)) == (
            getattr(theirs, "mean", None),
            getattr(theirs, "scale", None),
        )


def test_the_hopper_of_the_paper_learns_from_what_is_collected_here(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    write_minari(Collected(EnvironmentConfig("Hopper-v5"), ("random",), 8), tmp_path / "hopper-v0")
    command = ["fit", "--config", str(CONFIGS / "hopper.yaml"), "--run_dir", str(tmp_path / "run")]
    command += [f"--data.train={tmp_path / 'hopper-v0'}", "--data.validation=0.25", "--model.context=5"]
    command += ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--model.play.episodes=2"]
    assert main([*command, "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]) == 0
    metrics = read_metrics(tmp_path / "run")
    assert metrics["val/score"] == pytest.approx(100 * (metrics["val/return"] + 20.272305) / (3234.3 + 20.272305))
    task = load(tmp_path / "run")
    assert task.tokenizers["return"].scale == 1000
    assert task.model.embeddings.positions[0].sizes == (1000,)


# The command line


CONFIG = """\
model:
  class_path: Decide
  init_args:
    tokenizers: {state.picture: {class_path: Frames, init_args: {patch: 2}}}
    transformer: {d_model: 16, depth: 1, n_heads: 2, rotary: {axes: [step]}}
    context: 5
    play: {episodes: 2}
data:
  train:
    class_path: Collected
    init_args: {environment: {id: Corridor-v0}, policies: [random], episodes: 8}
  validation: 0.25
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
"""


def test_a_picture_and_a_vector_train_and_play_without_a_line_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("walk.yaml").write_text(CONFIG)
    assert main(["fit", "--config", "walk.yaml"]) == 0
    assert "anyformer predict runs/walk --episodes 100" in capsys.readouterr().out
    assert load("runs/walk").tokenizers["state.picture"].patch == 2
    assert main(["predict", "runs/walk", "--episodes", "3", "--target_return", "2", "--output", "walks.csv"]) == 0
    assert re.search(r"target +return .*\n +2 .* 3\n", capsys.readouterr().out)
    assert Path("walks.csv").read_text().startswith("episode,target_return,return,length,error\n0,2.0,")
    assert main(["predict", "runs/walk", "--episodes", "2", "--json"]) == 0
    assert [json.loads(line)["episode"] for line in capsys.readouterr().out.splitlines()] == [0, 1]
    assert main(["predict", "runs/walk", "--episodes", "2", "--sweep", "--video", "walk.mp4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 11 + 1
    assert Path("runs/walk/sweep.png").stat().st_size > 1000
    assert Path("walk.mp4").stat().st_size > 1000
    assert main(["validate", "runs/walk", "--model.play.target_return=1", "--model.play.episodes=3"]) == 0
    for words, message in [
        ("run runs/walk state=3", "the model of runs/walk is given no fields, got 'state=3'"),
        ("run runs/walk --plan", "a plan needs a model that was trained with state_loss and return_loss and"),
        ("run runs/walk --sweep --target_return 3", "--sweep asks for many returns by itself"),
        ("run runs/walk --video walk.gif", "--video must end in .mp4, got walk.gif"),
        ("run runs/walk --episodes 0", "anyformer: --episodes must be at least 1, got 0"),
        ("run runs/walk --target_retrun 0", "there is no option --target_retrun; did you mean 'target_return'"),
        ("fit --config walk.yaml --run_dir x --model.context=50", "context is 50 steps, longer than every episode"),
        ("fit --config walk.yaml --run_dir x --data.train.init_args.environment.id=Coridor-v0", "mean 'Corridor-v0'"),
    ]:
        capsys.readouterr()
        assert main(words.split()) == 2
        assert message in capsys.readouterr().err


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": 0}, "context must be at least 1 step, got 0"),
        ({"return_dropout": 1.5}, "return_dropout must be from 0 to 1, got 1.5"),
        ({"state_loss": -1.0}, "state_loss must be a number from 0, got -1.0"),
        ({"return_loss": float("nan")}, "return_loss must be a number from 0, got nan"),
        ({"returns": False, "return_loss": 1.0}, "returns: false leaves no return to drop, to predict or to cut"),
        ({"returns": False, "tokenizers": {"return": Returns()}}, "returns: false leaves no return"),
        ({"tokenizers": {"sate": Vector()}}, "there is no field 'sate'; fields are return, state... and action..."),
    ],
)
def test_arguments_that_cannot_be_say_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Decide(**options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("box", {"context": 13}, "context is 13 steps, longer than every episode: the longest has 12; take at most 12"),
        ("box", {"tokenizers": {"state.x": Vector()}}, "there is no field 'state.x'; there are return, state, action"),
        ("picture", {"state_loss": 1.0}, "state_loss: the field 'state.picture' has several tokens a step"),
    ],
)
def test_what_does_not_fit_the_episodes_says_why(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        decider(walks(kind), **options)


def test_what_lacks_something_says_what() -> None:
    with pytest.raises(InputError, match="Digits has no episodes; give Episodes"):
        Decide().fit_tokenizers(Digits())
    with pytest.raises(InputError, match="the spaces are not known yet: learn from episodes first"):
        Decide().build()
    with pytest.raises(InputError, match="was trained without returns and takes no target return"):
        decider(walks("box"), returns=False).policy(target_return=3.0)
    with pytest.raises(InputError, match="record 0 must be an Episode, or hold one as `episode`; it has nothing"):
        decider(walks("box")).predict([{}])
    task = decider(walks("box"))
    task.environment = None
    with pytest.raises(InputError, match="the model knows no environment to play in"):
        list(episodes(task.acting_model()))


def test_another_environment_than_that_of_the_training_is_refused(tmp_path: Path) -> None:
    task = decider(walks("box"))
    task.environment = world("pair")
    with pytest.raises(InputError, match=r"observation(\.0)?: training had"):
        list(episodes(task.acting_model(), play=PLAY))
    learned(walks("box"), tmp_path, play=None)
    other = Decide(transformer=SMALL, context=5, play=None, environment=EnvironmentConfig("Corridor-v1"))
    with pytest.raises(InputError, match=r"another task: environment\.id was 'Corridor-v0' and is"):
        fit(other, Records(walks("box"), 0.25, 0.25, batch_size=8), tmp_path, resume=True, max_epochs=2, **QUIET)


def test_an_environment_that_raises_is_named_with_its_step() -> None:
    task = decider(walks("box"))
    task.environment = world("box", raises_at=2)
    with pytest.raises(InputError, match="Corridor-v0 raised in episode 0, in step 2: RuntimeError: the floor is gone"):
        list(episodes(task.acting_model(), play=PLAY))


def test_an_episode_that_is_not_of_the_environment_is_named() -> None:
    space = gymnasium.spaces.Box(-9, 9, (2,))
    seen, done = np.zeros((6, 2), np.float32), np.full((6, 2), 5.0, np.float32)
    wrong = Episode(seen, done, np.zeros(6), walks("box").spaces[0], space, name="demos.npz episode 0")

    class One(Collected):
        spaces = (wrong.observation_space, space)
        lengths = np.array([6])

        def episode(self, i: int) -> Episode:
            return wrong

    with pytest.raises(InputError, match=r"demos.npz episode 0: action, step 0: value 0 is 5, and the space is from"):
        Decide(transformer=SMALL, context=5).fit_tokenizers(One(world("box"), ("random",), 1))


def test_what_attention_does_not_go_by_has_a_table() -> None:
    bins = {"action": Bins(n_bins=7)}
    rotary = decider(walks("box"), tokenizers=bins)
    assert [(each.axes, each.sizes) for each in placed(rotary)] == [(("element",), (2,))]
    plain = decider(walks("picture"), transformer=TransformerConfig(d_model=16, depth=1, n_heads=2))
    assert [(each.axes, each.sizes) for each in placed(plain)] == [(("step",), (12,)), (("row", "column"), (4, 6))]
    given = decider(walks("box"), tokenizers=bins, embedding=EmbeddingConfig(positions=[PositionConfig(("step",))]))
    assert [each.axes for each in placed(given)] == [("step",)]
    assert plain.config()["init_args"]["embedding"]["positions"] is None


def placed(task: Decide) -> list[Any]:
    """The position tables of a model, with their axes."""
    embeddings = task.model.embeddings
    return [
        SimpleNamespace(axes=config.axes, sizes=table.sizes)
        for config, table in zip(embeddings.placed, embeddings.positions, strict=True)
    ]

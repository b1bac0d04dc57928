"""Decision transformers: a training step at Hopper's sizes, and acting in CartPole, ours against others in turn.

    uv run --group peers python benchmarks/decision.py [--device cuda] [--rounds 7] [--steps 5] [--only acting] [--tiny]

Training: states of 11 numbers, actions of 3, windows of 20 steps, 3 layers, 128 wide, one head, batch 64, dropout 0.1,
float32, AdamW (fused but for d3rlpy's). Sides: transformers' DecisionTransformerModel; d3rlpy's DecisionTransformer, by
its own update; ours, with the weights of transformers'. All take the same windows of drawn episodes of 20 to 1,000
steps: theirs padded on the left, ours as they are. Making batches is not in a step, which data workers do. Our step
divides the gradients by the number of targets and looks whether they are finite, as `Task` does. That ours has the loss
of transformers' is seen to first. Rounds go A B C A B C; the figures are medians over the rounds.

Acting: CartPole-v1 asked for 500, by one set of weights, a model of the same sizes that is trained here first on
episodes collected here (`--learn` steps). Theirs is played as its users play it, one environment at a time, the last 20
steps computed anew for every action, without padding. Ours plays 100 environments together (`--together`) on cached
keys and values, and once more with past_context: exact, which computes the last 20 steps anew for every action and so
must do the same as theirs. Episodes begin alike; those that both play are shown side by side.
"""

import argparse
import statistics
import time
from dataclasses import dataclass, replace

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from transformers import DecisionTransformerConfig, DecisionTransformerModel
from transformers.utils import logging

from anyformer.optim.optimizer import make_optimizer
from anyformer.tasks.base.training import divide_gradients
from anyformer.tasks.convert.decide import decide_task, with_spaces
from anyformer.tasks.decide.actor import PlayConfig
from anyformer.tasks.decide.batch import CutEpisodes, EpisodeWindows
from anyformer.tasks.decide.collect import Collected
from anyformer.tasks.decide.play import episodes
from anyformer.tasks.decide.rollout import episode_seed
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode, EpisodeSource
from anyformer.weights.decision_transformer import DECISION_TRANSFORMER
from anyformer.weights.huggingface import Settings

logging.set_verbosity_error()
BATCH, CONTEXT, LONGEST = 64, 20, 1000
HOPPER = {"state_dim": 11, "act_dim": 3, "max_ep_len": LONGEST, "action_tanh": True}
CARTPOLE = {"state_dim": 4, "act_dim": 2, "max_ep_len": 500, "action_tanh": False}
SIZES = {"hidden_size": 128, "n_layer": 3, "n_head": 1, "n_positions": 1}
TINY = {"hidden_size": 16, "n_layer": 1, "n_head": 1, "n_positions": 1}


@dataclass(frozen=True)
class Drawn(EpisodeSource):
    """Episodes of random numbers, as long as Hopper's."""

    n: int
    played_in = None

    def name(self, i):
        return f"drawn episode {i}"

    @property
    def lengths(self):
        return np.random.default_rng(0).integers(CONTEXT, LONGEST, self.n, endpoint=True)

    @property
    def spaces(self):
        seen = spaces.Box(-np.inf, np.inf, (HOPPER["state_dim"],), np.float32)
        return seen, spaces.Box(-1, 1, (HOPPER["act_dim"],), np.float32)

    def episode(self, i):
        random, t = np.random.default_rng((1, i)), self.lengths[i]
        states = random.normal(size=(t, HOPPER["state_dim"])).astype(np.float32)
        actions = random.uniform(-1, 1, (t, HOPPER["act_dim"])).astype(np.float32)
        return Episode(states, actions, random.uniform(0, 3 / t, t).astype(np.float32), *self.spaces)


def make_theirs(sizes, device, dropout):
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return DecisionTransformerModel(DecisionTransformerConfig(**sizes, **drops)).to(device)


def make_ours(theirs, device, environment=None, **parts):
    """Our task of the same sizes and weights, with the head of the action alone."""
    settings = Settings({**theirs.config.to_dict(), "context_length": CONTEXT, **parts}, "DecisionTransformerConfig")
    settings = with_spaces(settings, environment)
    task = decide_task(DECISION_TRANSFORMER.design(settings, "DecisionTransformerModel"), settings)
    task.state_loss = task.return_loss = 0.0
    task.build()
    DECISION_TRANSFORMER.load(task, None, theirs.state_dict(), settings, "DecisionTransformerModel")
    return task.to(device)


def give_weights(task, theirs):
    """Theirs takes the weights of ours."""
    theirs.load_state_dict(DECISION_TRANSFORMER.unload(task, None))


# Training


def pad_left(window):
    """What theirs takes of a window, each (20, ...); 0 where there is no step."""
    n = len(window.values["reward"])
    parts = {"states": "state", "actions": "action", "returns_to_go": "return"}
    row = {name: window.values[own].reshape(n, -1) for name, own in parts.items()}
    row |= {"timesteps": window.start + np.arange(n), "attention_mask": np.ones(n)}
    return {
        name: torch.from_numpy(np.concatenate([np.zeros((CONTEXT - n, *part.shape[1:]), part.dtype), part]))
        for name, part in row.items()
    }


def draw_batches(task, n_batches, device):
    """The same windows for all sides: (for transformers, for d3rlpy, for ours, how many steps they have)."""
    from d3rlpy.torch_utility import TorchTrajectoryMiniBatch

    source = Drawn(100)
    windows, chopper = (
        EpisodeWindows(CutEpisodes(source, *source.spaces), CONTEXT, training=True),
        task.chopper(training=True),
    )
    batches = []
    for b in range(n_batches):
        items = [chopper(windows[0], np.random.default_rng((2, b, i))) for i in range(BATCH)]
        rows = [pad_left(item) for item in items]
        theirs = {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}
        blank = torch.zeros(BATCH, CONTEXT, 1, device=device)
        peer = TorchTrajectoryMiniBatch(
            observations=theirs["states"],
            actions=theirs["actions"],
            rewards=blank,
            returns_to_go=theirs["returns_to_go"],
            terminals=blank,
            # It keeps number 0 for padding.
            timesteps=(theirs["timesteps"] + 1) * theirs["attention_mask"].long(),
            masks=theirs["attention_mask"].float(),
            device=str(device),
        )
        batches.append((theirs, peer, chopper.collate(items).to(device), int(theirs["attention_mask"].sum())))
    return batches


def their_loss(theirs, batch):
    real = batch["attention_mask"].bool()
    return (theirs(**batch).action_preds[real] - batch["actions"][real]).square().mean()


def training_steps(theirs, ours, sizes, device):
    """Name -> a call that does an optimiser's step on a batch, and the number of parameters."""
    from d3rlpy.algos import DecisionTransformerConfig as PeerConfig
    from d3rlpy.models import VectorEncoderFactory
    from d3rlpy.optimizers import AdamWFactory

    width = sizes["hidden_size"]
    peer = PeerConfig(
        batch_size=BATCH,
        context_size=CONTEXT,
        max_timestep=LONGEST,
        num_heads=sizes["n_head"],
        num_layers=sizes["n_layer"],
        encoder_factory=VectorEncoderFactory([width], exclude_last_activation=True),
        optim_factory=AdamWFactory(),
    ).create(str(device))
    peer.create_impl((sizes["state_dim"],), sizes["act_dim"])
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4, fused=True)
    our_optimizer = make_optimizer(ours, [ours.model.transformer], replace(ours.optimizer, lr=1e-4))
    theirs.train()
    ours.train()

    def step_theirs(batch):
        their_loss(theirs, batch[0]).backward()
        their_optimizer.step()
        their_optimizer.zero_grad()

    def step_peer(batch):
        peer.impl.update(batch[1], 0)

    def step_ours(batch):
        loss, n_targets = ours.loss(batch[2])
        loss.backward()
        assert divide_gradients(our_optimizer, n_targets).isfinite()
        our_optimizer.step()
        our_optimizer.zero_grad()

    sides = {"transformers": (step_theirs, theirs), "d3rlpy": (step_peer, peer.impl.modules.transformer)}
    sides["anyformer"] = step_ours, ours
    return {name: (step, sum(p.numel() for p in model.parameters())) for name, (step, model) in sides.items()}


def compare_training(options):
    sizes = HOPPER | (TINY if options.tiny else SIZES)
    theirs = make_theirs(sizes, options.device, dropout=0.1)
    ours = make_ours(theirs, options.device)
    batches = draw_batches(ours, options.steps, options.device)
    with torch.no_grad():
        expected = their_loss(theirs.eval(), batches[0][0])
        loss, n_targets = ours.eval().loss(batches[0][2])
    torch.testing.assert_close(loss / n_targets, expected, rtol=1e-4, atol=1e-6)
    sides = training_steps(theirs, ours, sizes, options.device)
    rates = {name: [] for name in sides}
    n_steps = sum(n for *_, n in batches)
    print(f"training: {len(batches)} batches of {BATCH} windows, {n_steps} real timesteps")
    for turn in range(options.rounds + 1):
        for name, (step, _) in sides.items():
            start = time.perf_counter()
            for batch in batches:
                step(batch)
            if options.device == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                rates[name].append(n_steps / (time.perf_counter() - start))
    own = statistics.median(rates["anyformer"])
    for name, (_, n_parameters) in sides.items():
        rate = statistics.median(rates[name])
        print(f"  {name:<13} {rate:9.0f} timesteps/s  anyformer is {own / rate:5.2f} x  {n_parameters} parameters")


# Acting


def learn(task, n_steps, device):
    """Train on collected episodes of all qualities, and give the mean loss of the last steps."""
    source = Collected(task.environment, ("random", "scripted:0.5", "scripted:0.2", "scripted"), 80, seed=1)
    windows, chopper = (
        EpisodeWindows(CutEpisodes(source, *task.spaces), CONTEXT, training=True),
        task.chopper(training=True),
    )
    optimizer = make_optimizer(task, [task.model.transformer], replace(task.optimizer, lr=1e-3))
    task.train()
    losses = []
    for step in range(n_steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 50, 2 * (n_steps - step) / n_steps)
        items = [chopper(windows[0], np.random.default_rng((step, i))) for i in range(BATCH)]
        loss, n_targets = task.loss(chopper.collate(items).to(device))
        loss.backward()
        divide_gradients(optimizer, n_targets)
        optimizer.step()
        optimizer.zero_grad()
        losses.append((loss / n_targets).item())
    return statistics.mean(losses[-20:])


@torch.no_grad()
def play_theirs(theirs, n_episodes, asked, scale, device):
    """One environment after another; the return of each episode."""
    environment, returns = gymnasium.make("CartPole-v1"), []
    for number in range(n_episodes):
        observation, _ = environment.reset(seed=episode_seed(0, number))
        states, actions, left, over = [], [], [asked / scale], False
        while not over:
            states.append(observation)
            actions.append(np.zeros(2, np.float32))
            steps = torch.arange(len(states), device=device)[None, -CONTEXT:]
            parts = {"states": states, "actions": actions, "returns_to_go": left}
            given = {
                name: torch.tensor(np.array(part[-CONTEXT:], np.float32), device=device).view(1, steps.shape[1], -1)
                for name, part in parts.items()
            }
            said = theirs(**given, timesteps=steps, attention_mask=torch.ones_like(steps)).action_preds
            action = int(said[0, -1].argmax())
            observation, reward, terminated, truncated, _ = environment.step(action)
            actions[-1] = np.eye(2, dtype=np.float32)[action]
            left.append(left[-1] - reward / scale)
            over = terminated or truncated
        returns.append(len(states))
    environment.close()
    return returns


def compare_acting(options):
    device, scale, asked = options.device, 500.0, 500.0
    theirs = make_theirs(CARTPOLE | (TINY if options.tiny else SIZES), device, dropout=0.0)
    ours = make_ours(theirs, device, "CartPole-v1", return_scale=scale)
    assert ours.environment == EnvironmentConfig("CartPole-v1")
    loss = learn(ours, options.learn, device)
    give_weights(ours.eval(), theirs.eval())
    print(f"acting: CartPole-v1, asked for {asked:.0f}; trained for {options.learn} steps, to a loss of {loss:.3f}")

    def play_ours(past_context, n_episodes):
        together = min(options.together, n_episodes)
        play = PlayConfig(n_episodes, together, past_context, target_return=asked)
        return [round(episode.total) for episode in episodes(ours.acting_model(), play=play)]

    few = min(options.few, options.episodes)
    sides = {
        "transformers, one at a time": lambda: play_theirs(theirs, few, asked, scale, device),
        "anyformer, exact": lambda: play_ours("exact", options.episodes),
        "anyformer, cached": lambda: play_ours("halve", options.episodes),
    }
    played, rates = {}, {}
    for name, run in sides.items():
        start = time.perf_counter()
        played[name] = run()
        rates[name] = sum(played[name]) / (time.perf_counter() - start)
    base = rates["transformers, one at a time"]
    for name, returns in played.items():
        print(
            f"  {name:<28} {rates[name]:8.0f} environment steps/s  {rates[name] / base:5.1f} x  "
            f"mean return {statistics.mean(returns):6.1f} over {len(returns)} episodes, "
            f"{statistics.mean(returns[:few]):6.1f} over the first {few}"
        )
    same = sum(a == b for a, b in zip(played["transformers, one at a time"], played["anyformer, exact"], strict=False))
    print(f"  of the first {few} episodes exact comes to the same return as transformers in {same}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="of a round")
    parser.add_argument("--learn", type=int, default=600, help="steps that the policy of CartPole is trained for")
    parser.add_argument("--episodes", type=int, default=100, help="that ours plays")
    parser.add_argument("--few", type=int, default=10, help="episodes that theirs plays")
    parser.add_argument("--together", type=int, default=100, help="environments that ours steps together")
    parser.add_argument("--only", choices=["training", "acting"])
    parser.add_argument("--tiny", action="store_true", help="models of a moment, to try this file")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.device}, {torch.get_num_threads()} threads")
    if options.only != "acting":
        compare_training(options)
    if options.only != "training":
        compare_acting(options)


if __name__ == "__main__":
    main()

"""Rollouts of a trained policy: what `anyformer predict` plays, their metrics, and target against achieved return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from anyformer.errors import InputError
from anyformer.saving.atomic import write_whole
from anyformer.tasks.decide.actor import ActingModel, LearnedActor, PlayConfig, PlayOptions
from anyformer.tasks.decide.lookahead import Planner
from anyformer.tasks.decide.rollout import Actor
from anyformer.tasks.decide.rollout import play as roll_out
from anyformer.tasks.decide.video_file import Video
from anyformer.tokenizers.episode.environments import make
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode
from anyformer.tokenizers.episode.spaces import compare

AT_ONCE = 128
"""Environments that are stepped together, where nothing else is said."""
N_TARGET_RETURNS = 11
"""Returns that a sweep asks for."""


@dataclass(frozen=True)
class RolloutConfig(PlayOptions):
    """What a trained policy is to play."""

    option: ClassVar[str] = "--"

    target_return: float | None = None
    """The target return; what the run's config asks for, or else the best of the training episodes, when
    left out."""
    sweep: bool = False
    """Ask for 11 returns, from the lowest to the highest of the training episodes, and draw what is obtained as
    sweep.png in the run's folder."""
    plan: bool = False
    """Look ahead with the heads of the next state and of the return, and do what promises most; no return is asked
    for."""
    candidates: int = 16
    """Of a plan: first actions that are tried; all that there are where they are no more, else drawn."""
    horizon: int = 4
    """Of a plan: steps that are imagined, before the return is predicted that comes after them."""
    video: str | None = None
    """FILE.mp4 for what the first environment shows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweep and (self.target_return is not None or self.plan):
            raise InputError("--sweep asks for many returns by itself; give it without --target_return and --plan")
        if self.plan and self.target_return is not None:
            raise InputError("--plan asks for no return, but for the most; give it without --target_return")
        for name in ("candidates", "horizon"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, got {getattr(self, name)}")

    def play(self, target_return: float | None) -> PlayConfig:
        """How it is played with a target return."""
        return PlayConfig(**self.shared, target_return=target_return)


def return_metrics(episodes: Sequence[Episode], reference: tuple[float, float] | None = None) -> dict[str, float]:
    """The metrics of episodes: the mean return and length; the share that reached the goal, where that is known; and
    the score, where there is a reference: 0 is its first return, 100 its second (D4RL, Fu et al. 2020, 4)."""
    returns = float(np.mean([episode.total for episode in episodes]))
    metrics = {"return": returns, "length": float(np.mean([len(episode) for episode in episodes]))}
    success = [episode.success for episode in episodes if episode.success is not None]
    if success:
        metrics["success"] = float(np.mean(success))
    if reference is not None:
        metrics["score"] = score(returns, reference)
    return metrics


def score(value: float, reference: tuple[float, float]) -> float:
    """A return, or a mean of them, normalised (D4RL, Fu et al. 2020, section 4)."""
    return 100 * (value - reference[0]) / (reference[1] - reference[0])


def check_environment(acting: ActingModel, environment: EnvironmentConfig) -> None:
    """Raise InputError where an environment's spaces are not those that the model was trained with."""
    made = make(environment)
    spaces = made.observation_space, made.action_space
    made.close()
    for now, before, what in zip(spaces, acting.spaces, ("observation", "action"), strict=True):
        compare(now, before, what)


def episodes(
    acting: ActingModel,
    actor: Actor | None = None,
    play: PlayConfig | None = None,
    frames: Callable[[np.ndarray], None] | None = None,
) -> Iterator[Episode]:
    """Play the policy, or another actor, in its environment; see `rollout.play`.

    Raises InputError where there is none, or its spaces are not those that the model was trained with.
    """
    if acting.environment is None:
        raise InputError("the model knows no environment to play in; train with model.environment: {id: ...}")
    check_environment(acting, acting.environment)
    play = play or acting.play or PlayConfig()
    n = play.n_environments or AT_ONCE
    actor = actor or LearnedActor(acting, play=play)
    yield from roll_out(acting.environment, actor, play.episodes, play.seed, n, frames)


def rollout(acting: ActingModel, options: RolloutConfig, folder: Path | None) -> Iterator[dict[str, Any]]:
    """Play, and say of each episode: its number, the target return (None with a plan), the return, the length,
    success and score where they are known. A sweep draws `sweep.png` into the folder.

    Raises InputError for what the model has not learned.
    """
    if options.sweep and (acting.known_returns is None or not acting.returns):
        raise InputError("--sweep: the model was trained without returns and takes no target return")
    by_config = None if acting.play is None or options.plan else acting.play.target_return
    target_return: list[float | None] = [by_config if options.target_return is None else options.target_return]
    if options.sweep:
        target_return = np.unique(np.linspace(*acting.known_returns, N_TARGET_RETURNS)).tolist()
    results = []
    for number, value in enumerate(target_return):
        play = options.play(value)
        planner = Planner(acting, play, options.candidates, options.horizon) if options.plan else None
        actor = planner or LearnedActor(acting, play=play)
        told = None if options.plan or not acting.returns else actor.target_return
        for episode in _filmed(acting, actor, play, None if number else options.video):
            results.append(_row(episode, len(results), told, acting.reference))
            yield results[-1]
    if options.sweep and folder is not None:
        draw_sweep(results, folder / "sweep.png", acting.known_returns)


def _filmed(acting: ActingModel, actor: Actor, play: PlayConfig, video: str | None) -> Iterator[Episode]:
    if video is None:
        yield from episodes(acting, actor, play)
        return
    made = make(acting.environment)
    fps = int(made.metadata.get("render_fps") or 30)
    made.close()
    with Video(video, fps) as film:
        yield from episodes(acting, actor, play, film.add)


def _row(
    episode: Episode, number: int, target_return: float | None, reference: tuple[float, float] | None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "episode": number,
        "target_return": target_return,
        "return": episode.total,
        "length": len(episode),
    }
    if episode.success is not None:
        row["success"] = bool(episode.success)
    if reference is not None:
        row["score"] = score(episode.total, reference)
    return row


def by_target_return(results: Sequence[Mapping[str, Any]]) -> dict[float | None, list[Mapping[str, Any]]]:
    """The results by the target return."""
    groups: dict[float | None, list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["target_return"], []).append(result)
    return groups


def summarize(results: Sequence[Mapping[str, Any]], known_returns: tuple[float, float] | None) -> str:
    """The means of the results as a table, a line for each target return."""
    columns = [name for name in ("length", "success", "score") if any(name in result for result in results)]
    lines = [["target", "return", "+-", "lowest", "highest", *columns, "episodes"]]
    for target_return, group in by_target_return(results).items():
        returns = np.array([result["return"] for result in group])
        numbers = [returns.mean(), returns.std(), returns.min(), returns.max()]
        cells = [f"{number:.1f}" for number in numbers]
        for name in columns:
            known = [result[name] for result in group if name in result]
            cells.append("-" if not known else f"{np.mean(known):.{2 if name == 'success' else 1}f}")
        lines.append(["-" if target_return is None else f"{target_return:g}", *cells, str(len(group))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    known_range = (
        "" if known_returns is None else "\nThe training episodes returned {:.1f} to {:.1f}.".format(*known_returns)
    )
    return text + known_range


def draw_sweep(results: Sequence[Mapping[str, Any]], path: Path, known_returns: tuple[float, float]) -> None:
    """Draw the achieved returns, means and deviations, over their targets."""
    # Matplotlib is slow to import, and a sweep alone needs it.
    from matplotlib.figure import Figure

    groups = by_target_return(results)
    returns = [np.array([result["return"] for result in group]) for group in groups.values()]
    page = Figure(figsize=(5, 4.5), layout="constrained")
    panel = page.subplots()
    panel.axline((known_returns[1],) * 2, slope=1, color="grey", linestyle=":", label="on target")
    means, deviations = [each.mean() for each in returns], [each.std() for each in returns]
    panel.errorbar(list(groups), means, deviations, marker="o", capsize=3, label="mean and deviation")
    panel.set(xlabel="target return", ylabel="achieved return", title=f"{len(returns[0])} episodes each")
    panel.grid(alpha=0.3)
    panel.legend()
    write_whole(path, lambda part: page.savefig(part, format="png", dpi=100))

"""What the episodes that a policy learns from came to themselves, and what chance does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from anyformer.baselines.examples import CALLED
from anyformer.baselines.report import Line, Outcome
from anyformer.data.source import Source
from anyformer.errors import InputError
from anyformer.runs.trials import Trial
from anyformer.tasks.decide.decide import Decide
from anyformer.tasks.decide.play import return_metrics
from anyformer.tasks.decide.rollout import RandomActor, play
from anyformer.tokenizers.episode.environments import make

HERE = Trial(None, 0)


def policy_lines(task: Decide, sources: Mapping[str, Source], parts: Mapping[str, str]) -> tuple[list[Line], list[str]]:
    """The mean return of the episodes, and that of random actions where there is an environment; and what is said of
    them. parts: what metrics begin with, by the part."""
    task.fit_tokenizers(sources["train"])
    called = [name for part, name in parts.items() if part in sources] or ["val"]
    lines = []
    for part, source in sources.items():
        episodes = [source[i]["episode"] for i in range(len(source))]
        found = _named(return_metrics(episodes, task.reference), called if part == "train" else [parts[part]])
        lines.append(Line("", "", f"the {CALLED.get(part, part)} episodes themselves", [Outcome(HERE, found)]))
    if task.environment is None or task.play is None:
        return lines, ["no random policy: model.environment names none that is played in"]
    try:
        env = make(task.environment)
    except InputError as error:
        return lines, [f"no random policy: {error}"]
    space = env.action_space
    env.close()
    found = {}
    for name in called:
        # Begun where the run's own policy is.
        config = replace(task.play, seed=task.play.seed + (name == "test"))
        episodes = list(play(task.environment, RandomActor(space, config.seed), config.episodes, config.seed))
        found |= _named(return_metrics(episodes, task.reference), [name])
    return [*lines, Line("", "", "random actions", [Outcome(HERE, found)])], []


def _named(metrics: Mapping[str, float], called: list[str]) -> dict[str, float]:
    return {f"{part}/{name}": value for part in called for name, value in metrics.items()}

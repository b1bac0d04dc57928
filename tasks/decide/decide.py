"""Decisions learned from episodes: actions that follow from what is seen, and from the target return."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from anyformer.data.source import Source
from anyformer.errors import InputError, nearest
from anyformer.metrics.accumulators import Sums
from anyformer.metrics.metric import LOSS, Accumulators, Metric, ratio
from anyformer.model.anyformer import Anyformer
from anyformer.model.by_field import FieldModules
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig, axes_of_attention, default_positions
from anyformer.model.lora import LoraConfig
from anyformer.optim.optimizer import OptimizerConfig
from anyformer.tasks.base.given import takes_records
from anyformer.tasks.base.task import Task
from anyformer.tasks.decide.actor import ActingModel, LearnedActor, PlayConfig, Policy
from anyformer.tasks.decide.batch import (
    ACTION,
    RETURN,
    REWARD,
    STATE,
    CutEpisodes,
    EpisodeWindows,
    StepFields,
    Steps,
    WindowChopper,
    WindowExamples,
    cut,
)
from anyformer.tasks.decide.play import RolloutConfig, episodes, return_metrics, rollout, summarize
from anyformer.tasks.decide.replay import flat_row, replay
from anyformer.tokenizers.episode.continuous import Returns
from anyformer.tokenizers.episode.environments import make, reference
from anyformer.tokenizers.episode.episode import EnvironmentConfig, Episode, origin
from anyformer.tokenizers.episode.files import Episodes
from anyformer.tokenizers.episode.spaces import leaves, read_space, step_tokenizer
from anyformer.tokenizers.episode.spaces import plain as plain_space
from anyformer.tokenizers.episode.steps import StepTokenizer
from anyformer.tokens import Sample, Tokenizer

METRICS = {
    "loss": LOSS,
    "accuracy": Metric("max", ("accuracy", "n_accuracy"), ratio),
    "error": Metric("min", ("error", "n_error"), ratio),
}
"""Of recorded actions; those of playing are counted by `return_metrics`."""


class Decide(Task):
    """Acts as recorded episodes show, and with returns as those do that came to the target return (Decision
    Transformer, Chen et al. 2021).

    The model's fields are `return`, `state` and `action`, or `state.image`, `action.x`, ... where the space is nested.
    `heads` has the `ValueHead` of each field that is predicted, by its name: those of the action, read
    before each of its tokens; and where their losses are wanted those of the next state and of `return`, read at the
    last token of the action.
    """

    finds_fields: ClassVar[bool] = True
    inference_args: ClassVar[tuple[str, ...]] = ("play",)

    def __init__(
        self,
        tokenizers: dict[str, Tokenizer] | None = None,
        transformer: TransformerConfig = TransformerConfig(),
        embedding: EmbeddingConfig = EmbeddingConfig(),
        optimizer: OptimizerConfig = OptimizerConfig(),
        environment: EnvironmentConfig | None = None,
        context: int = 20,
        returns: bool = True,
        return_dropout: float = 0.0,
        state_loss: float = 0.0,
        return_loss: float = 0.0,
        play: PlayConfig | None = PlayConfig(),
        observation_space: str | None = None,
        action_space: str | None = None,
        known_returns: tuple[float, float] | None = None,
        reference: tuple[float, float] | None = None,
        init_from: str | None = None,
        freeze: list[str] | None = None,
        lora: LoraConfig | None = None,
    ) -> None:
        """
        Args:
            tokenizers: of fields that are to be cut in another way than the usual one of their space: `action` by
                Bins, `state.image` by Frames with a patch of its own.
            transformer: sizes of the shared transformer.
            embedding: how content, type and position become a token; of the positions that it leaves out timesteps and
                places within a step have a learned table each, as far as attention does not go by them.
            optimizer: the optimiser and its learning rate over the run.
            environment: what the policy is played in; that of the episodes when left out.
            context: steps that the model sees at once.
            returns: whether the model is told the return that is to come, and takes a target return; without, it does
                what the episodes show (behaviour cloning).
            return_dropout: share of the windows in training that are without the returns, so that the model knows both.
            state_loss: weight of predicting the next state; 0 for not at all.
            return_loss: weight of predicting the reward of a step and the return after it; 0 for not at all.
            play: how the policy is played at every validation, whose mean return chooses the best model; not at all
                for null.
            observation_space: of the environment, in Minari's JSON; that of the episodes when left out.
            action_space: likewise.
            known_returns: the lowest and the highest return of the training episodes; theirs when left out.
            reference: the returns that a normalised score takes as 0 and as 100; what is published when left out.
            init_from: the model that training starts from: a run folder, or a checkpoint of another library, as
                `import` takes it; what a config leaves out is taken from it.
            freeze: patterns of names of parameters that are not trained, as `model.transformer.blocks.[0-3].*`.
            lora: low-rank adapters on what init_from gives; they and the new parts alone are trained and saved.
        """
        super().__init__(tokenizers or {}, transformer, embedding, optimizer, init_from, freeze, lora=lora)
        for name, tokenizer in self.tokenizers.items():
            if not isinstance(tokenizer, StepTokenizer):
                raise InputError(f"tokenizers.{name}: must cut the steps of episodes, as Vector, Bins or Frames do")
            if name.partition(".")[0] not in (RETURN, STATE, ACTION):
                raise InputError(f"tokenizers: there is no field {name!r}; fields are return, state... and action...")
        if context < 1:
            raise InputError(f"context must be at least 1 step, got {context}")
        if not 0 <= return_dropout <= 1:
            raise InputError(f"return_dropout must be from 0 to 1, got {return_dropout}")
        for name, weight in (("state_loss", state_loss), ("return_loss", return_loss)):
            if not 0 <= weight < math.inf:
                raise InputError(f"{name} must be a number from 0, got {weight}")
        if not returns and (return_dropout or return_loss or RETURN in self.tokenizers):
            raise InputError("returns: false leaves no return to drop, to predict or to cut; leave those out")
        self.environment, self.context, self.returns, self.play = environment, context, returns, play
        self.return_dropout, self.state_loss, self.return_loss = return_dropout, state_loss, return_loss
        self.observation_space, self.action_space = observation_space, action_space
        self.known_returns = None if known_returns is None else tuple(known_returns)
        self.reference = None if reference is None else tuple(reference)
        self.heads = FieldModules()
        self._before: Mapping[str, Tokenizer] = {}
        self._cut: CutEpisodes | None = None

    @property
    def plays(self) -> bool:
        """Whether the policy is played when it is evaluated."""
        return self.environment is not None and self.play is not None

    @property
    def metric(self) -> tuple[str, str]:
        return ("val/return", "max") if self.plays else ("val/loss", "min")

    def score(self, value: float) -> float:
        # Between the worst and the best of the training episodes.
        if not self.plays or self.known_returns is None or self.known_returns[0] == self.known_returns[1]:
            return super().score(value)
        low, high = self.known_returns
        return (value - low) / (high - low)

    @property
    def inputs(self) -> list[str]:
        return []

    @cached_property
    def spaces(self) -> tuple[Any, Any]:
        """Of observations and of actions. Raises InputError while they are not known."""
        if self.observation_space is None or self.action_space is None:
            raise InputError("the spaces are not known yet: learn from episodes first, or give both spaces")
        return read_space(self.observation_space), read_space(self.action_space)

    # Data

    def open(self, path: str) -> Source:
        return Episodes(path)

    def inherit(self, tokenizers: Mapping[str, Tokenizer]) -> None:
        super().inherit(tokenizers)
        self._before = dict(tokenizers)

    def fit_tokenizers(self, source: Source) -> None:
        own = origin(source)
        spaces, limit = own.spaces, None
        if self.environment is None:
            self.environment = own.played_in
        if self.environment is not None:
            if (made := self._made_environment()) is not None:
                spaces = spaces if self.play is None else made[:2]
                limit = made[2]
            known = own.reference or reference(self.environment)
            self.reference = self.reference or (None if known is None else tuple(known))
        self.observation_space, self.action_space = map(plain_space, spaces)
        self.__dict__.pop("spaces", None)
        self._cut = cut = CutEpisodes(source, *self.spaces)
        longest = int(cut.lengths.max())
        if self.context > longest:
            raise InputError(
                f"context is {self.context} steps, longer than every episode: the longest has {longest}; take at most "
                f"{longest}"
            )
        given, self.tokenizers = self.tokenizers, self._field_tokenizers()
        for name, tokenizer in self.tokenizers.items():
            if name in self._before:
                tokenizer = tokenizer.inherit(self._before[name])
            if tokenizer.max_steps is None:
                tokenizer = replace(tokenizer, max_steps=max(longest, limit or 0))
            self.tokenizers[name] = tokenizer.fit(cut[i][name] for i in range(len(cut)))
        if unknown := given.keys() - self.tokenizers.keys():
            name = min(unknown)
            raise InputError(
                f"tokenizers: there is no field {name!r}; there are {', '.join(self.tokenizers)}"
                f"{nearest(name, self.tokenizers)}"
            )
        totals = [float(cut[i][RETURN][0]) for i in range(len(cut))]
        self.known_returns = self.known_returns or (min(totals), max(totals))

    def _made_environment(self) -> tuple[Any, Any, int | None] | None:
        """The spaces of the environment and its limit of steps; None where it cannot be made, and need not be."""
        try:
            made = make(self.environment)
        except InputError as error:
            if self.play is None:
                return None
            raise InputError(f"{error}; to train without playing set model.play: null") from None
        found = made.observation_space, made.action_space, getattr(made.spec, "max_episode_steps", None)
        made.close()
        return found

    def _field_tokenizers(self) -> dict[str, StepTokenizer]:
        """The tokenizer of every field, those that were given completed."""
        observation, action = self.spaces
        returns = {RETURN: self.tokenizers.get(RETURN, Returns())} if self.returns else {}
        return returns | {  # type: ignore[return-value]
            name: step_tokenizer(leaf, self.tokenizers.get(name), name)
            for name, leaf in (leaves(observation, STATE) | leaves(action, ACTION)).items()
        }

    def view(self, source: Source, training: bool) -> Source:
        # What has been learnt from has been read already.
        kept = self._cut is not None and self._cut.source is source
        return EpisodeWindows(self._cut if kept else CutEpisodes(source, *self.spaces), self.context, training)

    def chopper(self, training: bool) -> WindowChopper:
        return WindowChopper(
            self.tokenizers,
            self.context,
            self.return_dropout if training else 0.0,
            predicts_returns=self.return_loss > 0,
            predicts_states=self.state_loss > 0,
        )

    # Model

    def build(self) -> None:
        missing = [name for name in self.tokenizers if self.tokenizers[name].shape is None]
        if not self.tokenizers or missing:
            self.tokenizers = self._field_tokenizers()
        self.model = Anyformer(self.tokenizers, self.transformer, self._positioned())
        fields, d_model = StepFields(self.tokenizers), self.transformer.d_model
        self.step_fields = fields
        predicted = list(fields.actions)
        if self.state_loss:
            for name in fields.states:
                if self.tokenizers[name].n_each != 1:
                    raise InputError(
                        f"state_loss: the field {name!r} has several tokens a step, and one alone can be predicted; "
                        "leave state_loss out, or cut it as a Vector"
                    )
            predicted += fields.states
        if self.return_loss:
            predicted.append(RETURN)
        self.heads = FieldModules({name: self.tokenizers[name].head(d_model) for name in predicted})
        kinds = sorted({self.head(name).metric_name for name in fields.actions})
        names = "loss", "targets", *kinds, *(f"n_{kind}" for kind in kinds)
        self.sums = Accumulators({name: Sums() for name in names})

    def _positioned(self) -> EmbeddingConfig:
        """The embedding, with what positions it leaves out: one table of timesteps for all fields, unless attention
        goes by them, and one for the places within a step of fields that have several."""
        if self.embedding.positions is not None:
            return self.embedding
        apart = {"step", *axes_of_attention(self.transformer)}
        axes = [("step",), *(tuple(a for a in cutter.axes if a not in apart) for cutter in self.tokenizers.values())]
        return replace(self.embedding, positions=default_positions((each, [self.transformer]) for each in axes))

    def head(self, name: str) -> Any:
        """The `ValueHead` of a field."""
        return self.heads[name]

    def read(self, batch: WindowExamples) -> Tensor:
        """The hidden vectors that something is read at, row by row, (rows * r, d)."""
        return self.model(batch.tokens, read=batch.read).flatten(0, 1)

    def _predicted(self, batch: WindowExamples, hidden: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Each field of the action, the vectors that its tokens are predicted from, and their content."""
        content = {name: batch.tokens.fields[name].content for name in self.step_fields.actions}
        parts = batch.before.split([len(part) for part in content.values()])
        yield from ((name, hidden[part], content[name]) for name, part in zip(content, parts, strict=True))

    def loss(self, batch: WindowExamples) -> tuple[Tensor, Tensor]:
        return self._loss(batch, self.read(batch))

    def _loss(self, batch: WindowExamples, hidden: Tensor) -> tuple[Tensor, Tensor]:
        total = hidden.new_zeros(())
        for name, before, content in self._predicted(batch, hidden):
            total = total + self.head(name).loss(before, content)
        # A step counts as much as in the loss of its action.
        scale = self.step_fields.n_action
        if self.state_loss:
            done = hidden[batch.done[batch.followed]]
            for name in self.step_fields.states:
                content = batch.tokens.fields[name].content[batch.followed + 1]
                total = total + self.state_loss * scale * self.head(name).loss(done, content)
        if self.return_loss:
            total = total + self.return_loss * scale * self.head(RETURN).loss(hidden[batch.done], batch.target)
        return total, torch.tensor(float(len(batch.before)), device=hidden.device)

    def begin_evaluation(self) -> None:
        self.sums.reset()

    def evaluate(self, batch: WindowExamples) -> None:
        hidden = self.read(batch)
        loss, n_targets = self._loss(batch, hidden)
        self.sums.add(loss=loss, targets=n_targets)
        for name, before, content in self._predicted(batch, hidden):
            kind, (total, n) = self.head(name).metric_name, self.head(name).metric(before, content)
            self.sums.add(**{kind: total, f"n_{kind}": n})

    @property
    def late_metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        played = ("return", "length", "success", *(() if self.reference is None else ("score",)))
        return played if self.plays else ()

    def report(self, stage: str) -> dict[str, Tensor]:
        """The mean loss of an action's token, how many were right or how far off, and the metrics of playing."""
        values = self.sums.compute(METRICS)
        if self.plays and not self.trainer.sanity_checking:
            # What is tested begins elsewhere than what has chosen the best model.
            play = self.play if stage == "val" else replace(self.play, seed=self.play.seed + 1)
            metrics = return_metrics(list(episodes(self.acting_model(), play=play)), self.reference)
            values |= {name: torch.tensor(value) for name, value in metrics.items()}
        return values

    # Use

    def acting_model(self) -> ActingModel:
        """What acting uses of this model, which is set to evaluation."""
        self.eval()
        return ActingModel(
            self.model,
            self.tokenizers,  # type: ignore[arg-type]
            self.heads,
            self.spaces,
            self.context,
            self.returns,
            self.known_returns,
            {name: getattr(self, name) for name in ("state_loss", "return_loss", "return_dropout")},
            self.environment,
            self.reference,
            self.play,
        )

    @property
    def embedded_fields(self) -> list[str]:
        return list(self.tokenizers)

    def records_to_embed(self, given: Any) -> tuple[Iterable[dict[str, Any]], bool]:
        """Episodes: a source of them, an `Episode`, or a list of these; each may stand in a dict as `episode`."""
        if isinstance(given, Source):
            return (given[i] for i in range(len(given))), False
        is_one = isinstance(given, Episode | Mapping)
        found = [each if isinstance(each, Mapping) else {"episode": each} for each in ([given] if is_one else given)]
        _check_episodes(found)
        return found, is_one

    def samples_of(self, record: Mapping[str, Any]) -> list[Sample]:
        """An episode in windows of the context, with its returns where the model is told them."""
        values = cut(record["episode"], *self.spaces)
        n = len(values[REWARD])
        fields, samples = StepFields(self.tokenizers), []
        for start in range(0, n, self.context):
            steps = np.arange(start, min(start + self.context, n))
            one = np.zeros_like(steps)
            parts = {name: Steps(values[name][steps], steps, one, steps - start) for name in self.tokenizers}
            samples.append(fields.sample(parts))
        return samples

    def policy(self, target_return: float | None = None, play: PlayConfig | None = None) -> Policy:
        """The policy in one environment: `action = policy(observation, reward)`; `policy.reset()` ends an episode.

        target_return: the target return; that of `play`, or else the best of the training episodes, when left out.
        """
        return Policy(LearnedActor(self.acting_model(), target_return, play))

    @property
    def options(self) -> RolloutConfig:  # type: ignore[override]
        play = self.play or PlayConfig()
        return RolloutConfig(**play.shared | {"seed": play.seed + 1})

    def rollout(self, options: RolloutConfig | None = None, folder: Path | None = None) -> Iterator[dict[str, Any]]:
        return rollout(self.acting_model(), options or self.options, folder)

    @takes_records
    def predict(
        self, records: Sequence[Mapping[str, Any]], options: RolloutConfig | None = None
    ) -> list[dict[str, Any]]:
        """What the policy would have done at each step of recorded episodes, of what was seen, done and got before.

        records: `{"episode": Episode}`, or a source of episodes. The target return is the episode's own, unless
            `target_return` is given.
        Returns for each episode `{"steps": [{"step", "action", "true_action"}, ...]}`, actions as plain values. Raises
        InputError for an episode of other spaces, and for options of playing.
        """
        _check_episodes(records)
        episodes = [record["episode"] for record in records]
        return [{"steps": steps} for steps in replay(self.acting_model(), episodes, options or self.options)]

    def take_record(self, record: Mapping[str, Any], folder: str) -> dict[str, Any]:
        return {"episode": record["episode"]}

    def rows(self, result: Mapping[str, Any], whole: bool = False) -> list[dict[str, Any]]:
        return [dict(step) if whole else flat_row(step) for step in result["steps"]]

    def summarize(self, results: Sequence[Mapping[str, Any]]) -> str:
        return summarize(results, self.known_returns)

    @property
    def usage(self) -> str | None:
        return None if self.environment is None else "--episodes 100"

    def render(self, result: Mapping[str, Any]) -> str:
        return "  ".join(f"{name} {value}" for name, value in result.items())


def _check_episodes(records: Sequence[Mapping[str, Any]]) -> None:
    for i, record in enumerate(records):
        if not isinstance(record.get("episode"), Episode):
            has = ", ".join(record) or "nothing"
            raise InputError(f"record {i} must be an Episode, or hold one as `episode`; it has {has}")

"""Text out of a model that has learnt to write it: by attention, token after token, by CTC, or by both at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from anyformer.batch import Batch, Layout
from anyformer.errors import InputError
from anyformer.generation.beam_search import BeamSearch
from anyformer.generation.config import GenerationConfig, MethodOptions
from anyformer.generation.ctc_search import CTCPrefixScorer, align, greedy, prefix_beam_search
from anyformer.generation.fallback import Doubt, FallbackOptions, judge
from anyformer.generation.fusion.options import LanguageOptions, make_prior
from anyformer.generation.fusion.prior import PriorScorer, TextPrior
from anyformer.generation.generator import Generator
from anyformer.generation.method import Method
from anyformer.generation.options import check_counts, split_answers
from anyformer.model.anyformer import Anyformer
from anyformer.model.heads import Head
from anyformer.model.losses.ctc import CTCHead, needed_frames
from anyformer.packing import collate
from anyformer.tasks.sequence.alignment import attention_weights, chosen_heads, token_places
from anyformer.tasks.sequence.start_tokens import StartTokens
from anyformer.tasks.sequence.target import written
from anyformer.tasks.sequence.time_tokens import TimeOptions, TimeTokens
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.text.vocabulary import NORMALIZERS
from anyformer.tokens import Sample, TokenSet

MOST_IDS = 2000
"""Ids of a vocabulary that a search by attention may go through with a language model, all of them at each step."""
LONGEST = 512
"""New tokens at the most where neither the config nor the training records say."""


@dataclass(frozen=True)
class DecodeConfig(MethodOptions, LanguageOptions, FallbackOptions, TimeOptions):
    """How a text is found, greedily when nothing is given. Of the options of generation ctc goes by n_beams alone."""

    method: Literal["attention", "ctc", "joint"] | None = None
    """attention: token after token. ctc: from the frames of the sound at once. joint: token after token, both have a
    say. By default attention where the model has a decoder, else ctc."""
    ctc_weight: float = 0.3
    """What ctc has to say in joint decoding; attention has the rest."""
    max_new_tokens: int | None = None
    """Tokens of a text at the most; by default twice those of the longest in training. Not of ctc."""
    confidence: bool = False
    """Say how sure the model is of each text and each of its words: the geometric mean of the probabilities of its
    tokens."""
    n_best: int | None = None
    """Give so many of the best texts of the search, with their scores: at most n_beams, and one of a greedy search."""
    score: str | None = None
    """Instead of writing a text, say how probable each of several is, given parted by |, as "yes|no": the likeliest is
    the text, and n_best holds all with their log-probabilities in nats, the end of the text in them."""
    prompt: str | None = None
    """What was said before, for a Whisper: names and spellings that it is to keep to."""
    translate: bool = False
    """Write in English what is said in another language, for a Whisper that knows several."""

    def __post_init__(self) -> None:
        super().__post_init__()
        LanguageOptions.__post_init__(self)
        FallbackOptions.__post_init__(self)
        TimeOptions.__post_init__(self)
        check_counts(self, "max_new_tokens", "n_best")
        if (self.n_best or 0) > self.n_beams:
            raise InputError(f"n_best: {self.n_best} texts need as many n_beams, got {self.n_beams}")
        if self.score is not None and (self.n_best or self.constrains or self.confidence):
            raise InputError("score asks for the texts that it names, and goes without n_best, confidence and grammars")
        if self.score is not None:
            split_answers(self.score)
        if self.n_best and self.temperature:
            raise InputError("n_best goes without temperature: a text that is drawn is not the best of a search")
        if not 0 < self.ctc_weight < 1:
            raise InputError(f"ctc_weight must be above 0 and below 1, got {self.ctc_weight}")

    @property
    def answers(self) -> list[str]:
        """The texts that are scored; none where one is written."""
        return [] if self.score is None else split_answers(self.score)

    @property
    def n_scored(self) -> int:
        """Texts that come with their scores."""
        return len(self.answers) or self.n_best or 0

    @property
    def times(self) -> Literal["none", "words", "windows"]:
        """What texts are written with tokens of times for, by a model that has these."""
        return "none"

    @property
    def needs_times(self) -> bool:
        """Whether a model that cannot say when anything is said will not do."""
        return self.times == "windows"


class Decoded(NamedTuple):
    """A text that a model has found."""

    ids: list[int]
    ended: Literal["stop", "length"] = "stop"
    """stop: where the model ended it. length: at max_new_tokens."""
    start: tuple[int, ...] = ()
    """The tokens that stand before it; of ctc none."""
    doubt: Doubt = ""
    """What is wrong with it, if it was judged; for silence there are no ids."""
    temperature: float = 0.0
    """At which it was found."""
    log_probs: tuple[float, ...] = ()
    """Where confidence is asked for, of each id, and of attention of the end behind them."""
    n_best: tuple[tuple[list[int], float], ...] = ()
    """Where they are asked for, the ids and the score of each text that the search has found, the best first; of one
    that a fallback has drawn its mean log-probability."""
    timed_ids: tuple[int, ...] = ()
    """The ids with the tokens of times among them, where it was written with these."""


@dataclass(frozen=True)
class ScoredGeneration(GenerationConfig):
    """By beams, be it one, which goes the greedy way: they alone have scores."""

    @property
    def decoded_by(self) -> type[Method]:
        return BeamSearch


class _Inputs(NamedTuple):
    """What texts are written from: a row or an entry for each, see `Decoder.find`."""

    prompts: Sequence[Sample]
    starts: Sequence[Sequence[int]]
    conditions: Batch | None
    memory: Tensor | None
    log_probs: Tensor | None
    """(total, v), what CTC says of each frame."""
    lengths: Sequence[int]

    def of(self, rows: Sequence[int]) -> _Inputs:
        """Some of them; of the conditions only where their tokens stand, as the memory is known."""
        conditions, log_probs = self.conditions, self.log_probs
        if conditions is not None:
            layout = Layout(*(part[rows] for part in conditions.layout))
            conditions = replace(conditions, fields={}, layout=layout, n_samples=len(rows), relation=None, edges=None)
        if log_probs is not None:
            each = log_probs.split(list(self.lengths))
            log_probs = torch.cat([each[i] for i in rows])
        return _Inputs(
            [self.prompts[i] for i in rows],
            [self.starts[i] for i in rows],
            conditions,
            None if self.memory is None else self.memory[rows],
            log_probs,
            [self.lengths[i] for i in rows] if self.lengths else (),
        )


class Decoder:
    """Finds texts for the inputs that a model has read. Kept for a model, because it rearranges the weights once."""

    def __init__(
        self,
        model: Anyformer,
        head: Head | None,
        ctc_head: CTCHead | None,
        field: str,
        text: Text,
        start: Sequence[int],
        choices: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        """
        head: of the next token; None where the model has no decoder. ctc_head: None where it has none.
        field, text: of the target. start: the ids that stand before it.
        choices: by their place in the start the ids of which the model takes the likeliest, such as languages.
        """
        self.model, self.head, self.ctc_head = model, head, ctc_head
        self.field, self.text, self.choices = field, text, dict(choices or {})
        self.start = StartTokens(text, tuple(start))
        self.generator = None
        if head is not None:
            self.generator = Generator(model, head, field, contents=lambda: text.contents, trims=True)
        self._priors: dict[tuple[Any, ...], TextPrior] = {}

    def method(self, config: DecodeConfig) -> str:
        """The method of a config. Raises InputError where the model lacks the part for it."""
        method = config.method or ("ctc" if self.head is None else "attention")
        if method != "attention" and self.ctc_head is None:
            raise InputError(f"method: {method} needs a model that was trained with ctc; take method: attention")
        if method != "ctc" and self.head is None:
            raise InputError(f"method: {method} needs a model with a decoder; take method: ctc")
        asked = config.constrains or ("score" if config.score is not None else "")
        if asked and method != "attention":
            raise InputError(f"{asked} goes by what a decoder writes; take a model that has one, and method: attention")
        return method

    @property
    def prompt(self) -> TokenSet:
        """The start tokens of the target."""
        return written([], self.start.ids)

    def times(self, config: DecodeConfig) -> TimeTokens | None:
        """The tokens of times that texts are written with; None where none are wanted, or CTC knows them.

        Raises InputError where they are wanted and cannot be had.
        """
        if config.times == "none" or (config.times == "words" and self.ctc_head is not None):
            return None
        if config.time_id is None or self.head is None or self.method(config) != "attention":
            if not config.needs_times:
                return None
            asked, way_out = (
                ("timestamps", "leave them out")
                if config.times == "words"
                else ("windows: times", "take windows: pauses")
            )
            raise InputError(
                f"{asked}: this model was trained without ctc and is no Whisper that writes times (decoding.time_id, "
                f"which import sets); {way_out}"
            )
        if config.time_id >= self.text.n_ids:
            raise InputError(f"time_id must be an id of the text, below {self.text.n_ids}, got {config.time_id}")
        return TimeTokens(config.time_id, self.text.eos_id)

    def generation(self, config: DecodeConfig, n_start: int | None = None) -> GenerationConfig:
        """The options of generation, its length within what the model can place. n_start: tokens of the start."""
        longest = config.max_new_tokens or self.text.max_len or LONGEST
        if self.text.max_len is not None:
            # The last token is read, and not fed again.
            n_start = len(self.start.ids) if n_start is None else n_start
            longest = max(min(longest, self.text.max_len - n_start + 1), 1)
        shared = {each.name: getattr(config, each.name) for each in fields(MethodOptions)}
        if config.n_best:
            # All of them, as several may spell one text.
            return ScoredGeneration(longest, stop_ids=(self.text.eos_id,), n_samples=config.n_beams, **shared)
        return GenerationConfig(longest, stop_ids=(self.text.eos_id,), **shared)

    def decode(
        self, config: DecodeConfig, prompts: Sequence[Sample], conditions: Batch | None = None
    ) -> list[list[int]]:
        """The ids of the text of each prompt; see `find`."""
        return [found.ids for found in self.find(config, prompts, conditions)]

    @torch.inference_mode()
    def find(
        self,
        config: DecodeConfig,
        prompts: Sequence[Sample],
        conditions: Batch | None = None,
        memory: Tensor | None = None,
        frames: Tensor | None = None,
        lengths: Sequence[int] = (),
        starts: Sequence[Sequence[int]] | None = None,
    ) -> list[Decoded]:
        """The text of each prompt.

        prompts: what the decoder reads of its inputs itself.
        conditions, memory: what the encoder has read, and made of it.
        frames: (total, d), the hidden vectors that CTC reads, of all samples; lengths: how many each has.
        starts: the tokens that stand before each text; as the model chooses them when left out.
        """
        method = self.method(config)
        log_probs = None if method == "attention" else self.ctc_head(frames)
        if method == "ctc":
            found = self._by_ctc(config, log_probs, lengths)
            return _sure_by_ctc(found, log_probs, lengths) if config.confidence else found
        starts = self.starts(prompts, conditions, memory) if starts is None else starts
        times = self.times(config)
        if times is not None and (config.constrains or config.answers):
            asked = config.constrains or "score"
            raise InputError(f"{asked} goes without timestamps, which the model writes into the text")
        starts = [self.start.opened(start, times, config.prompt, config.translate) for start in starts]
        if conditions is not None and memory is None and (config.fallback or config.confidence):
            memory = self.model.encode(conditions)
        inputs = _Inputs(prompts, starts, conditions, memory, log_probs, lengths)
        found = self._chosen(config, inputs) if config.answers else self._by_attention(config, inputs)
        found = self._sure(config, inputs, found) if config.confidence else found
        return found if times is None else [_untimed(each, times) for each in found]

    @torch.inference_mode()
    def places(
        self,
        config: DecodeConfig,
        found: Sequence[Decoded],
        prompts: Sequence[Sample],
        conditions: Batch,
        memory: Tensor,
        of: Sequence[Tensor],
    ) -> list[list[int]]:
        """Where among some places of the memory each token of each text is heard, and where the last ends.

        of: the places, of each text (places,) int64.
        """
        times, end = self.times(config), self.text.eos_id
        starts = [self.start.split(each.start)[1] for each in found]
        read = [[*start, times.without, *each.ids, end] for start, each in zip(starts, found, strict=True)]
        batch = collate(self._with(prompts, read), self.model.tokenizers).to(memory.device)
        heads = chosen_heads(self.model.transformer, config.alignment_heads)
        weights = attention_weights(
            self.model.transformer, heads, lambda: self.model(batch, conditions, memory=memory), of
        )
        rows = zip(weights, read, starts, strict=True)
        return [token_places(each[:, : len(ids)], len(start)) for each, ids, start in rows]

    def _by_ctc(self, config: DecodeConfig, log_probs: Tensor, lengths: Sequence[int]) -> list[Decoded]:
        """The text of each sound."""
        if config.fallback:
            raise InputError("fallback finds a text anew by drawing, which method: ctc does not; leave it out")
        if 0 in lengths:
            raise InputError("method: ctc needs the sound, and a record is without it; take attention or joint")
        prior = self.prior(config)
        if config.n_beams == 1 and prior is None:
            scores = [float(own.sum()) for own in log_probs.amax(1).split(list(lengths))]
            found = [[each] for each in zip(greedy(log_probs, lengths), scores, strict=True)]
        else:
            found = prefix_beam_search(log_probs, lengths, config.n_beams, prior)
        return [self._decoded(config, beams) for beams in found]

    def _by_attention(self, config: DecodeConfig, inputs: _Inputs) -> list[Decoded]:
        """The text of each prompt, found anew where the fallback says so."""
        if config.fallback and (config.silence_id or 0) >= self.text.n_ids:
            raise InputError(f"silence_id must be an id of the text, below {self.text.n_ids}, got {config.silence_id}")
        found = self._write(config, inputs)
        if not config.fallback:
            return found
        found = self._judged(config, inputs, found, bool(config.n_best))
        for temperature in config.fallback:
            failed = [i for i, each in enumerate(found) if each.doubt in ("repetition", "improbable")]
            if failed and temperature > config.temperature:
                drawn, some = replace(config, temperature=temperature, n_beams=1, n_best=None), inputs.of(failed)
                again = self._judged(drawn, some, self._write(drawn, some), bool(config.n_best))
                for i, each in zip(failed, again, strict=True):
                    found[i] = each
        return found

    def _write(self, config: DecodeConfig, inputs: _Inputs) -> list[Decoded]:
        """The text of each prompt, token after token."""
        options, second = self.generation(config, max(map(len, inputs.starts), default=0)), None
        if inputs.log_probs is not None:
            second = CTCPrefixScorer(inputs.log_probs, inputs.lengths, options.stop_ids, config.ctc_weight)
        opened, prior = self._with(inputs.prompts, inputs.starts), self.prior(config)
        if prior is not None and self.text.n_ids > MOST_IDS:
            raise InputError(
                f"language_model and lexicon score each of the {self.text.n_ids:,} ids of {self.field!r} at every step "
                f"of a search by attention, which would take minutes a text; that is for at most {MOST_IDS:,} ids, as "
                "of characters, or for a search by CTC alone (method: ctc)"
            )
        scorer = None if prior is None else PriorScorer(prior, len(opened), self.text.n_ids, options.stop_ids)
        # All of one number, so that a seed gives an input the same text whatever it comes with.
        found = self.generator.generate(
            opened,
            options,
            inputs.conditions,
            numbers=[0] * len(opened),
            memory=inputs.memory,
            second=second,
            prior=scorer,
            rule=None if (times := self.times(config)) is None else times.close,
        )
        return [
            self._decoded(config, [(each.ids, each.score) for each in own])._replace(
                ended=own[0].ended, start=tuple(start), temperature=config.temperature
            )
            for own, start in zip(found, inputs.starts, strict=True)
        ]

    def _decoded(self, config: DecodeConfig, beams: Sequence[tuple[list[int], float | None]]) -> Decoded:
        """The text of ids with scores, the best first."""
        kept = [(self._whole(config, ids), score) for ids, score in (beams if config.n_best else beams[:1])]
        return Decoded(kept[0][0], n_best=tuple(kept) if config.n_best else ())

    def prior(self, config: DecodeConfig) -> TextPrior | None:
        """What is known of texts besides, by the options of a config; read once, and kept."""
        if not config.fuses:
            return None
        key = tuple(getattr(config, each.name) for each in fields(LanguageOptions))
        if key not in self._priors:
            self._priors = {key: make_prior(config, self.text, NORMALIZERS[self.text.normalize], self.field)}
        return self._priors[key]

    def _whole(self, config: DecodeConfig, ids: list[int]) -> list[int]:
        """The ids of whole words of a lexicon, where there is one."""
        return ids if config.lexicon is None else self.prior(config).whole_words(ids)

    def _read(self, inputs: _Inputs, found: Sequence[Decoded]) -> Iterator[tuple[Decoded, list[int], Tensor]]:
        """Each text with its ids, the end behind them where it has ended, and what the model says of the next id after
        each of those before them, the start included, (n, v). All are read in one pass."""
        targets = [[*each.ids, *[self.text.eos_id] * (each.ended == "stop")] for each in found]
        read = [[*start, *ids[:-1]] for start, ids in zip(inputs.starts, targets, strict=True)]
        batch = collate(self._with(inputs.prompts, read), self.model.tokenizers)
        batch = batch.to(next(self.model.parameters()).device)
        hidden = self.model(batch, inputs.conditions, memory=inputs.memory).flatten(0, 1)
        own = hidden[batch.fields[self.field].index].split([len(ids) for ids in read])
        for each, ids, vectors in zip(found, targets, own, strict=True):
            # One after another, as the logits of all would take gigabytes.
            yield each, ids, self.head(vectors).float()

    def _judged(
        self, config: DecodeConfig, inputs: _Inputs, found: Sequence[Decoded], is_scored: bool
    ) -> list[Decoded]:
        """The texts with what is wrong with each, by how likely the model finds them; and if it is to have a score and
        was drawn, that."""
        judged = []
        for each, ids, logits in self._read(inputs, found):
            at = config.silence_id
            silence = 0.0 if at is None else float(logits[len(self.start.split(each.start)[0])].softmax(0)[at])
            log_prob = self._mean_log_prob(config, logits[len(each.start) - 1 :], ids) if ids else 0.0
            said = each.ids if (times := self.times(config)) is None else times.text(each.ids)
            doubt = judge(config, self.text.decode(said).strip(), log_prob, silence)
            best = each.n_best or (((each.ids, log_prob),) if is_scored else ())
            each = each._replace(doubt=doubt, n_best=best)
            judged.append(each._replace(ids=[], n_best=()) if doubt == "silence" else each)
        return judged

    def _sure(self, config: DecodeConfig, inputs: _Inputs, found: Sequence[Decoded]) -> list[Decoded]:
        """The texts with the log-probability of each id: by attention, or jointly in the shares of the search."""
        sure = []
        heard = _sure_by_ctc(found, inputs.log_probs, inputs.lengths) if inputs.log_probs is not None else found
        for (each, ids, logits), by_ctc in zip(self._read(inputs, found), heard, strict=True):
            own = logits[len(each.start) - 1 :].log_softmax(1)[torch.arange(len(ids)), torch.tensor(ids)].tolist()
            if len(by_ctc.log_probs) == len(each.ids):
                share = config.ctc_weight
                mixed = [(1 - share) * a + share * c for a, c in zip(own, by_ctc.log_probs, strict=False)]
                own = [*mixed, *own[len(mixed) :]]
            sure.append(each._replace(log_probs=tuple(own)))
        return sure

    def _chosen(self, config: DecodeConfig, inputs: _Inputs) -> list[Decoded]:
        """Of the texts that the config names the likeliest, and the log-probabilities of all, the end of a text in
        them."""
        several = [ids.tolist() for ids in self.text.encode_known(config.answers)]
        of = [[Decoded(ids, start=tuple(start)) for start in inputs.starts] for ids in several]
        scored: list[list[tuple[list[int], float]]] = [[] for _ in inputs.starts]
        for found in of:
            for own, (each, ids, logits) in zip(scored, self._read(inputs, found), strict=True):
                log_p = logits[len(each.start) - 1 :].log_softmax(1)[torch.arange(len(ids)), torch.tensor(ids)]
                own.append((each.ids, float(log_p.sum())))
        ranked = [sorted(own, key=lambda each: -each[1]) for own in scored]
        return [
            Decoded(own[0][0], start=tuple(start), n_best=tuple(own))
            for own, start in zip(ranked, inputs.starts, strict=True)
        ]

    def _mean_log_prob(self, config: DecodeConfig, logits: Tensor, ids: Sequence[int]) -> float:
        """Of ids among those that are allowed. logits: (n, v). What breaks off is as long as if it had been ended."""
        if config.allowed is not None:
            closed = torch.ones_like(logits[0], dtype=torch.bool)
            closed[list(config.allowed)] = False
            logits = logits.masked_fill(closed, -torch.inf)
        logits[:, list(config.suppressed)] = -torch.inf
        logits[0, list(config.suppressed_first)] = -torch.inf
        if (times := self.times(config)) is not None:
            times.close(logits, [ids[:i] for i in range(len(ids))])
        log_probs = logits.log_softmax(1)[torch.arange(len(ids)), torch.tensor(ids)]
        return float(log_probs.sum()) / (len(ids) + (ids[-1] != self.text.eos_id))

    @torch.inference_mode()
    def starts(
        self, prompts: Sequence[Sample], conditions: Batch | None = None, memory: Tensor | None = None
    ) -> list[list[int]]:
        """The tokens that stand before each text, with what the model finds likeliest where it has a choice."""
        starts = [list(self.start.ids) for _ in prompts]
        for place, ids in sorted(self.choices.items()):
            options = GenerationConfig(max_new_tokens=1, allowed=tuple(ids))
            opened = self._with(prompts, [start[:place] for start in starts])
            found = self.generator.generate(opened, options, conditions, memory=memory)
            for start, (likeliest,) in zip(starts, found, strict=True):
                start[place] = likeliest.ids[0]
        return starts

    def _with(self, prompts: Sequence[Sample], starts: Sequence[Sequence[int]]) -> list[Sample]:
        return [{**prompt, self.field: written([], start)} for prompt, start in zip(prompts, starts, strict=True)]


def _untimed(found: Decoded, times: TimeTokens) -> Decoded:
    """A text without the tokens of times in it, which are kept beside it."""
    log_probs = found.log_probs
    if log_probs:
        heard = [each for i, each in zip(found.ids, log_probs, strict=False) if not times.is_time(i)]
        log_probs = (*heard, *log_probs[len(found.ids) :])
    best = tuple((times.text(ids), score) for ids, score in found.n_best)
    return found._replace(ids=times.text(found.ids), log_probs=log_probs, n_best=best, timed_ids=tuple(found.ids))


def _sure_by_ctc(found: Sequence[Decoded], log_probs: Tensor, lengths: Sequence[int]) -> list[Decoded]:
    """Texts with the log-probability of each id where CTC hears it best, on the likeliest path that stands for the
    text; of a text of nothing with that of the blank in each frame; none where CTC has no path for it."""
    sure = []
    for each, own in zip(found, log_probs.split(list(lengths)), strict=True):
        if needed_frames(each.ids) > len(own):
            sure.append(each)
            continue
        heard = [float(own[start:end, i].max()) for i, (start, end) in zip(each.ids, align(own, each.ids), strict=True)]
        sure.append(each._replace(log_probs=tuple(heard or own[:, -1].tolist())))
    return sure

"""The text of frames: greedy and prefix beam search of CTC, its scores within a joint beam, and time stamps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from anyformer.errors import InputError
from anyformer.generation.fusion.prior import TextPrior
from anyformer.model.losses.ctc import LEAST, needed_frames


def greedy(log_probs: Tensor, lengths: Sequence[int]) -> list[list[int]]:
    """The ids of the likeliest path of each utterance.

    log_probs: (total, v). lengths: frames of each utterance.
    """
    best = log_probs.argmax(1)
    first = torch.zeros_like(best, dtype=torch.bool)
    starts = np.cumsum([0, *lengths])[:-1]
    first[torch.tensor(starts[np.asarray(lengths) > 0], device=best.device)] = True
    kept = (best != log_probs.shape[1] - 1) & (first | (best != best.roll(1)))
    return [ids[keep].tolist() for ids, keep in zip(best.split(list(lengths)), kept.split(list(lengths)), strict=True)]


def prefix_beam_search(
    log_probs: Tensor, lengths: Sequence[int], n_beams: int = 10, prior: TextPrior | None = None
) -> list[list[tuple[list[int], float]]]:
    """The likeliest ids of each utterance over all their paths, as far as the beams go (Graves 2008; Hannun 2014).

    log_probs: (total, v). lengths: frames of each utterance.
    prior: what is known of the text besides, whose score is added: beams are chosen by the sum so far.
    Returns the last beams of each utterance, best first: ids, and their log-probability, of which the paths that left
    the beams on the way are missing; with a prior its score, that of the end included, in sum with that.
    """
    return _PrefixBeams(log_probs, lengths, n_beams, prior).search() if len(lengths) else []


class _PrefixBeams:
    """Beams of all utterances at once: the longest first, so that those with frames left are always the first."""

    def __init__(self, log_probs: Tensor, lengths: Sequence[int], n_beams: int, prior: TextPrior | None = None) -> None:
        self.prior = prior
        self.order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        self.lengths = [lengths[i] for i in self.order]
        self.n, self.blank = n_beams, log_probs.shape[1] - 1
        parts = log_probs.detach().split(list(lengths))
        frames = pad_sequence([parts[i] for i in self.order])
        # The others of a beam's extensions cannot be among the best n_beams; one more, as one may repeat the last id.
        # With a prior any may: those of fewer are left out that are far from likely in a frame.
        n_new = n_beams + 1 if prior is None else max(2 * n_beams, LEAST_NEW)
        found = frames[..., : self.blank].topk(min(self.blank, n_new))
        self.frames, self.new, self.new_score = (each.cpu().numpy() for each in (frames, found.indices, found.values))
        shape = len(lengths), n_beams
        # Log-probabilities of the paths that end in a blank, and in the last id; the first beam is the empty prefix.
        self.in_blank, self.in_id = np.full(shape, -np.inf), np.full(shape, -np.inf)
        self.in_blank[:, 0] = 0
        self.last = np.full(shape, -1)
        # Prefixes are told apart by 64 bits as good as random, and know those of the prefix without the last id.
        self.key, self.parent = np.full(shape, NO_PREFIX), np.full(shape, NO_PARENT)
        self.key[:, 0] = 0
        self.history: list[tuple[np.ndarray, np.ndarray]] = []
        # What the prior says of each prefix so far, and what it goes on from.
        self.known = np.zeros(shape)
        self.states = np.full(shape, None, dtype=object)
        if prior is not None:
            self.states[:, 0] = [prior.start] * len(lengths)

    def search(self) -> list[list[tuple[list[int], float]]]:
        for t in range(self.lengths[0]):
            self._step(t, sum(length > t for length in self.lengths))
        results: list[list[tuple[list[int], float]]] = [[] for _ in self.order]
        total = np.logaddexp(self.in_blank, self.in_id)
        if self.prior is not None:
            for row, beam in np.argwhere(total > -np.inf):
                total[row, beam] += self.known[row, beam] + self.prior.end(self.states[row, beam])
        for row, i in enumerate(self.order):
            beams = [beam for beam in np.argsort(-total[row], kind="stable") if total[row, beam] > -np.inf]
            results[i] = [(self._ids(row, beam), float(total[row, beam])) for beam in beams]
        return results

    def _step(self, t: int, n_active: int) -> None:
        """Take one more frame of the utterances that have it."""
        here, rows = slice(n_active), np.arange(n_active)[:, None]
        frame, new, new_score = self.frames[t, here], self.new[t, here], self.new_score[t, here]
        in_blank, in_id, last, key, parent = (
            each[here] for each in (self.in_blank, self.in_id, self.last, self.key, self.parent)
        )
        total = np.logaddexp(in_blank, in_id)
        last_score = np.where(last < 0, -np.inf, frame[rows, last])
        # Prefixes as they are: another blank, the same id again, ...
        stay_blank, stay_id = total + frame[:, self.blank, None], in_id + last_score
        # ... or the last id said now, after the prefix without it, where that is among the beams.
        is_child = parent[:, :, None] == key[:, None, :]
        has_parent, place = is_child.any(2), is_child.argmax(2)
        anew = np.where(last[rows, place] == last, in_blank[rows, place], total[rows, place])
        stay_id = np.logaddexp(stay_id, np.where(has_parent, anew + last_score, -np.inf))
        # Prefixes with one id more, but for those just counted. (b, beam, new)
        repeats = last[:, :, None] == new[:, None]
        grown = np.where(repeats, in_blank[:, :, None], total[:, :, None]) + new_score[:, None]
        row, child = (has_parent & repeats.any(2)).nonzero()
        grown[row, place[row, child], repeats.argmax(2)[row, child]] = -np.inf
        every = np.concatenate([np.logaddexp(stay_blank, stay_id), grown.reshape(n_active, -1)], 1)
        known = self._known(every[:, : self.n], grown, new)
        chosen_by = every if known is None else every + known
        best = np.argpartition(-chosen_by, self.n - 1, axis=1)[:, : self.n]
        score, is_new = every[rows, best], best >= self.n
        is_there = chosen_by[rows, best] > -np.inf
        owner = np.where(is_new, (best - self.n) // new.shape[1], best)
        ids = np.where(is_new, new[rows, (best - self.n) % new.shape[1]], -1)
        self.in_blank[here] = np.where(is_new | ~is_there, -np.inf, stay_blank[rows, owner])
        self.in_id[here] = np.where(is_there, np.where(is_new, score, stay_id[rows, owner]), -np.inf)
        self.last[here] = np.where(is_new, ids, last[rows, owner])
        # One that is there for want of others must not pass for a prefix that is there already.
        own_key = key[rows, owner]
        self.parent[here] = np.where(is_there, np.where(is_new, own_key, parent[rows, owner]), NO_PARENT)
        self.key[here] = np.where(is_there, np.where(is_new, _extend(own_key, ids), own_key), NO_PREFIX)
        self.history.append((owner, ids))
        if known is not None:
            self.known[here] = np.where(is_there, known[rows, best], 0.0)
            states = self.states[here][rows, owner]
            for row, beam in np.argwhere(is_new & is_there):
                states[row, beam], _ = self.prior.advance(states[row, beam], int(ids[row, beam]))
            self.states[here] = states

    def _known(self, stay: np.ndarray, grown: np.ndarray, new: np.ndarray) -> np.ndarray | None:
        """What the prior says of the prefixes as they are, and of those with one id more, (b, beams + beams * new).

        stay, grown: of these the log-probability, (b, beams) and (b, beams, new). new: ids, (b, new). Of what cannot be
        among the best, whatever the prior says, it is not asked.
        """
        if self.prior is None:
            return None
        own = self.known[: len(new)]
        worst = (stay + own).min(1)[:, None, None]
        more = np.full(grown.shape, -np.inf)
        may = (grown > -np.inf) & (grown + own[:, :, None] + self.prior.most >= worst)
        for row, beam in np.argwhere(may.any(2)):
            steps, places = self.prior.steps(self.states[row, beam]), np.flatnonzero(may[row, beam])
            more[row, beam, places] = [steps[i][1] for i in new[row, places].tolist()]
        return np.concatenate([own, (own[:, :, None] + more).reshape(len(new), -1)], 1)

    def _ids(self, row: int, beam: int) -> list[int]:
        ids = []
        for owner, new in reversed(self.history[: self.lengths[row]]):
            if new[row, beam] >= 0:
                ids.append(int(new[row, beam]))
            beam = owner[row, beam]
        return ids[::-1]


LEAST_NEW = 64
"""Ids that a prior may choose from in each frame, at the least."""
NO_PREFIX, NO_PARENT = np.uint64(2**64 - 2), np.uint64(2**64 - 1)


def _extend(key: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The keys of prefixes with one id more (mixed as in SplitMix64, Steele et al. 2014)."""
    key = key * np.uint64(0x9E3779B97F4A7C15) + ids.astype(np.uint64) + np.uint64(1)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


class CTCPrefixScorer:
    """What CTC says of the next id of each row of a beam search, for decoding jointly with attention in one pass.

    A prefix scores the probability of all ids that begin with it, and an end that of the prefix itself (Watanabe et al.
    2017, algorithm 2). Here all ids are scored at once: the probability that a prefix is complete at a frame does not
    hang on what follows, so that its product with the frames is a matrix product; and the recursion over frames, which
    only the ids that are chosen need, is a cumulative sum. Rows are moved as `Rows` of a generator are.
    """

    def __init__(self, log_probs: Tensor, lengths: Sequence[int], stop_ids: Sequence[int], weight: float = 0.3) -> None:
        """
        log_probs: (total, v), the frames of all prompts. lengths: frames of each; a row for each prompt.
        stop_ids: the ids that end a continuation.
        weight: of CTC, above 0 and below 1; attention has the rest.
        """
        if not 0 < weight < 1:
            raise InputError(f"the weight of CTC beside attention must be above 0 and below 1, got {weight}")
        if not stop_ids:
            raise InputError("joint decoding needs an id that ends a text, got no stop_ids")
        self.weight = weight
        self.stop_ids = torch.tensor(sorted(set(stop_ids)), device=log_probs.device)
        n_frames = max(lengths, default=0)
        # Behind its end an utterance is blank for certain. (prompts, frames, v)
        frames = log_probs.new_full((len(lengths), n_frames, log_probs.shape[1]), LEAST)
        frames[..., -1] = 0
        for own, part in zip(frames, log_probs.detach().split(list(lengths)), strict=True):
            own[: len(part)] = part.clamp(min=LEAST)
        self.heard = torch.tensor([n > 0 for n in lengths], device=log_probs.device)
        self.frames, self.probs = frames, frames[..., :-1].double().exp()
        self.prompt = list(range(len(lengths)))
        # By number of frames seen, 0 ... n_frames: log-probability of having said the prefix, the last frame an id or
        # a blank. Nothing has been said with nothing but blanks.
        self.in_blank = F.pad(frames[..., -1].double().cumsum(1), (1, 0))
        self.in_id = torch.full_like(self.in_blank, -torch.inf)
        self.last = torch.full((len(lengths),), -1, device=log_probs.device)
        self.own = torch.zeros(len(lengths), dtype=torch.float64, device=log_probs.device)
        self._scored: Tensor | None = None

    @property
    def n_ids(self) -> int:
        """Ids that are scored: all but the blank."""
        return self.frames.shape[2] - 1

    def score(self) -> Tensor:
        """The log-probability of each next id, or the end, given the prefix of the row, (rows, n_ids) float64.

        Of a prompt without frames it is 0 for all, which is no opinion.
        """
        if self._scored is None:
            self._scored = self._score()
        own = self.own[:, None]
        scores = torch.where(own > -torch.inf, self._scored - own, own)
        return scores.masked_fill(~self.heard[:, None], 0.0)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows only; one may be kept several times."""
        index = torch.tensor(rows, device=self.last.device)
        self.prompt = [self.prompt[i] for i in rows]
        for name in ("heard", "in_blank", "in_id", "last", "own", "_scored"):
            if getattr(self, name) is not None:
                setattr(self, name, getattr(self, name)[index])

    def copy(self, moves: Sequence[tuple[int, int]]) -> None:
        """Overwrite rows with others of the same prompt, (source, target) each."""
        if not moves:
            return
        rows = list(range(len(self.last)))
        for source, target in moves:
            rows[target] = source
        self.select(rows)

    def advance(self, new: Sequence[int]) -> None:
        """Take in one more id in each row."""
        scored = self._score() if self._scored is None else self._scored
        ids = torch.tensor(new, device=self.last.device)
        self.own = scored.gather(1, ids[:, None]).squeeze(1)
        begun = self._begun(ids)
        self.in_id = _flow(begun, self.frames[self.prompt, :, ids].double())
        self.in_blank = _flow(self.in_id[:, :-1], self.frames[self.prompt, :, -1].double())
        self.last, self._scored = ids, None

    def _begun(self, ids: Tensor) -> Tensor:
        """That the prefix is said before each frame, and the id (rows,) may be said anew in it. (rows, frames)"""
        anew = torch.logaddexp(self.in_blank, self.in_id)
        return torch.where((ids == self.last)[:, None], self.in_blank, anew)[:, :-1]

    def _score(self) -> Tensor:
        """Of the prefixes with one id more, (rows, n_ids)."""
        said = torch.logaddexp(self.in_blank, self.in_id)
        before = said[:, :-1]
        if not before.shape[1]:
            scores = said.new_full((len(said), self.n_ids), -torch.inf)
        else:
            top = before.amax(1, keepdim=True).clamp(min=-1e300)
            shares = (before - top).exp().split([len(list(rows)) for _, rows in groupby(self.prompt)])
            prompts = [prompt for prompt, _ in groupby(self.prompt)]
            scores = torch.cat([rows @ self.probs[i] for i, rows in zip(prompts, shares, strict=True)]).log() + top
            place = self.last.clamp(min=0)[:, None]
            probs = self.probs[self.prompt, :, place.squeeze(1)]
            again = ((self.in_blank[:, :-1] - top).exp() * probs).sum(1, keepdim=True).log() + top
            kept = torch.where(self.last[:, None] < 0, scores.gather(1, place), again)
            scores = scores.scatter(1, place, kept)
        return scores.index_copy(1, self.stop_ids, said[:, -1:].expand(-1, len(self.stop_ids)))


def _flow(inflow: Tensor, log_p: Tensor) -> Tensor:
    """x after 0 ... t frames, where x[s] = (x[s - 1] + inflow[s - 1]) * p[s] and x[0] = 0, all as logarithms.

    inflow, log_p: (rows, t). Returns (rows, t + 1).
    """
    total = log_p.cumsum(1)
    # Divided by the product of p so far, what flows in only adds up.
    sums = torch.logcumsumexp(inflow - total + log_p, 1)
    return F.pad(total + sums, (1, 0), value=-torch.inf)


def align(log_probs: Tensor, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The frames of each id on the likeliest path that stands for the ids: the first, and that behind the last.

    log_probs: (t, v), of one utterance. Raises InputError where there are fewer frames than the ids need.
    """
    t, blank = len(log_probs), log_probs.shape[1] - 1
    if needed_frames(ids) > t:
        raise InputError(f"{len(ids)} ids need {needed_frames(ids)} frames to be aligned, got {t}")
    if not len(ids):
        return []
    # States: a blank, the first id, a blank, the second id, ..., a blank.
    states = np.full(2 * len(ids) + 1, blank)
    states[1::2] = ids
    emitted = log_probs.detach()[:, torch.tensor(states, device=log_probs.device)].double().cpu().numpy()
    may_skip = np.zeros(len(states), dtype=bool)
    may_skip[3::2] = states[3::2] != states[1:-2:2]
    score = np.full(len(states), -np.inf)
    score[:2] = emitted[0, :2]
    steps = np.zeros((t, len(states)), np.int8)
    options = np.full((3, len(states)), -np.inf)
    for frame in range(1, t):
        options[0] = score
        options[1, 1:] = score[:-1]
        options[2, 2:] = np.where(may_skip[2:], score[:-2], -np.inf)
        steps[frame] = options.argmax(0)
        score = options.max(0) + emitted[frame]
    state = len(states) - 1 if score[-1] >= score[-2] else len(states) - 2
    path = np.empty(t, np.int64)
    for frame in reversed(range(t)):
        path[frame] = state
        state -= int(steps[frame, state])
    odd = 2 * np.arange(len(ids)) + 1
    return [
        (int(start), int(end))
        for start, end in zip(np.searchsorted(path, odd), np.searchsorted(path, odd, side="right"), strict=True)
    ]

"""What a language model, a bonus for words and a lexicon say of a text that grows id by id."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from anyformer.generation.fusion.ngrams import END_UNIT, Context, NGrams

UNFINISHED = -1e4
"""What a text loses that ends within a word, where a lexicon has no such: any other is better."""
MOST_KEPT = 2**15
"""States whose steps are kept to be looked up."""


class Spelling(Protocol):
    """What is needed of the tokenizer of a text."""

    @property
    def n_ids(self) -> int: ...

    @property
    def special_ids(self) -> Collection[int]: ...

    @property
    def unk_id(self) -> int | None: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


class State(NamedTuple):
    """All that what follows in a text depends on."""

    context: Context
    """The units of the language model that came last."""
    word: str = ""
    """The word so far."""
    pending: tuple[int, ...] = ()
    """Ids that are not yet a whole character."""
    begun: bool = False
    """Whether a word has ended."""


class Steps(dict[int, tuple[State, float]]):
    """By id what follows, made when it is asked for: a search asks for the same in frame after frame."""

    def __init__(self, make: Callable[[int], tuple[State, float]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, new: int) -> tuple[State, float]:
        found = self[new] = self._make(new)
        return found


class TextPrior:
    """The score that a text has before anything is heard, as a sum over its ids and its end: the log-probability of its
    units by a language model times a weight, and a bonus for each word; minus infinity where it leaves a lexicon.

    A word of the language model is scored where it ends. White space in a row counts as one, and around a text as none.
    """

    def __init__(
        self,
        spelling: Spelling,
        ngrams: NGrams | None = None,
        by_word: bool = True,
        weight: float = 0.5,
        word_bonus: float = 0.0,
        lexicon: Collection[str] | None = None,
    ) -> None:
        """
        spelling: the tokenizer of the text. by_word: whether the units of ngrams are words; else characters.
        lexicon: the only words that may be written; all when left out.
        """
        self.spelling, self.ngrams, self.by_word = spelling, ngrams, by_word
        self.weight, self.word_bonus = weight, word_bonus
        self.words = None if lexicon is None else frozenset(lexicon)
        self.beginnings = frozenset(word[:n] for word in self.words or () for n in range(1, len(word) + 1))
        self.start = State(() if ngrams is None else ngrams.start)
        self._silent = frozenset(spelling.special_ids)
        self._anchor = self._find_anchor()
        self._kept: dict[State, Steps] = {}
        self._spelt: dict[tuple[int, ...], str] = {}
        longest = max((len(self._spell((i,))) for i in range(spelling.n_ids) if i not in self._silent), default=0)
        self.most = max(word_bonus, 0.0) * longest
        """What an id adds to the score at the most."""

    def steps(self, state: State) -> Steps:
        """By id what follows on it, and what that adds to the score; worked out when it is first asked for."""
        found = self._kept.get(state)
        if found is None:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            found = self._kept[state] = Steps(lambda new: self._advance(state, new))
        return found

    def advance(self, state: State, new: int) -> tuple[State, float]:
        """What follows on one more id, and what that adds to the score."""
        return self.steps(state)[new]

    def end(self, state: State) -> float:
        """What the end of the text adds to the score."""
        state, score = self._finish(state)
        if score == -np.inf:
            score = UNFINISHED
        return score + self._of_unit(state.context, END_UNIT)

    def score(self, ids: Sequence[int]) -> float:
        """The score of a whole text."""
        state, total = self.start, 0.0
        for new in ids:
            state, added = self.advance(state, new)
            total += added
        return total + self.end(state)

    def whole_words(self, ids: Sequence[int]) -> list[int]:
        """The ids without a last word that is none of the lexicon, where the search had no room to end it."""
        state, n_whole = self.start, 0
        for n, new in enumerate(ids, start=1):
            state, _ = self.advance(state, new)
            if not state.word and not state.pending:
                n_whole = n
        return list(ids if self._finish(state)[1] > -np.inf else ids[:n_whole])

    def _advance(self, state: State, new: int) -> tuple[State, float]:
        if new in self._silent:
            return state, 0.0
        ids = (*state.pending, new)
        text = self._spell(ids)
        # What is unknown is spelt as a part of a character is.
        if text.endswith("\ufffd") and len(ids) < 4 and new != self.spelling.unk_id:
            return state._replace(pending=ids), 0.0
        state, total = state._replace(pending=()), 0.0
        for character in text:
            state, added = self._finish(state) if character.isspace() else self._grow(state, character)
            total += added
            if total == -np.inf:
                break
        return state, total

    def _grow(self, state: State, character: str) -> tuple[State, float]:
        """One more character of a word."""
        word, context, added = state.word + character, state.context, 0.0
        if self.words is not None and word not in self.beginnings:
            return state, -np.inf
        if self.ngrams is not None and not self.by_word:
            if not state.word and state.begun:
                added += self._of_unit(context, " ")
                context = self.ngrams.after(context, " ")
            added += self._of_unit(context, character)
            context = self.ngrams.after(context, character)
        return State(context, word, begun=state.begun), added

    def _finish(self, state: State) -> tuple[State, float]:
        """The end of a word, if there is one."""
        if not state.word:
            return state, 0.0
        if self.words is not None and state.word not in self.words:
            return state, -np.inf
        context, added = state.context, self.word_bonus
        if self.ngrams is not None and self.by_word:
            added += self._of_unit(context, state.word)
            context = self.ngrams.after(context, state.word)
        return State(context, begun=True), added

    def _of_unit(self, context: Context, unit: object) -> float:
        return 0.0 if self.ngrams is None else self.weight * self.ngrams.log_prob(context, unit)

    def _find_anchor(self) -> tuple[int, ...]:
        """An id of a letter, behind which others are spelled: alone some tokenizers leave out the space before them."""
        ordinary = (i for i in range(self.spelling.n_ids) if i not in self._silent and i != self.spelling.unk_id)
        return next(((i,) for i in ordinary if len(text := self.spelling.decode([i])) == 1 and text.isalnum()), ())

    def _spell(self, ids: tuple[int, ...]) -> str:
        if ids not in self._spelt:
            before = self.spelling.decode(list(self._anchor)) if self._anchor else ""
            self._spelt[ids] = self.spelling.decode([*self._anchor, *ids])[len(before) :]
        return self._spelt[ids]


class PriorScorer:
    """A prior for the rows of a generation, which it follows as `CTCPrefixScorer` does."""

    def __init__(self, prior: TextPrior, n_rows: int, n_ids: int, stop_ids: Sequence[int]) -> None:
        """n_rows: one for each prompt. n_ids: of the logits. stop_ids: the ids that end a text."""
        self.prior, self.n_ids, self.stop_ids = prior, n_ids, sorted({*stop_ids})
        self.states = [prior.start] * n_rows
        self._vectors: dict[State, Tensor] = {}

    def score(self) -> Tensor:
        """What each next id adds, or the end, (rows, n_ids) float64."""
        return torch.stack([self._vector(state) for state in self.states])

    def select(self, rows: Sequence[int]) -> None:
        self.states = [self.states[i] for i in rows]

    def copy(self, moves: Sequence[tuple[int, int]]) -> None:
        sources = [self.states[source] for source, _ in moves]
        for state, (_, target) in zip(sources, moves, strict=True):
            self.states[target] = state

    def advance(self, new: Sequence[int]) -> None:
        self.states = [self.prior.advance(state, i)[0] for state, i in zip(self.states, new, strict=True)]

    def _vector(self, state: State) -> Tensor:
        if state not in self._vectors:
            steps = self.prior.steps(state)
            added = [steps[i][1] for i in range(self.n_ids)]
            for i in self.stop_ids:
                added[i] = self.prior.end(state)
            self._vectors[state] = torch.tensor(added, dtype=torch.float64)
        return self._vectors[state]

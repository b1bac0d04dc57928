"""A language model of n-grams, of words or characters, counted from texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

START, END = "<s>", "</s>"
"""What stands before and behind the units of a text. No text is spelled so: a unit of this spelling is another object
to `NGrams`, which counts them in places of their own."""

Context = tuple[Hashable, ...]


class NGrams:
    """Probabilities of units after those before them, the longer contexts mixed with the shorter (Witten and Bell 1991,
    method C; interpolated as in Chen and Goodman 1998, 2.5): of a context that many different units followed the
    shorter one has a larger share. What was never seen shares what the empty context leaves, as one unit.
    """

    def __init__(self, texts: Iterable[Sequence[str]], order: int) -> None:
        """texts: the units of each. order: how many units an n-gram has, the last of which is predicted."""
        self.order = order
        self._counts: dict[Context, Counter[Hashable]] = {}
        for units in texts:
            context = self.start
            for unit in [*units, END_UNIT]:
                for n in range(len(context) + 1):
                    self._counts.setdefault(context[len(context) - n :], Counter())[unit] += 1
                context = self.after(context, unit)
        self._totals = {context: counts.total() for context, counts in self._counts.items()}
        self._known: dict[tuple[Context, Hashable], float] = {}

    @property
    def start(self) -> Context:
        """The context of the first unit."""
        return (START_UNIT,)[: self.order - 1]

    def after(self, context: Context, unit: Hashable) -> Context:
        """The context of the unit behind another."""
        return (*context, unit)[-(self.order - 1) :] if self.order > 1 else ()

    @property
    def n_units(self) -> int:
        """How many different units there are, the end of a text among them."""
        return len(self._counts[()])

    def log_prob(self, context: Context, unit: Hashable) -> float:
        """The log-probability of a unit, or of `END_UNIT`, after a context."""
        key = context, unit
        if key not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = math.log(self._prob(context, unit))
        return self._known[key]

    def _prob(self, context: Context, unit: Hashable) -> float:
        p = 1 / (self.n_units + 1)
        for n in range(len(context) + 1):
            own = context[len(context) - n :]
            counts = self._counts.get(own)
            if counts is None:
                return p  # A longer context was not seen either.
            kinds = len(counts)
            p = (counts[unit] + kinds * p) / (self._totals[own] + kinds)
        return p


START_UNIT, END_UNIT = (START,), (END,)
"""As units, which no text holds."""
MOST_KNOWN = 2**20
"""Probabilities that are kept to be looked up."""

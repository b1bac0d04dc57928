"""What a task answers and why: a record in, an `Explanation` out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from anyformer.errors import InputError, suggest
from anyformer.explaining.asked import Asked
from anyformer.explaining.explanation import Explanation, explain_sample, passes
from anyformer.explaining.fields import Importance, importance
from anyformer.model.anyformer import Anyformer
from anyformer.tokens import Sample


class Wanted(NamedTuple):
    """What is to be explained of an answer; see `Explainer.explain`."""

    target: str | None = None
    answer: str | None = None
    rather_than: str | None = None
    truth: bool = False
    """Whether the number is how near the model comes to the true value that the record holds, the negative of its
    loss."""


class Question(NamedTuple):
    """A number that a task gives of a record, and what it is read from."""

    asked: Asked
    sample: Sample
    answer: str
    """What is explained, as the task gives it."""
    n_parts: int = 1
    """Numbers that are explained one by one: the tokens of a text."""

    @property
    def passes(self) -> dict[str, str]:
        """What each part of the explanation costs, in words."""
        return passes(self.asked, self.sample, self.n_parts)


class Explainer(ABC):
    """A task whose answers can be explained, by `question`."""

    model: Anyformer | None
    tokenizers: dict[str, Any]

    @property
    @abstractmethod
    def inputs(self) -> list[str]: ...

    @abstractmethod
    def _undefined(self, hook: str, instead: str = "") -> InputError: ...

    def explain(
        self,
        record: Mapping[str, Any],
        *,
        target: str | None = None,
        answer: str | None = None,
        rather_than: str | None = None,
        seed: int = 0,
    ) -> Explanation:
        """Why the model answers as it does: who attended to whom, where it looked, which field mattered, and how far
        that may be believed.

        record: a dict of fields, as `predict` takes it.
        target: which of several targets. answer: what is explained in the place of the answer that is given: a class, a
            label, a column, a text. rather_than: another answer; then it is why the one and not the other.
        seed: of what is drawn: the random tokens that maps are held against, and more fields than exact values can be
            had for.
        Raises InputError for a record that cannot be used, and for a target or answer that there is not.
        """
        return self.explain_question(self.ask(record, Wanted(target, answer, rather_than)), seed)

    def explain_question(self, question: Question, seed: int = 0) -> Explanation:
        """As `explain`, of what `ask` gave."""
        return explain_sample(question.asked, question.sample, self.model.tokenizers, question.answer, seed)

    def importance(
        self, records: Sequence[Mapping[str, Any]], *, target: str | None = None, seed: int = 0
    ) -> list[Importance]:
        """What each field is worth over records with their true values: the mean of its Shapley values in how near
        the model comes to these (SAGE, Covert et al. 2020), beside what is lost where it comes from another record."""
        self._check_ready()
        wanted = Wanted(target, truth=True)
        return importance(lambda i: self.question(records[i], wanted)[:2], len(records), seed)

    def ask(self, record: Mapping[str, Any], wanted: Wanted = Wanted()) -> Question:
        """As `question`, of a record in any form, whose fields are there."""
        self._check_ready()
        if not isinstance(record, Mapping):
            raise InputError(
                f"explain takes one record, a dict of {', '.join(self.inputs)}; got {type(record).__name__}"
            )
        if unknown := [name for name in record if name not in {*self.inputs, *self.link_columns}]:
            raise InputError(f"the model has no field {unknown[0]!r}{suggest(unknown[0], self.inputs)}")
        return self.question(record, wanted)

    def question(self, record: Mapping[str, Any], wanted: Wanted) -> Question:
        """What is asked of a record.

        Raises InputError for a record that cannot be used, and for a target or answer that there is not.
        """
        raise self._undefined("explain")

    def _check_ready(self) -> None:
        if self.model is None:
            raise InputError("the task has no weights yet; fit it, or load a run")
        self.eval()  # type: ignore[attr-defined]


def chosen_answer(given: str | None, choices: Sequence[str], name: str) -> str | None:
    """An answer that is asked for, which must be one of the choices. name: of the option."""
    if given is not None and str(given) not in choices:
        raise InputError(f"{name}: {str(given)!r} is no answer of the model{suggest(str(given), choices)}")
    return None if given is None else str(given)

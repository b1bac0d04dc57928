"""The fields of a task: which are left out of training samples, who sees whom, and what an evaluation asks without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anyformer.choices import Values
from anyformer.errors import InputError, nearest
from anyformer.links import Link, LinkConfig, make_links
from anyformer.tokens import Tokenizer, expand


@dataclass(frozen=True)
class FieldsConfig(Values):
    """How the fields of a task's samples take part.

    A field is called by the name of its input; where the record of an input holds several fields, `state` means all
    of them, and `state.image` one.
    """

    dropout: dict[str, float] = field(default_factory=dict)
    """Of each input the share of training samples that it is left out of (modality dropout). One input always stays:
    where all that a record has would go, one of them is drawn and kept."""
    sees: dict[str, list[str]] = field(default_factory=dict)
    """The fields that the tokens of a field may look at; fields not named see everything."""
    share: dict[str, str] = field(default_factory=dict)
    """By field the one whose lift it uses, weights and all, as in {right: left}; both have the same tokenizer, and each
    a type vector of its own."""
    without: list[list[str]] = field(default_factory=list)
    """Inputs that are left out together in a further pass of every evaluation: [[image]] gives val/without_image/...
    A sample that has nothing else is left out of that pass."""
    by: str | None = None
    """A column; metrics are also given by its value: val/kind_sum/accuracy."""
    links: list[LinkConfig] = field(default_factory=list)
    """Edges between tokens of the inputs, from columns of the record: [{column: edges, from: question, to: image}]. The
    column holds a list, and [i, j] in it, or with `kinds` [i, j, kind], lets token i of the one look at token j of the
    other, and with `directed: false` the other way too; with `edges_only: true` along these alone."""

    def check(
        self,
        inputs: Mapping[str, Tokenizer],
        others: Sequence[str] = (),
        needed: Mapping[str, str] | None = None,
        lifted: Sequence[str] = (),
    ) -> None:
        """Raise InputError for a name that is no field, or values that contradict each other.

        inputs: the tokenizers of the inputs. others: the further fields of the model: a text that is written, a class
            token.
        needed: inputs that no sample may lack, with the option that needs them.
        lifted: the further fields that may share a lift, having a tokenizer of the task's beside the inputs'.
        """
        needed = needed or {}
        fields = {*inputs, *expand(inputs)}
        for name, share in self.dropout.items():
            _known("dropout", name, fields)
            if not 0 <= share < 1:
                raise InputError(f"fields.dropout.{name} must be at least 0 and below 1, got {share}")
        for names in self.without:
            for name in names:
                _known("without", name, fields)
            if not names or len(set(names)) < len(names):
                raise InputError(f"fields.without: each must name some inputs, once each, got {names}")
            if all(any(_covers(name, each) for name in names) for each in expand(inputs)):
                raise InputError(f"fields.without: {', '.join(names)} leaves no input; name fewer")
        if len({frozenset(names) for names in self.without}) < len(self.without):
            raise InputError(f"fields.without names the same inputs twice, got {self.without}")
        for option, left_out in (("dropout", self.dropout), ("without", [n for names in self.without for n in names])):
            for name, why in needed.items():
                if any(_covers(each, name) for each in left_out):
                    raise InputError(f"fields.{option}: {name!r} cannot be left out, because {why} needs it")
        for name, seen in self.sees.items():
            for each in (name, *seen):
                _known("sees", each, {*fields, *others})
        make_links(self.links, list(expand(inputs)))
        for name, owner in self.share.items():
            for each in (name, owner):
                _known("share", each, {*inputs, *lifted})
            if owner in self.share:
                raise InputError(f"fields.share: {owner!r} is lifted by another's weights itself; name that one")

    def visibility(self, tokenizers: Mapping[str, Tokenizer]) -> dict[str, list[str]] | None:
        """`sees` by the fields of the model, as `Anyformer` takes it. tokenizers: of all that the model has."""
        if not self.sees:
            return None
        parts = {name: list(expand({name: tokenizer})) for name, tokenizer in tokenizers.items()}
        found: dict[str, list[str]] = {}
        # What is said of one field goes before what is said of all of its input.
        for key in sorted(self.sees, key=lambda key: key not in parts):
            seen = [each for name in self.sees[key] for each in parts.get(name, [name])]
            found |= dict.fromkeys(parts.get(key, [key]), seen)
        return found

    def owners(self, tokenizers: Mapping[str, Tokenizer]) -> dict[str, str]:
        """`share` by the fields of the model, as `Anyformer` takes it. Raises InputError if tokenizers differ."""
        owners: dict[str, str] = {}
        for name, owner in self.share.items():
            if tokenizers[name] != tokenizers[owner]:
                raise InputError(f"fields.share: {name!r} and {owner!r} must have the same tokenizer")
            pairs = zip(expand({name: tokenizers[name]}), expand({owner: tokenizers[owner]}), strict=True)
            owners |= dict(pairs)
        return owners

    def linked(self, inputs: Mapping[str, Tokenizer]) -> tuple[Link, ...]:
        """The edges that columns give, as `Anyformer` and a `Chopper` take them; inputs: by name their tokenizers."""
        return make_links(self.links, list(expand(inputs)))

    def chopping(self, inputs: Mapping[str, Tokenizer]) -> dict[str, Any]:
        """What a `Chopper` is told of it, by argument."""
        return {"dropout": dict(self.dropout), "by": self.by, "links": self.linked(inputs)}


def _covers(name: str, each: str) -> bool:
    """Whether a name means a field."""
    return each == name or each.startswith(f"{name}.")


def _known(option: str, name: str, names: set[str]) -> None:
    if name not in names:
        raise InputError(
            f"fields.{option}: there is no field {name!r}; there are {', '.join(sorted(names))}"
            f"{nearest(name, sorted(names))}"
        )

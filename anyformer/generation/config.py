"""How a text is generated: the options of all methods, and which of the methods they ask for."""

from __future__ import annotations

from dataclasses import dataclass

from anyformer.errors import InputError
from anyformer.generation.beam_search import BeamOptions, BeamSearch
from anyformer.generation.grammar.options import GrammarOptions
from anyformer.generation.method import Method
from anyformer.generation.options import CommonOptions, IdOptions
from anyformer.generation.sampling import Sampling, SamplingOptions


@dataclass(frozen=True)
class MethodOptions(BeamOptions, SamplingOptions, IdOptions, GrammarOptions):
    """The options of every method, for all that generates; each is declared beside the code that goes by it."""

    def __post_init__(self) -> None:
        for part in MethodOptions.__bases__:
            part.__post_init__(self)
        if self.n_beams > 1 and self.temperature > 0:
            raise InputError("n_beams above 1 goes without temperature: beams are not drawn")

    @property
    def decoded_by(self) -> type[Method]:
        """The method that the options ask for."""
        return next(method for method in METHODS if method.is_asked(self))


METHODS: tuple[type[Method], ...] = (BeamSearch, Sampling)
"""The first that is asked for is taken; the last always is."""


@dataclass(frozen=True)
class GenerationConfig(MethodOptions, CommonOptions):
    """How tokens are generated; greedily when nothing is given."""

    def __post_init__(self) -> None:
        CommonOptions.__post_init__(self)
        super().__post_init__()
        if self.n_beams > 1 and self.stop:
            raise InputError("n_beams above 1 goes without stop: beams end at stop_ids")
        if self.constrains and self.stop:
            raise InputError(f"{self.constrains} goes without stop, which would cut a text off within it")
        if not self.temperature and self.n_samples > self.n_beams:
            raise InputError(
                f"n_samples {self.n_samples} need a temperature above 0 or as many n_beams, got {self.n_beams}"
            )

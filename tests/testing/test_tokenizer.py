"""The contract holds for every tokenizer that is shipped, and finds what breaks it, with a word on what to do."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random as python_random
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.config import TransformerConfig
from anyformer.model.embeddings import EmbeddingConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.model.lifts import Projection
from anyformer.model.positions import PositionConfig
from anyformer.testing.tokenizer import check_tokenizer
from anyformer.tokenizers.audio.audio import Audio, AudioStem
from anyformer.tokenizers.audio.mel import MelConfig, log_mel
from anyformer.tokenizers.episode.continuous import Returns, Vector
from anyformer.tokenizers.episode.discrete import Bins, Categories, Letters
from anyformer.tokenizers.episode.frames import Frames
from anyformer.tokenizers.episode.steps import Stretch
from anyformer.tokenizers.facets import Facets
from anyformer.tokenizers.graph import Graph
from anyformer.tokenizers.image.augmentation import Augmentation
from anyformer.tokenizers.image.patches import ConvStem, ImagePatches
from anyformer.tokenizers.image.reading import open_image
from anyformer.tokenizers.molecule import Molecule
from anyformer.tokenizers.points import Points, PointsAugmentation
from anyformer.tokenizers.pretrained import EncoderConfig, Pretrained
from anyformer.tokenizers.row import Row
from anyformer.tokenizers.series.augmentation import SeriesAugmentation
from anyformer.tokenizers.series.series import Series
from anyformer.tokenizers.text.ngrams import NGrams
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.tree.tree import Tree
from anyformer.tokenizers.video import Video
from anyformer.tokens import Tokenizer, TokenSet
from tests.helpers.drawn import noise
from tests.helpers.sounds import hiss

# What is shipped.


class Case(NamedTuple):
    tokenizer: Tokenizer | type[Tokenizer]
    samples: list[Any]
    more: dict[str, Any] = {}  # noqa: RUF012


def stretches(*shape: int, low: float = -1, high: float = 1, dtype: str = "float32") -> list[Stretch]:
    values = np.random.default_rng(0).uniform(low, high, (6, *shape)).astype(dtype)
    return [Stretch(values[i:j], np.arange(i, j)) for i, j in ((0, 3), (3, 4), (2, 6))]


def values(record: Stretch) -> Any:
    return record.values


def learnt(tokenizer: Tokenizer, samples: list[Stretch]) -> Tokenizer:
    """Step tokenizers learn from values alone."""
    return tokenizer.fit([record.values for record in samples])


def pretrained(tokenizer: Tokenizer, *positions: PositionConfig, pool: str = "tokens") -> Pretrained:
    """Read by an encoder with a class token."""
    inside = {"inner": tokenizer, "class": LearnedTokens(1)}
    sizes, embedding = TransformerConfig(d_model=8, depth=1, n_heads=2), EmbeddingConfig(positions=list(positions))
    return Pretrained("runs/x", pool=pool).opened(EncoderConfig("inner", inside, sizes, embedding, False, "class"))


def grey(clip: np.ndarray) -> np.ndarray:
    return np.stack([open_image(frame, 1)[0].numpy()[..., None] for frame in clip])


MEL = MelConfig(n_mels=20)
TEXTS = ["a rose is a rose", "ab", "rose"]
WALK = np.cumsum(np.random.default_rng(0).normal(size=(3, 11)), 1)
TIMED = [{"t": [0.5, 1.5, 2, 7], "x": [1, None, 2, 3]}, {"t": [3.0], "x": [-1.0]}]
SMALL, LARGE = noise(8, 8, 3), noise(9, 17, 3, seed=1)
PETS = [{"age": "4", "kind": "cat"}, {"age": None, "kind": "dog"}, {"age": "6", "kind": "cat"}]
SHY = {"kind": "dog"}
"""The pet of no known age."""
FILM = noise(4, 4, 4, 3)
STATES, RETURNS = stretches(2, low=-3, high=9), stretches()
WORDS = [Stretch(np.array(["ab", "", "a"], dtype=object), np.arange(3)), Stretch(np.array(["b"], dtype=object), [7])]

CASES = {
    "LearnedTokens": [Case(LearnedTokens, [None] * 2), Case(LearnedTokens(3, placed=True), [None] * 2)],
    "Text": [
        Case(Text("bytes"), TEXTS),
        Case(Text("characters", max_len=20), TEXTS),
        Case(Text(vocab_size=260), TEXTS),
    ],
    "ImagePatches": [
        Case(ImagePatches(size=(8, 8), patch=4), [SMALL, SMALL // 2], {"decoded": open_image, "bad": ["gone.png", 3]}),
        Case(
            ImagePatches(size=None, patch=4, channels=1),
            [SMALL, LARGE],
            {
                "decoded": lambda image: open_image(image, 1)[:, image.shape[0] % 4 // 2 :, image.shape[1] % 4 // 2 :][
                    :, : image.shape[0] // 4 * 4, : image.shape[1] // 4 * 4
                ]
            },
        ),
        Case(
            ImagePatches(size=(8, 8), patch=4, stem=ConvStem(d_hidden=3), augment=Augmentation(shift=1.0, flip=True)),
            [SMALL, SMALL // 2],
            {"decoded": open_image},
        ),
        Case(ImagePatches(size=None, patch=2, stem=ConvStem()), [SMALL[:4], SMALL], {"decoded": open_image}),
    ],
    "Audio": [
        Case(
            Audio(MEL, slice=1),
            [hiss(1600), hiss(800, seed=1)],
            {"decoded": lambda samples: log_mel([samples], MEL)[0], "bad": [torch.zeros(0)]},
        ),
        Case(
            Audio(MEL, stem=AudioStem(d_hidden=8)),
            [hiss(1600), hiss(3200, seed=1), hiss(1440)],
            {"decoded": lambda samples: log_mel([samples], MEL)[0]},
        ),
    ],
    "Vector": [
        Case(learnt(Vector(shape=(2,), max_steps=9), STATES), STATES, {"decoded": values, "tolerance": 1e-4}),
    ],
    "Returns": [Case(Returns(scale=2.0), RETURNS, {"decoded": values, "fit": [np.ones(1)]})],
    "Categories": [
        Case(
            Categories(shape=(2,), counts=(3, 4), starts=(0, 1)),
            stretches(2, low=1, high=3, dtype="int64"),
            {"decoded": values},
        ),
    ],
    "Bins": [Case(Bins(shape=(3,), n_bins=1024), stretches(3), {"decoded": values, "tolerance": 0.05})],
    "Letters": [Case(Letters(characters="ab", max_len=4), WORDS, {"decoded": values})],
    "Frames": [
        Case(Frames(shape=(5, 6, 3), patch=4), stretches(5, 6, 3, low=0, high=255, dtype="uint8"), {"decoded": values}),
        Case(
            Frames(shape=(4, 4), patch=2, stem=ConvStem(d_hidden=4)),
            stretches(4, 4, low=0, high=255, dtype="uint8"),
            {"decoded": values},
        ),
    ],
    "Series": [
        Case(
            Series(augment=SeriesAugmentation(jitter=0.1, scale=0.1, shift=0.1, crop=0.5)),
            [WALK, WALK[:, :5]],
            {"bad": ["gone.npy", [[1, 2]], [["x"] * 3] * 3]},
        ),
        Case(Series(width=3, time_first=True, normalize=False), [WALK.T, WALK.T[:7]]),
        Case(
            Series(width=2, times="t"),
            TIMED,
            {"decoded": lambda r: {name: np.array(part, dtype=np.float64) for name, part in r.items()}},
        ),
        Case(Series(width=2, rate=50.0), [WALK, WALK[:, :4]]),
    ],
    "Row": [Case(Row, PETS, {"decoded": lambda pet: {**pet, "age": float(pet["age"])} if pet["age"] else SHY})],
    "Video": [
        Case(
            Video(size=(4, 4), frames=None, patch=2, augment=Augmentation(flip=True)),
            [FILM, FILM[:2]],
            {"bad": ["a.txt"]},
        ),
        Case(Video(size=(4, 4), frames=4, patch=4, channels=1), [FILM, FILM[::-1]], {"decoded": grey}),
    ],
    "Points": [
        Case(
            Points(normalize="data", augment=PointsAugmentation(rotate="any", jitter=0.1)),
            [WALK.T, WALK.T[:4] * 2],
            {"bad": ["gone.npy", [[1, 2]]]},
        ),
        Case(
            Points(normalize="none"),
            [np.pad(WALK.T, ((0, 0), (0, 1)), constant_values=3), np.ones((3, 4))],
        ),
    ],
    "Facets": [
        Case(
            Facets({"atoms": Molecule("graph"), "symbols": NGrams(dropout=0.2)}),
            ["CCO", "c1ccccc1", "C[C@H](N)C(=O)O"],
            {"bad": ["C?", 3]},
        )
    ],
    "NGrams": [
        Case(NGrams, ["one two", "three", "naïve \ud800"], {"bad": [3, "x" * 513]}),
        Case(NGrams(n=2, unit="words", n_buckets=64, dropout=0.3, max_len=9), ["one two, three", "four five"]),
    ],
    "Graph": [
        Case(
            Graph(edges_only=True),
            [{"nodes": ["a", "b", "a"], "edges": [[0, 1, "x"], [1, 2]]}, {"nodes": ["b"], "edges": [[0, 0, "y"]]}],
            {"bad": [{"nodes": ["a"], "edges": [[0, 1]]}, "a", {"nodes": [[1.0]]}]},
        ),
        Case(
            Graph(directed=False, reverse="own"),
            [{"nodes": [[1.0, 2.0], [0.5, 1.0]], "edges": [[0, 1]]}, {"nodes": [[3.0, 0.0]], "edges": []}],
        ),
        Case(
            Graph("text", text=Text("characters")),
            [{"nodes": ["ab", "", "c"], "edges": [[2, 0, "x"]]}, {"nodes": ["cab"], "edges": []}],
            {"bad": [{"nodes": [3]}]},
        ),
    ],
    "Molecule": [
        Case(Molecule(), ["CCO", "c1ccccc1", "C[C@H](N)C(=O)O"], {"bad": ["C?", 3]}),
        Case(Molecule("graph"), ["CCO", "c1ccccc1[Na]", "C#N"]),
        Case(Molecule("graph", relations="bonds"), ["CCO", "c1ccccc1[Na]", "C#N"]),
    ],
    "Tree": [Case(Tree("brackets"), ["[MAX 2 [MIN 4 7 ] 0 ]", "(S (NP dogs ) bark )"], {"bad": ["(S dogs", "a)", 7]})],
    "Pretrained": [
        Case(pretrained(Text("bytes"), PositionConfig(("word",), "sinusoidal")), TEXTS, {"bad": [3]}),
        Case(
            pretrained(ImagePatches((8, 8), patch=4, stem=ConvStem(d_hidden=3)), pool="class"),
            [SMALL, SMALL // 2],
            {"decoded": open_image},
        ),
        Case(pretrained(Molecule("graph"), pool="mean"), ["CCO", "c1ccccc1[Na]", "C#N"]),
        Case(pretrained(Molecule("graph", relations="bonds")), ["CCO", "c1ccccc1[Na]", "C#N"]),
    ],
}
"""Of every tokenizer in tokenizers/ at least one, by its class."""


def shipped() -> set[str]:
    package = importlib.import_module("anyformer.tokenizers")
    found = {"LearnedTokens"}
    for info in pkgutil.walk_packages(package.__path__, "anyformer.tokenizers."):
        module = importlib.import_module(info.name)
        found |= {
            name
            for name, cls in inspect.getmembers(module, inspect.isclass)
            if issubclass(cls, Tokenizer) and not inspect.isabstract(cls) and cls.__module__ == module.__name__
        }
    return found


def test_every_shipped_tokenizer_is_among_the_cases() -> None:
    assert shipped() == set(CASES), "a tokenizer without a case above, or a case of none that is shipped"


@pytest.mark.parametrize("name", [f"{name} {i}" for name, cases in CASES.items() for i in range(len(cases))])
def test_a_shipped_tokenizer_keeps_the_contract(name: str) -> None:
    cls, i = name.split()
    case = CASES[cls][int(i)]
    assert (case.tokenizer if isinstance(case.tokenizer, type) else type(case.tokenizer)).__name__ == cls
    check_tokenizer(case.tokenizer, case.samples, **case.more)


# What breaks it.


@dataclass(frozen=True)
class Faulty(Tokenizer):
    """Numbers of a list as tokens, with a fault of choice; `none` is none."""

    fault: str = "none"
    learnt: tuple[int, ...] | None = None
    axes = ("time",)
    n_relations = 2

    @property
    def sizes(self) -> dict[str, int]:
        return {"time": 2} if self.fault == "sizes" else {}

    @property
    def augments(self) -> bool:
        return self.fault != "augments"

    @property
    def edges_only(self) -> bool:
        return self.fault == "edges only"

    def encode(self, record: list[float], random: np.random.Generator | None = None) -> TokenSet:
        fault, n = self.fault, len(record)
        if fault == "shared generator":
            np.random.rand()
        if fault == "record":
            record.append(0.0)
        if fault == "refusal" and n > 8:
            raise InputError("too long\nby far")
        content = torch.tensor(record[:n], dtype=torch.float32)[:, None]
        if random is not None:
            source = np.random.default_rng() if fault == "other generator" else random
            content = content + torch.from_numpy(source.normal(size=(n, 1)).astype(np.float32))
        if fault == "drawn":
            content = content + np.random.default_rng().random()
        position = torch.arange(n)[:, None]
        order, relation = torch.zeros(n, dtype=torch.int64), None
        if fault == "position":
            position = position.double()
        elif fault == "early":
            position = position - 1
        elif fault == "content":
            content = content.double()
        elif fault == "missing number":
            content = content / 0 * 0
        elif fault == "order":
            order = order - 1
        elif fault == "relation":
            relation = torch.full((n, n), 2)
        elif fault == "blind":
            relation = torch.full((n, n), -1)
        edges = {"edges": torch.tensor([[0, 0, 2]]), "empty edges": torch.zeros(0, 3, dtype=torch.int64)}.get(fault)
        return [content] if fault == "type" else TokenSet(content, position, order, relation, edges=edges)

    def count(self, record: list[float]) -> int:
        return len(record) + (self.fault == "count")

    def decode(self, tokens: TokenSet) -> list[float]:
        return (tokens.content[:, 0] + (self.fault == "decode")).tolist()

    def show(self, tokens: TokenSet) -> np.ndarray | None:
        return np.zeros((2, 2)) if self.fault == "show" else None

    def empty(self) -> TokenSet:
        n = int(self.fault == "empty")
        edges = torch.zeros(0, 3, dtype=torch.int64) if self.fault == "edges" else None
        return TokenSet(torch.zeros(n, 1), torch.zeros(n, 1, dtype=torch.int64), edges=edges)

    def lift(self, d_model: int) -> nn.Module:
        return (Neighbourly if self.fault == "neighbours" else Projection)(1, d_model)

    def fit(self, records: Any) -> Tokenizer:
        if self.fault == "list":
            return replace(self, learnt=[1])
        return replace(self, learnt=np.int64) if self.fault == "class" else self


class Neighbourly(Projection):
    """Looks at the token before, of whatever sample it is."""

    def forward(self, content: Tensor, extents: Any = ()) -> Tensor:
        return super().forward(content + content.roll(1, 0))


NUMBERS = [[1.0, 2.0, 4.0], [3.0]]

FAULTS = {
    "augments": "encode draws from `random`, and `augments` says that it does not; let it be True",
    "shared generator": "encode draws from a generator that all share; draw from `random` alone",
    "record": "encode changes the record; copy what it changes",
    "other generator": "encode gives something else from the same generator",
    "drawn": "encode gives something else each time without a generator",
    "type": "encode must return a TokenSet, got list",
    "position": r"position is \(3, 1\) float64, and that of empty\(\) is \(0, 1\) int64",
    "early": "stands at -1 on the axis time; whole positions start at 0",
    "content": r"content is \(3, 1\) float64, and that of empty\(\) is \(0, 1\) float32",
    "missing number": "content is not finite; refuse or fill in what is missing",
    "order": "order must be int64 and at least 0",
    "relation": r"relations must be int64 from -1 to 1 \(n_relations - 1\), got torch.int64 from 2 to 2",
    "blind": r"a token must see itself: relation\[i, i\] != -1",
    "edges": r"kinds of edges must be int64 from 0 to 1 \(n_relations - 1\), got torch.int64 from 2 to 2",
    "empty edges": r"encode and empty\(\) must both give edges, a list of none where there are none, or neither",
    "edges only": "edges_only is set, and there is no list of edges",
    "sizes": "stands at 2 on the axis time, and `sizes` says 2 places",
    "count": "count says 4 tokens and encode gives 3",
    "decode": r"decode gives \[2.0, 3.0, 5.0\] where \[1.0, 2.0, 4.0\] is wanted; mend decode",
    "show": r"show must return \(rows, columns, 3\) uint8 or None",
    "empty": r"empty\(\) must be a TokenSet of no tokens",
    "neighbours": "lifting a batch is not lifting each sample alone: something of one reaches another",
    "list": r"field 'learnt' is \[1\] and comes back from a config as \(1,\); turn lists into tuples",
    "class": "a config cannot hold it",
}


def test_a_tokenizer_without_fault_passes() -> None:
    check_tokenizer(Faulty, NUMBERS)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_said(fault: str) -> None:
    with pytest.raises(AssertionError, match=f"^Faulty.*: .*{FAULTS[fault]}"):
        check_tokenizer(Faulty(fault), [list(numbers) for numbers in NUMBERS])


def test_bad_records_must_be_refused_in_one_line() -> None:
    with pytest.raises(AssertionError, match=r"\[1.0\] must be refused by an InputError, and is taken"):
        check_tokenizer(Faulty, NUMBERS, bad=[[1.0]])
    with pytest.raises(AssertionError, match=r"'a' must be refused by an InputError that says .* raises \w+Error"):
        check_tokenizer(Faulty, NUMBERS, bad=["a"])
    with pytest.raises(AssertionError, match=r"what is wrong with .* must be said in one line"):
        check_tokenizer(Faulty("refusal"), NUMBERS, bad=[[0.0] * 9])


def test_a_class_that_is_no_frozen_dataclass_is_refused() -> None:
    class Plain(Faulty):
        pass

    with pytest.raises(AssertionError, match=r"Plain: must be a frozen dataclass: put @dataclass\(frozen=True\)"):
        check_tokenizer(Plain, NUMBERS)
    with pytest.raises(AssertionError, match=r"dict: must be a subclass of anyformer\.tokens\.Tokenizer"):
        check_tokenizer(dict, NUMBERS)
    with pytest.raises(AssertionError, match="give at least two samples, best of unlike lengths, got 1"):
        check_tokenizer(Faulty, NUMBERS[:1])


@dataclass(frozen=True)
class Sides(Tokenizer):
    """A record of two fields."""

    inner: Tokenizer = Faulty()

    @property
    def parts(self) -> dict[str, Tokenizer]:
        return {"left": self.inner, "right": Faulty("neighbours") if self.inner.fault == "twin" else self.inner}

    def encode(self, record: list[float], random: np.random.Generator | None = None) -> dict[str, TokenSet]:
        return {"left": self.inner.encode(record, random), "right": self.inner.encode(record[:1], random)}

    def empty(self) -> TokenSet:
        raise NotImplementedError

    lift = empty


def test_every_part_of_a_record_of_several_fields_is_held_to_it() -> None:
    check_tokenizer(Sides, NUMBERS)
    with pytest.raises(AssertionError, match=r"Sides\.right: lifting a batch is not lifting each sample alone"):
        check_tokenizer(Sides(Faulty("twin")), NUMBERS)


def test_no_generator_is_left_changed() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), python_random.getstate()
    check_tokenizer(Faulty, NUMBERS)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all() and before[2] == python_random.getstate()

"""Words that stand in a tree: how deep each is, and the way from each to each other (Wang et al. 2019)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.lifts import Lookup
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.tree.brackets import read_brackets
from anyformer.tokenizers.tree.conllu import read_conllu
from anyformer.tokenizers.tree.parse import Parse, read_columns
from anyformer.tokens import Tokenizer, TokenSet

UNKNOWN = "<unk>"


class _Read(NamedTuple):
    """A record, read."""

    parse: Parse
    nodes: np.ndarray
    """(n,) int64: the nodes that become tokens."""

    @property
    def words(self) -> list[str]:
        return [self.parse.words[i] for i in self.nodes.tolist()]


@dataclass(frozen=True)
class Tree(Tokenizer):
    """Cuts a text that comes with its parse into words, on the axes `word`, their sequence, and `depth`, how many
    others stand above each in the tree (absolute structural positions: Wang et al. 2019, "Self-Attention with
    Structural Position Representations").

    What two words are to each other is the way between them: so many steps up from the one to the lowest node above
    both, and so many down to the other (their relative structural positions, of which both the direction and the
    common ancestor are told apart); a learned bias per head. Words of different sentences share one more relation. The
    tree may be of dependencies, where every node is a word, or of constituents.

    columns: a dict of two columns, words and heads, numbers of words counted from 1, 0 for the root; of several
    sentences each a list of lists. conllu: a text of one sentence or several in CoNLL-U. brackets: a text such as
    `(S (NP the dog) (VP barks))` or `[MAX 2 [MIN 4 7 ] 0 ]`.
    """

    format: Literal["columns", "conllu", "brackets"] = "columns"
    """How a record says its parse."""
    columns: tuple[str, str] = ("words", "heads")
    """Of columns: what the two are called."""
    inner: bool = True
    """Of brackets: whether what opens and closes them, `(NP` and `)`, is a token like a word; else words alone are,
    at the depths and ways that the whole tree gives them."""
    depth: bool = True
    """Whether `depth` is an axis."""
    path: bool = True
    """Whether the way between two words is their relation."""
    max_depth: int = 32
    """How many depths there are; what is deeper counts as the deepest."""
    max_path: int = 4
    """More steps up, or down, count as so many."""
    max_len: int | None = None
    """Tokens at the most; a longer text is refused. So far do learned positions reach."""
    vocab_size: int = 10_000
    """Words that are known at the most: the most frequent ones of the training records; all others are `<unk>`."""
    text: Text | None = None
    """Cuts each word further, into pieces that share its place in the tree, in the place of a vocabulary of words."""
    vocabulary: tuple[str, ...] | None = None
    """What `fit` has learnt: the words. It travels in the config of a run."""

    def __post_init__(self) -> None:
        for name in ("columns", "vocabulary"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("max_depth", "max_path", "max_len", "vocab_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if len(self.columns) != 2 or self.columns[0] == self.columns[1]:
            raise InputError(f"columns must name that of words and that of heads, got {list(self.columns)}")
        if self.text is not None and (self.text.wrap or self.text.max_len is not None):
            raise InputError("text cuts single words: leave its wrap and max_len out, and give max_len to the tree")

    @property
    def takes_columns(self) -> bool:  # type: ignore[override]
        return self.format == "columns"

    def reads_column(self, name: str) -> bool:
        return self.format != "columns" or name in self.columns

    @property
    def axes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("word", "depth") if self.depth else ("word",)

    @property
    def n_relations(self) -> int:  # type: ignore[override]
        """Steps up times steps down, both from 0 to max_path; and different sentences."""
        return (self.max_path + 1) ** 2 + 1 if self.path else 0

    @property
    def sizes(self) -> dict[str, int]:
        words = {} if self.max_len is None else {"word": self.max_len}
        return words | ({"depth": self.max_depth} if self.depth else {})

    def encode(self, record: Any, random: np.random.Generator | None = None) -> TokenSet:
        """record: as `format` says. Raises InputError for a parse that is none, with the word or line."""
        read = self._read(record)
        content, owners = self._cut(read.words)
        nodes = read.nodes[owners]
        position = torch.arange(len(nodes))[:, None]
        if self.depth:
            depths = read.parse.depths[nodes].clip(max=self.max_depth - 1)
            position = torch.cat([position, torch.from_numpy(depths)[:, None]], 1)
        return TokenSet(content, position, relation=self._relation(read.parse, nodes) if self.path else None)

    def words(self, record: Any) -> list[str]:
        """The words of a record, or the symbols of brackets, that become tokens or are cut into such."""
        return self._read(record).words

    def count(self, record: Any) -> int:
        return len(self._cut(self.words(record))[0])

    def decode(self, tokens: TokenSet) -> str:
        """The words with spaces between; the parse is lost, but where brackets are tokens."""
        return " ".join(self.pieces(tokens)) if self.text is None else self.text.decode(tokens)

    def pieces(self, tokens: TokenSet) -> list[str]:
        if self.text is not None:
            return self.text.pieces(tokens)
        spellings = (*self._words, UNKNOWN)
        return [spellings[i] for i in tokens.content.tolist()]

    def empty(self) -> TokenSet:
        return TokenSet(torch.zeros(0, dtype=torch.int64), torch.zeros(0, len(self.axes), dtype=torch.int64))

    def lift(self, d_model: int) -> nn.Module:
        return Lookup(len(self._words) + 1, d_model) if self.text is None else self.text.lift(d_model)

    # What the data decides.

    def fit(self, records: Iterable[Any]) -> Self:
        """A copy that holds the words of the records, or the vocabulary of their pieces.

        What is no parse is left out here: whoever reads it names the record, or leaves it out by on_bad_sample.
        """
        if self.text is not None:
            return replace(self, text=self.text.fit(" ".join(words) for words in self._readable(records)))
        if self.vocabulary is not None:
            return self
        counts = Counter(word for words in self._readable(records) for word in words)
        # Words of one count in the alphabet's sequence, so that the sequence of the records does not matter.
        common = sorted(counts, key=lambda word: (-counts[word], word))[: self.vocab_size]
        return replace(self, vocabulary=tuple(sorted(common)))

    def _readable(self, records: Iterable[Any]) -> Iterator[list[str]]:
        """The words of each record. Raises InputError where there are none, or none that can be read."""
        n, wrong = 0, "the training records are empty"
        for record in records:
            try:
                words = self.words(record)
            except InputError as error:
                wrong = str(error)
                continue
            n += 1
            yield words
        if not n:
            raise InputError(f"there is no word to learn the vocabulary from: {wrong}")

    def inherit(self, other: Tokenizer) -> Self:
        if not isinstance(other, Tree) or (self.text is None) != (other.text is None):
            return self
        if self.text is not None:
            return replace(self, text=self.text.inherit(other.text))
        return self if self.vocabulary is not None else replace(self, vocabulary=other.vocabulary)

    def agree(self, other: Tokenizer, name: str) -> None:
        if not isinstance(other, Tree):
            return
        if None not in (self.text, other.text):
            self.text.agree(other.text, name)
        if None in (self.vocabulary, other.vocabulary):
            return
        ours, theirs = ((*table.vocabulary, UNKNOWN) for table in (self, other))
        for i in range(max(len(ours), len(theirs))):
            one, two = (table[i] if i < len(table) else None for table in (ours, theirs))
            if one != two:
                raise InputError(
                    f"{name}: not the vocabulary that the model was trained with: word {i} was {one!r} and is {two!r}"
                )

    def rows_from(self, other: Tokenizer) -> Tensor | None:
        if not isinstance(other, Tree):
            return None
        if None not in (self.text, other.text):
            return self.text.rows_from(other.text)
        if None in (self.vocabulary, other.vocabulary) or self.vocabulary == other.vocabulary:
            return None
        theirs = _numbers((*other.vocabulary, UNKNOWN))
        return torch.tensor([theirs.get(word, -1) for word in (*self.vocabulary, UNKNOWN)])

    @property
    def _words(self) -> tuple[str, ...]:
        if self.vocabulary is None:
            raise InputError("the tree has no vocabulary yet: fit it to the training records first")
        return self.vocabulary

    def _read(self, record: Any) -> _Read:
        if self.format == "brackets":
            parse, is_word = read_brackets(record)
            return _Read(parse, np.arange(len(is_word)) if self.inner else np.flatnonzero(is_word))
        parse = read_columns(record, self.columns) if self.format == "columns" else read_conllu(record)
        return _Read(parse, np.arange(len(parse.words)))

    def _cut(self, words: list[str]) -> tuple[Tensor, np.ndarray]:
        """The ids of the tokens, and of each the number of its word, (n,) int64."""
        if self.text is None:
            known, unknown = _numbers(self._words), len(self._words)
            content = torch.tensor([known.get(word, unknown) for word in words], dtype=torch.int64)
            owners = np.arange(len(words))
        else:
            # As they stand in a text, for vocabularies that tell a word's first piece by the space before it.
            pieces = self.text.encode_batch([words[0], *(f" {word}" for word in words[1:])])
            content = torch.from_numpy(np.concatenate(pieces).astype(np.int64))
            owners = np.repeat(np.arange(len(words)), [len(each) for each in pieces])
        if self.max_len is not None and len(content) > self.max_len:
            raise InputError(f"the text has {len(content)} tokens, more than max_len={self.max_len}; raise max_len")
        return content, owners

    def _relation(self, parse: Parse, nodes: np.ndarray) -> Tensor:
        """(n, n) int64, see `n_relations`."""
        up, down = (steps[np.ix_(nodes, nodes)] for steps in parse.steps)
        kinds = up.clip(max=self.max_path) * (self.max_path + 1) + down.clip(max=self.max_path)
        return torch.from_numpy(np.where(up < 0, self.n_relations - 1, kinds))


@lru_cache(maxsize=16)
def _numbers(words: tuple[str, ...]) -> dict[str, int]:
    return {word: i for i, word in enumerate(words)}

"""Molecules as tokens, from their SMILES: its symbols one after another, or the atoms as a set with the bonds between.

The graph needs RDKit (`pip install anyformer[molecules]`), and so does writing a SMILES in other sequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from anyformer.errors import InputError
from anyformer.model.lifts import FeatureLookup, Lookup
from anyformer.tokens import Tokenizer, TokenSet

if TYPE_CHECKING:
    from rdkit.Chem import Atom, Bond, Mol

ATOM = r"\[[^\[\]]*\]|Br|Cl|[BCNOPSFIbcnops*]"
SYMBOLS = re.compile(rf"({ATOM})|%\d\d|%\(\d+\)|\d|[()=#$:/\\.~>-]")
"""What a SMILES is cut into: atoms, in brackets with all that is said of them; bonds, branches and ends of rings (as
Schwaller et al. 2018, "Found in Translation", 3.2, do)."""
UNKNOWN = "<unk>"
N_WRITINGS = 4
"""In how many sequences each training molecule is written to find the symbols that augmentation may come upon."""

FEATURES = {
    "element": 119,
    "degree": 7,
    "charge": 7,
    "hydrogens": 5,
    "hybridisation": 7,
    "aromatic": 2,
    "ring": 7,
    "handedness": 3,
}
"""What an atom's content says, in this sequence, and how many values each has. element: atomic number, 0 for `*`.
degree: neighbours that are no hydrogen, 6 for more. charge: -3 to 3, as 0 to 6. hydrogens: 4 for more. ring: none, the
smallest of 3 to 7 atoms, larger. handedness: none, R, S, which do not hang on the sequence of the atoms, as the tags
@ and @@ do."""
HYBRIDS = ("S", "SP", "SP2", "SP3", "SP3D", "SP3D2")
BONDS = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")
"""Kinds of bonds that have a relation of their own; all others share one."""


@dataclass(frozen=True)
class Molecule(Tokenizer):
    """Cuts a molecule, given as SMILES, into tokens.

    smiles: its symbols, on the axis `word`, the content being (n,) ids of a vocabulary learnt from the training
    records, and `<unk>` for all others; decode(encode(s)) == s for known symbols.
    graph: its atoms without hydrogens, a set without positions. The content is (n, 8) ids, see `FEATURES`, each lifted
    by a table and summed. What two atoms are to each other is their bond, or else how many bonds lie between them: a
    bias per head (Graphormer, Ying et al. 2021, 3.1.2; the kinds of bonds in place of its 3.1.3). With `relations:
    bonds` an atom sees itself and those it is bonded to alone, with a bias per kind of bond. So the sequence in
    which a SMILES happens to be written changes nothing.
    """

    kind: Literal["smiles", "graph"] = "smiles"
    """What a token is: a symbol of the SMILES, or an atom."""
    max_len: int = 512
    """Tokens at the most; a larger molecule is refused. So far do learned positions of symbols reach."""
    max_distance: int = 8
    """Of a graph: atoms so many bonds apart, or more, are the same to each other."""
    relations: Literal["distances", "bonds"] = "distances"
    """Of a graph, which atoms see each other. distances: all, by how many bonds lie between them. bonds: those between
    which there is a bond, so that what is further off comes to an atom layer by layer."""
    strict: bool = True
    """Whether RDKit may refuse a molecule where an atom has more bonds than it can have."""
    augment: bool = False
    """Of a SMILES: in training it is written anew, from an atom and in a sequence that are drawn (Bjerrum 2017), and
    otherwise in RDKit's own canonical way."""
    vocabulary: tuple[str, ...] | None = None
    """What `fit` has learnt: the symbols. It travels in the config of a run."""

    n_features: ClassVar[int] = len(FEATURES)

    def __post_init__(self) -> None:
        if isinstance(self.vocabulary, list):
            object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        if self.max_len < 1:
            raise InputError(f"max_len must be at least 1, got {self.max_len}")
        if self.max_distance < 2:
            raise InputError(f"max_distance must be at least 2, got {self.max_distance}")
        if self.augment and self.kind == "graph":
            raise InputError(
                "augment writes the atoms in another sequence, and a graph has none; leave it out, or give kind: smiles"
            )
        if self.relations == "bonds" and self.kind == "smiles":
            raise InputError("relations: bonds is of atoms; give kind: graph, or leave relations out")
        if self.kind == "graph" or self.augment:
            _chemistry()

    @property
    def axes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("word",) if self.kind == "smiles" else ()

    @property
    def n_relations(self) -> int:  # type: ignore[override]
        """Itself; a bond of each kind; 2, 3, ... max_distance bonds apart; not joined at all. Along bonds alone their
        kinds."""
        if self.kind == "smiles":
            return 0
        n_kinds = len(BONDS) + 1
        return n_kinds if self.edges_only else 1 + n_kinds + (self.max_distance - 1) + 1

    @property
    def edges_only(self) -> bool:  # type: ignore[override]
        return self.kind == "graph" and self.relations == "bonds"

    @property
    def sizes(self) -> dict[str, int]:
        return {"word": self.max_len} if self.kind == "smiles" else {}

    def encode(self, record: str, random: np.random.Generator | None = None) -> TokenSet:
        """record: the SMILES.

        Raises InputError, with the place in it, for what is no SMILES or (with RDKit) no molecule.
        """
        if self.kind == "graph":
            return self._graph(read_molecule(record, self.strict))
        symbols = self._checked(cut(self._spelt(record, random)))
        known, unknown = _numbers(self._symbols), len(self._symbols)
        ids = torch.tensor([known.get(symbol, unknown) for symbol in symbols], dtype=torch.int64)
        return TokenSet(ids, torch.arange(len(ids))[:, None])

    def count(self, record: str) -> int:
        if self.kind == "graph":
            return len(self._checked(list(read_molecule(record, self.strict).GetAtoms())))
        return len(self._checked(cut(self._spelt(record))))

    def decode(self, tokens: TokenSet) -> str:
        """The SMILES; a graph has lost how it was written."""
        if self.kind == "graph":
            return super().decode(tokens)
        spellings = (*self._symbols, UNKNOWN)
        return "".join(spellings[i] for i in tokens.content.tolist())

    def pieces(self, tokens: TokenSet) -> list[str]:
        """The symbols, or those of the atoms' elements."""
        if self.kind == "smiles":
            return [(*self._symbols, UNKNOWN)[i] for i in tokens.content.tolist()]
        elements = _chemistry().GetPeriodicTable()
        return [elements.GetElementSymbol(number) if number else "*" for number in tokens.content[:, 0].tolist()]

    def empty(self) -> TokenSet:
        content = torch.zeros(0, *((self.n_features,) if self.kind == "graph" else ()), dtype=torch.int64)
        edges = torch.zeros(0, 3, dtype=torch.int64) if self.edges_only else None
        return TokenSet(content, torch.zeros(0, len(self.axes), dtype=torch.int64), edges=edges)

    def lift(self, d_model: int) -> nn.Module:
        return (
            FeatureLookup(list(FEATURES.values()), d_model)
            if self.kind == "graph"
            else Lookup(len(self._symbols) + 1, d_model)
        )

    def fit(self, records: Iterable[str]) -> Self:
        """A copy that holds the symbols of the records, and of a few other ways to write them where it augments."""
        if self.kind == "graph" or self.vocabulary is not None:
            return self
        found: set[str] = set()
        for i, record in enumerate(records):
            drawn = [np.random.default_rng((i, n)) for n in range(N_WRITINGS)] if self.augment else []
            for random in (None, *drawn):
                found |= set(cut(self._spelt(record, random)))
        if not found:
            raise InputError("there is no molecule to learn the symbols from: the training records are empty")
        return replace(self, vocabulary=tuple(sorted(found)))

    def inherit(self, other: Tokenizer) -> Self:
        if self.vocabulary is not None or not isinstance(other, Molecule) or other.kind != self.kind:
            return self
        return replace(self, vocabulary=other.vocabulary)

    def agree(self, other: Tokenizer, name: str) -> None:
        if not isinstance(other, Molecule) or None in (self.vocabulary, other.vocabulary):
            return
        ours, theirs = ((*table.vocabulary, UNKNOWN) for table in (self, other))
        for i in range(max(len(ours), len(theirs))):
            one, two = (table[i] if i < len(table) else None for table in (ours, theirs))
            if one != two:
                raise InputError(
                    f"{name}: not the vocabulary that the model was trained with: symbol {i} was {one!r} and is {two!r}"
                )

    @property
    def _symbols(self) -> tuple[str, ...]:
        if self.vocabulary is None:
            raise InputError("the molecules have no vocabulary yet: fit it to the training records first")
        return self.vocabulary

    def _spelt(self, smiles: str, random: np.random.Generator | None = None) -> str:
        """The SMILES as it is cut: as it is given, or, where it augments, as RDKit writes it."""
        if not self.augment:
            return smiles
        molecule = read_molecule(smiles, self.strict)
        if random is None:
            return _chemistry().MolToSmiles(molecule)
        # Renumbered and written as it stands, so that the draw is of our generator and not of RDKit's own.
        order = random.permutation(molecule.GetNumAtoms()).tolist()
        return _chemistry().MolToSmiles(_chemistry().RenumberAtoms(molecule, order), canonical=False)

    def _checked(self, tokens: list[Any]) -> list[Any]:
        if len(tokens) > self.max_len:
            what = "atoms" if self.kind == "graph" else "symbols"
            raise InputError(f"the molecule has {len(tokens)} {what}, more than max_len={self.max_len}; raise max_len")
        return tokens

    def _graph(self, molecule: Mol) -> TokenSet:
        atoms = self._checked(list(molecule.GetAtoms()))
        rings = molecule.GetRingInfo()
        content = torch.tensor([_features(atom, rings.MinAtomRingSize(atom.GetIdx())) for atom in atoms])
        if self.edges_only:
            return TokenSet(content, edges=_bonds(molecule))
        return TokenSet(content, relation=self._relation(molecule))

    def _relation(self, molecule: Mol) -> Tensor:
        """(n, n) int64, see `n_relations`."""
        distance = _chemistry().GetDistanceMatrix(molecule)
        apart = len(BONDS)
        # RDKit says 1e8 where no path leads from one atom to the other.
        far = np.where(
            distance > len(distance), apart + self.max_distance + 1, apart + distance.clip(2, self.max_distance)
        )
        relation = np.where(distance == 0, 0, far).astype(np.int64)
        for bond in molecule.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            relation[i, j] = relation[j, i] = 1 + _kind(bond)
        return torch.from_numpy(relation)


def cut(smiles: str) -> list[str]:
    """The symbols of a SMILES. Raises InputError, with the place, where it holds something else.

    >>> cut("C[C@H](Cl)Br")
    ['C', '[C@H]', '(', 'Cl', ')', 'Br']
    """
    return [found[0] for found in _matches(smiles)]


def _matches(smiles: str) -> list[re.Match[str]]:
    if not isinstance(smiles, str):
        raise InputError(f"a molecule must be a SMILES, which is text, got {type(smiles).__name__}")
    found, place = [], 0
    while match := SYMBOLS.match(smiles, place):
        found.append(match)
        place = match.end()
    if place < len(smiles):
        raise InputError(
            f"{_quoted(smiles)} is no SMILES: at character {place + 1} stands {smiles[place]!r}, which begins no symbol"
        )
    if not found:
        raise InputError("the SMILES is empty")
    return found


def read_molecule(smiles: str, strict: bool = True) -> Mol:
    """The molecule that a SMILES says, by RDKit.

    strict: whether an atom with more bonds than it can have is refused.
    Raises InputError, with the place, for what is none.
    """
    from rdkit import rdBase

    chemistry, symbols = _chemistry(), _matches(smiles)
    with rdBase.BlockLogs(), rdBase.CaptureErrorLog() as log:
        molecule = chemistry.MolFromSmiles(smiles, sanitize=False)
    if molecule is None:
        raise InputError(f"{_quoted(smiles)} is no SMILES: {_complaint(log.messages)}")
    if not molecule.GetNumAtoms():
        raise InputError(f"{_quoted(smiles)} names no atom")
    # In the sequence of the SMILES, which ends once hydrogens are taken out.
    atoms = [match for match in symbols if match[1]]
    with rdBase.BlockLogs():
        try:
            # What is often written otherwise, as the nitro group N(=O)=O, is mended before bonds are counted.
            chemistry.SanitizeMol(molecule, chemistry.SANITIZE_CLEANUP)
            molecule.UpdatePropertyCache(strict=strict)
            chemistry.SanitizeMol(molecule, chemistry.SANITIZE_ALL ^ chemistry.SANITIZE_PROPERTIES)
        except chemistry.MolSanitizeException as error:
            # The first number is an atom's: "Explicit valence for atom # 1 C, 5, ...", "Unkekulized atoms: 0 1 2".
            first = re.search(r"\d+", str(error))
            place = f" (at character {atoms[int(first[0])].start() + 1})" if first else ""
            hint = "" if "valence" not in str(error) else "; mend it, or give strict: false"
            raise InputError(f"{_quoted(smiles)} is no molecule: {error}{place}{hint}") from None
        molecule = chemistry.RemoveHs(molecule, sanitize=False)
        chemistry.AssignStereochemistry(molecule, cleanIt=True, force=True)
    return molecule


def _complaint(log: str) -> str:
    """What RDKit says of a SMILES that it cannot read, in one line: `syntax error ..., around character 5`."""
    lines = [re.sub(r"^\[[\d:]+\] ", "", line) for line in log.splitlines()]
    said = [re.sub(r"(SMILES Parse Error: | while parsing.*| for input.*)", "", line) for line in lines]
    place = re.search(r"around position (\d+)", log)
    return said[0] + (f" about character {place[1]}" if place else "")


def _quoted(smiles: str) -> str:
    return repr(smiles if len(smiles) <= 200 else smiles[:200] + "...")


def _features(atom: Atom, ring: int) -> list[int]:
    """As `FEATURES` says."""
    hybrid = atom.GetHybridization().name
    handedness = atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else ""
    return [
        atom.GetAtomicNum(),
        min(atom.GetDegree(), 6),
        min(max(atom.GetFormalCharge(), -3), 3) + 3,
        min(atom.GetTotalNumHs(), 4),
        HYBRIDS.index(hybrid) if hybrid in HYBRIDS else len(HYBRIDS),
        int(atom.GetIsAromatic()),
        min(ring - 2, 6) if ring else 0,
        ("", "R", "S").index(handedness) if handedness in ("R", "S") else 0,
    ]


def _bonds(molecule: Mol) -> Tensor:
    """Each bond as two edges, one each way, (e, 3) int64."""
    bonds = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), _kind(bond)) for bond in molecule.GetBonds()]
    edges = torch.tensor(bonds, dtype=torch.int64).view(-1, 3)
    return torch.cat([edges, edges[:, [1, 0, 2]]])


def _kind(bond: Bond) -> int:
    name = bond.GetBondType().name
    return BONDS.index(name) if name in BONDS else len(BONDS)


@lru_cache(maxsize=1)
def _chemistry() -> Any:
    try:
        from rdkit import Chem
    except ImportError:
        raise InputError(
            "molecules as graphs, and other ways to write a SMILES, need RDKit: pip install 'anyformer[molecules]', "
            "or give kind: smiles without augment"
        ) from None
    return Chem


@lru_cache(maxsize=16)
def _numbers(symbols: tuple[str, ...]) -> dict[str, int]:
    return {symbol: i for i, symbol in enumerate(symbols)}

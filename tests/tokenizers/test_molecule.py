"""Molecules: symbols of SMILES, atoms as a set, and what does not hang on how a molecule is written."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import jsonargparse
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import anyformer
from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.model.anyformer import Anyformer
from anyformer.model.config import TransformerConfig
from anyformer.model.learned_tokens import LearnedTokens
from anyformer.packing import collate
from anyformer.tokenizers import molecule
from anyformer.tokenizers.molecule import FEATURES, Molecule, cut, read_molecule
from anyformer.tokens import TokenSet
from tests.helpers.witnesses import redraw

DATA = Path(os.environ.get("ANYFORMER_DATA", "data"))
CAFFEINE, ALANINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "C[C@@H](C(=O)O)N"
SALT, DRUG = "CC(=O)[O-].[Na+]", "C/C=C/[C@H](Cl)c1ccc2c(c1)OC[C@]2(C)Br"
MOLECULES = [CAFFEINE, ALANINE, SALT, DRUG, "O", "C#N", "[2H]C1CC1"]
GRAPH = Molecule("graph")


# Symbols


def test_a_smiles_is_cut_into_its_symbols():
    assert cut("ClC%12=[N+](C)/C%12.Br") == ["Cl", "C", "%12", "=", "[N+]", "(", "C", ")", "/", "C", "%12", ".", "Br"]
    smiles = Molecule().fit(MOLECULES)
    assert smiles.vocabulary == tuple(sorted({symbol for each in MOLECULES for symbol in cut(each)}))
    for each in MOLECULES:
        tokens = smiles.encode(each)
        assert smiles.decode(tokens) == each and len(tokens) == smiles.count(each)
        assert tokens.position[:, 0].tolist() == list(range(len(tokens)))
    assert smiles.decode(smiles.encode("CCP")) == "CC<unk>" and smiles.axes == ("word",)


def test_a_token_says_its_symbol_or_its_element():
    symbols = Molecule().fit(["C[C@H](Cl)Br"])
    assert symbols.pieces(symbols.encode("BrCN")) == ["Br", "C", "<unk>"]
    graph = Molecule(kind="graph")
    assert graph.pieces(graph.encode("OC(Cl)C*")) == ["O", "C", "Cl", "C", "*"]


def test_a_vocabulary_is_kept_taken_over_and_compared():
    smiles = Molecule().fit(["CO", "N"])
    assert smiles.vocabulary == ("C", "N", "O") and smiles.fit(["S"]) == smiles
    assert Molecule().inherit(smiles) == smiles and Molecule("graph").inherit(smiles) == Molecule("graph")
    smiles.agree(Molecule(vocabulary=["C", "N", "O"]), "other")
    with pytest.raises(InputError, match=r"^other: not the vocabulary .*: symbol 1 was 'N' and is 'O'$"):
        smiles.agree(Molecule(vocabulary=("C", "O")), "other")
    with pytest.raises(InputError, match="have no vocabulary yet"):
        Molecule().encode("C")
    with pytest.raises(InputError, match="the training records are empty"):
        Molecule().fit([])


def test_augmentation_writes_the_same_molecule_in_other_ways():
    smiles = Molecule(augment=True).fit([CAFFEINE, ALANINE, DRUG])
    written = [smiles.decode(smiles.encode(DRUG, np.random.default_rng(seed))) for seed in range(20)]
    assert written[0] == smiles.decode(smiles.encode(DRUG, np.random.default_rng(0)))
    assert len(set(written)) > 10
    plain = smiles.decode(smiles.encode(DRUG))
    # Otherwise it is always written in one way.
    assert all(smiles.decode(smiles.encode(each)) == plain for each in (*written, DRUG))
    assert smiles.count(DRUG) == len(smiles.encode(DRUG))


# Graphs


def test_atoms_say_what_they_are_and_pairs_what_they_are_to_each_other():
    tokens = GRAPH.encode("O=C([O-])c1ccccc1.[Na+]")
    names = list(FEATURES)
    atoms = [dict(zip(names, atom, strict=True)) for atom in tokens.content.tolist()]
    assert [atom["element"] for atom in atoms] == [8, 6, 8, *[6] * 6, 11]
    assert [atom["charge"] - 3 for atom in atoms] == [0, 0, -1, *[0] * 6, 1]
    assert [atom["aromatic"] for atom in atoms] == [0] * 3 + [1] * 6 + [0]
    assert [atom["ring"] for atom in atoms] == [0] * 3 + [4] * 6 + [0]
    assert [atom["degree"] for atom in atoms] == [1, 3, 1, 3, 2, 2, 2, 2, 2, 0]
    assert [atom["hydrogens"] for atom in atoms] == [0, 0, 0, 0, 1, 1, 1, 1, 1, 0]
    relation = tokens.relation
    assert torch.equal(relation, relation.T) and not relation.diagonal().any()
    single, double, aromatic, two, apart = 1, 2, 4, 6, GRAPH.n_relations - 1
    assert relation[1, :4].tolist() == [double, 0, single, single] and relation[3, 4] == aromatic
    # The sixth atom of the ring is as far as the second.
    assert relation[0, 2:9].tolist() == [two, two, two + 1, two + 2, two + 3, two + 2, two + 1]
    assert relation[9, :9].tolist() == [apart] * 9
    assert GRAPH.axes == () and tokens.position.shape == (10, 0)


def test_along_bonds_alone_an_atom_sees_its_neighbours():
    bonds = Molecule("graph", relations="bonds")
    single, double, aromatic = 0, 1, 3
    tokens = bonds.encode("O=C([O-])c1ccccc1.[Na+]")
    assert tokens.relation is None and bonds.edges_only and bonds.n_relations == 5
    ring = [(3, 4), (4, 5), (5, 6), (6, 7), (7, 8), (8, 3)]
    expected = {(0, 1, double), (1, 2, single), (1, 3, single), *((i, j, aromatic) for i, j in ring)}
    assert {*map(tuple, tokens.edges.tolist())} == expected | {(j, i, kind) for i, j, kind in expected}
    # They are the bonds of the distances, in whose numbers the atom itself comes first.
    relation = GRAPH.encode("O=C([O-])c1ccccc1.[Na+]").relation
    assert all(relation[i, j] == kind + 1 for i, j, kind in tokens.edges.tolist())
    assert torch.equal(tokens.content, GRAPH.encode("O=C([O-])c1ccccc1.[Na+]").content)
    assert bonds.encode("O").edges.shape == (0, 3) and not GRAPH.edges_only


def test_along_bonds_alone_what_is_far_comes_layer_by_layer():
    """Atoms 3 bonds apart know of each other after 3 layers."""
    bonds = Molecule("graph", relations="bonds")
    torch.manual_seed(0)
    for depth, is_known in ((2, False), (3, True)):
        model = Anyformer({"atoms": bonds}, TransformerConfig(d_model=16, n_heads=4, depth=depth)).eval()
        redraw(model)
        one = bonds.encode("CCCC")
        content = one.content.clone()
        content[3, 0] = 8
        with torch.no_grad():
            first, second = (
                model(collate([{"atoms": each}], {"atoms": bonds}))[0, 0]
                for each in (one, replace(one, content=content))
            )
        assert torch.equal(first, second) != is_known


def test_atoms_far_apart_are_the_same_to_each_other():
    relation = Molecule("graph", max_distance=3).encode("CCCCCCC").relation[0]
    assert relation.tolist() == [0, 1, 6, 7, 7, 7, 7] and Molecule("graph", max_distance=3).n_relations == 9
    assert Molecule("graph", max_distance=2).encode("CCCC").relation[0].tolist() == [0, 1, 6, 6]


def test_left_and_right_hands_are_told_apart_however_they_are_written():
    column = list(FEATURES).index("handedness")
    left, right, same = (GRAPH.encode(s).content[:, column] for s in (ALANINE, "C[C@H](C(=O)O)N", "OC(=O)[C@H](C)N"))
    assert sorted(left.tolist()) == sorted(same.tolist()) != sorted(right.tolist())


def rewritten(smiles: str, seed: int) -> str:
    from rdkit import Chem

    found = read_molecule(smiles)
    order = np.random.default_rng(seed).permutation(found.GetNumAtoms()).tolist()
    return Chem.MolToSmiles(Chem.RenumberAtoms(found, order), canonical=False)


@given(smiles=st.sampled_from([CAFFEINE, ALANINE, SALT, DRUG]), seed=st.integers(0, 99))
def test_a_molecule_in_another_sequence_of_atoms_gives_the_same_prediction(smiles, seed):
    for graph in (GRAPH, Molecule("graph", relations="bonds")):
        first, second = class_tokens([graph.encode(smiles), graph.encode(rewritten(smiles, seed))], graph)
        torch.testing.assert_close(first, second, rtol=0, atol=1e-9)


def test_the_relation_is_what_tells_isomers_apart():
    """Two chains of the same atoms, each with the same neighbours, whose groups stand in another sequence."""
    one, other = GRAPH.encode("CC(C)CCC(C)(C)CCC"), GRAPH.encode("CC(C)CC(C)(C)CCCC")
    assert sorted(one.content.tolist()) == sorted(other.content.tolist())
    assert difference(one, other) > 1e-3
    assert difference(replace(one, relation=None), replace(other, relation=None)) < 1e-12


def difference(one: TokenSet, other: TokenSet) -> float:
    """How much the class tokens of two molecules differ."""
    first, second = class_tokens([one, other])
    return (first - second).abs().max().item()


def class_tokens(molecules: list[TokenSet], graph: Molecule = GRAPH) -> torch.Tensor:
    """What a random model makes of molecules, (b, d)."""
    fields = {"molecule": graph, "class": LearnedTokens()}
    torch.manual_seed(0)
    model = Anyformer(fields, TransformerConfig(d_model=16, n_heads=4, depth=2)).double().eval()
    redraw(model)
    batch = collate([{"molecule": tokens, "class": LearnedTokens().encode()} for tokens in molecules], fields)
    with torch.no_grad():
        return batch.by_field(model(batch))["class"]


def test_an_atom_is_the_sum_of_its_features():
    lift = GRAPH.lift(5)
    content = GRAPH.encode(ALANINE).content
    starts = np.cumsum([0, *FEATURES.values()])
    expected = [sum(lift.table[starts[i] + value] for i, value in enumerate(atom)) for atom in content.tolist()]
    torch.testing.assert_close(lift(content), torch.stack(expected))
    assert content.max(0).values.lt(torch.tensor(list(FEATURES.values()))).all()
    empty = GRAPH.empty()
    lift(empty.content).sum().backward()
    assert lift.table.grad is not None and not lift.table.grad.any()


def test_what_is_odd_is_still_a_molecule():
    many = GRAPH.encode("[U+6]F")
    assert many.content[0, :3].tolist() == [92, 1, 6]
    assert GRAPH.encode("[*]C").content[0, 0] == 0
    assert len(GRAPH.encode("[H][H]")) == 2 and len(GRAPH.encode("[H]C([H])O")) == 2
    assert GRAPH.encode("S(F)(F)(F)(F)(F)F").content[0, 1] == 6


# What is no molecule


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("C1CC(", r"'C1CC\(' is no SMILES: syntax error about character 5"),
        ("CCX", "'CCX' is no SMILES: at character 3 stands 'X', which begins no symbol"),
        ("CCO ethanol", "at character 4 stands ' '"),
        ("C1CC", "'C1CC' is no SMILES: unclosed ring"),
        ("c1cccc1", r"'c1cccc1' is no molecule: Can't kekulize mol.*\(at character 1\)"),
        (
            "[H]CC(C)(C)(C)C",
            r"Explicit valence for atom # 2 C, 5, .*\(at character 5\); mend it, or give strict: false",
        ),
        ("", "the SMILES is empty"),
        (7, "a molecule must be a SMILES, which is text, got int"),
        ("C" * 600, "the molecule has 600 atoms, more than max_len=512; raise max_len"),
    ],
)
def test_what_is_no_molecule_is_refused_with_the_place(smiles, message, capfd):
    with pytest.raises(InputError, match=message) as caught:
        GRAPH.encode(smiles)
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")


def test_groups_that_are_often_written_otherwise_are_the_same():
    for strict in (True, False):
        one, other = (Molecule("graph", strict=strict).encode(s) for s in ("CN(=O)=O", "C[N+](=O)[O-]"))
        assert sorted(one.content.tolist()) == sorted(other.content.tolist())


def test_an_atom_with_too_many_bonds_may_be_taken_as_it_is_written():
    smiles = "c1(nc(NC(N)=[NH2])sc1)C"
    with pytest.raises(InputError, match="greater than permitted"):
        GRAPH.encode(smiles)
    assert len(Molecule("graph", strict=False).encode(smiles)) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_len": 0}, "max_len must be at least 1, got 0"),
        ({"max_distance": 1}, "max_distance must be at least 2, got 1"),
        ({"relations": "bonds"}, "relations: bonds is of atoms; give kind: graph, or leave relations out"),
        ({"kind": "graph", "augment": True}, "a graph has none; leave it out, or give kind: smiles"),
    ],
)
def test_options_that_cannot_be_say_why(options, message):
    with pytest.raises(InputError, match=message):
        Molecule(**options)


def test_without_rdkit_it_says_what_to_install(monkeypatch):
    smiles = Molecule().fit(MOLECULES)
    monkeypatch.setitem(__import__("sys").modules, "rdkit", None)
    molecule._chemistry.cache_clear()
    for options in ({"kind": "graph"}, {"augment": True}):
        with pytest.raises(InputError, match=r"need RDKit: pip install 'anyformer\[molecules\]', or give kind: smiles"):
            Molecule(**options)
    assert smiles.decode(smiles.encode(CAFFEINE)) == CAFFEINE
    molecule._chemistry.cache_clear()


def test_a_yaml_names_it_and_a_worker_gets_it():
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(Molecule, "molecule")
    plain = {"kind": "smiles", "vocabulary": ["C", "O"], "augment": True}
    made = parser.instantiate(parser.parse_object({"molecule": plain})).molecule
    assert made == Molecule(augment=True, vocabulary=("C", "O")) and hash(made)
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.skipif(not (DATA / "molecules").is_dir(), reason="the molecules are not there")
@pytest.mark.parametrize(("name", "n_bad"), [("esol", 0), ("bbbp", 1)])
def test_all_molecules_of_a_set_are_read(name, n_bad):
    with open(DATA / "molecules" / f"{name}_val.csv", newline="") as file:
        rows = [row["smiles"] for row in csv.DictReader(file)]
    smiles, lenient = Molecule().fit(rows), Molecule("graph", strict=False)
    assert all(smiles.decode(smiles.encode(row)) == row for row in rows)
    assert all(len(lenient.encode(row)) == lenient.count(row) for row in rows)
    bad = 0
    for row in rows:
        try:
            GRAPH.encode(row)
        except InputError:
            bad += 1
    assert bad == n_bad


BOTH = """\
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
model:
  class_path: Predict
  init_args:
    tokenizers:
      symbols: {class_path: Molecule, init_args: {augment: true}}
      atoms: {class_path: Molecule, init_args: {kind: graph}}
    targets: {soluble: {class_path: Category}}
    views: 3
    fields: {dropout: {symbols: 0.3, atoms: 0.3}, without: [[symbols], [atoms]]}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data:
  train: {class_path: Table, init_args: {path: train.csv, columns: {symbols: smiles, atoms: smiles, soluble: soluble}}}
  validation: train.csv
  batch_size: 4
"""


def test_both_views_of_a_molecule_stand_in_one_sample_from_one_column(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    alcohols, alkanes = ["CO", "CCO", "CC(C)O", "OCCO"], ["CC", "CCC", "CC(C)C", "C1CCCCC1"]
    rows = [f"{smiles},{kind}" for kind, every in (("yes", alcohols), ("no", alkanes)) for smiles in every]
    (tmp_path / "train.csv").write_text("\n".join(["smiles,soluble", *rows]) + "\n")
    (tmp_path / "both.yaml").write_text(BOTH)
    assert main(["fit", "--config", "both.yaml"]) == 0
    metrics = json.loads((tmp_path / "runs/both/metrics.json").read_text())
    assert {"val/without_symbols/accuracy", "val/without_atoms/accuracy", "val/accuracy"} <= metrics.keys()
    task = anyformer.load("runs/both")
    item = task.chopper(training=False)({"symbols": "CC(C)O", "atoms": "CC(C)O"}, labelled=False)
    spellings = {task.tokenizers["symbols"].decode(sample["symbols"]) for sample in (item.sample, *item.views)}
    assert "CC(C)O" in spellings and len(spellings) > 1 and all("atoms" in view for view in item.views)
    capsys.readouterr()
    for fields in (["symbols=CCO", "atoms=CCO"], ["symbols,atoms=CCO"]):
        assert main(["predict", "runs/both", *fields, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result == task.predict([{"symbols": "CCO", "atoms": "CCO"}])[0]
    monkeypatch.setattr("sys.stdin", io.StringIO("CCO\nCCC\n"))
    assert main(["predict", "runs/both", "symbols,atoms=-", "--output", "said.csv"]) == 0
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 3
    for fields, message in (
        (["symbols,atoms=CCO", "atoms=CCO"], "the field 'atoms' is given twice"),
        (["symbols,atom=CCO"], "has no field 'atom'; did you mean 'atoms'"),
    ):
        assert main(["predict", "runs/both", *fields]) == 2
        assert message in capsys.readouterr().err

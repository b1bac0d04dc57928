"""Words in a tree: depths as an axis, ways as relations, whichever way the parse is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import anyformer
from anyformer.__main__ import main
from anyformer.errors import InputError
from anyformer.testing.tokenizer import check_tokenizer
from anyformer.tokenizers.text.text import Text
from anyformer.tokenizers.tree.tree import Tree

# "barks" is the root; "the" and "old" hang from "dog", "very" from "old".
DOG = {"words": ["the", "very", "old", "dog", "barks"], "heads": [4, 3, 4, 5, 0]}
TWO = {"words": [["dogs", "bark"], ["the", "dog", "too"]], "heads": [[2, 0], [2, 0, 2]]}
LISTOPS = "[MAX 2 [MIN 4 7 ] 0 ]"


def joined(record: dict) -> str:
    words = record["words"]
    return " ".join(words if isinstance(words[0], str) else [word for sentence in words for word in sentence])


def conllu(record: dict) -> str:
    rows = enumerate(zip(record["words"], record["heads"], strict=True), 1)
    return "\n".join("\t".join([str(i), word, *"____", str(head), *"___"]) for i, (word, head) in rows)


def way(up: int, down: int, most: int = 4) -> int:
    return min(up, most) * (most + 1) + min(down, most)


def test_a_word_has_its_depth_and_a_pair_the_way_from_one_to_the_other() -> None:
    tokens = Tree().fit([DOG]).encode(DOG)
    assert tokens.position.tolist() == [[0, 2], [1, 3], [2, 2], [3, 1], [4, 0]]
    # Counted by hand, from each word in its row.
    ways = [
        [(0, 0), (1, 2), (1, 1), (1, 0), (2, 0)],
        [(2, 1), (0, 0), (1, 0), (2, 0), (3, 0)],
        [(1, 1), (0, 1), (0, 0), (1, 0), (2, 0)],
        [(0, 1), (0, 2), (0, 1), (0, 0), (1, 0)],
        [(0, 2), (0, 3), (0, 2), (0, 1), (0, 0)],
    ]
    assert tokens.relation.tolist() == [[way(*each) for each in row] for row in ways]
    short = Tree(max_path=2, max_depth=3).fit([DOG])
    assert short.n_relations == 10 and short.encode(DOG).position[:, 1].tolist() == [2, 2, 2, 1, 0]
    assert short.encode(DOG).relation.tolist() == [[way(*each, most=2) for each in row] for row in ways]


def test_words_of_two_sentences_share_a_relation_of_their_own() -> None:
    tree = Tree().fit([TWO])
    tokens = tree.encode(TWO)
    assert tokens.position[:, 0].tolist() == [0, 1, 2, 3, 4] and tokens.position[:, 1].tolist() == [1, 0, 1, 0, 1]
    apart = tree.n_relations - 1
    assert (tokens.relation[:2, 2:] == apart).all() and (tokens.relation[2:, :2] == apart).all()
    assert (tokens.relation == apart).sum() == 12 and apart == 25


def test_the_same_parse_is_the_same_however_it_is_said() -> None:
    columns, lines = Tree().fit([DOG]), Tree("conllu").fit([conllu(DOG)])
    renamed = Tree(columns=("form", "head")).fit([{"form": DOG["words"], "head": DOG["heads"]}])
    one = columns.encode(DOG)
    for other in (
        lines.encode(conllu(DOG)),
        columns.encode(json.dumps(DOG)),
        renamed.encode({"form": DOG["words"], "head": DOG["heads"]}),
    ):
        for part in ("content", "position", "relation"):
            assert torch.equal(getattr(one, part), getattr(other, part))
    assert columns.takes_columns and not lines.takes_columns
    assert renamed.reads_column("head") and not renamed.reads_column("heads") and lines.reads_column("tree")


def test_of_brackets_all_symbols_are_tokens_or_words_alone_at_the_places_of_the_whole_tree() -> None:
    tree = Tree("brackets").fit([LISTOPS])
    tokens = tree.encode(LISTOPS)
    assert tree.decode(tokens) == LISTOPS
    assert tokens.position[:, 1].tolist() == [0, 1, 1, 2, 2, 2, 1, 1]
    words = Tree("brackets", inner=False).fit([LISTOPS])
    kept = torch.tensor([1, 3, 4, 6])
    leaves = words.encode(LISTOPS)
    assert words.decode(leaves) == "2 4 7 0" and leaves.position.tolist() == [[0, 1], [1, 2], [2, 2], [3, 1]]
    assert torch.equal(leaves.relation, tokens.relation[kept][:, kept])


def test_depth_and_path_may_be_left_out() -> None:
    tree = Tree(depth=False, path=False, max_len=9).fit([DOG])
    tokens = tree.encode(DOG)
    assert tree.axes == ("word",) and tokens.position.shape == (5, 1) and tree.sizes == {"word": 9}
    assert tokens.relation is None and tree.n_relations == 0
    assert Tree().sizes == {"depth": 32} and Tree(max_len=7, max_depth=3).sizes == {"word": 7, "depth": 3}
    assert Tree(depth=False).fit([DOG]).encode(DOG).relation is not None
    assert Tree(path=False).fit([DOG]).encode(DOG).position.shape == (5, 2)


def test_pieces_of_a_word_share_its_place_in_the_tree() -> None:
    tree = Tree(text=Text("characters")).fit([DOG])
    tokens, words = tree.encode(DOG), Tree().fit([DOG]).encode(DOG)
    text = "the very old dog barks"
    assert tree.decode(tokens) == text and len(tokens) == len(text) == tree.count(DOG)
    # The space before a word is a piece of it.
    owners = torch.tensor([i for i, word in enumerate(text.split()) for _ in range(len(word) + (i > 0))])
    assert tokens.position[:, 0].tolist() == list(range(len(text)))
    assert torch.equal(tokens.position[:, 1], words.position[owners, 1])
    assert torch.equal(tokens.relation, words.relation[owners][:, owners])
    bpe = Tree(text=Text("bpe", vocab_size=270)).fit([DOG, TWO])
    assert bpe.decode(bpe.encode(TWO)) == joined(TWO)


@pytest.mark.parametrize(
    ("tree", "samples", "decoded", "bad"),
    [
        (Tree(), [DOG, TWO], joined, [{"words": ["a"], "heads": [2]}, {"words": ["a"]}, 7]),
        (
            Tree(text=Text("bpe", vocab_size=262), max_path=2),
            [DOG, TWO],
            joined,
            [{"words": ["a", "b"], "heads": [2, 1]}],
        ),
    ],
    ids=["words", "pieces"],
)
def test_it_keeps_the_contract_packed_padded_and_alone(tree: Tree, samples: list, decoded: object, bad: list) -> None:
    check_tokenizer(tree, samples, decoded=decoded, bad=bad)


def test_a_vocabulary_is_the_most_frequent_words_and_is_kept_taken_over_and_compared() -> None:
    flat = [{"words": list("abbaac"), "heads": [0, 1, 1, 1, 1, 1]}]
    assert Tree().fit(flat).vocabulary == ("a", "b", "c")
    tree = Tree(vocab_size=2).fit(flat)
    assert tree.vocabulary == ("a", "b") and tree.decode(tree.encode(flat[0])) == "a b b a a <unk>"
    assert tree.fit([DOG]) == tree and Tree().inherit(tree).vocabulary == ("a", "b")
    assert Tree(text=Text()).inherit(tree) == Tree(text=Text()) and Tree().inherit(Text()) == Tree()
    pieces = Tree(text=Text("characters")).fit(flat)
    assert Tree(text=Text("characters")).inherit(pieces) == pieces
    tree.agree(Tree(vocabulary=["a", "b"]), "other")
    with pytest.raises(InputError, match=r"^other: not the vocabulary .*: word 1 was 'b' and is 'c'$"):
        tree.agree(Tree(vocabulary=("a", "c")), "other")
    with pytest.raises(InputError, match=r"^other: not the vocabulary .*: token 3 was 'c' and is 'd'$"):
        pieces.agree(Tree(text=Text("characters")).fit([DOG]), "other")
    assert Tree(vocabulary=("b", "x", "a")).rows_from(tree).tolist() == [1, -1, 0, 2]
    assert tree.rows_from(tree) is None and tree.rows_from(Text()) is None
    with pytest.raises(InputError, match="the tree has no vocabulary yet"):
        Tree().encode(DOG)
    with pytest.raises(InputError, match="the training records are empty"):
        Tree().fit([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_path": 0}, "max_path must be at least 1, got 0"),
        ({"max_depth": 0}, "max_depth must be at least 1, got 0"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
        ({"columns": ("a", "a")}, "columns must name that of words and that of heads, got"),
        ({"text": Text(max_len=7)}, "leave its wrap and max_len out, and give max_len to the tree"),
    ],
)
def test_options_that_cannot_be_say_why(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tree(**options)


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(InputError, match="the text has 5 tokens, more than max_len=4; raise max_len"):
        Tree(max_len=4).fit([DOG]).encode(DOG)


def test_what_is_no_parse_is_left_out_of_the_vocabulary_and_named_by_who_reads_it() -> None:
    circle = {"words": ["no", "way"], "heads": [2, 1]}
    assert Tree().fit([circle, TWO]).vocabulary == ("bark", "dog", "dogs", "the", "too")
    with pytest.raises(InputError, match="no word to learn the vocabulary from: word 1: the heads lead"):
        Tree().fit([circle])
    with pytest.raises(InputError, match="no word to learn the vocabulary from: word 1: the heads lead"):
        Tree(text=Text("characters")).fit([circle])


CONFIG = """\
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
model:
  class_path: Predict
  init_args:
    tokenizers:
      tree: {class_path: Tree, init_args: {format: conllu}}
    targets:
      upos: {class_path: Tags, init_args: {of: tree}}
    transformer: {d_model: 8, depth: 1, n_heads: 2}
data:
  train: {class_path: Conllu, init_args: {path: train.conllu}}
  validation: train.conllu
  batch_size: 2
"""


def test_a_run_learns_parts_of_speech_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tags = ["DET", "ADV", "ADJ", "NOUN", "VERB"]
    lines = conllu(DOG).splitlines()
    tagged = "\n".join(line.replace("_\t_", f"_\t{tag}", 1) for line, tag in zip(lines, tags, strict=True))
    (tmp_path / "train.conllu").write_text("\n\n".join([tagged] * 4))
    (tmp_path / "tags.yaml").write_text(CONFIG)
    assert main(["fit", "--config", "tags.yaml"]) == 0
    task = anyformer.load("runs/tags")
    assert task.targets["upos"].classes == tuple(sorted(tags)) and len(task.tokenizers["tree"].vocabulary) == 5
    assert [config.axes for config in task.model.embeddings.placed] == [("depth",)]
    found = task.predict([{"tree": conllu(DOG)}])
    assert len(found[0]["upos"]) == 5 and {*found[0]["upos"]} <= {*tags}

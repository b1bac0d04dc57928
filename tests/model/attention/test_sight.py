"""What queries see, as the kernel takes it: of some places alone, and in blocks, against all pairs written out."""

from __future__ import annotations

import torch

from anyformer.model.attention.sight import Block, BlockSight, Sight, count_pairs


def test_a_sight_of_some_places_alone() -> None:
    place = torch.tensor([[2, 0], [1, 3]])
    causal = Sight(causal=True).at(place, 4)
    assert causal.mask.int().tolist() == [[[[1, 1, 1, 0], [1, 0, 0, 0]]], [[[1, 1, 0, 0], [1, 1, 1, 1]]]]
    mask = torch.rand(2, 1, 4, 4) > 0.5
    found = Sight(mask).at(place, 4).mask
    assert torch.equal(found[0, 0], mask[0, 0, [2, 0]]) and torch.equal(found[1, 0], mask[1, 0, [1, 3]])
    assert Sight().at(place, 4) == Sight()
    assert [Sight().engine, Sight(causal=True).engine, Sight(mask).engine] == ["plain", "plain", "dense"]


def test_blocks_give_every_place_what_its_own_pairs_do() -> None:
    b, n = 2, 5
    seen = torch.zeros(b * n, b * n, dtype=torch.bool)
    pairs = {0: [0, 1], 1: [1], 2: [0, 2, 4], 3: [3], 4: [], 5: [5, 9], 6: [6], 7: [5, 7], 8: [8], 9: [5, 6, 9]}
    for query, keys in pairs.items():
        seen[query, keys] = True

    def sight_of(query: torch.Tensor, key: torch.Tensor) -> Sight:
        allowed = seen[query.clamp(min=0)[:, :, None], key.clamp(min=0)[:, None]]
        return Sight((allowed & (query >= 0)[:, :, None] & (key >= 0)[:, None])[:, None])

    none = [-1] * 4
    blocks = [
        Block(torch.tensor([[2, 0], [9, 7]]), torch.tensor([[0, 1, 2, 4], [5, 6, 7, 9]])),
        Block(torch.tensor([[1, 3, 4], [5, 6, 8], none[:3]]), torch.tensor([[1, 3, -1, -1], [5, 6, 8, 9], none])),
    ]
    assert count_pairs(blocks) == 2 * 2 * 4 + 3 * 3 * 4
    sight = BlockSight(blocks, sight_of, b * n)
    assert sight.engine == "blocks" and sight.n_pairs == count_pairs(blocks)
    q, k, v = (torch.randn(b, heads, n, 4, requires_grad=True) for heads in (4, 2, 2))
    dense = torch.stack([seen[:n, :n], seen[n:, n:]])[:, None]
    outputs, gradients = [], []
    for each in (sight, Sight(dense)):
        out = each.attend(q, k, v, enable_gqa=True, scale=0.7)
        outputs.append(out)
        gradients.append(torch.autograd.grad(out.square().sum(), (q, k, v)))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)
    assert not outputs[0][0, :, 4].any(), "who sees nothing gets 0"
    place = torch.tensor([[2, 4], [0, 3]])
    assert torch.equal(sight.at(place, n).mask, Sight(dense).at(place, n).mask)

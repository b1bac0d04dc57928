"""The loss of CTC against torch's, and against every path there is written down."""

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
import torch.nn.functional as F

from anyformer.model.losses.ctc import CTCHead, needed_frames
from tests.helpers.labellings import every_labelling
from tests.helpers.witnesses import redraw


@pytest.mark.parametrize(("ids", "n"), [([], 0), ([4], 1), ([4, 4], 3), ([1, 2, 2, 2, 1], 7)])
def test_equal_neighbours_need_a_frame_more(ids: list[int], n: int) -> None:
    assert needed_frames(ids) == n
    head = CTCHead(2, 5)
    losses = [head.loss(torch.zeros(t, 2), [t], torch.tensor(ids), [len(ids)]) for t in range(1, 9)]
    assert [bool(loss) for loss in losses] == [t >= n for t in range(1, 9)], "what has no path adds 0"


def test_the_loss_is_that_of_every_utterance_alone_and_of_all_its_paths() -> None:
    torch.manual_seed(0)
    head, lengths, targets = CTCHead(3, 2), [5, 2, 6], [[1, 1], [0], []]
    redraw(head)
    assert head.blank == 2
    parts = [torch.randn(t, 3, dtype=torch.float64) for t in lengths]
    head.double()
    loss = head.loss(torch.cat(parts), lengths, torch.tensor([*chain(*targets)]), list(map(len, targets)))
    expected = -sum(math.log(every_labelling(head(part))[tuple(ids)]) for part, ids in zip(parts, targets, strict=True))
    assert loss.item() == pytest.approx(expected, abs=1e-9)


def test_gradients_are_those_of_torchs_padded_loss() -> None:
    torch.manual_seed(0)
    head, lengths, targets = CTCHead(3, 4), [7, 3, 9], [[1, 3, 3], [0, 2], [2, 1, 0, 0]]
    redraw(head)
    hidden = torch.randn(sum(lengths), 3, requires_grad=True)
    flat = torch.tensor([*chain(*targets)])
    head.loss(hidden, lengths, flat, list(map(len, targets))).backward()
    ours = [hidden.grad, head.output.weight.grad, head.output.bias.grad]
    theirs = []
    for t, ids, part in zip(lengths, targets, hidden.detach().split(lengths), strict=True):
        part.requires_grad_()
        loss = F.ctc_loss(head(part)[:, None], torch.tensor([ids]), (t,), (len(ids),), blank=4, reduction="sum")
        theirs.append(torch.autograd.grad(loss, [part, head.output.weight, head.output.bias]))
    expected = [torch.cat([each[0] for each in theirs]), *(sum(each[i] for each in theirs) for i in (1, 2))]
    for found, right in zip(ours, expected, strict=True):
        assert torch.allclose(found, right, atol=1e-5)


def test_utterances_without_a_path_or_a_frame_add_neither_loss_nor_gradient() -> None:
    torch.manual_seed(0)
    head, ids = CTCHead(3, 4), torch.tensor([2, 2, 1, 0, 3])
    hidden = torch.randn(6, 3, requires_grad=True)
    # Two ids that are alike in two frames; two ids without a frame; one in four; nothing without a frame.
    loss = head.loss(hidden, [2, 0, 4, 0], torch.cat([ids[:4], ids[4:]]), [2, 2, 1, 0])
    assert loss.item() == pytest.approx(head.loss(hidden[2:], [4], ids[4:], [1]).item())
    loss.backward()
    assert not hidden.grad[:2].any() and hidden.grad[2:].abs().min() > 0


def test_a_batch_without_frames_has_gradients_of_zero() -> None:
    head = CTCHead(3, 4)
    head.loss(torch.zeros(0, 3), [], torch.zeros(0, dtype=torch.int64), []).backward()
    assert all(part.grad is not None and not part.grad.any() for part in head.parameters())

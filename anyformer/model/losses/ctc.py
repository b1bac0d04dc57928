"""Connectionist temporal classification (Graves et al. 2006): ids from frames, without saying which frame holds which.

Each frame predicts an id or the blank; a path of frames stands for the ids that are left when repeats are merged and
blanks are dropped. `v` counts the ids and the blank, which is always the last, v - 1. Batches are ragged: the frames
of all utterances one after another, (total, v), and how many each has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

LEAST = -1e4
"""Log-probabilities are taken as at least this, so that no sum of them is a difference of infinities."""


def needed_frames(ids: Sequence[int]) -> int:
    """The frames that ids need at least: one each, and a blank between equal neighbours."""
    return len(ids) + sum(left == right for left, right in pairwise(ids))


class CTCHead(nn.Module):
    """Predicts ids, or the blank, from the hidden vector of every frame."""

    def __init__(self, d_model: int, n_ids: int) -> None:
        super().__init__()
        self.output = nn.Linear(d_model, n_ids + 1)

    @property
    def blank(self) -> int:
        """The last of the outputs."""
        return self.output.out_features - 1

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (..., d). Returns log-probabilities, (..., v), in float32 at least."""
        logits = self.output(hidden)
        return logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def loss(self, hidden: Tensor, lengths: Sequence[int], targets: Tensor, target_lengths: Sequence[int]) -> Tensor:
        """The sum over utterances of the negative log-likelihood of their ids, in nats, ().

        hidden: (total, d), the frames of all utterances. lengths: frames of each.
        targets: (sum of target_lengths,) int64, the ids of all utterances. target_lengths: ids of each.

        An utterance with fewer frames than `needed_frames` has no path; it adds 0, and no gradient. Whoever makes the
        batch leaves such out, and counts them.
        """
        if not len(hidden):
            # Of no frame at all, yet every parameter has a gradient.
            return self(hidden).sum()
        # No frame of an utterance without any may be asked for, and ids without frames have no path.
        kept = [i for i, length in enumerate(lengths) if length]
        if len(kept) < len(lengths):
            targets = torch.cat([targets[:0], *(targets.split(list(target_lengths))[i] for i in kept)])
            lengths, target_lengths = ([each[i] for i in kept] for each in (lengths, target_lengths))
        padded = pad_sequence(self(hidden).split(list(lengths)))
        return F.ctc_loss(
            padded, targets, tuple(lengths), tuple(target_lengths), self.blank, reduction="sum", zero_infinity=True
        )

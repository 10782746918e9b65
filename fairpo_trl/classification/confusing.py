"""Confusing sets: which labels a privileged label is confused with on an image, from the current logits."""

from __future__ import annotations

from typing import NamedTuple

import torch


class ConfusingSets(NamedTuple):
    """
    The confusing set of each (image, privileged label), each as a prefix of the image's ordered labels.

    For a present label l it holds the absent labels that score at least as high (S_neg); for an absent one the
    present labels that score at most as high (S_pos). Sorted by how confusing they are, both are prefixes, so a set is
    its size and a draw from it is a position: no `[B, P, T]` tensor is needed.

    Attributes:
        order_negative (`torch.Tensor`): Labels of each image, absent ones first, by falling score; int64 `[B, T]`.
        order_positive (`torch.Tensor`): The same, present ones first, by rising score; int64 `[B, T]`.
        is_positive (`torch.Tensor`): Whether the privileged label is present, bool `[B, P]`.
        size (`torch.Tensor`): Members of the set, int64 `[B, P]`; 0 where nothing confuses the label, or where the
            label itself is unknown.
    """

    order_negative: torch.Tensor
    order_positive: torch.Tensor
    is_positive: torch.Tensor
    size: torch.Tensor

    def member(self, position: torch.Tensor) -> torch.Tensor:
        """The label at a position (`[B, P]`, 0 is the most confusing) of each set; meaningless where `size` is 0."""
        negative = self.order_negative.gather(1, position)
        return torch.where(self.is_positive, negative, self.order_positive.gather(1, position))

    def draw(self, uniform: torch.Tensor) -> torch.Tensor:
        """k ~ Uniform(S) from numbers in [0, 1), `[B, P]` (Algorithm 2); meaningless where `size` is 0."""
        position = (uniform.double() * self.size).long()
        return self.member(torch.minimum(position, (self.size - 1).clamp(min=0)))


@torch.no_grad()
def confusing_sets(logits: torch.Tensor, labels: torch.Tensor, privileged: torch.Tensor) -> ConfusingSets:
    """
    S_neg and S_pos of the paper (section on confusing sets), from logits: sigmoid is monotone.

    Ties confuse (`>=`, `<=`). Unknown labels are neither l nor k. There is no gradient.

    Args:
        logits (`torch.Tensor`):
            `[B, T]`.
        labels (`torch.Tensor`):
            `[B, T]`: 1 present, 0 absent, -1 unknown.
        privileged (`torch.Tensor`):
            Columns of the privileged labels, int64 `[P]`.
    """
    scores = logits.detach().float() if logits.dtype in (torch.float16, torch.bfloat16) else logits.detach()
    own, own_label = scores[:, privileged].contiguous(), labels[:, privileged]  # [B, P]
    infinity = torch.full_like(scores, torch.inf)
    # How confusing, smallest first: falling score of absent labels, rising score of present ones.
    falling, order_negative = torch.where(labels == 0, -scores, infinity).sort(dim=1)
    rising, order_positive = torch.where(labels == 1, scores, infinity).sort(dim=1)
    count_negative = torch.searchsorted(falling, -own, right=True)  # absent k with z_k >= z_l
    count_positive = torch.searchsorted(rising, own, right=True)  # present k with z_k <= z_l
    size = torch.where(own_label == 1, count_negative, count_positive)
    return ConfusingSets(order_negative, order_positive, own_label == 1, torch.where(own_label < 0, 0, size))


@torch.no_grad()
def confusing_mask(logits: torch.Tensor, labels: torch.Tensor, privileged: torch.Tensor) -> torch.Tensor:
    """The same sets written out, bool `[B, P, T]`: for the exact mean over a set."""
    own, own_label = logits[:, privileged, None], labels[:, privileged, None]  # [B, P, 1]
    other, other_label = logits[:, None, :], labels[:, None, :]  # [B, 1, T]
    negative = (own_label == 1) & (other_label == 0) & (other >= own)
    return negative | ((own_label == 0) & (other_label == 1) & (other <= own))

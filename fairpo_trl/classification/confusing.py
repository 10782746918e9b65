"""Confusing sets: which labels a privileged label is confused with on an image, from the current logits."""

from __future__ import annotations

from typing import NamedTuple

import torch


class ConfusedEntries(NamedTuple):
    """
    The (image, privileged label) entries that some other label confuses, and what confuses them.

    Only these need a preference term, and with a trained model they are few: so everything after this works on `n`
    entries instead of `[B, P, T]`.

    Attributes:
        image, column (`torch.Tensor`): Row in the batch, and which of the privileged labels, int64 `[n]`.
        present (`torch.Tensor`): Whether the privileged label is present, bool `[n]`.
        members (`torch.Tensor`): The confusing set, bool `[n, T]`; no row is empty.
    """

    image: torch.Tensor
    column: torch.Tensor
    present: torch.Tensor
    members: torch.Tensor

    def draw(self, uniform: torch.Tensor) -> torch.Tensor:
        """k ~ Uniform(S) for each entry, from numbers in [0, 1), `[n]` (Algorithm 2); int64 `[n]`."""
        size = self.members.sum(dim=1)
        position = torch.minimum((uniform.double() * size).long(), size - 1)  # rounding could give `size`
        return (self.members.cumsum(dim=1) > position.unsqueeze(1)).int().argmax(dim=1)

    def hardest(self, logits: torch.Tensor) -> torch.Tensor:
        """The most confusing member: the highest absent label, or the lowest present one; int64 `[n]`."""
        how = torch.where(self.present.unsqueeze(1), logits, -logits)
        return torch.where(self.members, how, -torch.inf).argmax(dim=1)


def confused_mask(logits: torch.Tensor, labels: torch.Tensor, privileged: torch.Tensor) -> torch.Tensor:
    """
    Where the confusing set of a privileged label is not empty, bool `[B, P]`; shapes as in [`confused_entries`].

    A present label is confused if the highest absent one scores at least as high, an absent one if the lowest present
    one scores at most as high.
    """
    logits = logits.detach()
    own, own_labels = logits[:, privileged], labels[:, privileged]
    highest_absent = torch.where(labels == 0, logits, -torch.inf).amax(dim=1, keepdim=True)
    lowest_present = torch.where(labels == 1, logits, torch.inf).amin(dim=1, keepdim=True)
    # The infinities of an image without such a label compare as false for finite logits.
    return ((own_labels == 1) & (highest_absent >= own)) | ((own_labels == 0) & (lowest_present <= own))


def confused_entries(
    logits: torch.Tensor, labels: torch.Tensor, privileged: torch.Tensor, where: torch.Tensor
) -> ConfusedEntries:
    """
    S_neg of present and S_pos of absent privileged labels, from logits: sigmoid is monotone.

    S_neg = {k absent: z_k >= z_l}, S_pos = {k present: z_k <= z_l}: ties confuse. Unknown labels are neither l nor k.
    There is no gradient.

    `logits` and `labels` (1 present, 0 absent, -1 unknown) are `[B, T]`, `privileged` the columns of those labels,
    `[P]`, and `where` the entries to look at, bool `[B, P]`, within [`confused_mask`].
    """
    logits = logits.detach()
    image, column = where.nonzero(as_tuple=True)
    scores, answers = logits[image], labels[image]  # [n, T]
    own = scores.gather(1, privileged[column].unsqueeze(1))  # [n, 1]
    present = labels[image, privileged[column]] == 1
    above, below = (answers == 0) & (scores >= own), (answers == 1) & (scores <= own)
    return ConfusedEntries(image, column, present, torch.where(present.unsqueeze(1), above, below))

"""From per-example losses to the group objective sum_g alpha_g * mean_g (Eq. 3, 18, 19)."""

from __future__ import annotations

import torch


def losses_of_members(losses: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:
    """
    The losses where an example counts in a group, 0 elsewhere.

    Args:
        losses (`torch.Tensor`):
            Per-example losses, `[B, K]`: column g holds the loss an example has *as a member of group g*.
        membership (`torch.Tensor`):
            `[B, K]`, bool: which example counts in which group.
    """
    # `where` rather than a product: 0 * inf of a non-member would poison the sum.
    return torch.where(membership, losses, torch.zeros_like(losses))


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64; on MPS, which has none, sums are as good as float32 allows."""
    return torch.float32 if device.type == "mps" else torch.float64


def group_sums(losses: torch.Tensor) -> torch.Tensor:
    """Sum of the losses of each group, `[K]`, float64 (float32 on MPS), no gradient: what adds up over batches."""
    return losses.detach().to(sum_dtype(losses.device)).sum(dim=0)


def grouped_objective(losses: torch.Tensor, weights: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """
    This micro-batch's share of the objective: sum_g alpha_g * (sum over its members of l_i) / N_g.

    N_g counts group g over the **whole optimizer step and all processes**, so the shares of the micro-batches add up
    to sum_g alpha_g * mean_g however the step was split. (Averaging per-micro-batch group means instead is a different
    objective: a group's mean would weigh every micro-batch alike, whatever its number of members.)

    Args:
        losses (`torch.Tensor`):
            Of each example as a member of each group, `[B, K]`, with gradient; 0 where it is none
            ([`losses_of_members`]).
        weights (`torch.Tensor`):
            alpha, `[K]`.
        counts (`torch.Tensor`):
            N_g, `[K]`: members of each group in the whole step, or the sum of their weights if the losses are
            weighted. A group absent from the step (0) contributes nothing.

    Returns:
        `torch.Tensor`: scalar. Where gradients are averaged over processes (DDP), multiply it by their number.
    """
    # Counts are sums of pairs' weights where there are such, and may be below 1: only 0 is replaced.
    return (losses * (weights / torch.where(counts > 0, counts, 1)).to(losses.dtype)).sum()


def all_finite(values: torch.Tensor) -> bool:
    """
    Whether every value of a tensor, of any shape, is finite.

    A sum is finite only if all of its terms are, and costs a fraction of looking at each of them. Finite values whose
    sum overflows are looked at one by one.
    """
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())

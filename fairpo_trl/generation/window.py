"""What the processes tell each other once per optimizer step: group sizes of this step, loss sums of the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from fairpo_trl.core.reduction import group_sums


def drop_padded_duplicates(batch: dict[str, Any], accelerator: Accelerator) -> None:
    """
    Takes the pairs that accelerate repeats to fill the last batch out of every group: they count nowhere.

    Args:
        batch (`dict[str, Any]`):
            Batch with `attribute_mask`, bool `[B, A]`, changed in place; the batch last fetched from a dataloader.
        accelerator (`Accelerator`):
            Knows whether the dataloader is at its end, and how many pairs of the last round are real. For streaming
            data of unknown length it does not, and duplicates at the end of an uneven stream count.
    """
    state = accelerator.gradient_state
    if not state.end_of_dataloader or state.remainder <= 0:
        return
    mask = batch["attribute_mask"]
    # The processes' last batches lie one after the other; the first `remainder` pairs are real.
    position = accelerator.process_index * len(mask) + torch.arange(len(mask), device=mask.device)
    mask &= (position < state.remainder).unsqueeze(1)


class StepTotals(NamedTuple):
    """
    Sums over one optimizer step and all processes, on the CPU, float64.

    Attributes:
        loss_sums (`torch.Tensor`): Group losses, `[K]`.
        counts (`torch.Tensor`): Members of each group, `[K]`.
        dpo_sums (`torch.Tensor`): DPO losses by attribute, `[A]`.
        dpo_counts (`torch.Tensor`): Pairs of each attribute, `[A]`.
    """

    loss_sums: torch.Tensor
    counts: torch.Tensor
    dpo_sums: torch.Tensor
    dpo_counts: torch.Tensor


class StepWindow:
    """
    Group sizes and loss sums of optimizer steps, made global with one small all-reduce a step.

    The sizes of a step are needed before its first backward pass, its loss sums only for the next weights: so both
    travel together, the sums one step later. Between two steps (at a log or a save) they can be fetched on their own.

    Args:
        groups (`int`): K.
        attributes (`int`): A.
        dtype (`torch.dtype`): float64 where the device has it.
        device (`torch.device`): Device of the losses.
        reduce (`Callable`): Sums a tensor over all processes.

    Attributes:
        counts (`torch.Tensor`): N_g of the current step, `[K]`, on the device.
        has_pending (`bool`): Whether there are loss sums that have not been exchanged; the same on every process.
    """

    def __init__(
        self,
        groups: int,
        attributes: int,
        dtype: torch.dtype,
        device: torch.device,
        reduce: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self._sizes = [groups, groups, attributes, attributes]
        self._reduce = reduce
        self._pending = torch.zeros(sum(self._sizes), dtype=dtype, device=device)
        self.counts = torch.zeros(groups, dtype=dtype, device=device)
        self.has_pending = False

    def add(
        self, losses: torch.Tensor, members: torch.Tensor, dpo: torch.Tensor, by_attribute: torch.Tensor
    ) -> torch.Tensor:
        """
        Adds one micro-batch of the current step.

        Args:
            losses (`torch.Tensor`): `[B, K]`, the loss of each pair as a member of each group.
            members (`torch.Tensor`): `[B, K]`, bool.
            dpo (`torch.Tensor`): DPO losses, `[B]`.
            by_attribute (`torch.Tensor`): `[B, A]`, bool.

        Returns:
            `torch.Tensor`: members of each group in this micro-batch, `[K]`.
        """
        counts = members.sum(dim=0)
        dpo_sums = group_sums(dpo.unsqueeze(1).expand(by_attribute.shape), by_attribute)
        parts = (group_sums(losses, members), counts, dpo_sums, by_attribute.sum(dim=0))
        self._pending += torch.cat([part.to(self._pending.dtype) for part in parts])
        self.has_pending = True
        return counts

    def exchange(self, counts: torch.Tensor | None = None) -> StepTotals | None:
        """
        Makes the sizes of a step global, and hands out the loss sums that were pending.

        Args:
            counts (`torch.Tensor`, *optional*):
                This process's group sizes of the step that begins, `[K]`; without them only the sums are fetched.

        Returns:
            `StepTotals` or `None`: global sums of the last step, if any were pending.
        """
        vector = self._pending if counts is None else torch.cat([self._pending, counts.to(self._pending.dtype)])
        vector = self._reduce(vector.clone())
        if counts is not None:
            self.counts = vector[len(self._pending) :]
        totals = StepTotals(*vector[: len(self._pending)].cpu().double().split(self._sizes))
        had_pending = self.has_pending
        self._pending.zero_()
        self.has_pending = False
        return totals if had_pending else None

"""What the processes tell each other once per optimizer step: group sizes of this step, loss sums of the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.data_loader import SkipBatchSampler


def padded_duplicates(accelerator: Accelerator, rows: int) -> torch.Tensor | None:
    """
    Which rows of the batch last fetched from a dataloader accelerate repeated to fill the last round.

    Args:
        accelerator (`Accelerator`):
            Knows whether the dataloader is at its end, and how many rows of the last round are real. For streaming
            data of unknown length it does not, and duplicates at the end of an uneven stream count.
        rows (`int`):
            Rows of this process's batch.

    Returns:
        `torch.Tensor` or `None`: bool `[rows]`, on the CPU; `None` if every row is real.
    """
    state = accelerator.gradient_state
    if accelerator.num_processes == 1 or not state.end_of_dataloader:
        return None
    remainder, sampler = state.remainder, state.active_dataloader.batch_sampler
    if isinstance(sampler, SkipBatchSampler) and not sampler.batch_sampler.drop_last:
        # An epoch that a resume entered in its middle: accelerate loses the remainder behind this sampler.
        remainder = len(state.active_dataloader.dataset) % (accelerator.num_processes * rows)
    if remainder <= 0:
        return None
    # The processes' last batches lie one after the other; the first `remainder` rows are real.
    return accelerator.process_index * rows + torch.arange(rows) >= remainder


class StepTotals(NamedTuple):
    """
    Sums over one optimizer step and all processes, on the CPU, float64.

    Attributes:
        loss_sums (`torch.Tensor`): Group losses, `[K]`.
        counts (`torch.Tensor`): Members of each group, `[K]`.
        item_sums (`torch.Tensor`): Losses by attribute or label, `[A]`, whatever group they are in.
        item_counts (`torch.Tensor`): Examples of each attribute or label, `[A]`.
    """

    loss_sums: torch.Tensor
    counts: torch.Tensor
    item_sums: torch.Tensor
    item_counts: torch.Tensor


class StepWindow:
    """
    Group sizes and loss sums of optimizer steps, made global with one small all-reduce a step.

    The sizes of a step are needed before its first backward pass, its loss sums only for the next weights: so both
    travel together, the sums one step later. Between two steps (at a log or a save) they can be fetched on their own.

    Args:
        groups (`int`): K.
        items (`int`): A, attributes or labels.
        dtype (`torch.dtype`): float64 where the device has it.
        device (`torch.device`): Device of the losses.
        reduce (`Callable`): Sums a tensor over all processes.

    Attributes:
        counts (`torch.Tensor`): N_g of the current step, `[K]`, on the device.
        has_pending (`bool`): Whether there are loss sums that have not been exchanged; the same on every process.
        stop_agreed (`bool`): Whether any process has been asked to stop; the same on every process.
    """

    def __init__(
        self,
        groups: int,
        items: int,
        dtype: torch.dtype,
        device: torch.device,
        reduce: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self._sizes = [groups, groups, items, items]
        self._reduce = reduce
        self._pending = torch.zeros(sum(self._sizes), dtype=dtype, device=device)
        self.counts = torch.zeros(groups, dtype=dtype, device=device)
        self.has_pending = False
        self.stop_agreed = False

    def add(
        self, loss_sums: torch.Tensor, counts: torch.Tensor, item_sums: torch.Tensor, item_counts: torch.Tensor
    ) -> None:
        """Adds one micro-batch of this process: the parts of [`StepTotals`], without gradient."""
        parts = (loss_sums, counts, item_sums, item_counts)
        self._pending += torch.cat([part.to(self._pending.dtype) for part in parts])
        self.has_pending = True

    def exchange(self, counts: torch.Tensor | None = None, stop: bool = False) -> StepTotals | None:
        """
        Makes the sizes of a step global, and hands out the loss sums that were pending.

        Args:
            counts (`torch.Tensor`, *optional*):
                This process's group sizes of the step that begins, `[K]`; without them only the sums are fetched.
            stop (`bool`, *optional*, defaults to `False`):
                Whether this process was asked to stop; it travels along, so that all stop after the same step.

        Returns:
            `StepTotals` or `None`: global sums of the last step, if any were pending.
        """
        parts = [self._pending, self._pending.new_full((1,), float(stop))]
        if counts is not None:
            parts.append(counts.to(self._pending.dtype))
        vector = self._reduce(torch.cat(parts))
        known = len(self._pending) + 1  # needed on the CPU now; the counts stay where the losses are
        if counts is not None:
            self.counts = vector[known:]
        *sums, stops = vector[:known].cpu().double().split([*self._sizes, 1])
        self.stop_agreed |= bool(stops > 0)
        totals = StepTotals(*sums)
        had_pending = self.has_pending
        self._pending.zero_()
        self.has_pending = False
        return totals if had_pending else None

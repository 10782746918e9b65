"""
`held_gradients`: steps made of the gradients of the privileged pairs and of every held attribute by itself.

`"project"` takes out of the privileged gradient what is against a held attribute's; `"conflict_averse"` makes the step
of RACO of them all.
"""

from __future__ import annotations

from typing import Any

import torch

from fairpo_trl.core.group_weights import GroupWeights
from fairpo_trl.core.partition import Partition
from fairpo_trl.core.projection import conflict_averse_weights, projection_weights
from fairpo_trl.core.reduction import grouped_objective
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.training.mixin_base import TrainerBase
from fairpo_trl.training.window import StepWindow


class HeldGradients(TrainerBase):
    """
    Mixin before [`~fairpo_trl.training.group_robust.GroupRobustTrainer`]: collects the gradient of the privileged part
    of the objective and of each held attribute's DPO loss over a whole optimizer step, and takes out of the step what
    would raise one of those losses, or makes the step of RACO of them.

    The sums are over pairs, all micro-batches and all processes, so that the step is the same however it was split.
    """

    args: FairPOConfig
    partition: Partition
    group_weights: GroupWeights
    _window: StepWindow
    _is_non_privileged: torch.Tensor
    _gradients: torch.Tensor | None = None
    _pairs_of: torch.Tensor | None = None  # of every held attribute in this step, or their weights, [held]
    _role_weights: torch.Tensor | None = None  # that this step is computed with: privileged, held
    _removed: tuple[float, int] = (0.0, 0)  # sum over steps since the last log, and their number

    def check_held_gradients(self, sharded: bool) -> None:
        """Raises `ValueError` where the gradients of single attributes cannot be had, or there is none."""
        how = self.args.held_gradients
        if how == "sum":
            return
        if sharded:
            raise ValueError(
                f"`held_gradients={how!r}` needs the whole gradient on every process, which FSDP and DeepSpeed "
                "divide among them: launch with DDP, or leave held_gradients at 'sum'."
            )
        if not self.partition.non_privileged:
            raise ValueError(
                f"`held_gradients={how!r}` has no held attribute whose gradient it could heed: name one in "
                "`non_privileged_attributes`, or leave held_gradients at 'sum'."
            )

    def collect_gradients(
        self, losses: torch.Tensor, members: torch.Tensor, dpo: torch.Tensor, counts: torch.Tensor
    ) -> None:
        """
        Adds the gradients of one micro-batch; called where the objective has been computed, before its backward pass.

        Args:
            losses (`torch.Tensor`):
                As [`~fairpo_trl.training.group_robust.GroupRobustTrainer.group_objective`] takes them, `[B, K]`.
            members (`torch.Tensor`):
                Which groups a pair is in, bool `[B, K]`.
            dpo (`torch.Tensor`):
                DPO losses, times the weights of pairs if there are any, `[B, A]`; 0 where a pair lacks the attribute.
            counts (`torch.Tensor`):
                Pairs of each attribute, or the sums of their weights, `[A]`.
        """
        if self.args.held_gradients == "sum" or not self.model.training:
            return
        privileged = ~self._is_non_privileged
        every = self.group_weights.weights.to(losses.device)
        weights = every[privileged]
        self._role_weights = torch.stack([weights.sum(), every[~privileged].sum()])
        parts = [grouped_objective(losses[:, privileged], weights, self._window.counts[privileged])]
        held = [self.partition.names.index(name) for name in self.partition.non_privileged]
        parts += [dpo[:, a].sum() for a in held]
        here = counts[held].to(self._window.counts.dtype)
        self._pairs_of = here if self._pairs_of is None else self._pairs_of + here
        present = [bool(members[:, privileged].any()), *(here > 0).tolist()]
        parameters = self._trained()
        for row, (part, some) in enumerate(zip(parts, present, strict=True)):
            if not some:
                continue
            found = torch.autograd.grad(part, parameters, retain_graph=True, allow_unused=True)
            flat = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten().to(torch.promote_types(p.dtype, torch.float32))
                    for p, g in zip(parameters, found, strict=True)
                ]
            )
            if self._gradients is None:
                self._gradients = flat.new_zeros(len(parts), len(flat))
            self._gradients[row] += flat

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As upstream; after the last micro-batch of a step its gradient is changed, before it is clipped."""
        loss = super().training_step(*args, **kwargs)
        if self.args.held_gradients != "sum" and self.accelerator.sync_gradients:
            self._change()
        return loss

    @torch.no_grad()
    def _change(self) -> None:
        parameters, held = self._trained(), len(self.partition.non_privileged)
        found, pairs = self._gradients, self._pairs_of
        self._gradients = self._pairs_of = None
        if found is None or pairs is None:  # this process had no pair that counts; others may have had
            size = sum(parameter.numel() for parameter in parameters)
            found = torch.zeros(1 + held, size, device=self.accelerator.device)
            pairs = self._window.counts.new_zeros(held)
        found, pairs = self.sum_over_processes(found), self.sum_over_processes(pairs)
        project = self.args.held_gradients == "project"
        if project:
            gram, base = found @ found.T, found[0]
            change = projection_weights(gram[1:, 0], gram[1:, 1:]).to(found) @ found[1:]
        else:
            shares = self._objectives(found, pairs)
            base = shares @ found
            change = conflict_averse_weights(found @ found.T, shares).to(found) @ found - base
        step = change if project else base + change
        for parameter, part in zip(parameters, step.split([p.numel() for p in parameters]), strict=True):
            if parameter.grad is not None:
                if not project:  # in place of the step: the hinge has no part in it
                    parameter.grad.zero_()
                parameter.grad += part.view_as(parameter).to(parameter.grad.dtype)
        norm = float(base.norm())
        share = float(change.norm()) / norm if norm > 0 else 0.0
        self._removed = (self._removed[0] + share, self._removed[1] + 1)

    def _objectives(self, found: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        """Makes gradients of means out of the sums; returns what each objective weighs, `[1 + held]` of sum 1."""
        if self._role_weights is None:
            self._role_weights = found.new_tensor([0.5, 0.5])
        mine, held = self._role_weights.to(found)
        found[0] /= mine.clamp(min=1e-12)  # of a mean already
        found[1:] /= torch.where(pairs > 0, pairs, 1).to(found)[:, None]  # sums of weights may be below 1
        some = (pairs > 0).to(found)
        shares = torch.cat([mine[None], held * some / some.sum().clamp(min=1)])
        return shares / shares.sum()

    def _trained(self) -> list[torch.Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds how far steps were changed, in lengths of what was changed, mean over the steps since the last log."""
        total, steps = self._removed
        if steps and "loss" in logs:
            logs["projected" if self.args.held_gradients == "project" else "conflict_averse"] = total / steps
            self._removed = (0.0, 0)
        super().log(logs, start_time)

"""`held_gradients="project"`: the privileged gradient without its component against the held attributes' gradients."""

from __future__ import annotations

from typing import Any

import torch

from fairpo_trl.core.group_weights import GroupWeights
from fairpo_trl.core.partition import Partition
from fairpo_trl.core.projection import projection_weights
from fairpo_trl.core.reduction import grouped_objective
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.training.mixin_base import TrainerBase
from fairpo_trl.training.window import StepWindow


class HeldGradients(TrainerBase):
    """
    Mixin before [`~fairpo_trl.training.group_robust.GroupRobustTrainer`]: collects the gradient of the privileged part
    of the objective and of each held attribute's DPO loss over a whole optimizer step, and takes out of the step what
    would raise one of those losses.

    The sums are over pairs, all micro-batches and all processes, so that the step is the same however it was split.
    """

    args: FairPOConfig
    partition: Partition
    group_weights: GroupWeights
    _window: StepWindow
    _is_non_privileged: torch.Tensor
    _gradients: torch.Tensor | None = None
    _removed: tuple[float, int] = (0.0, 0)  # sum over steps since the last log, and their number

    def check_held_gradients(self, sharded: bool) -> None:
        """Raises `ValueError` where the gradients of single attributes cannot be had, or there is none."""
        if self.args.held_gradients != "project":
            return
        if sharded:
            raise ValueError(
                "`held_gradients='project'` needs the whole gradient on every process, which FSDP and DeepSpeed "
                "divide among them: launch with DDP, or leave held_gradients at 'sum'."
            )
        if not self.partition.non_privileged:
            raise ValueError(
                "`held_gradients='project'` has no held attribute to project against: name one in "
                "`non_privileged_attributes`, or leave held_gradients at 'sum'."
            )

    def collect_gradients(
        self, losses: torch.Tensor, members: torch.Tensor, dpo: torch.Tensor, attribute_mask: torch.Tensor
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
            attribute_mask (`torch.Tensor`):
                Which attributes a pair has, bool `[B, A]`.
        """
        if self.args.held_gradients != "project" or not self.model.training:
            return
        privileged = ~self._is_non_privileged
        weights = self.group_weights.weights.to(losses.device)[privileged]
        counts = self._window.counts[privileged]
        parts = [grouped_objective(losses[:, privileged], weights, counts)]
        held = [self.partition.names.index(name) for name in self.partition.non_privileged]
        parts += [dpo[:, a].sum() for a in held]
        present = [bool(members[:, privileged].any()), *attribute_mask[:, held].any(dim=0).tolist()]
        parameters = self._trained()
        for row, (part, here) in enumerate(zip(parts, present, strict=True)):
            if not here:
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
        """As upstream; after the last micro-batch of a step its gradient is projected, before it is clipped."""
        loss = super().training_step(*args, **kwargs)
        if self.args.held_gradients == "project" and self.accelerator.sync_gradients:
            self._project()
        return loss

    @torch.no_grad()
    def _project(self) -> None:
        parameters = self._trained()
        found, self._gradients = self._gradients, None
        if found is None:  # this process had no pair that counts; others may have had
            size = sum(parameter.numel() for parameter in parameters)
            found = torch.zeros(1 + len(self.partition.non_privileged), size, device=self.accelerator.device)
        found = self.sum_over_processes(found)
        gram = found @ found.T
        shift = projection_weights(gram[1:, 0], gram[1:, 1:]).to(found) @ found[1:]
        for parameter, part in zip(parameters, shift.split([p.numel() for p in parameters]), strict=True):
            if parameter.grad is not None:
                parameter.grad += part.view_as(parameter).to(parameter.grad.dtype)
        norm = float(gram[0, 0].clamp(min=0).sqrt())
        share = float(shift.norm()) / norm if norm > 0 else 0.0
        self._removed = (self._removed[0] + share, self._removed[1] + 1)

    def _trained(self) -> list[torch.Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds `projected`: what was taken out of the privileged gradient, in lengths of it, mean over the steps."""
        total, steps = self._removed
        if steps and "loss" in logs:
            logs["projected"], self._removed = total / steps, (0.0, 0)
        super().log(logs, start_time)

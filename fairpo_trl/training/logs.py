"""Log entries of the group weights, under the same names in both trainers."""

from __future__ import annotations

import math

import torch

from fairpo_trl.core.group_weights import GroupWeights


def weight_logs(weights: GroupWeights, scaled: torch.Tensor | None) -> dict[str, float]:
    """
    `weight/<group>`, `group_loss/<group>` (running) and `scaled_group_loss/<group>`; a group never seen has no loss.

    Args:
        weights (`GroupWeights`):
            The weights after their last update.
        scaled (`torch.Tensor`, *optional*):
            What that update saw of each group, `[K]`.
    """
    logs = {f"weight/{name}": value for name, value in weights.as_dict().items()}
    estimates = zip(weights.names, weights.estimates.tolist(), strict=True)
    logs |= {f"group_loss/{name}": value for name, value in estimates if not math.isnan(value)}
    if scaled is not None:
        logs |= {f"scaled_group_loss/{name}": v for name, v in zip(weights.names, scaled.tolist(), strict=True)}
    return logs

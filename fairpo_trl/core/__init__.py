"""The group-robust core: partition, per-example losses, grouped reduction and group weights. It imports torch only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairpo_trl.lazy import lazily


if TYPE_CHECKING:
    from fairpo_trl.core.group_weights import GroupWeights
    from fairpo_trl.core.losses import (
        cpo_loss,
        dpo_loss,
        dpop_loss,
        excess_over_reference,
        hinge_against_reference,
        ipo_loss,
        log_ratio_margin,
        simpo_loss,
    )
    from fairpo_trl.core.partition import Group, Partition, Role
    from fairpo_trl.core.reduction import group_sums, grouped_objective, losses_of_members

__all__ = [
    "Group",
    "GroupWeights",
    "Partition",
    "Role",
    "cpo_loss",
    "dpo_loss",
    "dpop_loss",
    "excess_over_reference",
    "group_sums",
    "grouped_objective",
    "hinge_against_reference",
    "ipo_loss",
    "log_ratio_margin",
    "losses_of_members",
    "simpo_loss",
]

# Loaded on first use: messages and checks of options need no torch.
__getattr__ = lazily(
    __name__,
    {
        "group_weights": "GroupWeights",
        "losses": "cpo_loss dpo_loss dpop_loss excess_over_reference hinge_against_reference ipo_loss "
        "log_ratio_margin simpo_loss",
        "partition": "Group Partition Role",
        "reduction": "group_sums grouped_objective losses_of_members",
    },
)

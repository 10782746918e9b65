"""The group-robust core: partition, per-example losses, grouped reduction and group weights. It imports torch only."""

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
from fairpo_trl.core.reduction import group_sums, grouped_objective


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
    "simpo_loss",
]

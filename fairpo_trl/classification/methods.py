"""Every method of the comparison by one name: FairPO, its baselines, and what they set."""

from __future__ import annotations

import dataclasses
from typing import Literal, cast, get_args

from fairpo_trl.classification.config import ONLY_WITH, MultiLabelFairPOConfig
from fairpo_trl.classification.heads import LAST_LAYER
from fairpo_trl.classification.losses import PointwiseLoss, PreferenceLoss
from fairpo_trl.classification.model import MultiLabelClassifier
from fairpo_trl.core.messages import require_known
from fairpo_trl.core.partition import Partition
from fairpo_trl.training.arguments import unused_options


Method = Literal[
    "fairpo",
    "bce",
    "bce_continued",
    "reweighted",
    "group_dro",
    "fairpo_dpo",
    "fairpo_simpo",
    "fairpo_cpo",
    "focal",
    "asymmetric",
    "logit_adjustment",
    "balanced_sampler",
    "class_balanced",
    "distribution_balanced",
    "decoupled",
]

_PREFERENCE: dict[Method, PreferenceLoss] = {"fairpo_dpo": "dpo", "fairpo_simpo": "simpo", "fairpo_cpo": "cpo"}
_SAMPLING = {"balanced_sampler": "role", "distribution_balanced": "label", "decoupled": "label"}


def apply_method(
    method: Method, args: MultiLabelFairPOConfig, partition: Partition, reweight_factor: float = 3.0
) -> list[str]:
    """
    Sets the losses and the weights of `args` (in place) to one method.

    Options that the method has no use for go back to their defaults, so that one file of options serves all methods.

    Args:
        method (`str`):
            `"bce"` and `"bce_continued"`: the mean BCE over all labels (from scratch: the reference; from the
            reference: the control that shows what further training alone does). `"reweighted"`: the same with
            privileged labels counted `reweight_factor` times. `"group_dro"`: BCE in both groups, weights by mirror
            ascent (Eq. 3). `"fairpo_dpo"`, `"fairpo_simpo"`, `"fairpo_cpo"`: the privileged loss of that name, the
            other options as they are. `"focal"`, `"asymmetric"`, `"logit_adjustment"`, `"class_balanced"`: that loss
            for all labels. `"balanced_sampler"`: BCE on images drawn so that half of them have a privileged label.
            `"distribution_balanced"`: that loss, on images drawn so that every label comes equally often.
            `"decoupled"`: BCE on such images for the last layer alone (1910.09217); see [`prepare_model`].
        args (`MultiLabelFairPOConfig`):
            Options of the run.
        partition (`Partition`):
            Labels and roles.
        reweight_factor (`float`, *optional*, defaults to `3.0`):
            Of `"reweighted"`. The weights are normalised, so that the step size means the same for every factor.

    Returns:
        `list[str]`: the options that were set but mean nothing to this method; say so to the user.

    Raises:
        ValueError: For an unknown method or a factor that is not positive.
    """
    require_known("method", [method], get_args(Method))
    if not reweight_factor > 0:
        raise ValueError(f"`reweight_factor` must be positive, got {reweight_factor}.")
    if method == "fairpo":
        return []
    if method in _PREFERENCE:
        args.privileged_loss = _PREFERENCE[method]
        return _reset_unused(args)

    loss = cast(PointwiseLoss, method) if method in get_args(PointwiseLoss) else "bce"
    args.privileged_loss = args.non_privileged_loss = loss
    args.grouping = "role"
    if method == "group_dro":
        args.balancer = "mirror_ascent"
        return _reset_unused(args)
    # One mean over all labels is the sum of the group means by size.
    factor = reweight_factor if method == "reweighted" else 1.0
    args.balancer, args.scaling, args.floor = "fixed", "none", 0.0
    args.group_prior = {"privileged": factor * len(partition.privileged)}
    if partition.non_privileged:
        args.group_prior["non_privileged"] = float(len(partition.non_privileged))
    if method in _SAMPLING:
        args.balanced_sampling = _SAMPLING[method]  # type: ignore[assignment]
    return _reset_unused(args)


def prepare_model(method: Method, model: MultiLabelClassifier) -> None:
    """
    Freezes what a method does not train, in place: all but the last layer for `"decoupled"`, nothing for others.

    The last layer starts as it is in the reference, from which the other methods start too; the paper draws it anew.
    For a linear head the last layer is the head. `model` is a copy of the reference, with a head of one piece.
    """
    if method == "decoupled":
        model.requires_grad_(False)
        for name, parameter in model.head.named_parameters():
            parameter.requires_grad_(name.startswith(LAST_LAYER))


def _reset_unused(args: MultiLabelFairPOConfig) -> list[str]:
    """Puts unused options back to their defaults and names them."""
    unused = unused_options(args, ONLY_WITH)
    defaults = {field.name: field.default for field in dataclasses.fields(args)}
    for option in unused:
        setattr(args, option, defaults[option])
    return unused

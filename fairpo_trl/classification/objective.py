"""From the logits of a batch to the loss that each label of each image has in its role."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F

from fairpo_trl.classification.config import PREFERENCES, MultiLabelFairPOConfig
from fairpo_trl.classification.losses import (
    Confuser,
    LabelCounts,
    PreferenceLoss,
    asymmetric_loss,
    bce,
    class_balanced_bce,
    distribution_balanced_loss,
    focal_loss,
    logit_adjusted_bce,
    privileged_losses,
)
from fairpo_trl.core.losses import excess_over_reference


class LabelLosses(NamedTuple):
    """
    Quantities of `B` images and `T` labels, each `[B, T]`; 0 (or false) where the label is unknown.

    Attributes:
        losses (`torch.Tensor`): Loss of the label in its role.
        bce (`torch.Tensor`): BCE, whatever the loss is.
        above_reference (`torch.Tensor`): BCE less that of the reference (0 without one).
        confused (`torch.Tensor`): Privileged labels that some other label confuses, bool.
    """

    losses: torch.Tensor
    bce: torch.Tensor
    above_reference: torch.Tensor
    confused: torch.Tensor


def label_losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    args: MultiLabelFairPOConfig,
    privileged: torch.Tensor,
    *,
    reference_logits: torch.Tensor | None = None,
    uniform: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    gates: torch.Tensor | None = None,
    counts: LabelCounts | None = None,
    confuser: Confuser = "sample",
) -> LabelLosses:
    """
    The losses of both roles, unreduced; arguments as in [`privileged_losses`], and one reference for DPO and hinge.

    Args:
        args (`MultiLabelFairPOConfig`):
            `privileged_loss`, `non_privileged_loss` and their options.
        gates (`torch.Tensor`, *optional*):
            `[T]`, bool, for `hinge_level="label"`: labels whose running mean is above its bound. The hinge of a mean,
            max(0, m), has the gradient 1[m > 0] dm: the indicator is the gate.
        counts ([`LabelCounts`], *optional*):
            Of the train set, for the losses that know how rare a label is.
        confuser (`str`, *optional*, defaults to `"sample"`):
            Which confusing label a privileged one is compared with (`args.confuser` while training).
    """
    known = labels >= 0
    plain = bce(logits, labels)
    above = torch.zeros_like(plain)
    if reference_logits is not None:
        above = plain - bce(reference_logits.to(plain.dtype), labels)

    def pointwise(name: str) -> torch.Tensor:
        if name == "focal":
            return focal_loss(logits, labels, args.focal_gamma)
        if name == "asymmetric":
            present, absent = args.asymmetric_gammas
            return asymmetric_loss(logits, labels, present, absent, args.asymmetric_clip)
        if name == "bce":
            return plain
        assert counts is not None
        if name == "logit_adjustment":
            return logit_adjusted_bce(logits, labels, counts.prior_logits, args.logit_adjustment_tau)
        if name == "class_balanced":
            return class_balanced_bce(logits, labels, counts.positives)
        return distribution_balanced_loss(logits, labels, counts, args.focal_gamma)

    if args.non_privileged_loss != "hinge":
        losses = pointwise(args.non_privileged_loss)
    else:
        excess = torch.where(known, excess_over_reference(above, 0.0, args.epsilon), 0.0)
        if gates is not None:
            losses = excess * gates
        elif args.balancer == "lagrangian" and args.lagrangian_term == "excess":
            losses = excess
        else:
            losses = F.relu(excess)  # Eq. 10-13

    confused = torch.zeros_like(known)
    if args.privileged_loss in PREFERENCES:
        preference = privileged_losses(
            logits,
            labels,
            privileged,
            loss=cast(PreferenceLoss, args.privileged_loss),  # `PREFERENCES` are these
            beta=args.beta,
            reference_logits=reference_logits if args.privileged_loss == "dpo" else None,
            uniform=uniform,
            confuser=confuser,
            gamma=args.simpo_gamma,
            cpo_lambda=args.cpo_lambda,
            cpo_form=args.cpo_form,
            score=args.score,
            negatives_only=args.directions == "negatives",
            absent_labels=args.absent_labels,
            fallback=args.fallback,
        )
        losses = losses.index_copy(1, privileged, preference.losses)
        confused = confused.index_copy(1, privileged, preference.confused)
    elif args.privileged_loss != args.non_privileged_loss:
        losses = losses.index_copy(1, privileged, pointwise(args.privileged_loss)[:, privileged])
    return LabelLosses(losses, plain, above, confused)

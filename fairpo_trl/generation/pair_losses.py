"""From the log-probabilities of a batch of pairs to the loss each pair has in each role."""

from __future__ import annotations

from typing import NamedTuple

import torch

from fairpo_trl.core.losses import (
    LOG_2,
    cpo_loss,
    dpo_loss,
    dpop_loss,
    excess_over_reference,
    hinge_against_reference,
    ipo_loss,
    log_ratio_margin,
    simpo_loss,
)
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.log_probs import PairLogProbs


class PairLosses(NamedTuple):
    """
    Per-pair quantities, each `[B]`.

    Attributes:
        margin (`torch.Tensor`): h, the log-ratio margin in nats, without beta.
        dpo (`torch.Tensor`): DPO loss; log 2 where the policy equals the reference.
        privileged (`torch.Tensor`): Loss as a member of a privileged group (`privileged_loss`).
        non_privileged (`torch.Tensor`): Loss as a member of a non-privileged group. With `hinge_level="attribute"` it
            is the un-hinged excess: the caller multiplies it by the gate of the group.
    """

    margin: torch.Tensor
    dpo: torch.Tensor
    privileged: torch.Tensor
    non_privileged: torch.Tensor


def pair_losses(
    policy: PairLogProbs, ref_chosen_logps: torch.Tensor, ref_rejected_logps: torch.Tensor, args: FairPOConfig
) -> PairLosses:
    """
    The losses of `B` pairs (Eq. 18 and 19 and their variants), unreduced.

    Args:
        policy (`PairLogProbs`):
            Log-probabilities under the policy, with gradient.
        ref_chosen_logps, ref_rejected_logps (`torch.Tensor`):
            Log-probabilities under the reference, `[B]`.
        args (`FairPOConfig`):
            `privileged_loss`, `beta`, `hinge`, `epsilon`, ...

    Returns:
        `PairLosses`
    """
    margin = log_ratio_margin(policy.chosen, policy.rejected, ref_chosen_logps, ref_rejected_logps)
    dpo = dpo_loss(margin, args.beta)

    if args.privileged_loss == "dpo":
        privileged = dpo
    elif args.privileged_loss == "simpo":
        privileged = simpo_loss(policy.chosen_mean, policy.rejected_mean, args.simpo_beta, args.simpo_gamma)
    elif args.privileged_loss == "cpo":
        privileged = cpo_loss(policy.chosen, policy.rejected, -policy.chosen_mean, args.beta, args.cpo_lambda)
    elif args.privileged_loss == "rpo":
        privileged = dpo - args.cpo_lambda * policy.chosen_mean
    elif args.privileged_loss == "ipo":
        share = args.bonbon_alpha
        privileged = (1 - share) * ipo_loss(margin, args.beta) - share * policy.chosen
    elif args.privileged_loss == "dpop":
        privileged = dpop_loss(margin, policy.chosen, ref_chosen_logps, args.beta, args.dpop_lambda)
    else:  # "sft"
        privileged = -policy.chosen_mean

    if not args.hinge:
        non_privileged = dpo
    elif args.hinge_level == "attribute" or (args.balancer == "lagrangian" and args.lagrangian_term == "excess"):
        non_privileged = excess_over_reference(dpo, LOG_2, args.epsilon)
    else:
        non_privileged = hinge_against_reference(dpo, LOG_2, args.epsilon)
    return PairLosses(margin, dpo, privileged, non_privileged)


def losses_per_group(pairs: PairLosses, is_non_privileged: torch.Tensor, gates: torch.Tensor | None) -> torch.Tensor:
    """
    The loss each pair has as a member of each group.

    Args:
        pairs (`PairLosses`):
            Losses of `B` pairs in both roles.
        is_non_privileged (`torch.Tensor`):
            `[K]`, bool: which groups are non-privileged.
        gates (`torch.Tensor`, *optional*):
            `[B, K]`, bool, for `hinge_level="attribute"`. The hinge of a mean, max(0, m), has the gradient
            1[m > 0] dm: the indicator is the gate.

    Returns:
        `torch.Tensor`: `[B, K]`.
    """
    held = pairs.non_privileged.unsqueeze(1)
    if gates is not None:
        held = held * gates
    return torch.where(is_non_privileged, held, pairs.privileged.unsqueeze(1))

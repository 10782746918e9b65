"""
Per-example losses, as pure functions in log space.

Every function takes and returns tensors of one shape (`[B]` for pairs, any shape for label matrices) and reduces
nothing: weighting and averaging per group live in [`~fairpo_trl.core.reduction`]. "log-prob" is the sequence
log-probability of a completion in generation and `logsigmoid(z)` of a label in classification; clamped probabilities
are never used, since they give zero gradient on exactly the hardest examples. Equation numbers are those of the FairPO
paper (arXiv 2505.02433).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


LOG_2 = math.log(2.0)
"""The DPO loss of a policy that equals its reference: -log sigmoid(0). The hinge of Eq. 19 measures from here."""


def log_ratio_margin(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    ref_chosen_logps: torch.Tensor,
    ref_rejected_logps: torch.Tensor,
) -> torch.Tensor:
    """
    h = (log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected)), in nats (Eq. 1 and 8).

    Free of beta, which is applied once, in the loss. Exactly 0 where policy and reference agree.
    """
    return (chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps)


def dpo_loss(margin: torch.Tensor, beta: float) -> torch.Tensor:
    """
    -log sigmoid(beta * h) (Eq. 9 and 18).

    Args:
        margin (`torch.Tensor`):
            h of [`log_ratio_margin`], any shape.
        beta (`float`):
            Strength of the pull towards the reference; larger keeps closer.

    Returns:
        `torch.Tensor`: the loss per example, shape of `margin`; log 2 where h = 0.
    """
    return -F.logsigmoid(beta * margin)


def simpo_loss(chosen_logps: torch.Tensor, rejected_logps: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    """
    -log sigmoid(beta * (log p(chosen) - log p(rejected)) - gamma), without a reference (Eq. 14; SimPO, 2405.14734).

    For sequences pass log-probs **per token** (Eq. 4), for labels the label's own; `gamma` is the target margin.
    """
    return -F.logsigmoid(beta * (chosen_logps - rejected_logps) - gamma)


def cpo_loss(
    chosen_logps: torch.Tensor, rejected_logps: torch.Tensor, nll: torch.Tensor, beta: float, nll_weight: float
) -> torch.Tensor:
    """
    -log sigmoid(beta * (log p(chosen) - log p(rejected))) + lambda * NLL, without a reference (Eq. 15-17; CPO,
    2401.08417).

    Args:
        chosen_logps, rejected_logps (`torch.Tensor`):
            Log-probs of the preferred and the dispreferred side.
        nll (`torch.Tensor`):
            Negative log-likelihood of what should be likely (the chosen completion per token; a positive label; 0
            where there is none).
        beta (`float`):
            Scale of the preference term.
        nll_weight (`float`):
            lambda of Eq. 17.
    """
    return -F.logsigmoid(beta * (chosen_logps - rejected_logps)) + nll_weight * nll


def ipo_loss(margin: torch.Tensor, beta: float) -> torch.Tensor:
    """
    (h - 1 / (2 beta))^2 (IPO, 2310.12036): the margin is drawn to a target, and not beyond it.

    For the best and the worst of n samples of the reference the target (n - 1) H, with H = 1 + 1/2 + ... + 1/(n - 1),
    that is `beta` = 1 / (2 (n - 1) H), is the margin of best-of-n itself (BoNBoN, 2406.00832).

    Args:
        margin (`torch.Tensor`):
            h of [`log_ratio_margin`] over whole sequences, any shape.
        beta (`float`):
            Larger keeps closer to the reference.
    """
    return (margin - 1 / (2 * beta)) ** 2


def dpop_loss(
    margin: torch.Tensor, chosen_logps: torch.Tensor, ref_chosen_logps: torch.Tensor, beta: float, penalty: float
) -> torch.Tensor:
    """
    -log sigmoid(beta * (h - lambda * max(0, log p_ref(chosen) - log p(chosen)))) (DPOP, 2402.13228).

    A margin counts for less where it was won by a chosen side that has become less likely than under the reference.

    Args:
        margin (`torch.Tensor`):
            h of [`log_ratio_margin`], any shape.
        chosen_logps, ref_chosen_logps (`torch.Tensor`):
            Log-probs of the preferred side under policy and reference.
        beta (`float`):
            As in [`dpo_loss`].
        penalty (`float`):
            lambda; at 0 this is [`dpo_loss`].
    """
    return dpo_loss(margin - penalty * F.relu(ref_chosen_logps - chosen_logps), beta)


def excess_over_reference(loss: torch.Tensor, reference_loss: torch.Tensor | float, epsilon: float) -> torch.Tensor:
    """loss - reference loss - eps: negative while "not worse than the reference by more than eps" holds."""
    return loss - reference_loss - epsilon


def hinge_against_reference(loss: torch.Tensor, reference_loss: torch.Tensor | float, epsilon: float) -> torch.Tensor:
    """
    max(0, loss - reference loss - eps) (Eq. 10-13 with BCE, Eq. 19 with the DPO loss and [`LOG_2`]).

    Args:
        loss (`torch.Tensor`):
            Loss of the policy per example.
        reference_loss (`torch.Tensor` or `float`):
            Loss of the reference on the same examples (no gradient), or its constant.
        epsilon (`float`):
            Slack, in nats.

    Returns:
        `torch.Tensor`: exactly 0, with exactly zero gradient, wherever the policy is within the slack.
    """
    return F.relu(excess_over_reference(loss, reference_loss, epsilon))

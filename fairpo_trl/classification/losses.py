"""
Losses of a label matrix, as pure functions that return one loss per (image, label).

Everything is in log space: log m = logsigmoid(z), BCE from logits. Clamped probabilities would give no gradient on
exactly the hardest examples. Equation numbers are those of the FairPO paper (arXiv 2505.02433).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from fairpo_trl.classification.confusing import confusing_mask, confusing_sets
from fairpo_trl.core.losses import cpo_loss, dpo_loss, log_ratio_margin, simpo_loss


PreferenceLoss = Literal["dpo", "simpo", "cpo"]
PointwiseLoss = Literal["bce", "focal", "asymmetric", "logit_adjustment"]
Confuser = Literal["sample", "mean", "hardest"]
Score = Literal["log_sigmoid", "logit"]
CPOForm = Literal["positives", "all"]


# ---- pointwise losses ----


def bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-log p(label), from logits; 0 for an unknown label (-1). Any shape; float32 or better (Eq. 11)."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).to(logits.dtype), reduction="none")
    return torch.where(labels < 0, 0.0, losses)


def focal_loss(logits: torch.Tensor, labels: torch.Tensor, gamma: float) -> torch.Tensor:
    """(1 - p)^gamma * BCE with p the probability of the right answer (1708.02002); `gamma` 0 is BCE."""
    losses = bce(logits, labels)
    return losses * (-torch.expm1(-losses)) ** gamma


def asymmetric_loss(
    logits: torch.Tensor, labels: torch.Tensor, gamma_positive: float, gamma_negative: float, clip: float
) -> torch.Tensor:
    """
    Asymmetric loss (2009.14119): focusing that is stronger for absent labels, whose probability is shifted by `clip`.

    With both gammas and `clip` 0 it is BCE, to the bit. The focusing weight carries no gradient, as in the authors'
    code.
    """
    losses = bce(logits, labels)
    logits = logits.to(losses.dtype)
    if clip > 0:
        # -log(1 - max(0, p - clip)) = -log(min(1, (1 - p) + clip))
        shifted = -torch.log((torch.sigmoid(-logits) + clip).clamp(max=1.0))
        losses = torch.where(labels == 0, shifted, losses)
    if gamma_positive == 0 and gamma_negative == 0:
        return losses
    wrong = -torch.expm1(-losses.detach())  # 1 - probability of the right answer
    return losses * torch.where(labels == 1, wrong**gamma_positive, wrong**gamma_negative)


def logit_adjusted_bce(
    logits: torch.Tensor, labels: torch.Tensor, prior_logits: torch.Tensor, tau: float
) -> torch.Tensor:
    """
    BCE of z + tau * log(pi / (1 - pi)) with the train frequency pi of each label, `[T]` (2007.07314, per label).

    The shift is part of the loss only: at test time the unshifted z are the scores, balanced across labels.
    """
    return bce(logits + tau * prior_logits.to(logits.dtype), labels)


# ---- privileged labels ----


class PrivilegedLosses(NamedTuple):
    """
    Losses of the privileged labels of `B` images.

    Attributes:
        losses (`torch.Tensor`): `[B, P]`; 0 for unknown labels.
        preferred (`torch.Tensor`): Where a preference term was used, bool `[B, P]`.
        confused (`torch.Tensor`): Where the confusing set is not empty, bool `[B, P]`.
    """

    losses: torch.Tensor
    preferred: torch.Tensor
    confused: torch.Tensor


def privileged_losses(
    logits: torch.Tensor,
    labels: torch.Tensor,
    privileged: torch.Tensor,
    *,
    loss: PreferenceLoss,
    beta: float,
    reference_logits: torch.Tensor | None = None,
    uniform: torch.Tensor | None = None,
    confuser: Confuser = "sample",
    gamma: float = 0.0,
    cpo_lambda: float = 1.0,
    cpo_form: CPOForm = "positives",
    score: Score = "log_sigmoid",
    negatives_only: bool = False,
    absent_labels: Literal["bce", "none"] = "bce",
    fallback: bool = True,
) -> PrivilegedLosses:
    """
    The preference between a privileged label and one it is confused with (Eq. 8-9, 14-17); BCE where nothing confuses
    it.

    A present label l is preferred to an absent k that scores at least as high; a present k that scores at most as
    high is preferred to an absent l. All (image, label) pairs share one denominator, so that `beta` and `cpo_lambda`
    mean the same in every variant.

    Args:
        logits (`torch.Tensor`):
            `[B, T]`, with gradient.
        labels (`torch.Tensor`):
            `[B, T]`: 1 present, 0 absent, -1 unknown.
        privileged (`torch.Tensor`):
            Columns of the privileged labels, int64 `[P]`.
        loss (`str`):
            `"dpo"` (needs the reference), `"simpo"` or `"cpo"`.
        beta (`float`):
            Scale of the preference term.
        reference_logits (`torch.Tensor`, *optional*):
            `[B, T]`, for `"dpo"`.
        uniform (`torch.Tensor`, *optional*):
            Numbers in [0, 1), `[B, P]`, for `confuser="sample"`.
        confuser (`str`, *optional*, defaults to `"sample"`):
            `"sample"`: one k drawn from the set (the paper). `"mean"`: the exact mean over the set. `"hardest"`: the
            most confusing k.
        gamma (`float`, *optional*, defaults to `0.0`):
            Target margin of SimPO.
        cpo_lambda (`float`, *optional*, defaults to `1.0`):
            Weight of the NLL in CPO.
        cpo_form (`str`, *optional*, defaults to `"positives"`):
            `"positives"`: NLL = -log m_l of present labels, where there is a preference (Eq. 16). `"all"`: the
            authors' code, BCE of every label, present or absent, added to every preference term.
        score (`str`, *optional*, defaults to `"log_sigmoid"`):
            What is compared: `"log_sigmoid"` (the paper: it mostly lifts l and hardly lowers a confident k) or
            `"logit"` (symmetric).
        negatives_only (`bool`, *optional*, defaults to `False`):
            Only confusing negatives (the ablation): absent labels have no preference term.
        absent_labels (`str`, *optional*, defaults to `"bce"`):
            With `negatives_only`, what absent labels get: `"bce"` or `"none"` (a loss of 0).
        fallback (`bool`, *optional*, defaults to `True`):
            Whether a label that nothing confuses gets BCE; else 0 (the ablation).

    Raises:
        ValueError: If `"dpo"` has no reference, or `"sample"` no random numbers.
    """
    if loss == "dpo" and reference_logits is None:
        raise ValueError("The DPO loss of labels needs `reference_logits`.")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    own_labels = labels[:, privileged]  # [B, P]
    own_bce = bce(logits[:, privileged], own_labels)
    scores = F.logsigmoid(logits) if score == "log_sigmoid" else logits
    reference = None
    if reference_logits is not None:
        reference_logits = reference_logits.to(logits.dtype)
        reference = F.logsigmoid(reference_logits) if score == "log_sigmoid" else reference_logits
    nll = own_bce if cpo_form == "all" else torch.where(own_labels == 1, own_bce, 0.0)

    def preference(other: torch.Tensor, other_reference: torch.Tensor | None, extra: torch.Tensor) -> torch.Tensor:
        """The preference loss against k, whose scores have the shape of `extra` (an NLL per label)."""
        present, own = own_labels == 1, scores[:, privileged]
        own_reference = None if reference is None else reference[:, privileged]
        if extra.dim() == 3:
            present, own = present.unsqueeze(2), own.unsqueeze(2)
            own_reference = None if own_reference is None else own_reference.unsqueeze(2)
        chosen, rejected = torch.where(present, own, other), torch.where(present, other, own)
        if loss == "cpo":
            return cpo_loss(chosen, rejected, extra, beta, cpo_lambda)
        if loss == "simpo":
            return simpo_loss(chosen, rejected, beta, gamma)
        assert own_reference is not None and other_reference is not None
        ref_chosen = torch.where(present, own_reference, other_reference)
        ref_rejected = torch.where(present, other_reference, own_reference)
        return dpo_loss(log_ratio_margin(chosen, rejected, ref_chosen, ref_rejected), beta)

    if confuser == "mean":
        mask = confusing_mask(logits, labels, privileged)  # [B, P, T]
        size = mask.sum(dim=2)
        other_reference = None if reference is None else reference.unsqueeze(1)
        # `where`, not a product: a large loss outside of the set must not reach the gradient as inf * 0.
        against_all = preference(scores.unsqueeze(1), other_reference, nll.unsqueeze(2))
        preferred_loss = torch.where(mask, against_all, 0.0).sum(dim=2) / size.clamp(min=1)
    else:
        sets = confusing_sets(logits, labels, privileged)
        size = sets.size
        if confuser == "hardest":
            k = sets.member(torch.zeros_like(size))
        elif uniform is None:
            raise ValueError("`confuser='sample'` needs random numbers: pass `uniform`.")
        else:
            k = sets.draw(uniform)
        other_reference = None if reference is None else reference.gather(1, k)
        preferred_loss = preference(scores.gather(1, k), other_reference, nll)

    confused = size > 0
    preferred = confused & (own_labels == 1) if negatives_only else confused
    losses = torch.where(preferred, preferred_loss, own_bce if fallback else torch.zeros_like(own_bce))
    if negatives_only:
        absent = own_bce if absent_labels == "bce" else torch.zeros_like(own_bce)
        losses = torch.where(own_labels == 0, absent, losses)
    return PrivilegedLosses(torch.where(own_labels < 0, 0.0, losses), preferred, confused)

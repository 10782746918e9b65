"""
Losses of a label matrix, as pure functions that return one loss per (image, label).

Everything is in log space: log m = logsigmoid(z), BCE from logits. Clamped probabilities would give no gradient on
exactly the hardest examples. Equation numbers are those of the FairPO paper (arXiv 2505.02433).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from fairpo_trl.classification.confusing import confused_entries, confused_mask
from fairpo_trl.core.losses import cpo_loss, dpo_loss, log_ratio_margin, simpo_loss


PreferenceLoss = Literal["dpo", "simpo", "cpo"]
PointwiseLoss = Literal["bce", "focal", "asymmetric", "logit_adjustment", "class_balanced", "distribution_balanced"]
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
    if gamma == 0:
        return losses
    wrong = -torch.expm1(-losses)  # 1 - p
    # A power below 1 has an infinite slope at 0, and there the gradient would be 0 * inf; the true one is 0.
    positive = wrong > torch.finfo(wrong.dtype).tiny
    return losses * torch.where(positive, torch.where(positive, wrong, 1.0) ** gamma, 0.0)


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


class LabelCounts(NamedTuple):
    """
    How often each label is present in train.

    Attributes:
        positives (`torch.Tensor`): `[T]`, n; half a row where a label is never present, so that 1 / n is finite.
        prior_logits (`torch.Tensor`): `[T]`, log(pi / (1 - pi)) of the share pi among the known rows, never 0 or 1.
    """

    positives: torch.Tensor
    prior_logits: torch.Tensor

    @classmethod
    def of(cls, labels: torch.Tensor) -> LabelCounts:
        """Counts of a label matrix, `[N, T]`: 1 present, 0 absent, -1 unknown."""
        positives, known = ((labels >= least).sum(dim=0).double() for least in (1, 0))
        prior_logits = torch.logit((positives + 0.5) / (known + 1))
        return cls(positives.clamp(min=0.5).float(), prior_logits.float())


def class_balanced_bce(
    logits: torch.Tensor, labels: torch.Tensor, positives: torch.Tensor, beta: float = 0.9999
) -> torch.Tensor:
    """
    BCE weighted by the inverse effective number of each label, (1 - beta) / (1 - beta^n) (1901.05555).

    The weights are normalised to a mean of 1 over the labels, as in the paper; for `beta` -> 1 they go as 1 / n, with
    n the `positives` of [`LabelCounts`], `[T]`. The default is that of the paper's long-tailed sets.
    """
    losses = bce(logits, labels)
    weights = -1 / torch.expm1(positives.double() * math.log(beta))
    return losses * (weights / weights.mean()).to(losses.dtype)


def distribution_balanced_loss(
    logits: torch.Tensor, labels: torch.Tensor, counts: LabelCounts, gamma: float
) -> torch.Tensor:
    """
    Distribution-balanced loss (2007.09654), for images drawn so that every label comes equally often.

    Such a sampler repeats a label together with those it occurs with. The weight of label k on an image is smoothed
    from r = (1 / n_k) / sum over its present labels i of 1 / n_i, the share that the draw for label k itself has in
    all draws of the image: a + sigmoid(b (r - m)). Absent labels are tolerated: with v = -kappa log(pi / (1 - pi))
    their term is 1 / scale log(1 + exp(scale (z - v))), which costs less than BCE once z is well below v. All numbers
    are those of the authors' run on MS-COCO.

    Args:
        logits, labels, counts:
            `[B, T]` each, and those of the train set.
        gamma (`float`):
            Of a focal factor on top, as in the paper's best variant; 0 for none.
    """
    a, b, m, scale, kappa = 0.1, 10.0, 0.2, 2.0, 0.05
    rarity = 1 / counts.positives
    drawn = (labels == 1).to(rarity.dtype) @ rarity  # [B]; 0 without a label: r is infinite
    weights = a + torch.sigmoid(b * (rarity / drawn.unsqueeze(1) - m))
    slopes = torch.where(labels == 0, scale, 1.0)
    shifted = logits + kappa * counts.prior_logits.to(logits.dtype)
    return focal_loss(slopes * shifted, labels, gamma) * weights / slopes


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
    uniform: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
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
        logits, labels (`torch.Tensor`):
            `[B, T]`: z, with gradient; 1 present, 0 absent, -1 unknown.
        privileged (`torch.Tensor`):
            Columns of the privileged labels, int64 `[P]`.
        loss (`str`):
            `"dpo"` (needs the reference), `"simpo"` or `"cpo"`.
        reference_logits (`torch.Tensor`, *optional*):
            `[B, T]`, for `"dpo"`.
        uniform (`Callable`, *optional*):
            For `confuser="sample"`: from rows of the batch and columns of `privileged`, int64 `[n]` each, to numbers
            in [0, 1), `[n]`.
        gamma (`float`, *optional*, defaults to `0.0`):
            Target margin of SimPO.
        negatives_only (`bool`, *optional*, defaults to `False`):
            Only confusing negatives (the ablation): absent labels have no preference term.
        beta, confuser, cpo_lambda, cpo_form, score, absent_labels, fallback:
            As in [`~fairpo_trl.MultiLabelFairPOConfig`].

    Raises:
        ValueError: If `"dpo"` has no reference, or `"sample"` no random numbers.
    """
    if loss == "dpo" and reference_logits is None:
        raise ValueError("The DPO loss of labels needs `reference_logits`.")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    own_labels = labels[:, privileged]  # [B, P]
    own_bce = bce(logits[:, privileged], own_labels)
    losses = own_bce if fallback else torch.zeros_like(own_bce)
    if negatives_only and absent_labels == "bce":
        losses = torch.where(own_labels == 0, own_bce, losses)
    elif negatives_only:
        losses = torch.where(own_labels == 0, 0.0, losses)

    # Few entries are confused: their preference terms are computed by themselves and put in the place of the BCE.
    confused = confused_mask(logits, labels, privileged)
    preferred = confused & (own_labels == 1) if negatives_only else confused
    entries = confused_entries(logits, labels, privileged, preferred)
    image, own = entries.image, privileged[entries.column]  # [n]; from here on only these entries
    if confuser == "mean":
        entry, k = entries.members.nonzero(as_tuple=True)  # every member of every set, [m]
        image, own = image[entry], own[entry]
        present = entries.present[entry]
    else:
        present = entries.present
        if confuser == "hardest":
            k = entries.hardest(logits.detach()[image])
        elif uniform is None:
            raise ValueError("`confuser='sample'` needs random numbers: pass `uniform`.")
        else:
            k = entries.draw(uniform(image, entries.column))

    # A present label should win against the absent k, an absent one lose against the present k.
    winner, loser = torch.where(present, own, k), torch.where(present, k, own)
    of = F.logsigmoid if score == "log_sigmoid" else lambda z: z
    chosen, rejected = of(logits[image, winner]), of(logits[image, loser])
    if loss == "dpo":
        assert reference_logits is not None
        reference = reference_logits.to(logits.dtype)
        margin = log_ratio_margin(chosen, rejected, of(reference[image, winner]), of(reference[image, loser]))
        terms = dpo_loss(margin, beta)
    elif loss == "simpo":
        terms = simpo_loss(chosen, rejected, beta, gamma)
    else:
        nll = bce(logits[image, own], present.to(torch.int8))
        if cpo_form == "positives":  # an absent label has no response to be made likely
            nll = torch.where(present, nll, 0.0)
        terms = cpo_loss(chosen, rejected, nll, beta, cpo_lambda)
    if confuser == "mean":  # from one term per member of a set to one per set
        size = entries.members.sum(dim=1)  # [n]
        terms = torch.zeros_like(size, dtype=terms.dtype).index_add(0, entry, terms) / size
    return PrivilegedLosses(losses.index_put((entries.image, entries.column), terms), preferred, confused)

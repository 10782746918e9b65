"""FairPO's classification losses written as loops over images and labels: slow, and easy to check by eye."""

from __future__ import annotations

import math
from typing import Any

import torch


def log_sigmoid(z: torch.Tensor) -> torch.Tensor:
    return -torch.log1p(torch.exp(-z)) if float(z.detach()) > -30 else z


def bce(z: torch.Tensor, y: int) -> torch.Tensor:
    return -log_sigmoid(z) if y == 1 else -log_sigmoid(-z)


def confusing_set(z: torch.Tensor, y: list[int], own: int) -> list[int]:
    """S_neg of a present label, S_pos of an absent one."""
    if y[own] == 1:
        return [k for k in range(len(y)) if y[k] == 0 and float(z.detach()[k]) >= float(z.detach()[own])]
    return [k for k in range(len(y)) if y[k] == 1 and float(z.detach()[k]) <= float(z.detach()[own])]


def score(z: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    return log_sigmoid(z) if options.get("score", "log_sigmoid") == "log_sigmoid" else z


def preference(
    z: torch.Tensor,
    reference: torch.Tensor,
    y: list[int],
    own: int,
    k: int,
    options: dict[str, Any],
) -> torch.Tensor:
    """The loss of one privileged label against one that it is confused with (Eq. 8-9, 14, 15-17)."""
    preferred, dispreferred = (own, k) if y[own] == 1 else (k, own)
    difference = score(z[preferred], options) - score(z[dispreferred], options)
    beta, kind = options["beta"], options["loss"]
    if kind == "dpo":
        h = difference - (score(reference[preferred], options) - score(reference[dispreferred], options))
        return -log_sigmoid(beta * h)
    if kind == "simpo":
        return -log_sigmoid(beta * difference - options.get("gamma", 0.0))
    nll = bce(z[own], y[own]) if y[own] == 1 or options.get("cpo_form") == "all" else torch.zeros(())
    return -log_sigmoid(beta * difference) + options.get("cpo_lambda", 1.0) * nll


def privileged_loss(
    z: torch.Tensor,
    reference: torch.Tensor,
    y: list[int],
    own: int,
    u: float,
    options: dict[str, Any],
) -> torch.Tensor:
    """The loss of one privileged label on one image."""
    zero = z.sum() * 0.0
    if y[own] == -1:
        return zero
    if options.get("negatives_only") and y[own] == 0:
        return bce(z[own], 0) if options.get("absent_labels", "bce") == "bce" else zero
    confusing = confusing_set(z, y, own)
    if not confusing:
        return bce(z[own], y[own]) if options.get("fallback", True) else zero
    kind = options.get("confuser", "sample")
    if kind == "mean":
        terms = [preference(z, reference, y, own, k, options) for k in confusing]
        return torch.stack(terms).mean()
    if kind == "hardest":  # the highest absent label, the lowest present one
        k = max(confusing, key=lambda k: float(z.detach()[k]) if y[own] == 1 else -float(z.detach()[k]))
    else:
        k = confusing[math.floor(u * len(confusing))]
    return preference(z, reference, y, own, k, options)


def all_privileged_losses(
    logits: torch.Tensor,
    reference: torch.Tensor,
    labels: torch.Tensor,
    privileged: list[int],
    uniform: torch.Tensor,
    options: dict[str, Any],
) -> torch.Tensor:
    """`[B, P]`, for `label_sampling="all"`."""
    rows = []
    for i in range(len(labels)):
        y = labels[i].tolist()
        rows.append(
            torch.stack(
                [
                    privileged_loss(logits[i], reference[i], y, own, float(uniform[i, c]), options)
                    for c, own in enumerate(privileged)
                ]
            )
        )
    return torch.stack(rows)


def algorithm_2(
    weights: torch.Tensor,
    reference_weights: torch.Tensor,
    batches: list[tuple[torch.Tensor, list[list[int]], list[int], list[dict[int, float]]]],
    privileged: list[int],
    *,
    beta: float,
    epsilon: float,
    eta: float,
    eta_alpha: float,
) -> tuple[torch.Tensor, list[float]]:
    """
    Algorithm 2 as printed, for a linear model `[T, D]` and DPO: each example draws one label r; group losses are sums
    over the draws divided by the batch size, 0 for a group without a draw; then alpha, then w.

    `batches`: features `[B, D]`, labels, the drawn r of each example, and the number that draws k for each label.
    """
    alpha = [0.5, 0.5]
    w = weights.clone().requires_grad_(True)
    for features, labels, drawn, uniform in batches:
        loss_p, loss_n = torch.zeros((), dtype=w.dtype), torch.zeros((), dtype=w.dtype)
        for x, y, r, u in zip(features, labels, drawn, uniform, strict=True):
            z, reference = w @ x, reference_weights @ x
            if r in privileged:
                loss_p = loss_p + privileged_loss(z, reference, y, r, u[r], {"loss": "dpo", "beta": beta})
            else:
                loss_n = loss_n + torch.clamp(bce(z[r], y[r]) - bce(reference[r], y[r]) - epsilon, min=0.0)
        loss_p, loss_n = loss_p / len(labels), loss_n / len(labels)
        alpha = [alpha[0] * math.exp(eta_alpha * float(loss_p)), alpha[1] * math.exp(eta_alpha * float(loss_n))]
        alpha = [a / sum(alpha) for a in alpha]
        (gradient,) = torch.autograd.grad(alpha[0] * loss_p + alpha[1] * loss_n, w)
        w = (w - eta * gradient).detach().requires_grad_(True)
    return w.detach(), alpha

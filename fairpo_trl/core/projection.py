"""Gradients that conflict: one without its component against others, or a step that all of them agree to."""

from __future__ import annotations

import torch


def projection_weights(dots: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """
    The c >= 0 for which g + sum_k c_k g_k is the vector nearest to g that is against none of the g_k.

    "Against" is a negative inner product: a step down such a vector raises the loss of g_k. With one g_k this is the
    projection of A-GEM (1812.00420), c = max(0, -g . g_k / |g_k|^2); with several it is the quadratic programme of GEM
    (1706.08840), of which OGPSA (2602.07892) takes out whole components. Solved by coordinate descent on the dual
    (Hildreth), which settles within rounding after a few sweeps for gradients that are not nearly parallel.

    Args:
        dots (`torch.Tensor`):
            g . g_k, `[K]`.
        gram (`torch.Tensor`):
            g_k . g_l, `[K, K]`. A g_k of zero constrains nothing.

    Returns:
        `torch.Tensor`: `[K]`, float64 on the CPU.
    """
    dots, gram = dots.detach().cpu().double(), gram.detach().cpu().double()
    weights = torch.zeros_like(dots)
    for _ in range(100 if bool((dots < 0).any()) else 0):
        for k in range(len(dots)):
            if gram[k, k] > 0:
                weights[k] = (weights[k] - (dots[k] + gram[k] @ weights) / gram[k, k]).clamp(min=0)
    return weights


def conflict_averse_weights(gram: torch.Tensor, weights: torch.Tensor, radius: float = 0.4) -> torch.Tensor:
    """
    The a for which sum_k a_k g_k is the clipped conflict-averse step of RACO (2602.02495).

    CAGrad (2110.14048) looks, within `radius` |g_0| of g_0 = sum_k w_k g_k, for the step whose worst objective falls
    most. Its dual is a point p of the simplex,

        p = argmin g_p . g_0 + radius |g_0| |g_p|,   g_p = sum_k p_k g_k,

    and the step is g_0 + radius |g_0| g_p / |g_p|. RACO clips each p_k at w_k first, so that no objective is corrected
    for by more than it weighs. Solved by projected gradient descent with backtracking.

    Args:
        gram (`torch.Tensor`):
            g_k . g_l, `[K, K]`.
        weights (`torch.Tensor`):
            w, `[K]`, not negative, of sum 1.
        radius (`float`, *optional*, defaults to `0.4`):
            How far the step may lie from g_0, in lengths of it.

    Returns:
        `torch.Tensor`: `[K]`, float64 on the CPU; `weights` itself where g_0 or g_p is 0.
    """
    gram, weights = gram.detach().cpu().double(), weights.detach().cpu().double()
    size = gram.diagonal().mean()
    if size <= 0:
        return weights
    gram = gram / size  # lengths near 1, so that one step size fits
    reach = radius * (weights @ gram @ weights).clamp(min=0).sqrt()

    def value(p: torch.Tensor) -> torch.Tensor:
        return p @ gram @ weights + reach * (p @ gram @ p).clamp(min=0).sqrt()

    p, step = torch.full_like(weights, 1 / len(weights)), 1.0
    for _ in range(1000):
        slope = gram @ weights + reach * (gram @ p) / (p @ gram @ p).clamp(min=1e-24).sqrt()
        moved = _onto_simplex(p - step * slope)
        while step > 1e-12 and value(moved) > value(p) + slope @ (moved - p) + ((moved - p) ** 2).sum() / (2 * step):
            step /= 2
            moved = _onto_simplex(p - step * slope)
        if bool((moved - p).abs().max() < 1e-12):
            break
        p, step = moved, 2 * step
    clipped = torch.minimum(p, weights)
    length = (clipped @ gram @ clipped).clamp(min=0).sqrt()
    return weights + reach / length * clipped if length > 1e-9 else weights


def _onto_simplex(x: torch.Tensor) -> torch.Tensor:
    """The nearest point with entries of at least 0 and sum 1."""
    falling = x.sort(descending=True).values
    excess = (falling.cumsum(0) - 1) / torch.arange(1, len(x) + 1, dtype=x.dtype)
    return (x - excess[falling > excess][-1]).clamp(min=0)

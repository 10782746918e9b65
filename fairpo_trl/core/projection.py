"""A gradient without its component against other gradients."""

from __future__ import annotations

import torch


def projection_weights(dots: torch.Tensor, gram: torch.Tensor, sweeps: int = 100) -> torch.Tensor:
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
        sweeps (`int`, *optional*, defaults to `100`):
            Passes over all k.

    Returns:
        `torch.Tensor`: `[K]`, float64 on the CPU.
    """
    dots, gram = dots.detach().cpu().double(), gram.detach().cpu().double()
    weights = torch.zeros_like(dots)
    for _ in range(sweeps if bool((dots < 0).any()) else 0):
        for k in range(len(dots)):
            if gram[k, k] > 0:
                weights[k] = (weights[k] - (dots[k] + gram[k] @ weights) / gram[k, k]).clamp(min=0)
    return weights

"""Mean and standard deviation of features, exact for half precision and for files that do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch


_ROWS = 4096  # read at a time


def mean_and_std(features: np.ndarray | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Mean and standard deviation of each column (float64, `[D]` each), from sums in float64; 1 for a constant column.

    `features` are `[N, D]`, of any floating type; they may be memory-mapped.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    count, width = features.shape
    total, squares = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for rows in _blocks(features):
        total += rows.sum(dim=0)
    mean = total / count
    for rows in _blocks(features):
        squares += (rows - mean).square().sum(dim=0)
    if not (torch.isfinite(mean).all() and torch.isfinite(squares).all()):
        raise ValueError("The training features hold NaN or infinite values: extract them again.")
    std = (squares / count).sqrt()
    # Below float32 resolution a feature is constant, and its rounding noise must not be blown up.
    return mean, torch.where(std > 1e-6 * mean.abs().clamp(min=1e-6), std, 1.0)


def _blocks(features: np.ndarray | torch.Tensor) -> Iterator[torch.Tensor]:
    """The rows in float64, block by block."""
    for start in range(0, len(features), _ROWS):
        block = features[start : start + _ROWS]
        yield (torch.from_numpy(np.array(block)) if isinstance(block, np.ndarray) else block).double().cpu()

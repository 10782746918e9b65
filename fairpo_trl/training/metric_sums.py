"""Running sums from which both trainers read their metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64; on MPS, which has none, sums are as good as float32 allows."""
    return torch.float32 if device.type == "mps" else torch.float64


class MetricSums(ABC):
    """
    Running sums and counts of one mode (train or eval), kept on the device without synchronising.

    Everything lies in one vector, so that one all-reduce makes it global: a mean then weighs every example alike,
    wherever and in whichever batch it was.

    Args:
        size (`int`):
            Sums and counts.
        device (`torch.device`):
            Where they are kept.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.dtype = sum_dtype(device)
        self.vector = torch.zeros(size, dtype=self.dtype, device=device)

    @abstractmethod
    def read(self, vector: torch.Tensor) -> tuple[Any, dict[str, float]] | None:
        """The metrics of a (reduced) vector, and their log entries; `None` if it holds no example."""

    def reset(self) -> None:
        """Back to zero."""
        self.vector.zero_()

"""Running sums from which both trainers read their metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch

from fairpo_trl.core.reduction import sum_dtype


class MetricSums(ABC):
    """
    Running sums and counts of one mode (train or eval), `[size]`, kept on the device without synchronising.

    Everything lies in one vector, so that one all-reduce makes it global: a mean then weighs every example alike,
    wherever and in whichever batch it was.
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

"""Values of a batch that must be finite: looked at as one sum, and row by row only where that sum says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from fairpo_trl.core.reduction import all_finite


class Watched(NamedTuple):
    """
    A batch, and what was computed from it.

    Attributes:
        batch (`Mapping[str, Any]`): The batch of `B` rows.
        values (`tuple[torch.Tensor, ...]`): Without gradient; `[B]` each, or `[B, A]` for values of labels.
    """

    batch: Mapping[str, Any]
    values: tuple[torch.Tensor, ...]

    def is_finite(self) -> bool:
        """Whether all values are; the device is waited for."""
        return all(map(all_finite, self.values))

    def finite_rows(self) -> torch.Tensor:
        """Rows whose values are all finite, bool `[B]`."""
        rows = [torch.isfinite(value) for value in self.values]
        return torch.stack([row if row.dim() == 1 else row.all(dim=1) for row in rows]).all(dim=0)

    def finite_labels(self) -> list[torch.Tensor]:
        """For each `[B, A]` value the labels that are finite in all rows, bool `[A]`."""
        return [torch.isfinite(value).all(dim=0) for value in self.values if value.dim() > 1]

"""What a training step tells about each label and role, from sums and counts."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch

from fairpo_trl.core.partition import Partition
from fairpo_trl.training.metric_sums import MetricSums


_COLUMNS = ("bce", "loss", "inside_hinge", "confused")
WHOLE_SPLIT = ("map", "sample_f1", "accuracy", "exact_match")
"""Metrics by group of a whole split, of an evaluation."""


@dataclass(frozen=True)
class LabelMetrics:
    """
    Means by label and by role since the last log.

    Attributes:
        by_label (`pandas.DataFrame`): Index: labels that occurred. Columns: `role`, `count` (known entries), `bce`,
            `loss` (in its role), and, where they mean something (NaN elsewhere), `inside_hinge` (held labels with a
            reference: share of entries whose BCE is at most that of the reference + epsilon) and `confused`
            (privileged labels: share of entries that some label confuses).
        by_role (`pandas.DataFrame`): The same by role.
    """

    by_label: pd.DataFrame
    by_role: pd.DataFrame

    def _repr_html_(self) -> str:
        from fairpo_trl.reporting.render.notebook import metrics_html

        return metrics_html({"By label": self.by_label, "By role": self.by_role})


def evaluation_metrics(partition: Partition) -> list[str]:
    """Names of the metrics that an evaluation can return, without its prefix."""
    roles = [role for role in ("privileged", "non_privileged") if getattr(partition, role)]
    names = [f"{metric}/{group}" for metric in WHOLE_SPLIT for group in ("all", *roles)]
    names += [f"{column}/role/{role}" for column in _COLUMNS for role in roles]
    return [*names, "loss", "weighted_loss", *(f"ap/label/{name}" for name in partition.names)]


class LabelMetricSums(MetricSums):
    """
    Sums over known entries by label, kept on `device`.

    `has_reference` and `has_confusers` say whether `inside_hinge` can be told, and whether `confused` is computed.
    """

    def __init__(
        self, partition: Partition, *, has_reference: bool, has_confusers: bool, device: torch.device
    ) -> None:
        self.partition, self.has_reference, self.has_confusers = partition, has_reference, has_confusers
        super().__init__(len(partition.names) * (1 + len(_COLUMNS)), device)

    def add(
        self,
        known: torch.Tensor,
        bce: torch.Tensor,
        losses: torch.Tensor,
        inside_hinge: torch.Tensor,
        confused: torch.Tensor,
    ) -> None:
        """Adds one batch: `[B, T]` each; what is not `known` must be 0 in the others."""
        parts = (known, bce, losses, inside_hinge, confused)
        sums = torch.stack([part.detach().sum(dim=0, dtype=self.dtype) for part in parts], dim=1)  # [T, 5]
        self.vector += sums.flatten()

    def read(self, vector: torch.Tensor) -> tuple[LabelMetrics, dict[str, float]] | None:
        """The metrics of a (reduced) vector, and log entries by role; `None` if it holds nothing."""
        table = vector.view(-1, 1 + len(_COLUMNS)).cpu().double()
        if not bool(table[:, 0].any()):
            return None
        names = self.partition.names
        frame = pd.DataFrame(table.numpy(), columns=["count", *_COLUMNS], index=pd.Index(names, name="name"))
        frame.insert(0, "role", [self.partition.role_of(name) for name in names])
        by_role = frame.groupby("role", sort=False).sum()
        by_role.insert(0, "role", by_role.index)
        metrics = LabelMetrics(self._means(frame), self._means(by_role))
        logs = {
            f"{column}/role/{role}": float(value)
            for column in _COLUMNS
            for role, value in metrics.by_role[column].items()
            if value == value  # absent means absent
        }
        return metrics, logs

    def _means(self, sums: pd.DataFrame) -> pd.DataFrame:
        """From sums to means of the rows that occurred."""
        means = sums[sums["count"] > 0].copy()
        for column in _COLUMNS:
            means[column] = means[column] / means["count"]
        means["count"] = means["count"].astype(int)
        held = means["role"] == "non_privileged"
        means["inside_hinge"] = means["inside_hinge"].where(held & self.has_reference)
        means["confused"] = means["confused"].where(~held & self.has_confusers)
        return means

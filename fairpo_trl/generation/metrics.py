"""Metrics per attribute and per role, from sums and counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from transformers.modeling_outputs import ModelOutput

from fairpo_trl.core.losses import LOG_2
from fairpo_trl.core.partition import Partition
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.log_probs import PairLogProbs
from fairpo_trl.generation.pair_losses import PairLosses
from fairpo_trl.training.metric_sums import MetricSums


_PAIR_METRICS = ("accuracy", "margin", "loss", "inside_hinge", "chosen_change")
_ALL_METRICS = ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
_WORST = ("accuracy", "margin")
_TOKEN_METRICS = {
    "entropy": ("entropy", "tokens"),
    "mean_token_accuracy": ("chosen_top1", "chosen_tokens"),
    "logits/chosen": ("chosen_logits", "chosen_tokens"),
    "logits/rejected": ("rejected_logits", "rejected_tokens"),
}
_TOKEN_SUMS = (
    "tokens entropy chosen_tokens chosen_top1 chosen_logits rejected_tokens rejected_logits attended aux_loss batches"
).split()


@dataclass(frozen=True)
class GroupMetrics:
    """
    Metrics by attribute and by role, in the shape known from fairlearn's `MetricFrame`.

    Attributes:
        by_group (`pandas.DataFrame`):
            Index: attributes that occurred (an absent one has no row). Columns: `role`, `pairs`, `accuracy` (share of
            pairs with h > 0), `margin` (mean beta * h, nats), `loss` (mean DPO loss), `inside_hinge` (share of pairs
            whose loss is at most log 2 + epsilon), `chosen_change` (mean change of the chosen completion's
            log-probability against the reference, nats: below 0 it has become less likely).
        by_role (`pandas.DataFrame`):
            The same by role; a pair of several attributes of a role counts once.
    """

    by_group: pd.DataFrame
    by_role: pd.DataFrame

    def worst(self, metric: str = "accuracy") -> tuple[str, float]:
        """Name and value of the worst attribute: the lowest value, or the highest for `loss`."""
        column = self.by_group[metric]
        name = column.idxmax() if metric == "loss" else column.idxmin()
        return str(name), float(column[name])

    def gap(self, metric: str = "accuracy") -> float:
        """Best minus worst attribute."""
        return float(self.by_group[metric].max() - self.by_group[metric].min())

    def _repr_html_(self) -> str:
        from fairpo_trl.reporting.render.notebook import metrics_html

        return metrics_html({"By attribute": self.by_group, "By role": self.by_role})


def evaluation_metrics(partition: Partition) -> list[str]:
    """Names of the metrics that an evaluation can return, without its prefix."""
    groups = [f"attribute/{name}" for name in partition.names]
    groups += [f"role/{role}" for role in ("privileged", "non_privileged") if getattr(partition, role)]
    names = [f"{metric}/worst_attribute" for metric in _WORST]
    names += [f"{metric}/{group}" for metric in _PAIR_METRICS for group in groups]
    names += ["loss", "weighted_loss", *_ALL_METRICS, "rewards/accuracies", "rewards/margins", *_TOKEN_METRICS]
    return [*names, "num_tokens", "aux_loss"]


class PairMetricSums(MetricSums):
    """Sums over pairs by attribute and by role; of `args` it reads `beta` and `epsilon`."""

    def __init__(self, partition: Partition, args: FairPOConfig, device: torch.device) -> None:
        self.partition, self.args = partition, args
        # Rows: attributes in the order of `names`, the two roles, all pairs.
        roles = torch.tensor(
            [[name in partition.privileged, name in partition.non_privileged] for name in partition.names]
        )
        n = len(partition.names)
        self._rows = torch.cat([torch.eye(n, dtype=torch.bool), roles, torch.ones(n, 1, dtype=torch.bool)], dim=1).to(
            device
        )
        self._columns = 1 + len(_PAIR_METRICS) + len(_ALL_METRICS)  # count, then the metrics
        super().__init__(self._rows.size(1) * self._columns + len(_TOKEN_SUMS), device)

    def add(
        self,
        losses: PairLosses,
        policy: PairLogProbs,
        ref_chosen_logps: torch.Tensor,
        ref_rejected_logps: torch.Tensor,
        attribute_mask: torch.Tensor,
        inputs: Mapping[str, torch.Tensor],
        outputs: ModelOutput,
    ) -> None:
        """Adds one batch of `B` pairs; one without attributes in `attribute_mask` (`[B, A]`) counts nowhere."""
        beta = self.args.beta
        values = torch.stack(
            [
                torch.ones_like(losses.margin),
                (losses.margin > 0).to(losses.margin.dtype),
                beta * losses.margin,
                losses.dpo,
                (losses.dpo <= LOG_2 + self.args.epsilon).to(losses.margin.dtype),
                policy.chosen - ref_chosen_logps,
                beta * (policy.chosen - ref_chosen_logps),
                beta * (policy.rejected - ref_rejected_logps),
                policy.chosen,
                policy.rejected,
            ],
            dim=1,
        ).detach()  # [B, columns]
        member = (attribute_mask.float() @ self._rows.float()) > 0  # [B, rows]
        table = member.to(self.dtype).T @ values.to(self.dtype)  # [rows, columns]

        real = member[:, -1].repeat(2).unsqueeze(1)  # [2B, 1]
        mask = inputs["completion_mask"][:, 1:].bool() & real  # [2B, T-1]
        chosen, rejected = mask.chunk(2)
        width = mask.size(1)
        entropy, logits, top1 = (x[:, -width:] for x in (outputs.entropy, outputs.mean_logits, outputs.is_top1))
        chosen_logits, rejected_logits = logits.chunk(2)
        # Products with the mask, not indexing by it: an index of unknown length would wait for the device.
        tokens = torch.stack(
            [
                mask.sum(),
                (entropy * mask).sum(),
                chosen.sum(),
                (top1.chunk(2)[0] & chosen).sum(),
                (chosen_logits * chosen).sum(),
                rejected.sum(),
                (rejected_logits * rejected).sum(),
                (inputs["attention_mask"] * real).sum(),
                outputs.get("aux_loss", torch.zeros_like(losses.margin[0])),
                torch.ones_like(losses.margin[0]),
            ]
        ).detach()
        self.vector += torch.cat([table.flatten(), tokens.to(self.dtype)])

    def read(self, vector: torch.Tensor) -> tuple[GroupMetrics, dict[str, float]] | None:
        """
        The metrics of a (reduced) vector, or `None` if it holds no pair.

        Returns:
            `tuple[GroupMetrics, dict[str, float]]`: the frames, and flat log entries: `accuracy/attribute/<name>`,
            `accuracy/role/<role>`, `accuracy/worst_attribute` and so on, and TRL's own names (`rewards/margins`, ...).
        """
        table = vector[: -len(_TOKEN_SUMS)].view(-1, self._columns).cpu()
        tokens = dict(zip(_TOKEN_SUMS, vector[-len(_TOKEN_SUMS) :].tolist(), strict=True))
        counts = table[:, 0]
        if counts[-1] == 0:
            return None
        means = table[:, 1:] / counts.clamp(min=1).unsqueeze(1)

        def frame(names: tuple[str, ...], roles: tuple[str, ...], first: int) -> pd.DataFrame:
            rows: list[dict[str, Any]] = [
                {"name": name, "role": role, "pairs": int(counts[i])}
                | dict(zip(_PAIR_METRICS, means[i, : len(_PAIR_METRICS)].tolist(), strict=True))
                for i, (name, role) in enumerate(zip(names, roles, strict=True), start=first)
                if counts[i] > 0
            ]
            return pd.DataFrame(rows).set_index("name")

        names, both = self.partition.names, ("privileged", "non_privileged")
        metrics = GroupMetrics(
            by_group=frame(names, tuple(self.partition.role_of(name) for name in names), 0),
            by_role=frame(both, both, len(names)),
        )
        logs: dict[str, float] = {}
        for metric in _PAIR_METRICS:
            for kind, rows in (("attribute", metrics.by_group), ("role", metrics.by_role)):
                logs |= {f"{metric}/{kind}/{name}": float(value) for name, value in rows[metric].items()}
        for metric in _WORST:
            logs[f"{metric}/worst_attribute"] = metrics.worst(metric)[1]
        last = means[-1].tolist()
        logs |= dict(zip(_ALL_METRICS, last[len(_PAIR_METRICS) :], strict=True))
        logs |= {"rewards/accuracies": last[0], "rewards/margins": last[1]}
        for name, (total, count) in _TOKEN_METRICS.items():
            if tokens[count] > 0:
                logs[name] = tokens[total] / tokens[count]
        logs["num_tokens"] = tokens["attended"]  # since the last reading; the trainer adds them up
        if tokens["aux_loss"]:
            logs["aux_loss"] = tokens["aux_loss"] / tokens["batches"]
        return metrics, logs

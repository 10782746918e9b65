"""Log entries of the groups, under the same names in both trainers, and what a log says over the steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from fairpo_trl.core.group_weights import GroupWeights


def weight_logs(weights: GroupWeights, scaled: torch.Tensor | None) -> dict[str, float]:
    """
    `weight/<group>`, `group_loss/<group>` (running) and `scaled_group_loss/<group>`; a group never seen has no loss.

    `scaled` is what the last update saw of each group, `[K]`, if there was one.
    """
    logs = {f"weight/{name}": value for name, value in weights.as_dict().items()}
    estimates = zip(weights.names, weights.estimates.tolist(), strict=True)
    logs |= {f"group_loss/{name}": value for name, value in estimates if not math.isnan(value)}
    if scaled is not None:
        logs |= {f"scaled_group_loss/{name}": v for name, v in zip(weights.names, scaled.tolist(), strict=True)}
    return logs


def history_of(log: Iterable[Mapping[str, Any]], prefix: str) -> list[dict[str, float]]:
    """`{"step": optimizer step, name: value}` for every entry of a trainer's log that has values named `prefix`..."""
    entries = [
        {"step": entry["step"], **{k.removeprefix(prefix): v for k, v in entry.items() if k.startswith(prefix)}}
        for entry in log
    ]
    return [entry for entry in entries if len(entry) > 1]

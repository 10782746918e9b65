"""Log entries of the groups, under the same names in both trainers, and warnings about what is probably not meant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from accelerate.logging import get_logger

from fairpo_trl.core.group_weights import GroupWeights


logger = get_logger(__name__)

FALL = 1.0
"""Nats by which chosen completions may fall on average before it is said: by then they are e times less likely."""


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


class Hints:
    """Says once that a group has lost its weight, a hinge has never acted, or chosen texts have become less likely."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def look(self, weights: GroupWeights, args: Any, step: int, last_step: bool, metrics: Mapping[str, float]) -> None:
        """
        Looks at the weights after an update, and at the metrics since the last look; of `args` it reads `balancer` and
        `hinge`.
        """
        for name in weights.at_floor() if args.balancer == "mirror_ascent" else ():
            self._say(
                f"The weight of group {name!r} has come down to {weights.as_dict()[name]:.3g} at step {step}: its "
                "losses hardly count any more. A `floor`, another `scaling` or a smaller `eta_alpha` keeps it in.",
                key=name,
            )
        change = metrics.get("chosen_change/role/privileged", 0.0)
        if change < -FALL:
            self._say(
                f"At step {step} the chosen completions of privileged pairs are {-change:.1f} nats less likely than "
                "under the reference (`chosen_change/role/privileged`): the margin comes from rejected ones that fell "
                "further, and what the model writes instead may be neither. privileged_loss='cpo', 'rpo' or 'dpop' "
                "raises them too; fewer steps or a larger `beta` keeps closer to the reference.",
                key="displacement",
            )
        idle = [
            group.name
            for group, loss in zip(weights.groups, weights.estimates.tolist(), strict=True)
            if group.role == "non_privileged" and loss == 0
        ]
        if last_step and idle and args.hinge and getattr(args, "held_gradients", "sum") == "sum":
            self._say(
                f"The hinge of {idle} has never been active in {step} steps: the privileged examples alone would "
                "have trained the same model."
            )

    def _say(self, message: str, key: str = "") -> None:
        if key not in self._said:
            self._said.add(key)
            logger.warning(message)

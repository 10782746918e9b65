"""Warnings about what runs but is probably not meant, each said once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate.logging import get_logger

from fairpo_trl.core.group_weights import GroupWeights


logger = get_logger(__name__)

FALL = 1.0
"""Nats by which chosen completions may fall on average before it is said: by then they are e times less likely."""


class Hints:
    """Says once that a group has lost its weight, a hinge has never acted, or chosen texts have become less likely."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def look(self, weights: GroupWeights, args: Any, step: int, last_step: bool, metrics: Mapping[str, float]) -> None:
        """
        Looks at the weights after an update.

        Args:
            weights (`GroupWeights`):
                Weights and running losses.
            args:
                Options of the run: `balancer` and `hinge` are read.
            step (`int`):
                Optimizer steps done; `last_step`: training ends here.
            metrics (`Mapping[str, float]`):
                Metrics since the last look.
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

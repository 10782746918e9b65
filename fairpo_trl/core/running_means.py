"""Running means of several losses, each moved only by the steps that hold some of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch


class RunningMeans:
    """
    Bias-corrected exponential means: of the loss of each group, attribute or label.

    Args:
        names (`Sequence[str]`):
            What is averaged, in the order of every tensor here, `[K]`.
        decay (`float`):
            In [0, 1); 0 is the last mean seen.

    Attributes:
        steps (`int`): Updates so far.
    """

    def __init__(self, names: Sequence[str], decay: float) -> None:
        self.names, self.decay, self.steps = tuple(names), decay, 0
        self._moment = torch.zeros(len(self.names), dtype=torch.float64)  # uncorrected exponential average
        self._seen = torch.zeros(len(self.names), dtype=torch.int64)  # steps in which it was present

    @property
    def estimates(self) -> torch.Tensor:
        """The means, `[K]`, float64; NaN for what was never seen."""
        return torch.where(self._seen > 0, self._moment / (1 - self.decay ** self._seen.double()), torch.nan)

    def update(self, sums: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Takes the means of one step in.

        Args:
            sums (`torch.Tensor`):
                Sum of the losses over the whole step and all processes, `[K]`.
            counts (`torch.Tensor`):
                How many they are, `[K]`; 0 marks what is absent.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: means of the step (0 where absent), and whether there is one.

        Raises:
            FloatingPointError: If a mean is NaN or infinite; names it. The state is left as it was.
        """
        sums, counts = sums.detach().cpu().double(), counts.detach().cpu()
        present = counts > 0
        means = torch.where(present, sums / torch.where(present, counts, 1), 0.0)
        bad = [name for name, ok in zip(self.names, torch.isfinite(means).tolist(), strict=True) if not ok]
        if bad:
            raise FloatingPointError(
                f"The loss of group {bad} is not finite in step {self.steps + 1}: {means.tolist()}."
            )
        self._moment = torch.where(present, self.decay * self._moment + (1 - self.decay) * means, self._moment)
        self._seen += present.long()
        self.steps += 1
        return means, present

    def state_dict(self) -> dict[str, Any]:
        """The whole state as JSON-ready lists; Python writes float64 so that reading it back is bit-equal."""
        return {"moment": self._moment.tolist(), "seen": self._seen.tolist(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores [`state_dict`], of the same names."""
        self._moment = torch.tensor(state["moment"], dtype=torch.float64)
        self._seen = torch.tensor(state["seen"], dtype=torch.int64)
        self.steps = int(state["steps"])

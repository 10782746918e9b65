"""Held pairs inside their hinge have a gradient of exactly zero: who they are, and whether looking for them pays."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers.modeling_outputs import ModelOutput


_DECAY = 0.95  # of the running share, per micro-batch: a look back of about 20
_MARGIN = 0.95  # what a first pass has to save at least: it costs a second, smaller forward


class IdleShare:
    """
    The running share of held pairs outside their hinge, and whether a first pass without gradients pays.

    With f the cost of a forward, a held pair costs f + active * (f + backward) with a first pass, and f + backward
    without one. The backward costs as much as the forward where the weights are frozen (LoRA), twice as much where
    they are not, and one forward more where activations are recomputed (gradient checkpointing).

    Args:
        backward (`float`):
            Cost of a backward pass, in forward passes.
    """

    def __init__(self, backward: float) -> None:
        self._full = 1.0 + backward
        self._sums = torch.zeros(2, dtype=torch.float64)  # pairs that needed a gradient, held pairs; decayed

    def pays(self) -> bool:
        """Whether to look for idle pairs; at the start, where policy and reference are equal, all of them are."""
        active, held = self._sums.tolist()
        share = active / held if held > 0 else 0.0
        return 1.0 + share * self._full < _MARGIN * self._full

    def update(self, active: int, held: int) -> None:
        """Takes one micro-batch: how many of its `held` pairs needed a gradient."""
        if held:
            self._sums = _DECAY * self._sums + torch.tensor([active, held], dtype=torch.float64)

    def state_dict(self) -> list[float]:
        """JSON-ready, and bit-equal when read back."""
        return self._sums.tolist()

    def load_state_dict(self, state: list[float]) -> None:
        """Restores [`state_dict`]."""
        self._sums = torch.tensor(state, dtype=torch.float64)


def needs_gradient(losses: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """
    Which pairs can have a gradient, bool `[B]`: those whose loss in a group is not exactly 0.

    Args:
        losses (`torch.Tensor`):
            `[B, K]`, the loss of each pair as a member of each group: max(0, .) inside the hinge, or a loss times a
            closed gate. Both have the gradient 0 exactly where they are 0.
        members (`torch.Tensor`):
            `[B, K]`, bool. A pair of no group (a row that fills the last batch) has no gradient either.
    """
    return ((losses != 0) & members).any(dim=1)  # NaN is not 0: it goes on to where it is reported


def join_outputs(first: ModelOutput, second: ModelOutput | None, idle: torch.Tensor) -> ModelOutput:
    """
    The per-token statistics `[2B, T - 1]` of all pairs: of those in `idle`, bool `[B]`, from the first pass, of all
    others from the second, which carries the gradients. Either has 0 for pairs that it did not compute.
    """
    if second is None:
        return first
    rows = idle.repeat(2).unsqueeze(1)  # [2B, 1]
    for name, values in first.items():
        if values is not None and values.shape[:1] == rows.shape[:1]:
            second[name] = torch.where(rows, values, second[name])
    return second


def without_gradient(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """
    A 0 that depends on every trainable parameter: a micro-batch of idle pairs alone still gives each a gradient of 0.

    (Without one, an optimizer would pass over the parameter, momentum and weight decay included.)
    """
    terms = [p.flatten()[0].float() * 0.0 for p in parameters if p.requires_grad]
    return torch.stack([term.to(terms[0].device) for term in terms]).sum()

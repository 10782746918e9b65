"""Group weights that adapt during training: mirror ascent (the paper), fixed weights, or Lagrange multipliers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch

from fairpo_trl.core.messages import require_known, shortened
from fairpo_trl.core.options import check_number, is_number
from fairpo_trl.core.partition import Group
from fairpo_trl.core.running_means import RunningMeans


Balancer = Literal["mirror_ascent", "fixed", "lagrangian"]
Scaling = Literal["none", "relative", "fixed"]
Absent = Literal["estimate", "zero"]


class GroupWeights:
    r"""
    The weights alpha_g of the group objective sum_g alpha_g * mean_g, and how they move.

    Once per optimizer step, [`update`] takes each group's loss sum and count over the whole step and all processes.
    Since every process passes the same numbers, the weights are equal everywhere without being sent around.

    - `mirror_ascent` (Algorithm 2, lines 42-45): `log alpha_g += eta * scaled loss_g`, then normalised. The worse
      group gains weight.
    - `fixed`: the weights stay at `prior`.
    - `lagrangian`: privileged groups keep their prior share of weight 1 and every non-privileged group has its own
      multiplier, `lambda_k <- clip(lambda_k + eta * excess_k, 0, multiplier_max)`, for a loss that is the excess over
      the promise (mean loss - reference loss - eps): a multiplier rises while its group is worse than promised and
      falls while it is better. The textbook form of "better here, subject to not worse there".

    A group that is absent from a step is not a group with loss 0. Each group has a bias-corrected running estimate of
    its loss, updated only when the group is present, and the update uses the estimates (`absent="zero"` is Algorithm 2
    as printed: raw losses of the step, 0 for absent groups).

    Plain mirror ascent collapses: a hinge at 0 beside a preference loss near log 2 sends the privileged weight to 1,
    and the hinge then has no gradient left. Two remedies: `scaling` makes the losses commensurable, and `floor` keeps
    every weight above a share. The floored weights *are* the state (fixed share): mixing the floor into the output
    only would leave the log-weights drifting apart, and a group that lost would take thousands of steps to return.

    Args:
        groups (`Sequence[Group]`):
            The groups, in the order of every `[K]` tensor here.
        balancer (`str`, *optional*, defaults to `"mirror_ascent"`):
            `"mirror_ascent"`, `"fixed"` or `"lagrangian"`.
        eta (`float`, *optional*, defaults to `0.05`):
            Step size of the weights (eta_alpha of the paper).
        scaling (`str`, *optional*, defaults to `"none"`):
            What the update sees. `"none"`: the loss. `"relative"`: its change against the running estimate before
            this step, `(L - estimate) / (|estimate| + delta)`, the raw loss at a group's first appearance; an absent
            group has no change, whatever `absent` says. It sees changes, not levels: of two equal groups the noisier
            one slowly wins.
            `"fixed"`: the loss divided by the group's entry in `constants`.
        floor (`float`, *optional*, defaults to `0.0`):
            Share f that each group gets back after each update, `0 <= f < 1/K`: `alpha <- (1 - K f) alpha + f`. No
            weight falls below f. Because it acts at every step, a group that keeps losing comes to rest well above
            f, where what it loses in a step equals what it gets back: about `f / (eta * gap)` for a small f and a
            constant gap between the losses. Mirror ascent only.
        absent (`str`, *optional*, defaults to `"estimate"`):
            `"estimate"` or `"zero"`, see above.
        prior (`Mapping[str, float]`, *optional*):
            Group name -> weight at the start, normalised; `None` is equal weights.
        constants (`Mapping[str, float]`, *optional*):
            Group name -> positive divisor for `scaling="fixed"`, the group's loss at the reference (log 2 for
            preference losses, eps for hinges).
        decay (`float`, *optional*, defaults to `0.9`):
            Decay of the running estimates, in [0, 1); 0 is the last loss seen.
        delta (`float`, *optional*, defaults to `0.1`):
            Added to the denominator of `"relative"`, in nats: without it the first positive hinge after a run of
            zeros is an infinite relative change.
        clamp (`float`, *optional*, defaults to `10.0`):
            Bound on the absolute exponent of one mirror step.
        multiplier_start (`float`, *optional*, defaults to `1.0`):
            lambda_k at the start (`lagrangian`).
        multiplier_max (`float`, *optional*, defaults to `10.0`):
            Largest lambda_k (`lagrangian`).

    Raises:
        ValueError: For every option out of its range or meaningless beside the others.

    Example:

    ```python
    >>> groups = Partition.by_name(["concise", "polite"], ["concise"]).groups()
    >>> weights = GroupWeights(groups, eta=0.5)
    >>> weights.update(loss_sums=torch.tensor([2.0, 0.0]), counts=torch.tensor([2, 2]))
    >>> weights.as_dict()
    {'privileged': 0.6224593312018546, 'non_privileged': 0.3775406687981454}
    ```
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        balancer: Balancer = "mirror_ascent",
        eta: float = 0.05,
        scaling: Scaling = "none",
        floor: float = 0.0,
        absent: Absent = "estimate",
        prior: Mapping[str, float] | None = None,
        constants: Mapping[str, float] | None = None,
        decay: float = 0.9,
        delta: float = 0.1,
        clamp: float = 10.0,
        multiplier_start: float = 1.0,
        multiplier_max: float = 10.0,
    ) -> None:
        self.groups = tuple(groups)
        self.names = tuple(group.name for group in self.groups)
        k = len(self.groups)
        for option, value, choices in (
            ("balancer", balancer, get_args(Balancer)),
            ("scaling", scaling, get_args(Scaling)),
            ("absent", absent, get_args(Absent)),
        ):
            require_known(option, [value], choices)
        if k == 0:
            raise ValueError("`groups` is empty: there is nothing to weigh.")
        check_number("eta", eta)
        if not (is_number(floor) and 0 <= floor < 1 / k):
            raise ValueError(f"`floor` must be in [0, 1/K) = [0, {1 / k:.4g}) for {k} groups, got {floor!r}.")
        if floor and balancer != "mirror_ascent":
            raise ValueError(f"`floor` belongs to mirror ascent; with balancer={balancer!r} leave it at 0.")
        if scaling == "relative" and balancer == "lagrangian":
            raise ValueError(
                "`scaling='relative'` looks at the change of a loss, but a multiplier follows its level: use "
                "scaling='none' or 'fixed' with balancer='lagrangian'."
            )
        if not (is_number(decay) and 0 <= decay < 1):
            raise ValueError(f"`decay` must be in [0, 1), got {decay!r}.")
        if not (is_number(delta) and is_number(clamp) and delta > 0 and clamp > 0):
            raise ValueError(f"`delta` and `clamp` must be positive, got {delta!r} and {clamp!r}.")
        check_number("multiplier_start", multiplier_start)
        check_number("multiplier_max", multiplier_max)
        if multiplier_start > multiplier_max:
            raise ValueError(
                f"0 <= `multiplier_start` <= `multiplier_max` must hold, got {multiplier_start} and {multiplier_max}."
            )
        self.balancer, self.eta, self.scaling, self.floor, self.absent = balancer, eta, scaling, floor, absent
        self.delta, self.clamp, self.multiplier_max = delta, clamp, multiplier_max
        self._constants = self._per_group("constants", constants) if scaling == "fixed" else None
        start = torch.ones(k, dtype=torch.float64) if prior is None else self._per_group("prior", prior)
        start = start / start.sum()
        if not (torch.isfinite(start) & (start > 0)).all():
            raise ValueError(
                f"The weights in `prior` are too far apart, or too large, to be divided by their sum: {prior}."
            )

        # State: log alpha in float64 (or lambda for the lagrangian), and a running estimate of each group's loss.
        self._log_weights = start.log()
        self._held = torch.tensor([group.role == "non_privileged" for group in self.groups])
        self._privileged_share = torch.where(self._held, 0.0, start)
        self._privileged_share /= self._privileged_share.sum().clamp(min=1e-300)
        self._multipliers = torch.where(self._held, multiplier_start, 0.0).double()
        self._initial_weights = self.weights
        self._means = RunningMeans(self.names, decay)

    def _per_group(self, option: str, values: Mapping[str, float] | None) -> torch.Tensor:
        """`[K]` float64 from a mapping by group name; every group needs a positive entry."""
        values = {} if values is None else values
        if not isinstance(values, Mapping):
            raise ValueError(f"`{option}` must map each group to a number, got {shortened(values)}.")
        require_known(f"group in `{option}`", values, self.names)
        bad = [name for name in self.names if not (is_number(values.get(name)) and values[name] > 0)]
        if bad:
            raise ValueError(
                f"`{option}` needs a positive number for each group; missing or not positive for {bad}."
                + (
                    " A hinge with eps = 0 has no loss at the reference to divide by: give one."
                    if option == "constants"
                    else ""
                )
            )
        return torch.tensor([float(values[name]) for name in self.names], dtype=torch.float64)

    @property
    def weights(self) -> torch.Tensor:
        """alpha (or 1 and the multipliers for `lagrangian`), `[K]`, float64, on the CPU; a copy."""
        if self.balancer == "lagrangian":
            return self._privileged_share + self._multipliers
        return self._log_weights.exp()

    @property
    def initial_weights(self) -> torch.Tensor:
        """The weights before any update, `[K]`, whatever was loaded since: from `prior` and `multiplier_start`."""
        return self._initial_weights.clone()

    @property
    def estimates(self) -> torch.Tensor:
        """Bias-corrected running loss of each group, `[K]`, float64; NaN for a group never seen."""
        return self._means.estimates

    @property
    def steps(self) -> int:
        """Updates so far."""
        return self._means.steps

    def as_dict(self) -> dict[str, float]:
        """Group name -> weight."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))

    def at_floor(self) -> list[str]:
        """Names of the groups whose weight has come to rest on the floor (or, without one, below 1e-3)."""
        limit = 1.05 * self.floor if self.floor else 1e-3
        return [name for name, weight in self.as_dict().items() if len(self.names) > 1 and weight <= limit]

    def update(self, loss_sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """
        Moves the weights by one optimizer step.

        Args:
            loss_sums (`torch.Tensor`):
                Sum of the losses of each group over the whole step and all processes, `[K]`.
            counts (`torch.Tensor`):
                Members of each group in the step, `[K]`; 0 marks an absent group.

        Returns:
            `torch.Tensor`: what the update saw of each group after scaling, `[K]`, float64 (to be logged).

        Raises:
            FloatingPointError: If a loss is NaN or infinite; names the groups. The state is left as it was.
        """
        before = self.estimates
        losses, present = self._means.update(loss_sums, counts)
        level = losses if self.absent == "zero" else torch.nan_to_num(self.estimates, nan=0.0)

        if self.scaling == "relative":
            change = (losses - before) / (before.abs() + self.delta)
            scaled = torch.where(torch.isnan(before), losses, torch.where(present, change, 0.0))
        elif self._constants is not None:
            scaled = level / self._constants
        else:
            scaled = level

        if self.balancer == "mirror_ascent":
            log_weights = self._log_weights + (self.eta * scaled).clamp(-self.clamp, self.clamp)
            log_weights = log_weights - torch.logsumexp(log_weights, dim=0)
            if self.floor:
                k = len(self.names)
                log_weights = ((1 - k * self.floor) * log_weights.exp() + self.floor).log()
            self._log_weights = log_weights
        elif self.balancer == "lagrangian":
            moved = (self._multipliers + self.eta * scaled).clamp(0.0, self.multiplier_max)
            self._multipliers = torch.where(self._held, moved, 0.0)
        return scaled

    # ---- checkpoints ----

    def state_dict(self) -> dict[str, Any]:
        """The whole state as JSON-ready lists; Python writes float64 so that reading it back is bit-equal."""
        return {
            "groups": [[group.name, group.role, list(group.members)] for group in self.groups],
            "balancer": self.balancer,
            "log_weights": self._log_weights.tolist(),
            "multipliers": self._multipliers.tolist(),
            **self._means.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Restores [`state_dict`].

        Raises:
            ValueError: If the state belongs to other groups or another balancer: names what differs.
        """
        mine = self.state_dict()
        if list(map(list, state["groups"])) != mine["groups"]:
            raise ValueError(
                "The saved group weights belong to other groups. Saved: "
                f"{[(name, role) for name, role, _ in state['groups']]}; now: "
                f"{[(group.name, group.role) for group in self.groups]}. Resume with the partition and grouping of "
                "the checkpoint, or start anew."
            )
        if state["balancer"] != self.balancer:
            raise ValueError(
                f"The saved group weights come from balancer={state['balancer']!r}, now it is {self.balancer!r}. "
                "Resume with the balancer of the checkpoint, or start anew."
            )
        self._log_weights = torch.tensor(state["log_weights"], dtype=torch.float64)
        self._multipliers = torch.tensor(state["multipliers"], dtype=torch.float64)
        self._means.load_state_dict(state)

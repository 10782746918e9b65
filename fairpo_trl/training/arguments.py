"""The options of the group weights, which the configurations of both trainers have."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from fairpo_trl.core.group_weights import GroupWeights
from fairpo_trl.core.losses import LOG_2
from fairpo_trl.core.messages import shortened
from fairpo_trl.core.options import check_choices, check_training_numbers, option
from fairpo_trl.core.partition import Group
from fairpo_trl.training.best_metric import settle_best_metric


if TYPE_CHECKING:
    from transformers import TrainingArguments
else:
    TrainingArguments = object  # the configuration of a trainer brings TRL's or transformers'


@dataclass
class GroupWeightArguments(TrainingArguments):
    r"""
    How the weights of the groups move; see [`~fairpo_trl.GroupWeights`]. A base of the trainers' configurations.

    Parameters:
        balancer (`str`, *optional*, defaults to `"mirror_ascent"`):
            `"mirror_ascent"` (Algorithm 2), `"fixed"` (weights stay at `group_prior`) or `"lagrangian"` (one
            multiplier per non-privileged group, raised while the group is worse than promised).
        eta_alpha (`float`, *optional*, defaults to `0.05`):
            Step size of the group weights.
        scaling (`str`, *optional*, defaults to `"none"`):
            What mirror ascent sees: `"none"` the group loss, `"relative"` its relative change against a running mean,
            `"fixed"` the loss divided by its value at the reference (log 2, or epsilon for a hinge).
        floor (`float`, *optional*, defaults to `0.0`):
            Share that each group gets back after each step of mirror ascent, below 1 / number of groups. No weight
            falls below it; a group that keeps losing rests well above it.
        timing (`str`, *optional*, defaults to `"lagged"`):
            `"lagged"`: a step is weighted with the weights before it, and they move after it; the same for every
            split over micro-batches and processes. `"current"` (Algorithm 2): the step's own losses move the weights
            first; needs `gradient_accumulation_steps=1`.
        absent (`str`, *optional*, defaults to `"estimate"`):
            What mirror ascent sees. `"estimate"`: the running mean of each group's loss, which a group without
            examples in a step keeps; present groups are seen by their running means too, not by the losses of the
            step as in Algorithm 2 and Group DRO (`estimate_decay=0.0` is the last loss seen). `"zero"`: Algorithm 2
            as printed, the losses of the step and 0 for an absent group.
        estimate_decay (`float`, *optional*, defaults to `0.9`):
            Decay of the running loss estimates.
        group_prior (`dict[str, float]`, *optional*):
            Weight of each group at the start (for `balancer="fixed"`: throughout); equal by default.
        multiplier_start (`float`, *optional*, defaults to `1.0`):
            Multiplier of each non-privileged group at the start.
        multiplier_max (`float`, *optional*, defaults to `10.0`):
            Largest multiplier.
    """

    balancer: Literal["mirror_ascent", "fixed", "lagrangian"] = option(
        "mirror_ascent",
        "'mirror_ascent' (Algorithm 2), 'fixed' (weights stay at `group_prior`) or 'lagrangian' (one multiplier per "
        "non-privileged group).",
    )
    eta_alpha: float = option(0.05, "Step size of the group weights.")
    scaling: Literal["none", "relative", "fixed"] = option(
        "none",
        "What mirror ascent sees: 'none' the loss, 'relative' its change against a running mean, 'fixed' the loss "
        "divided by its value at the reference.",
    )
    floor: float = option(0.0, "Share that each group gets back after each step of mirror ascent, below 1 / groups.")
    timing: Literal["lagged", "current"] = option(
        "lagged",
        "'lagged': weights move after the step, the same for every split of a batch; 'current' (Algorithm 2): before "
        "it, without gradient accumulation.",
    )
    absent: Literal["estimate", "zero"] = option(
        "estimate",
        "What mirror ascent sees: 'estimate' the running mean loss of every group, which an absent one keeps; 'zero' "
        "the losses of the step and 0 for an absent group (Algorithm 2).",
    )
    estimate_decay: float = option(0.9, "Decay of the running loss estimates.")
    group_prior: dict[str, float] | str | None = option(
        None, "Weight of each group at the start (for 'fixed': throughout), as JSON; equal by default."
    )
    multiplier_start: float = option(1.0, "Multiplier of each non-privileged group at the start.")
    multiplier_max: float = option(10.0, "Largest multiplier.")

    def __post_init__(self) -> None:
        self._read_group_prior()  # before the base tries, whose error names no option
        given = self.greater_is_better
        super().__post_init__()
        settle_best_metric(self, given)
        check_choices(self)
        check_training_numbers(self)

    def _read_group_prior(self) -> None:
        """Reads `group_prior` given as JSON on the command line."""
        if not isinstance(self.group_prior, str):
            return
        try:
            prior = json.loads(self.group_prior)
        except json.JSONDecodeError:
            prior = None
        if not isinstance(prior, dict):
            raise ValueError(
                f'`group_prior` must be JSON like \'{{"privileged": 0.5, "non_privileged": 0.5}}\', got '
                f"{self.group_prior!r}."
            )
        self.group_prior = prior

    def __getstate__(self) -> dict[str, Any]:
        # The Trainer pickles its arguments into `training_args.bin`, which may be pushed: the token stays here.
        return {**self.__dict__, "hub_token": None}

    def __copy__(self) -> GroupWeightArguments:
        # Copies stay in this process and keep what pickling leaves out.
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __deepcopy__(self, memo: dict[int, Any]) -> GroupWeightArguments:
        new = object.__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return new


def check_names(option: str, names: Any) -> None:
    """Raises `ValueError` for an option that is to list names and is one text, or holds what is no name."""
    if isinstance(names, str):
        raise ValueError(f"`{option}` must be a list of names, got the string {names!r}: pass [{names!r}].")
    wrong = [name for name in names or () if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise ValueError(f"`{option}` must hold names, each not empty; {shortened(wrong[0])} is none.")


def check_group_options(args: Any) -> None:
    """
    Refuses options of the groups in contradiction, of either trainer; the ranges of the weights are checked by
    [`~fairpo_trl.GroupWeights`], once the groups are known.

    Raises:
        ValueError: Names the options, and what to set instead.
    """
    if args.timing == "current" and args.gradient_accumulation_steps > 1:
        raise ValueError(
            "`timing='current'` weights a step with its own losses, so all of them must be known before the first "
            f"backward pass, but gradient_accumulation_steps={args.gradient_accumulation_steps}. Use "
            "timing='lagged', or accumulation 1."
        )
    if args.balancer == "fixed" and (args.scaling != "none" or args.floor):
        raise ValueError(
            "`balancer='fixed'` never moves the weights, so `scaling` and `floor` would be ignored. Leave them "
            "out, and set the weights with `group_prior`."
        )
    each = next(field.default for field in fields(args) if field.name == "hinge_level")
    if args.balancer == "lagrangian" and args.lagrangian_term == "excess" and args.hinge_level != each:
        raise ValueError(
            f"`lagrangian_term='excess'` has no hinge, so `hinge_level={args.hinge_level!r}` would be ignored. Use "
            f"lagrangian_term='hinge', or leave hinge_level at {each!r}."
        )
    if args.scaling == "fixed" and args.privileged_loss != "dpo":
        raise ValueError(
            "`scaling='fixed'` divides by the loss at the reference, which is log 2 for dpo but no one number for "
            f"privileged_loss={args.privileged_loss!r}. Use another scaling."
        )
    if args.scaling == "fixed" and args.hinge and args.epsilon == 0:
        raise ValueError(
            "`scaling='fixed'` divides a hinge by epsilon, its size at the reference's bound, but epsilon=0. Set "
            "epsilon > 0, or another scaling."
        )
    if args.train_sampling_strategy == "batch_rebalance":
        raise ValueError(
            "`train_sampling_strategy='batch_rebalance'` does not work with FairPO: it hands out uneven batches, and "
            "padded duplicates could no longer be told from examples. Use 'random' or, for pairs, 'group_by_length'."
        )
    if args.balanced_sampling != "none" and args.train_sampling_strategy != "random":
        raise ValueError(
            f"`balanced_sampling={args.balanced_sampling!r}` chooses the order of the examples and contradicts "
            f"`train_sampling_strategy={args.train_sampling_strategy!r}`: set one of the two."
        )


def unused_options(args: Any, only_with: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """
    Options that differ from their default although what they belong to is not chosen.

    Args:
        args (dataclass):
            The configuration.
        only_with (`Mapping[str, Mapping[str, Any]]`):
            Option -> the options and values beside which it means something; a tuple holds alternatives.
    """
    defaults = {f.name: f.default for f in fields(args)}

    def holds(name: str, wanted: Any) -> bool:
        return getattr(args, name) in (wanted if isinstance(wanted, tuple) else (wanted,))

    return [
        option
        for option, needed in only_with.items()
        if getattr(args, option) != defaults[option] and not all(holds(*item) for item in needed.items())
    ]


def refuse_unused(args: Any, only_with: Mapping[str, Mapping[str, Any]]) -> None:
    """
    Refuses what [`unused_options`] finds: `ValueError` names the options that would be ignored, and what they need.
    """
    unused = unused_options(args, only_with)
    if unused:
        needed = {option: only_with[option] for option in unused}
        raise ValueError(f"These options would be ignored: {unused}. They need {needed}.")


def make_group_weights(args: Any, groups: Sequence[Group]) -> GroupWeights:
    """The group weights of a run, of either trainer; `GroupWeights` raises `ValueError` for ranges."""
    constants = None
    if args.scaling == "fixed":  # the loss of a group at the reference, or at its bound
        constants = {g.name: args.epsilon if g.role == "non_privileged" and args.hinge else LOG_2 for g in groups}
    return GroupWeights(
        groups,
        balancer=args.balancer,
        eta=args.eta_alpha,
        scaling=args.scaling,
        floor=args.floor,
        absent=args.absent,
        prior=args.group_prior,
        constants=constants,
        decay=args.estimate_decay,
        multiplier_start=args.multiplier_start,
        multiplier_max=args.multiplier_max,
    )

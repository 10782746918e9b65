"""`MultiLabelFairPOConfig`: a `TrainingArguments` with who is privileged, the losses, and how groups are balanced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from transformers import TrainingArguments

from fairpo_trl.classification.losses import PointwiseLoss, PreferenceLoss
from fairpo_trl.classification.sharding import keep_float32
from fairpo_trl.core.options import check_number, is_number, option
from fairpo_trl.training.arguments import GroupWeightArguments, check_group_options, check_names, refuse_unused


PREFERENCES = get_args(PreferenceLoss)
"""Privileged losses that compare a label with one it is confused with."""

# Options that mean something only beside others: a value set without them would be ignored.
ONLY_WITH: dict[str, Mapping[str, Any]] = {
    "simpo_gamma": {"privileged_loss": "simpo"},
    "cpo_lambda": {"privileged_loss": "cpo"},
    "cpo_form": {"privileged_loss": "cpo"},
    "confuser": {"privileged_loss": PREFERENCES},
    "score": {"privileged_loss": PREFERENCES},
    "directions": {"privileged_loss": PREFERENCES},
    "fallback": {"privileged_loss": PREFERENCES},
    "beta": {"privileged_loss": PREFERENCES},
    "absent_labels": {"privileged_loss": PREFERENCES, "directions": "negatives"},
    "epsilon": {"non_privileged_loss": "hinge"},
    "hinge_level": {"non_privileged_loss": "hinge"},
    "lagrangian_term": {"balancer": "lagrangian"},
    "multiplier_start": {"balancer": "lagrangian"},
    "multiplier_max": {"balancer": "lagrangian"},
}


@dataclass
class MultiLabelFairPOConfig(GroupWeightArguments, TrainingArguments):
    r"""
    Configuration class for the [`MultiLabelFairPOTrainer`].

    It holds the parameters specific to FairPO; the options of the group weights are documented in
    [`~fairpo_trl.training.arguments.GroupWeightArguments`], everything else in [`~transformers.TrainingArguments`].

    Parameters:
        > Parameters whose default differs from that of their base

        timing (`str`, *optional*, defaults to `"current"`):
            As in Algorithm 2: a step's own losses move the weights before its backward pass. With
            `gradient_accumulation_steps` above 1 set `"lagged"`.
        learning_rate (`float`, *optional*, defaults to `0.001`):
            Of a head on frozen features, under Adam.
        remove_unused_columns (`bool`, *optional*, defaults to `False`):
            Batches come ready from the dataset; there are no columns to remove.

        > Parameters that say who is privileged

        privileged_labels (`list[str]`, *optional*):
            Labels that should get better. Required, unless a [`~fairpo_trl.Partition`] is passed to the trainer.
        grouping (`str`, *optional*, defaults to `"role"`):
            What shares one weight: `"role"` (the paper) or `"label"` (one group each).
        balanced_sampling (`str`, *optional*, defaults to `"none"`):
            `"role"` draws images with and without a privileged label equally often, `"label"` the images of each
            label (and those without any) equally often.

        > Parameters that control the losses

        privileged_loss (`str`, *optional*, defaults to `"dpo"`):
            Loss of privileged labels: `"dpo"` (Eq. 8-9), `"simpo"` (Eq. 14) or `"cpo"` (Eq. 15-17) against a label
            they are confused with; or a pointwise loss: `"bce"`, `"focal"`, `"asymmetric"`, `"logit_adjustment"`,
            `"class_balanced"` (1901.05555) or `"distribution_balanced"` (2007.09654).
        non_privileged_loss (`str`, *optional*, defaults to `"hinge"`):
            Loss of all other labels: `"hinge"` is max(0, BCE - BCE of the reference - `epsilon`) (Eq. 10-13); or a
            pointwise loss.
        beta (`float`, *optional*, defaults to `1.0`):
            Scale of the preference term.
        simpo_gamma (`float`, *optional*, defaults to `0.5`):
            Target margin of SimPO.
        cpo_lambda (`float`, *optional*, defaults to `1.0`):
            Weight of the NLL in CPO.
        cpo_form (`str`, *optional*, defaults to `"positives"`):
            `"positives"`: the NLL of present labels (Eq. 16); `"all"`: BCE of every privileged label, as in the
            authors' code.
        confuser (`str`, *optional*, defaults to `"sample"`):
            `"sample"`: one confusing label is drawn (the paper); `"mean"`: the exact mean over all of them;
            `"hardest"`: the most confusing one.
        score (`str`, *optional*, defaults to `"log_sigmoid"`):
            What is compared: `"log_sigmoid"` (the paper) or `"logit"`, which lowers a confident confuser as much as
            it lifts the label.
        directions (`str`, *optional*, defaults to `"both"`):
            `"both"` (Algorithm 2), or `"negatives"`: only present labels against confusing absent ones.
        absent_labels (`str`, *optional*, defaults to `"bce"`):
            With `directions="negatives"`, what absent privileged labels get: `"bce"` or `"none"`.
        fallback (`bool`, *optional*, defaults to `True`):
            Whether a privileged label that nothing confuses gets BCE, else nothing.
        label_sampling (`str`, *optional*, defaults to `"all"`):
            `"all"` labels of every image, or `"uniform"`: one drawn label per image, as Algorithm 2 is printed.
        epsilon (`float`, *optional*, defaults to `0.01`):
            Slack of the hinge, in nats of BCE.
        hinge_level (`str`, *optional*, defaults to `"sample"`):
            `"sample"`: the hinge of each image and label (Eq. 13). `"label"`: of each label's mean, the stated goal;
            whether a label is above its bound is decided from its running mean before each step.
        lagrangian_term (`str`, *optional*, defaults to `"excess"`):
            With `balancer="lagrangian"`: the un-hinged `"excess"` BCE - BCE of the reference - epsilon, or its
            `"hinge"`.
        focal_gamma (`float`, *optional*, defaults to `2.0`):
            Focusing of the focal loss, and of the distribution-balanced one (0 for none).
        asymmetric_gammas (`list[float]`, *optional*, defaults to `[0.0, 4.0]`):
            Focusing of present and of absent labels in the asymmetric loss.
        asymmetric_clip (`float`, *optional*, defaults to `0.05`):
            Shift of the probability of absent labels in the asymmetric loss.
        logit_adjustment_tau (`float`, *optional*, defaults to `1.0`):
            Strength of logit adjustment by the train frequencies.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "group_prior"]

    # Parameters whose default differs from that of their base
    timing: Literal["lagged", "current"] = option(
        "current",
        "'current' (Algorithm 2): a step's own losses move the weights before its backward pass; "
        "'lagged': after it, the same for every split of a batch.",
    )
    learning_rate: float = option(1e-3, "The initial learning rate.")
    remove_unused_columns: bool = option(False, "Batches come ready from the dataset; there are no columns to remove.")

    # Parameters that say who is privileged
    privileged_labels: list[str] | None = option(
        None, "Labels that should get better. Required, unless a `Partition` is passed to the trainer."
    )
    grouping: Literal["role", "label"] = option(
        "role", "What shares one weight: 'role' (the paper) or 'label' (one group each)."
    )
    balanced_sampling: Literal["none", "role", "label"] = option(
        "none", "Whether images of each 'role' or of each 'label' are drawn equally often in an epoch."
    )

    # Parameters that control the losses
    privileged_loss: Literal[PreferenceLoss, PointwiseLoss] = option(
        "dpo",
        "Loss of privileged labels: 'dpo', 'simpo' or 'cpo' against a label they are confused with, or "
        "'bce', 'focal', 'asymmetric', 'logit_adjustment', 'class_balanced', 'distribution_balanced'.",
    )
    non_privileged_loss: Literal["hinge", PointwiseLoss] = option(
        "hinge", "Loss of all other labels: the 'hinge' against the reference, or a pointwise loss."
    )
    beta: float = option(1.0, "Scale of the preference term.")
    simpo_gamma: float = option(0.5, "Target margin of SimPO.")
    cpo_lambda: float = option(1.0, "Weight of the NLL in CPO.")
    cpo_form: Literal["positives", "all"] = option(
        "positives", "NLL of CPO: of present labels ('positives', Eq. 16), or BCE of 'all' labels."
    )
    confuser: Literal["sample", "mean", "hardest"] = option(
        "sample", "One confusing label is drawn ('sample'), the 'mean' over all, or the 'hardest' one."
    )
    score: Literal["log_sigmoid", "logit"] = option(
        "log_sigmoid", "What is compared: 'log_sigmoid' (the paper) or 'logit'."
    )
    directions: Literal["both", "negatives"] = option(
        "both", "'both' (Algorithm 2), or 'negatives': only present labels against absent ones."
    )
    absent_labels: Literal["bce", "none"] = option(
        "bce", "With `directions='negatives'`, what absent privileged labels get: 'bce' or 'none'."
    )
    fallback: bool = option(True, "Whether a privileged label that nothing confuses gets BCE, else nothing.")
    label_sampling: Literal["all", "uniform"] = option(
        "all", "'all' labels of every image, or one drawn label per image ('uniform', Algorithm 2)."
    )
    epsilon: float = option(0.01, "Slack of the hinge, in nats of BCE.")
    hinge_level: Literal["sample", "label"] = option(
        "sample", "The hinge of each image and label ('sample', Eq. 13) or of each 'label' mean."
    )
    lagrangian_term: Literal["excess", "hinge"] = option(
        "excess", "With 'lagrangian': the un-hinged 'excess' over the bound, or its 'hinge' (a penalty)."
    )
    focal_gamma: float = option(2.0, "Focusing of the focal and of the distribution-balanced loss.")
    asymmetric_gammas: list[float] = field(
        default_factory=lambda: [0.0, 4.0],
        metadata={"help": "Focusing of present and of absent labels in the asymmetric loss."},
    )
    asymmetric_clip: float = option(0.05, "Shift of the probability of absent labels in the asymmetric loss.")
    logit_adjustment_tau: float = option(1.0, "Strength of logit adjustment by the train frequencies.")

    @property
    def hinge(self) -> bool:
        """Whether non-privileged labels are held by the hinge against the reference."""
        return self.non_privileged_loss == "hinge"

    @property
    def needs_reference(self) -> bool:
        """Whether a loss compares with the reference."""
        return self.hinge or self.privileged_loss == "dpo"

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_float32(self)
        check_names("privileged_labels", self.privileged_labels)
        check_number("beta", self.beta, positive=True)
        for name in ("epsilon", "simpo_gamma", "cpo_lambda", "focal_gamma", "logit_adjustment_tau"):
            check_number(name, getattr(self, name))
        gammas = self.asymmetric_gammas
        if len(gammas) != 2 or not all(is_number(gamma) and gamma >= 0 for gamma in gammas):
            raise ValueError(
                "`asymmetric_gammas` must be two numbers >= 0, of present and of absent labels, got "
                f"{self.asymmetric_gammas}."
            )
        if not (is_number(self.asymmetric_clip) and 0 <= self.asymmetric_clip < 1):
            raise ValueError(f"`asymmetric_clip` must be in [0, 1), got {self.asymmetric_clip}.")
        for name, value in (("label_smoothing_factor", 0.0), ("auto_find_batch_size", False)):
            if getattr(self, name) != value:
                raise ValueError(
                    f"`{name}={getattr(self, name)!r}` does not work with FairPO: the losses of the groups would "
                    f"not see it. Leave it at {value!r}."
                )
        if self.balancer == "lagrangian" and not self.hinge:
            raise ValueError(
                "`balancer='lagrangian'` is about the bound against the reference, which needs "
                f"non_privileged_loss='hinge', not {self.non_privileged_loss!r}."
            )
        check_group_options(self)

    def refuse_unused(self) -> None:
        """
        Raises `ValueError` for options that the chosen losses and balancer would ignore.

        The trainer calls it: until then [`apply_method`] may still choose them.
        """
        refuse_unused(self, ONLY_WITH)

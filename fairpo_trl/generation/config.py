"""`FairPOConfig`: TRL's `DPOConfig` plus who is privileged, what is held, and how the groups are balanced."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trl import DPOConfig

from fairpo_trl.core.options import check_number, option
from fairpo_trl.training.arguments import GroupWeightArguments, check_group_options, check_names, refuse_unused


# What FairPO cannot honour, as (option, reason). Their TRL defaults are what FairPO does.
_REFUSED = {
    "loss_type": "FairPO builds its losses from the DPO loss ('sigmoid'): choose the privileged one with "
    "`privileged_loss` (dpo, simpo, cpo, rpo, ipo, dpop, sft)",
    "loss_weights": "there is one loss per role; weigh the groups with `group_prior` and `balancer`",
    "f_divergence_type": "the hinge promises 'not worse than the reference' in log-ratios (reverse_kl), with log 2 as "
    "the loss at the reference",
    "f_alpha_divergence_coef": "it belongs to f_divergence_type='alpha_divergence', which FairPO refuses",
    "label_smoothing": "TRL uses it for the robust and exo_pair losses only, so it would be ignored",
    "discopop_tau": "it belongs to loss_type='discopop', which FairPO refuses",
    "use_weighting": "WPO weights rescale each pair, so group means would no longer be the means of Eq. 18 and 19",
    "sync_ref_model": "a moving reference changes what 'not worse than the reference' promises",
    "ref_model_mixup_alpha": "it belongs to `sync_ref_model`, which FairPO refuses",
    "ref_model_sync_steps": "it belongs to `sync_ref_model`, which FairPO refuses",
    "neftune_noise_alpha": "noise on the policy's embeddings that the reference does not have: at the start the two "
    "would differ, and the hinge would never be 0",
    "padding_free": "DPOTrainer itself falls back to padding in this version of TRL",
    "label_smoothing_factor": "it is a classification option that preference trainers ignore",
    "auto_find_batch_size": "it restarts training with other windows after group weights have moved; set the batch "
    "size and `gradient_accumulation_steps`",
}

# FairPO options that mean something only beside others: a value set without them would be ignored.
_ONLY_WITH: dict[str, dict[str, Any]] = {
    "simpo_beta": {"privileged_loss": "simpo"},
    "simpo_gamma": {"privileged_loss": "simpo"},
    "cpo_lambda": {"privileged_loss": ("cpo", "rpo")},
    "bonbon_alpha": {"privileged_loss": "ipo"},
    "dpop_lambda": {"privileged_loss": "dpop"},
    "lagrangian_term": {"balancer": "lagrangian"},
    "multiplier_start": {"balancer": "lagrangian"},
    "multiplier_max": {"balancer": "lagrangian"},
}


@dataclass
class FairPOConfig(GroupWeightArguments, DPOConfig):
    r"""
    Configuration class for the [`FairPOTrainer`].

    It holds the parameters specific to FairPO; everything else is documented in [`~trl.DPOConfig`] and
    [`~transformers.TrainingArguments`]. A DPO option that FairPO cannot honour raises an error that says why.

    Parameters:
        > Parameters that say who is privileged

        privileged_attributes (`list[str]`, *optional*):
            Attributes that should get better: their pairs get `privileged_loss`. Required, unless a
            [`~fairpo_trl.Partition`] is passed to the trainer.
        non_privileged_attributes (`list[str]`, *optional*):
            Attributes that must not get worse than the reference: their pairs get the hinge. `None` takes every other
            attribute found in the training data; required for streaming datasets, which cannot be scanned first.
        attribute_column (`str`, *optional*, defaults to `"attribute"`):
            Column that names the attribute that drove the preference: a string, or a list of strings for a pair that
            counts for several attributes (one forward, counted in each).
        grouping (`str`, *optional*, defaults to `"role"`):
            What shares one weight: `"role"` (the two roles, as in the paper) or `"attribute"` (one group each).
        balanced_sampling (`str`, *optional*, defaults to `"none"`):
            `"role"` or `"attribute"` draws each role or each attribute equally often in an epoch, instead of as often
            as it occurs (`"none"`). An epoch keeps its number of pairs.
        allow_prompt_overlap (`bool`, *optional*, defaults to `False`):
            Whether evaluation pairs may have prompts of the training data. `False` refuses them and names the rows,
            because what is measured on prompts that were trained on says little about others.

        > Parameters that control the losses

        privileged_loss (`str`, *optional*, defaults to `"dpo"`):
            Loss of privileged pairs: `"dpo"` (Eq. 18), `"simpo"` (length-normalised, no reference), `"cpo"`
            (preference without reference + `cpo_lambda` * NLL per token), `"rpo"` (the DPO loss + `cpo_lambda` * NLL
            per token), `"ipo"` (squared distance of the log-ratio margin from 1 / (2 `beta`); with `bonbon_alpha` it
            is BoNBoN), `"dpop"` (the DPO loss with a penalty where the chosen completion gets less likely) or `"sft"`
            (NLL per token of the chosen completion: a baseline).
        simpo_beta (`float`, *optional*, defaults to `2.0`):
            Scale of the SimPO loss, on log-probs per token. `beta` stays that of the DPO losses and the hinge.
        simpo_gamma (`float`, *optional*, defaults to `0.5`):
            Target margin of the SimPO loss.
        cpo_lambda (`float`, *optional*, defaults to `1.0`):
            Weight of the NLL of the chosen completion in the CPO and the RPO loss.
        bonbon_alpha (`float`, *optional*, defaults to `0.0`):
            In [0, 1]: alpha of alpha * NLL (of the whole chosen completion) + (1 - alpha) * IPO loss. Above 0 this is
            BoNBoN for pairs of the best and the worst of n samples of the reference, with `beta` = 1 / (2 (n - 1) (1
            + 1/2 + ... + 1/(n - 1))); its authors take 0.005.
        dpop_lambda (`float`, *optional*, defaults to `50.0`):
            Weight of the penalty in the DPOP loss.
        hinge (`bool`, *optional*, defaults to `True`):
            Whether non-privileged pairs get max(0, DPO loss - log 2 - epsilon) (Eq. 19). `False` gives them the plain
            DPO loss: Group Robust DPO (Eq. 3), the ablation without a constraint.
        epsilon (`float`, *optional*, defaults to `0.05`):
            Slack of the hinge, in nats of DPO loss. At 0 numerical noise alone crosses it.
        hinge_level (`str`, *optional*, defaults to `"pair"`):
            `"pair"`: the hinge of each pair (Eq. 19). `"attribute"`: the hinge of each attribute's mean, the stated
            goal; whether an attribute is above its bound is decided from its running mean before each step.

        held_gradients (`str`, *optional*, defaults to `"sum"`):
            `"project"` takes out of the privileged gradient what is against the gradient of a held attribute's DPO
            loss in this step (as A-GEM and OGPSA do): to first order no held attribute then loses by a step for the
            privileged ones, inside its hinge or not. It costs a backward pass more for the privileged pairs and for
            each held attribute, one gradient each in memory, and `skip_idle_pairs`; not with FSDP, DeepSpeed, float16
            or `torch_compile`. `"conflict_averse"`, at the same cost, replaces the step by that of RACO (2602.02495)
            on the privileged pairs and the mean DPO loss of each held attribute, weighted as their groups; the hinge
            then only moves the weights.

        > Parameters that control the speed; none changes what is computed

        packing (`str`, *optional*, defaults to `"auto"`):
            Layout of the forward passes. `"auto"`: a pair is one sequence `prompt | chosen | rejected`, several in a
            row, where the first batch shows that the model gives the same log-probabilities so; else the plain layout
            of DPOTrainer, with one line that says why. `"always"` raises there. `"never"`: the plain layout.
        skip_idle_pairs (`bool`, *optional*, defaults to `True`):
            Whether held pairs inside their hinge, whose gradient is exactly 0, are found in a pass without gradients
            and spared the backward pass. It stops by itself while too few pairs are idle for it to pay. It needs the
            packed layout and a hinge, and is off under FSDP and DeepSpeed.
        reference_cache_dir (`str`, *optional*):
            Where `precompute_ref_log_probs` keeps the log-probabilities of the reference, by pair, for this and later
            runs. `None` is a folder beside the cache of `datasets`.

        > Parameters that control the group weights

        The other options of the weights are those of [`~fairpo_trl.training.arguments.GroupWeightArguments`].

        lagrangian_term (`str`, *optional*, defaults to `"excess"`):
            With `balancer="lagrangian"`: the un-hinged `"excess"` DPO loss - log 2 - epsilon (the constraint itself),
            or its `"hinge"` (a penalty: multipliers never fall).
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*DPOConfig._VALID_DICT_FIELDS, "group_prior"]

    # Parameters that say who is privileged
    privileged_attributes: list[str] | None = option(
        None,
        "Attributes that should get better: their pairs get `privileged_loss`. Required, unless a `Partition` is "
        "passed to the trainer.",
    )
    non_privileged_attributes: list[str] | None = option(
        None,
        "Attributes that must not get worse than the reference: their pairs get the hinge. None takes every other "
        "attribute found in the training data; required for streaming datasets.",
    )
    attribute_column: str = option(
        "attribute", "Column that names the attribute of a pair: a string or a list of strings."
    )
    grouping: Literal["role", "attribute"] = option(
        "role", "What shares one weight: 'role' (the paper) or 'attribute' (one group each)."
    )
    balanced_sampling: Literal["none", "role", "attribute"] = option(
        "none", "Whether each 'role' or each 'attribute' is drawn equally often in an epoch."
    )

    allow_prompt_overlap: bool = option(
        False, "Whether evaluation pairs may have prompts of the training data; False refuses them."
    )

    # Parameters that control the losses
    privileged_loss: Literal["dpo", "simpo", "cpo", "rpo", "ipo", "dpop", "sft"] = option(
        "dpo", "Loss of privileged pairs: 'dpo' (Eq. 18), 'simpo', 'cpo', 'rpo', 'ipo', 'dpop', or 'sft' (a baseline)."
    )
    simpo_beta: float = option(2.0, "Scale of the SimPO loss, on log-probs per token.")
    simpo_gamma: float = option(0.5, "Target margin of the SimPO loss.")
    cpo_lambda: float = option(1.0, "Weight of the NLL of the chosen completion in the CPO and the RPO loss.")
    bonbon_alpha: float = option(
        0.0, "Share of the NLL beside the IPO loss: above 0 it is BoNBoN (its authors take 0.005)."
    )
    dpop_lambda: float = option(50.0, "Weight of the penalty in the DPOP loss.")
    hinge: bool = option(
        True,
        "Whether non-privileged pairs get max(0, DPO loss - log 2 - epsilon) (Eq. 19); False gives them the plain DPO "
        "loss (Group Robust DPO).",
    )
    epsilon: float = option(0.05, "Slack of the hinge, in nats of DPO loss.")
    hinge_level: Literal["pair", "attribute"] = option(
        "pair", "The hinge of each 'pair' (Eq. 19) or of each 'attribute' mean."
    )

    held_gradients: Literal["sum", "project", "conflict_averse"] = option(
        "sum",
        "'project' takes out of the privileged gradient what is against the gradient of a held attribute, at a "
        "backward pass more for each; 'conflict_averse' makes the step of RACO of them all.",
    )

    # Parameters that control the speed
    packing: Literal["auto", "always", "never"] = option(
        "auto",
        "Layout of the forward passes: 'auto' packs pairs (prompt | chosen | rejected) where the first batch shows "
        "equal log-probabilities, else takes the plain layout and says why; 'always' raises there; 'never' is the "
        "plain layout.",
    )
    skip_idle_pairs: bool = option(
        True,
        "Whether held pairs inside their hinge, whose gradient is exactly 0, are spared the backward pass, while "
        "enough of them are idle for it to pay. Needs the packed layout and a hinge.",
    )
    reference_cache_dir: str | None = option(
        None,
        "Where `precompute_ref_log_probs` keeps the reference's log-probabilities, by pair, for this and later runs. "
        "None is a folder beside the cache of `datasets`.",
    )

    # Parameters that control the group weights, beside those of GroupWeightArguments
    lagrangian_term: Literal["excess", "hinge"] = option(
        "excess", "With 'lagrangian': the un-hinged 'excess' over the bound, or its 'hinge' (a penalty)."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_ranges()
        self._refuse_what_cannot_be_honoured()
        self._check_fairpo_options()
        check_group_options(self)
        refuse_unused(self, _ONLY_WITH)

    def _refuse_what_cannot_be_honoured(self) -> None:
        """Raises for a DPO or Trainer option whose effect FairPO could not keep, instead of ignoring it."""
        defaults: dict[str, Any] = {
            f.name: f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
            for f in dataclasses.fields(self)
        }
        for name, reason in _REFUSED.items():
            value = getattr(self, name)
            if value != defaults[name]:
                raise ValueError(
                    f"`{name}={value!r}` does not work with FairPO: {reason}. Leave it at {defaults[name]!r}."
                )

    def _check_ranges(self) -> None:
        """Raises for a number out of its range, whatever the others are."""
        for name in ("beta", "simpo_beta"):
            check_number(name, getattr(self, name), positive=True)
        for name in ("epsilon", "cpo_lambda", "simpo_gamma", "bonbon_alpha", "dpop_lambda"):
            check_number(name, getattr(self, name))
        if self.bonbon_alpha > 1:
            raise ValueError(f"`bonbon_alpha` is a share and at most 1, got {self.bonbon_alpha}.")
        if self.max_length is not None:
            check_number("max_length", self.max_length, least=1, whole=True)

    def _check_fairpo_options(self) -> None:
        """Raises for FairPO options out of range or in contradiction; the ranges of the weights are GroupWeights'."""
        for name in ("privileged_attributes", "non_privileged_attributes"):
            check_names(name, getattr(self, name))
        both = set(self.privileged_attributes or ()) & set(self.non_privileged_attributes or ())
        if both:
            raise ValueError(f"Attributes cannot be privileged and non-privileged at once: {sorted(both)}.")
        if self.balancer == "lagrangian" and not self.hinge:
            raise ValueError(
                "`balancer='lagrangian'` is about the bound against the reference, which `hinge=False` takes away. "
                "Use hinge=True, or balancer='mirror_ascent'."
            )
        if self.held_gradients != "sum":
            reentrant = (self.gradient_checkpointing_kwargs or {}).get("use_reentrant")
            off = {"fp16": self.fp16, "torch_compile": self.torch_compile, "use_reentrant": reentrant}
            for what in [name for name, given in off.items() if given]:
                raise ValueError(
                    f"`held_gradients={self.held_gradients!r}` needs the gradient of every attribute by itself, which "
                    f"{what}=True does not give: switch one of them off."
                )
        if self.hinge_level == "attribute" and not self.hinge:
            raise ValueError("`hinge_level='attribute'` needs the hinge, but hinge=False. Leave one of them out.")

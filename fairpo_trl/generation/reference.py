"""The reference of a run: the model as it was passed, and it keeps still. What cannot is refused before training."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from accelerate.utils import is_peft_model
from peft import PeftConfig, PeftType
from peft.utils.other import TrainableTokensWrapper
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedConfig

from fairpo_trl.core.messages import shortened
from fairpo_trl.generation.config import FairPOConfig


# Initialisations of LoRA that take from the weights of the base what they put into the adapter: with the adapter
# switched off the model is then another one than was passed.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


# Attributes of modules, beside everything with "drop" in its name, that add noise while training (Mixtral, DBRX, ...).
_JITTER = ("jitter_noise", "input_jitter_noise", "moe_jitter_eps")


class Reference(NamedTuple):
    """
    What a run compares with.

    Attributes:
        model (`torch.nn.Module`, *optional*):
            A model of its own; `None`: the policy without its adapter, the "ref" copy of an adapter, log-probs
            computed before training, or a second load of `model` (a path), as DPOTrainer arranges it.
        what (`str`):
            What it is, in words.
        differs_because (`str`, *optional*):
            Why the policy does not start from it; `None`: it does, and the first batch is checked for it.
    """

    model: Any
    what: str
    differs_because: str | None = None


def choose_reference(model: Any, ref_model: Any, peft_config: PeftConfig | None, args: FairPOConfig) -> Reference:
    """
    The reference of a run, before TRL sees the model: TRL would load the model again by the name in its configuration,
    whatever its weights are.

    Args:
        model, ref_model (`str`, `PreTrainedModel` or `PeftModel`):
            The policy and, if there is one, the reference, as they were passed.
        peft_config (`PeftConfig`, *optional*):
            Of the adapter that training adds.
        args (`FairPOConfig`):
            `precompute_ref_log_probs`, `disable_dropout`.

    Raises:
        ValueError: For a reference that is none or moves with the policy, and an adapter whose reference could not be
            told; with the reason and the mend.
    """
    if ref_model is not None:
        _check_passed(model, ref_model, peft_config)
        return Reference(_without_wrapper(ref_model), "the `ref_model` that was passed", "a model of its own")
    is_peft = not isinstance(model, str) and is_peft_model(model)
    for config in [model.peft_config[name] for name in model.active_adapters] if is_peft else [peft_config]:
        _refuse_method(config)
    noise = None if args.disable_dropout else "dropout is on (`disable_dropout=False`)"
    computed = " (its log-probs are computed before training)" if args.precompute_ref_log_probs else ""
    if peft_config is not None:
        return Reference(None, "the model without the adapter" + computed, _starts_elsewhere(peft_config) or noise)
    if is_peft:
        return _of_peft_model(model, computed, noise)
    if isinstance(model, str):
        return Reference(None, "the model as it was loaded" + computed, noise)
    if args.precompute_ref_log_probs:
        return Reference(None, "the model as it was passed" + computed, noise)
    plugin = args.deepspeed_plugin
    if plugin is not None and plugin.zero_stage == 3:  # holds a part of each weight, which cannot be copied
        return Reference(None, f"{model.config._name_or_path!r}, loaded a second time", noise)
    return Reference(_frozen_copy(model), "a frozen copy of the model that was passed", noise)


def _check_passed(model: Any, ref_model: Any, peft_config: PeftConfig | None) -> None:
    if not isinstance(ref_model, torch.nn.Module):
        raise ValueError(
            f"`ref_model` must be a model, got {shortened(ref_model)}: load it, "
            "AutoModelForCausalLM.from_pretrained(...), or leave it out to take the model that is trained, as it is "
            "at the start."
        )
    if isinstance(model, str):
        return
    own = {id(p) for p in ref_model.parameters()}
    shared = [n for n, p in model.named_parameters() if id(p) in own and (p.requires_grad or peft_config is not None)]
    if shared or (is_peft_model(model) and model.get_base_model() is ref_model):
        raise ValueError(
            "`ref_model` is made of the modules of `model` (an adapter is put into a model, not around a copy), so it "
            "would move with it. Leave `ref_model` out, or load it a second time."
        )


def _without_wrapper(ref_model: Any) -> Any:
    """The model that a PEFT wrapper puts its layers into: TRL's head cannot be added to the wrapper."""
    if not is_peft_model(ref_model):
        return ref_model
    if ref_model.active_peft_config.is_prompt_learning:
        raise ValueError(
            f"A `ref_model` with {ref_model.active_peft_config.peft_type.value} cannot be used: its wrapper adds the "
            "virtual tokens, and TRL looks behind it. Pass the model without them, or leave `ref_model` out."
        )
    return ref_model.get_base_model()


def _refuse_method(config: PeftConfig | None) -> None:
    if config is not None and config.peft_type == PeftType.CPT:
        raise ValueError("CPT computes a loss of its own from logits, which DPO does not build: use prompt tuning.")
    start = getattr(config, "init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise ValueError(
            f"`init_lora_weights={start!r}` moves a part of each weight of the model into the adapter, so without the "
            "adapter the model is not the reference that was passed. Use init_lora_weights=True, or pass a second "
            "copy of the model as `ref_model`."
        )


def _starts_elsewhere(config: PeftConfig) -> str | None:
    """Why the policy differs from the model without the adapter at the very start, if it is known to."""
    if config.is_prompt_learning:
        return f"{config.peft_type.value} puts virtual tokens before the prompt, which the reference does not have"
    for option in ("init_lora_weights", "init_weights", "init_ia3_weights"):
        if getattr(config, option, None) is False:
            return f"`{option}=False` starts the adapter at random"
    return None


def _of_peft_model(model: Any, computed: str, noise: str | None) -> Reference:
    if any(getattr(module, "merged", False) is True for module in model.modules()):
        raise ValueError(
            "The adapter of `model` is merged into its weights, where it cannot be trained: call "
            "model.unmerge_adapter() first, or pass model.merge_and_unload() with a `peft_config`."
        )
    prompt = model.active_peft_config.is_prompt_learning
    if prompt or (list(model.active_adapters) == ["default"] and "ref" not in model.peft_config):
        return Reference(None, "a frozen copy of the adapter that was passed" + computed, noise)
    # TRL copies the adapter called "default", whichever is active.
    return Reference(
        _frozen_copy(model.get_base_model()), "a frozen copy of the model that was passed, with its adapters", noise
    )


def _frozen_copy(model: Any) -> Any:
    return copy.deepcopy(model).requires_grad_(False).eval()


# ---- what would make it move, or differ ----


def check_adapter(model: Any, is_reference: bool) -> None:
    """
    Refuses an adapter that TRL's head would not see, and parameters that are trained and that the reference uses too:
    of a PEFT model (unwrapped) that is its own reference, everything that trains must belong to the adapter.

    Raises:
        ValueError: Names the parameters and the mend.
    """
    if isinstance(model.get_output_embeddings(), TrainableTokensWrapper):
        raise ValueError(
            "The trained tokens (`trainable_token_indices`) are tied to the output head, which TRL reads past their "
            "adapter. Set `modules_to_save=['embed_tokens']` instead, or train other modules."
        )
    if not is_reference:
        return
    moving = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and adapter_of(model, name) is None
    ]
    if not moving:
        return
    biases = all(name.endswith("bias") for name in moving)
    mend = (
        "Set `bias='none'` in the PEFT configuration"
        if biases
        else "Freeze them, or name their modules in `modules_to_save`, which keeps the originals"
    )
    raise ValueError(
        f"The reference is this model without its adapter, but {len(moving)} parameters outside the adapter would be "
        f"trained, and the reference would move with them, {moving[0]!r} first. {mend}, or pass a second copy of the "
        "model as `ref_model`."
    )


def adapter_of(model: Any, name: str) -> str | None:
    """The adapter that a parameter of a PEFT model belongs to; `None` for one of the model itself."""
    parts = name.split(".")
    prefix = getattr(model.base_model, "prefix", "adaption_")  # of methods that do not name the adapter
    unnamed = "the adapter" if prefix in name else None
    return next((adapter for adapter in model.peft_config if adapter in parts), unnamed)


def silence(*models: Any) -> None:
    """
    Switches off what `disable_dropout=True` promises to switch off, in place.

    TRL reaches `nn.Dropout` modules only. Many models also call dropout as a function, with a probability that is an
    attribute of the module (`attention_dropout`, `layerdrop`) or is read from the configuration at each call; PEFT has
    probabilities by adapter.

    Args:
        *models (`torch.nn.Module`, *optional*):
            The policy, the reference; what is no model (a path, `None`) is left out.
    """
    for module in (part for model in models if isinstance(model, torch.nn.Module) for part in model.modules()):
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if name in _JITTER or "drop" in name:
                if _is_probability(value):
                    setattr(module, name, 0.0)
                elif isinstance(value, dict):
                    value.update({key: 0.0 for key, share in value.items() if _is_probability(share)})
        config = getattr(module, "config", None)
        if isinstance(config, PreTrainedConfig):
            _silence_config(config)


def _silence_config(config: PreTrainedConfig) -> None:
    for name, value in vars(config).items():
        if "drop" in name and _is_probability(value):
            setattr(config, name, 0.0)
        elif isinstance(value, PreTrainedConfig):
            _silence_config(value)


def _is_probability(value: Any) -> bool:
    return isinstance(value, float) and 0 < value <= 1

"""Randomness that policy and reference would not share: dropout of every kind, layer drop, jitter."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedConfig


# Attributes of modules, beside everything with "drop" in its name, that add noise while training (Mixtral, DBRX, ...).
_JITTER = ("jitter_noise", "input_jitter_noise", "moe_jitter_eps")


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

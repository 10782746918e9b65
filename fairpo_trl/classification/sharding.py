"""A classifier under FSDP and DeepSpeed: its head stays in float32, and its reference is whole on every process."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast
from torch import nn


def keep_float32(args: Any) -> None:
    """
    Under DeepSpeed trains in float32: its half precisions round a whole model, its head and the statistics of its
    features too, which would not start from its reference any more.

    Raises:
        ValueError: Under ZeRO-3, which rounds a model already when it is loaded.
    """
    plugin = args.deepspeed_plugin
    if plugin is not None and plugin.zero_stage == 3:
        raise ValueError(
            "A classifier does not train under DeepSpeed ZeRO-3: launch with accelerate_configs/deepspeed_zero2.yaml "
            "or fsdp2.yaml."
        )
    if plugin is None or args.mixed_precision == "no":
        return
    for precision in ("bf16", "fp16"):
        plugin.deepspeed_config.get(precision, {})["enabled"] = False
    plugin.set_deepspeed_weakref()  # what `from_pretrained` reads is a copy
    args.mixed_precision, args.bf16, args.fp16 = "no", False, False


def prepare_for_fsdp(accelerator: Accelerator, *models: nn.Module | None) -> None:
    """
    Lets FSDP shard a classifier; called before the first step.

    Its plugin must neither load the weights by itself, which fails on buffers, nor compute in half precision, which
    the head is kept out of (a backbone still does, under autocast). Those of `models` that the main process alone may
    have read get their weights from it.
    """
    if accelerator.distributed_type != DistributedType.FSDP:
        return
    plugin = accelerator.state.fsdp_plugin
    plugin.cpu_ram_efficient_loading, plugin.mixed_precision_policy = False, None
    for model in models:
        for value in () if model is None else (*model.parameters(), *model.buffers()):
            with torch.no_grad():
                value.copy_(broadcast(value.detach().to(accelerator.device), from_process=0))

"""What the engines under a trainer (DDP, FSDP, DeepSpeed) have in common, and where their processes must agree."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import nn
from torch.distributed.tensor import DTensor


PLAIN = "one process or DDP"


def engine_of(accelerator: Accelerator) -> str:
    """What lays out parameters and optimizer state, as it is kept in checkpoints."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return f"DeepSpeed ZeRO-{accelerator.state.deepspeed_plugin.zero_stage}"
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        return f"FSDP{plugin.fsdp_version} {plugin.state_dict_type.name}"
    return PLAIN


def shards_parameters(accelerator: Accelerator) -> bool:
    """Whether each process holds another part of the parameters."""
    engine = engine_of(accelerator)
    return engine.startswith("FSDP") or engine == "DeepSpeed ZeRO-3"


def scales_loss(accelerator: Accelerator) -> bool:
    """Whether a loss scaler (float16) skips steps whose gradient is not finite, as it should."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return bool(accelerator.state.deepspeed_plugin.deepspeed_config.get("fp16", {}).get("enabled") is True)
    return accelerator.scaler is not None


def check_processes(accelerator: Accelerator, even_batches: bool) -> None:
    """
    Refuses processes that would train past each other, or wait for each other for ever, because the last round is not
    filled (`even_batches`).

    Raises:
        ValueError: Says what is wrong with the launch, and what to set.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    alone = accelerator.num_processes == 1 or accelerator.distributed_type == DistributedType.NO
    if launched > 1 and alone:
        raise ValueError(
            f"The launcher started {launched} processes, but each would train alone, and write over the others: "
            "accelerate found no GPU. Set `use_cpu=True` (with `ddp_backend='gloo'` under torchrun), which trains "
            "data-parallel on the CPU, or start one process."
        )
    if accelerator.num_processes > 1 and not even_batches:
        raise ValueError(
            "`accelerator_config` has even_batches=False: processes with fewer batches than others would leave them "
            "waiting for ever. Leave it at True; rows that only fill the last round count nowhere."
        )


def check_agreement(accelerator: Accelerator, facts: Mapping[str, Any]) -> None:
    """
    Compares what must be equal on every process, by name; called on all of them.

    Raises:
        ValueError: On every process; names what differs and where.
    """
    if accelerator.num_processes == 1:
        return
    everyone = gather_object([dict(facts)])
    for name in facts:
        other = [rank for rank, theirs in enumerate(everyone) if theirs.get(name) != everyone[0].get(name)]
        if other:
            first, theirs = everyone[0].get(name), everyone[other[0]].get(name)
            raise ValueError(
                f"The processes do not agree: {name} of process {other[0]} ({theirs!r:.40}) is not that of process 0 "
                f"({first!r:.40}). Give every process the same data, model and options; each takes its own share of "
                "the rows."
            )


def any_process(accelerator: Accelerator, wanted: bool) -> bool:
    """Whether something holds on any process; called on all of them."""
    if accelerator.num_processes == 1:
        return wanted
    mine = torch.tensor([float(wanted)], device=accelerator.device)
    return bool(accelerator.reduce(mine, reduction="sum") > 0)


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor that FSDP2 or ZeRO-3 may have spread."""
    if isinstance(tensor, DTensor):
        return tensor.to_local()
    part = getattr(tensor, "ds_tensor", None)
    return tensor if part is None else part


def first_not_finite(model: nn.Module, optimizer: Any) -> str | None:
    """
    The first parameter, or state of the optimizer, of this process that holds NaN or an infinity; `None` if all is
    finite. The optimizer may be wrapped, and is `None` before training.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [(name, local_part(p)) for name, p in model.named_parameters() if p.requires_grad]
    while hasattr(optimizer, "optimizer"):  # accelerate and DeepSpeed wrap it
        optimizer = optimizer.optimizer
    for parameter, state in getattr(optimizer, "state", {}).items():
        name = names.get(id(parameter), "a parameter")
        values = state.items() if isinstance(state, Mapping) else ()
        found += [(f"{key} of {name}", local_part(value)) for key, value in values if torch.is_tensor(value)]
    for group in getattr(optimizer, "param_groups", ()):  # DeepSpeed keeps float32 copies there
        found += [("the float32 copy", local_part(p)) for p in group["params"] if id(p) not in names]
    found = [(name, value) for name, value in found if value.is_floating_point() and value.numel()]
    if not found:
        return None
    finite = torch.stack([torch.isfinite(value).all().to(found[0][1].device) for _, value in found])
    return None if bool(finite.all()) else found[int(finite.logical_not().nonzero()[0])][0]


def whole_parameters(model: nn.Module, frozen_only: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """
    Names and values of the parameters of a model, gathered one by one where processes hold parts; called on all.

    `frozen_only` leaves out what is trained. The model may be wrapped.
    """
    for name, parameter in model.named_parameters():
        if frozen_only and parameter.requires_grad:
            continue
        name = name.removeprefix("module.").replace("_orig_mod.", "")  # of DeepSpeed and a compiled model
        if isinstance(parameter, DTensor):
            yield name, parameter.full_tensor()
        elif hasattr(parameter, "ds_tensor"):
            import deepspeed

            with deepspeed.zero.GatheredParameters(parameter):
                yield name, parameter
        elif not parameter.is_meta:  # FSDP reads the weights in the main process only
            yield name, parameter

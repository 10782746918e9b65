"""FSDP2 and DeepSpeed on the CPU over gloo, under `accelerate launch` with the shipped configurations.

Imported before anything of accelerate is asked for. What a machine with GPUs answers by itself is answered here: that
processes are to be sharded over, that bf16 can be computed, and which device they use. No training code is replaced.
"""

from __future__ import annotations

import os


def use() -> None:
    """Makes the engine that the launcher chose run on the CPU."""
    os.environ.update(ACCELERATE_TORCH_DEVICE="cpu", DS_ACCELERATOR="cpu")
    import transformers.training_args
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    transformers.training_args.is_torch_bf16_gpu_available = lambda: True
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        # accelerate considers FSDP only where it found GPUs.
        PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles a C++ extension first
        deepspeed.init_distributed(dist_backend="gloo")  # before a model is loaded in parts

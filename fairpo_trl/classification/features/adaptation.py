"""Which weights of a backbone are trained: its last blocks, or low-rank factors beside its linear layers."""

from __future__ import annotations

from typing import Literal

from torch import nn

from fairpo_trl.classification.features.backbones import Backbone


Trainable = Literal["none", "last_blocks", "lora"]


def adapt_backbone(
    backbone: Backbone, trainable: Trainable, blocks: int, lora_r: int, lora_alpha: int
) -> list[nn.Module]:
    """
    Turns on the gradients of a part of a frozen backbone, see `MultiLabelClassifier.attach_backbone`; gives the blocks
    that are trained whole.

    Raises:
        ValueError: If the backbone has no such blocks, or LoRA finds no linear layer in them.
    """
    if trainable == "none":
        return []
    sequence = backbone.blocks()
    if not (0 if trainable == "lora" else 1) <= blocks <= len(sequence):
        raise ValueError(f"{backbone.description['spec']} has {len(sequence)} blocks; blocks={blocks} was asked for.")
    chosen = sequence[len(sequence) - blocks :] if blocks else sequence
    if trainable == "last_blocks":
        for _, block in chosen:
            block.requires_grad_(True)
        # What the network registers after its last block runs after it: the final norm, a pooler.
        names = [name for name, _ in backbone.network.named_parameters()]
        last = max(index for index, name in enumerate(names) if name.startswith(f"{chosen[-1][0]}."))
        for name in names[last + 1 :]:
            backbone.network.get_parameter(name).requires_grad_(True)
        return [block for _, block in chosen]
    from peft import LoraConfig, inject_adapter_in_model

    targets = [
        f"{prefix}.{name}"
        for prefix, block in chosen
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]
    if not targets:
        raise ValueError(f"The blocks of {backbone.description['spec']} have no linear layer that LoRA could adapt.")
    options = LoraConfig(r=lora_r, lora_alpha=lora_alpha, target_modules=targets)
    inject_adapter_in_model(options, backbone.network)
    return []


def trained_keys(backbone: Backbone, blocks: list[nn.Module]) -> set[str]:
    """
    What a file holds beside the frozen weights: all that has a gradient, and the buffers of the trained `blocks`.
    """
    keys = {name for name, value in backbone.named_parameters() if value.requires_grad}
    for name, module in backbone.named_modules():
        if any(module is block for block in blocks):
            keys |= {f"{name}.{key}" for key in module.state_dict()}
    return keys

"""A model's forward over packed pairs: masks for its attention, and a head that scores completion tokens only."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel, is_peft_model
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.modeling_outputs import ModelOutput

from fairpo_trl.generation.packing import PackedPairs, attends, may_attend


_TOKEN_FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")
_LAYERS = {"full_attention", "sliding_attention"}
_ATTENTION = ("sdpa", "eager", "flex_attention")


class _HeadPositions:
    """
    A forward hook of the backbone that hands the output head only the positions that predict a completion token.

    TRL's fused head scores every position where there is no Triton, prompt and padding included. Selected here, and
    not in a head of ours, everything that head knows stays as it is: soft caps, scales, sharded weights.
    """

    selected: torch.Tensor | None = None  # [M], places in the flattened rows

    def __call__(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        if self.selected is None:
            return None
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[self.selected].unsqueeze(0)  # [1, M, H]
        return output


def causal_model(model: torch.nn.Module) -> Any:
    """The causal language model inside the wrappers of accelerate and PEFT."""
    inner = extract_model_from_parallel(model)
    return inner.get_base_model() if is_peft_model(inner) else inner


def packed_token_outputs(
    model: torch.nn.Module, input_ids: torch.Tensor, packed: PackedPairs, **model_kwargs: Any
) -> ModelOutput:
    """
    One forward over packed rows, its values put back where the plain layout has them.

    Args:
        model (`torch.nn.Module`):
            With TRL's fused head; wrapped for several processes or not. `model_kwargs` go to its forward.
        input_ids (`torch.Tensor`):
            Tokens of the plain layout, `[2B, W]`.
        packed (`PackedPairs`):
            Their places, on the same device.

    Returns:
        `ModelOutput`: the fused head's output with per-token fields `[2B, W - 1]`, 0 where nothing was computed.
    """
    inner = causal_model(model)
    labels = input_ids[:, 1:].flatten()[packed.predicted].unsqueeze(0)  # [1, M]
    hook = _head_positions(inner)
    hook.selected = packed.head
    try:
        outputs = model(
            input_ids=input_ids.flatten()[packed.source],
            attention_mask=attention_masks(packed, inner.config, inner.dtype),
            position_ids=packed.positions,
            use_cache=False,
            shift_labels=labels,
            fused_lm_head=True,
            **model_kwargs,
        )
    finally:
        hook.selected = None
    lines, width = input_ids.size(0), input_ids.size(1) - 1
    for name in _TOKEN_FIELDS:
        values = getattr(outputs, name)
        if values is not None:
            grid = values.new_zeros(lines * width).index_put((packed.predicted,), values[0])
            outputs[name] = grid.view(lines, width)
    return outputs


def _head_positions(inner: Any) -> _HeadPositions:
    """The hook of a model, made at its first use; its backbone is what the fused head calls."""
    backbone = inner.base_model
    for hook in backbone._forward_hooks.values():
        if isinstance(hook, _HeadPositions):
            return hook
    hook = _HeadPositions()
    backbone.register_forward_hook(hook)
    return hook


def attention_masks(packed: PackedPairs, config: Any, dtype: torch.dtype) -> Any:
    """
    What the attention layers of a model need to see the pairs apart; its `config` names the kind of attention, and the
    windows of its layers.

    Returns:
        One mask for all layers, or one by kind of layer: bool `[R, 1, T, T]` for SDPA, numbers to be added for eager
        attention, a `BlockMask` for FlexAttention, which computes no block that is masked out.
    """
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if kinds is None:
        return _mask(packed, window, config._attn_implementation, dtype)
    windows = {"full_attention": None, "sliding_attention": window}
    masks = {kind: _mask(packed, windows[kind], config._attn_implementation, dtype) for kind in sorted(set(kinds))}
    return next(iter(masks.values())) if len(masks) == 1 else masks


def _mask(
    packed: PackedPairs, window: int | None, implementation: str, dtype: torch.dtype
) -> torch.Tensor | BlockMask:
    if implementation == "flex_attention":
        return _block_mask(packed, window)
    allowed = may_attend(packed, window)
    if implementation == "sdpa":
        return allowed
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def _block_mask(packed: PackedPairs, window: int | None) -> BlockMask:
    rows, size = packed.pair.shape
    device = str(packed.pair.device)
    return create_block_mask(attends(packed, window), B=rows, H=None, Q_LEN=size, KV_LEN=size, device=device)


def why_not_packed(model: torch.nn.Module) -> str | None:
    """
    Why a model cannot take packed rows, from what it says about itself; `None` if nothing speaks against it.

    A first batch of short texts could not show all of this: windows and chunks matter only to longer ones.
    """
    peft_configs = getattr(extract_model_from_parallel(model), "peft_config", {})
    if any(getattr(config, "is_prompt_learning", False) for config in peft_configs.values()):
        return "its adapter puts virtual tokens before every sequence"
    inner = causal_model(model)
    config = inner.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) | set(getattr(config, "attention_layers", None) or ())
    further = sorted(kinds - _LAYERS - {"global"})
    if further or getattr(inner, "_is_stateful", False):
        return f"it has layers other than causal attention ({', '.join(further) or 'recurrent ones'})"
    if getattr(config, "alibi", False):
        return "its attention counts distances in the row (ALiBi), not position ids"
    if "position_ids" not in inspect.signature(type(inner.base_model).forward).parameters:
        return "its forward takes no position ids"
    implementation = inner.config._attn_implementation
    if implementation not in _ATTENTION:
        return (
            f"attn_implementation={implementation!r} takes no mask that keeps the two completions of a pair apart; "
            "load it with 'sdpa' or 'flex_attention'"
        )
    return None


def disagreement(plain: torch.Tensor, packed: torch.Tensor, completion_mask: torch.Tensor, half: bool) -> str | None:
    """
    In words, whether two layouts of a batch give log-probabilities that differ beyond rounding; `None` if not.

    Args:
        plain, packed (`torch.Tensor`):
            Log-probabilities of tokens, `[2B, W - 1]`.
        completion_mask (`torch.Tensor`):
            `[2B, W]`.
        half (`bool`):
            Whether they were computed in bfloat16 or float16.
    """
    mask = completion_mask[:, 1:].bool()
    difference = (plain - packed).abs()[mask].double()
    if difference.numel() == 0:
        return None
    if plain.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        half = True
    # Measured: 1e-5 nats a token in float32 and up to 2e-2 in bfloat16 on SmolLM2; a wrong mask is off by 0.1 to 2.
    mean, largest = (0.05, 1.0) if half else (1e-4, 2e-3)
    if bool(torch.isfinite(difference).all()) and difference.mean() <= mean and difference.max() <= largest:
        return None
    return (
        f"its log-probabilities differ from the plain layout's by {float(difference.mean()):.2g} nats a token "
        f"(at most {float(difference.max()):.2g})"
    )

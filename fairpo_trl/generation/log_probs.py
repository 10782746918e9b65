"""The one place where log-probabilities of completions come from: policy and reference, training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from transformers.modeling_outputs import ModelOutput

from fairpo_trl.generation.packed_forward import packed_token_outputs
from fairpo_trl.generation.packing import PackedPairs


# What the collator adds for the trainer; a model would swallow or refuse these keyword arguments.
NON_MODEL_KEYS = frozenset(
    "completion_mask ref_chosen_logps ref_rejected_logps attribute_mask fairpo_row pair_weights pair_spans".split()
)


class PairLogProbs(NamedTuple):
    """
    Log-probabilities of both completions of `B` pairs, in nats, float32 or better.

    Attributes:
        chosen (`torch.Tensor`): Sum over the completion's tokens, `[B]` (LD-DPO weighted if `ld_alpha` is set).
        rejected (`torch.Tensor`): The same for the rejected completion, `[B]`.
        chosen_mean (`torch.Tensor`): Mean per token, `[B]`.
        rejected_mean (`torch.Tensor`): The same for the rejected completion, `[B]`.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_mean: torch.Tensor
    rejected_mean: torch.Tensor


def pair_log_probs(
    model: torch.nn.Module,
    inputs: Mapping[str, Any],
    ld_alpha: float | None = None,
    packed: PackedPairs | None = None,
    **model_kwargs: Any,
) -> tuple[PairLogProbs, ModelOutput]:
    """
    One forward of `model` over a preference batch and the log-probabilities of its completions.

    Args:
        model (`torch.nn.Module`):
            Model with TRL's fused LM head (`trl.trainer.utils.add_fused_lm_head`), which returns per-token
            log-probabilities in tiles so that `[2B, T, vocabulary]` logits never exist.
        inputs (`Mapping[str, Any]`):
            Batch of the collator: `input_ids`, `attention_mask`, `completion_mask`, each `[2B, T]`, the first half
            chosen and the second half rejected; further keys go to the model.
        ld_alpha (`float`, *optional*):
            Weight of the tokens beyond the shorter completion of the pair (LD-DPO, 2409.06411).
        packed (`PackedPairs`, *optional*):
            Computes these pairs of the batch in the packed layout; the values of other pairs are 0.
        **model_kwargs:
            Further arguments of the forward.

    Returns:
        `tuple[PairLogProbs, ModelOutput]`: the log-probabilities, and the model's output (per-token statistics).
    """
    outputs = token_outputs(model, inputs, packed, **model_kwargs)
    return sum_tokens(outputs.log_probs, inputs["completion_mask"], ld_alpha), outputs


def token_outputs(
    model: torch.nn.Module, inputs: Mapping[str, Any], packed: PackedPairs | None = None, **model_kwargs: Any
) -> ModelOutput:
    """
    The statistics of every completion token, in the plain layout `[2B, T-1]` whatever the layout of the forward: a
    `ModelOutput` of `log_probs`, `entropy`, `mean_logits`, `is_top1`, each 0 outside the completions. Arguments as in
    [`pair_log_probs`].
    """
    if packed is not None:
        return packed_token_outputs(model, inputs["input_ids"], packed, **model_kwargs)
    forward = {key: value for key, value in inputs.items() if key not in NON_MODEL_KEYS}
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    return model(**forward, **model_kwargs, use_cache=False, labels=labels, fused_lm_head=True)


def sum_tokens(log_probs: torch.Tensor, completion_mask: torch.Tensor, ld_alpha: float | None) -> PairLogProbs:
    """
    From log-probabilities of tokens to those of completions.

    Under mixed precision the per-token values are summed in float32: a bfloat16 sum over a hundred tokens is off by
    more than the hinge's slack.

    Args:
        log_probs (`torch.Tensor`):
            `[2B, T-1]` or longer, 0 outside the completions.
        completion_mask (`torch.Tensor`):
            `[2B, T]`.
        ld_alpha (`float`, *optional*):
            As in [`pair_log_probs`].
    """
    mask = completion_mask[:, 1:]  # [2B, T-1]: position t predicts token t+1
    # Prompt-learning PEFT methods prepend virtual tokens to the output; keep the positions of the real ones.
    tokens = log_probs[:, -mask.size(1) :]
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))  # [2B, T-1], 0 outside the completion

    lengths = mask.sum(dim=1).clamp(min=1)  # [2B]
    means = tokens.sum(dim=1) / lengths
    if ld_alpha is None:
        sums = tokens.sum(dim=1)
    else:
        shared = torch.minimum(*lengths.chunk(2)).repeat(2).unsqueeze(1)  # [2B, 1]
        position = mask.cumsum(dim=1)  # 1, 2, ... along each completion
        sums = torch.where(position <= shared, tokens, ld_alpha * tokens).sum(dim=1)
    return PairLogProbs(*sums.chunk(2), *means.chunk(2))

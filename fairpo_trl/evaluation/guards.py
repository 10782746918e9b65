"""Guards against degenerate text: a judge can be pleased by text that repeats, stops at once or never ends.

Each number is a plain property of the completions; compare the trained model's with the reference's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from fairpo_trl.evaluation.completions import Completion, Model, Prompt, evaluation_mode, left_pad, tokenize_prompt


SHORT_WORDS = 3
"""A completion with at most this many words counts as short."""

REPEATED_WORDS = 4
"""A completion in which some run of this many words (case ignored) occurs twice counts as repeating itself."""


@dataclass(frozen=True)
class TextGuards:
    """
    Counts over a set of completions; shares and means are properties, never rounded.

    Attributes:
        completions (`int`): Number of completions.
        words (`int`): Words (separated by white space) in all completions together.
        repeating (`int`): Completions in which some 4-gram of words occurs at least twice.
        short (`int`): Completions of at most 3 words.
        unended (`int`): Completions cut at the length limit, without an end token.
        distinct (`int`): Different texts among the completions.
        log_prob_sum (`float`, *optional*): Sum over completions of the mean log-probability per token (nats) under the
            reference model; `None` if it was not computed.
    """

    completions: int
    words: int
    repeating: int
    short: int
    unended: int
    distinct: int
    log_prob_sum: float | None = None

    def to_dict(self) -> dict[str, float]:
        """Means and shares (0 to 1) by name, for reports; the log-probability is absent if it was not computed."""
        numbers = {
            "completions": self.completions,
            "mean_words": self.words / self.completions,
            "repeating_share": self.repeating / self.completions,
            "short_share": self.short / self.completions,
            "unended_share": self.unended / self.completions,
            "distinct_share": self.distinct / self.completions,
        }
        if self.log_prob_sum is not None:
            numbers["mean_token_log_prob"] = self.log_prob_sum / self.completions
        return numbers


def has_repeated_ngram(text: str) -> bool:
    """Whether some run of `REPEATED_WORDS` words occurs at least twice (case ignored, overlaps count)."""
    words = text.lower().split()
    runs = [tuple(words[i : i + REPEATED_WORDS]) for i in range(len(words) - REPEATED_WORDS + 1)]
    return len(set(runs)) < len(runs)


def text_guards(
    completions: Sequence[Sequence[Completion]], token_log_probs: NDArray[np.float64] | None = None
) -> TextGuards:
    """
    Count what looks degenerate.

    Args:
        completions (`Sequence[Sequence[Completion]]`):
            `[prompts][samples]`, as from `sample_completions`.
        token_log_probs (`NDArray[np.float64]`, *optional*):
            `[prompts, samples]` from [`mean_token_log_prob`], optional.

    Returns:
        `TextGuards`: the counts.

    Raises:
        ValueError: If there are no completions, or the log-probabilities do not match them in number.
    """
    flat = [completion for row in completions for completion in row]
    if not flat:
        raise ValueError("There are no completions to guard.")
    if token_log_probs is not None and np.size(token_log_probs) != len(flat):
        raise ValueError(f"{np.size(token_log_probs)} log-probabilities for {len(flat)} completions.")
    lengths = [len(completion.text.split()) for completion in flat]
    return TextGuards(
        completions=len(flat),
        words=sum(lengths),
        repeating=sum(has_repeated_ngram(completion.text) for completion in flat),
        short=sum(length <= SHORT_WORDS for length in lengths),
        unended=sum(not completion.ended for completion in flat),
        distinct=len({completion.text for completion in flat}),
        log_prob_sum=None if token_log_probs is None else float(np.sum(token_log_probs)),
    )


def mean_token_log_prob(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[Completion]],
    batch_size: int = 16,
) -> NDArray[np.float64]:
    """
    Mean log-probability per token of each completion under `model` (temperature 1, no truncation).

    The end token counts as a token of the completion if the completion ended.

    Args:
        model ([`Model`]):
            The model that judges, usually the reference.
        tokenizer ([`PreTrainedTokenizerBase`]):
            Its tokenizer.
        prompts (`Sequence[Prompt]`):
            As given to `sample_completions`.
        completions (`Sequence[Sequence[Completion]]`):
            `[prompts][samples]`, the same number of samples for every prompt.
        batch_size (`int`, *optional*, defaults to `16`):
            Rows computed at once.

    Returns:
        `[prompts, samples]`, nats per token.

    Raises:
        ValueError: Numbers of prompts and completions differ, or a completion has no token at all.
    """
    if len(prompts) != len(completions) or len({len(row) for row in completions}) > 1:
        raise ValueError("completions must hold one row per prompt, all of the same length.")
    prompt_ids = [tokenize_prompt(tokenizer, prompt) for prompt in prompts]
    ids = [[[*c.token_ids, *([tokenizer.eos_token_id] if c.ended else [])] for c in row] for row in completions]
    for prompt, row in zip(prompts, ids, strict=True):
        if not all(row):
            raise ValueError(f"A completion of the prompt {prompt!r} has no tokens: it has no log-probability.")
    samples = len(completions[0]) if completions else 0
    order = sorted(range(len(ids)), key=lambda i: len(prompt_ids[i]) + max(map(len, ids[i]), default=0))
    means = np.empty((len(ids), samples))
    together = max(1, batch_size // max(1, samples))  # prompts
    with evaluation_mode(model):
        for start in range(0, len(order), together):
            batch = order[start : start + together]
            rows = [row for i in batch for row in ids[i]]
            means[batch] = _mean_log_probs(model, [prompt_ids[i] for i in batch], rows).reshape(-1, samples)
    return means


def _mean_log_probs(model: Model, prompts: list[list[int]], rows: list[list[int]]) -> NDArray[np.float64]:
    """
    Mean log-probability per token of each row of tokens after its prompt, `[rows]`.

    A prompt with several rows after it is computed once: they go on from its keys and values.
    """
    samples, longest = len(rows) // len(prompts), max(map(len, rows))
    ids, mask = left_pad(prompts, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    # Padding on the right is seen by nothing before it; its positions stay within those of the model.
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=model.device)  # [rows, longest]
    lengths = torch.tensor([[len(row)] for row in rows], device=model.device)
    seen = torch.ones_like(tokens[:, :-1])
    steps = torch.arange(1, longest, device=model.device)
    after = positions[:, -1:].repeat_interleave(samples, dim=0) + torch.minimum(
        steps, lengths - 1
    )  # [rows, longest-1]
    if samples == 1:
        output = model(
            input_ids=torch.cat([ids, tokens[:, :-1]], dim=1),
            attention_mask=torch.cat([mask, seen], dim=1),
            position_ids=torch.cat([positions, after], dim=1),
            use_cache=False,
            logits_to_keep=longest,
        )
        logits = output.logits.float()
    else:
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
        logits = output.logits.float().repeat_interleave(samples, dim=0)  # they predict the first token of each row
        if longest > 1:
            cache = output.past_key_values
            cache.batch_repeat_interleave(samples)
            output = model(
                input_ids=tokens[:, :-1],
                attention_mask=torch.cat([mask.repeat_interleave(samples, dim=0), seen], dim=1),
                position_ids=after,
                past_key_values=cache,
                use_cache=True,
            )
            logits = torch.cat([logits, output.logits.float()], dim=1)
    log_probs = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - torch.logsumexp(logits, dim=-1)
    values = log_probs.double().cpu().numpy()
    return np.array([value[: len(row)].mean() for value, row in zip(values, rows, strict=True)])

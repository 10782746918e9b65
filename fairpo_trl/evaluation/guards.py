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
        completions (`int`):
            Number of completions.
        words (`int`):
            Words (separated by white space) in all completions together.
        repeating (`int`):
            Completions in which some 4-gram of words occurs at least twice.
        short (`int`):
            Completions of at most 3 words.
        unended (`int`):
            Completions cut at the length limit, without an end token.
        distinct (`int`):
            Different texts among the completions.
        log_prob_sum (`float`, *optional*):
            Sum over completions of the mean log-probability per token (nats) under the reference model; `None` if it
            was not computed.
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


def has_repeated_ngram(text: str, size: int = REPEATED_WORDS) -> bool:
    """Whether some run of `size` words occurs at least twice in `text` (case ignored, overlaps count)."""
    words = text.lower().split()
    runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
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
    rows: list[tuple[list[int], list[int]]] = []
    for prompt, samples in zip(prompts, completions, strict=True):
        prompt_ids = tokenize_prompt(tokenizer, prompt)
        for completion in samples:
            ids = [*completion.token_ids, *([tokenizer.eos_token_id] if completion.ended else [])]
            if not ids:
                raise ValueError(f"A completion of the prompt {prompt!r} has no tokens: it has no log-probability.")
            rows.append((prompt_ids, ids))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
    means = np.empty(len(rows))
    with evaluation_mode(model):
        for start in range(0, len(rows), batch_size):
            batch = order[start : start + batch_size]
            input_ids, mask = left_pad([rows[i][0] + rows[i][1] for i in batch], model.device)
            longest = max(len(rows[i][1]) for i in batch)
            output = model(
                input_ids=input_ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=False,
                logits_to_keep=longest + 1,  # the completions, and the position before them
            )
            logits = output.logits[:, :-1].float()
            targets = input_ids[:, -longest:, None]
            log_probs = logits.gather(-1, targets).squeeze(-1) - torch.logsumexp(logits, dim=-1)
            for i, row in zip(batch, log_probs.double().cpu().numpy(), strict=True):
                means[i] = row[-len(rows[i][1]) :].mean()
    return means.reshape(len(prompts), -1)

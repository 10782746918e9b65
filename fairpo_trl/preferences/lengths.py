"""Lengths of pairs in tokens, and what a limit would cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairpo_trl.preferences.rules import Problem, attribute_names, one_format, row_numbers


@dataclass(frozen=True)
class TokenLengths:
    """
    Lengths of prompt and longer response together, in tokens.

    Attributes:
        median (`int`), p95 (`int`), longest (`int`): Over all pairs.
        limit (`int`, *optional*): The trainer's `max_length`.
        cut (`dict[str, int]`): Attribute -> pairs of which a response loses its end at the limit.
        pairs (`dict[str, int]`): Attribute -> pairs.
    """

    median: int
    p95: int
    longest: int
    limit: int | None
    cut: dict[str, int]
    pairs: dict[str, int]


def token_lengths(
    usable: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]], column: str, tokenizer: Any, max_length: int | None
) -> tuple[TokenLengths | None, list[Problem]]:
    """
    Measures every pair as the trainer would tokenise it.

    Args:
        usable (`Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]]`):
            Split -> (number of the row, row).
        column (`str`):
            The attribute column.
        tokenizer (`PreTrainedTokenizerBase`):
            The model's tokenizer, with a chat template for conversational pairs.
        max_length (`int`, *optional*):
            The trainer's limit; `None` for none.

    Returns:
        `tuple[TokenLengths | None, list[Problem]]`: the lengths (`None` without pairs), and a problem per split with
        prompts that fill the limit alone: training refuses them, as nothing would be left of their responses.
    """
    lengths: list[int] = []
    cut: dict[str, int] = {}
    pairs: dict[str, int] = {}
    problems: list[Problem] = []
    for split, part in usable.items():
        filled: list[tuple[int, int]] = []
        mixed = [index for index, row in part if not one_format(row)]
        if mixed:
            message = (
                f"In {row_numbers(mixed)} of the {split} data prompt, chosen and rejected are not all text or all "
                "messages, so they cannot be tokenised. Bring them into one format."
            )
            problems.append(Problem("mixed_format", tuple(mixed), message))
        for index, row in part:
            if not one_format(row):
                continue
            whole = max(_length(tokenizer, row, "chosen"), _length(tokenizer, row, "rejected"))
            lengths.append(whole)
            for name in set(attribute_names(row[column])):
                pairs[name] = pairs.get(name, 0) + 1
                cut[name] = cut.get(name, 0) + (max_length is not None and whole > max_length)
            if max_length is not None and (prompt := _length(tokenizer, row, None)) >= max_length:
                filled.append((index, prompt))
        if filled:
            message = (
                f"In {row_numbers(index for index, _ in filled)} of the {split} data the prompt alone fills "
                f"max_length={max_length} (the longest has {max(length for _, length in filled)} tokens), so "
                "truncation leaves nothing of the completions. Raise `max_length` above that, or remove these rows."
            )
            problems.append(Problem("prompt_fills_max_length", tuple(index for index, _ in filled), message))
    if not lengths:
        return None, problems
    median, p95 = np.percentile(lengths, [50, 95], method="higher")
    return TokenLengths(int(median), int(p95), max(lengths), max_length, cut, pairs), problems


def _length(tokenizer: Any, row: Mapping[str, Any], completion: str | None) -> int:
    """Tokens of the prompt with one completion, or alone."""
    prompt = row["prompt"]
    if isinstance(prompt, list):
        if completion is None:
            ids = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        else:
            ids = tokenizer.apply_chat_template(prompt + row[completion], tokenize=True, return_dict=False)
        return len(ids)
    if completion is None:
        return len(tokenizer(prompt)["input_ids"])
    end = tokenizer.eos_token or ""
    text = prompt + row[completion]
    return len(tokenizer(text if end and text.endswith(end) else text + end)["input_ids"])  # TRL ends plain text so

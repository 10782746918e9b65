"""Dividing pairs by prompt, so that no prompt is on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset

from fairpo_trl.preferences.rules import prompt_key


Pairs = TypeVar("Pairs", Dataset, list[dict[str, Any]])


def split_by_prompt(rows: Pairs, share: float, seed: int = 0) -> tuple[Pairs, Pairs]:
    """
    Divides pairs into two parts by prompt, never by pair.

    Prompts that differ in nothing but case and white space count as one.

    Args:
        rows (`Dataset` or `list[dict[str, Any]]`):
            Pairs with a `prompt`, plain or conversational.
        share (`float`):
            Share of the prompts that goes to the second part, between 0 and 1; at least one prompt goes to each.
        seed (`int`, *optional*, defaults to `0`):
            Chooses the prompts.

    Returns:
        `tuple`: the two parts, of the type of `rows` and in their order.

    Raises:
        ValueError: If `share` is not between 0 and 1, or there are fewer than two prompts.
    """
    if not 0 < share < 1:
        raise ValueError(f"`share` must be between 0 and 1, got {share}.")
    prompts: Sequence[Any] = rows["prompt"] if isinstance(rows, Dataset) else [row["prompt"] for row in rows]
    keys = [prompt_key(prompt) for prompt in prompts]
    unique = sorted(set(keys))
    if len(unique) < 2:
        raise ValueError(f"There are {len(unique)} different prompts: to divide by prompt takes two.")
    count = min(max(1, round(share * len(unique))), len(unique) - 1)
    held_out = {unique[i] for i in np.random.default_rng(seed).permutation(len(unique))[:count]}
    first = [index for index, key in enumerate(keys) if key not in held_out]
    second = [index for index, key in enumerate(keys) if key in held_out]
    if isinstance(rows, Dataset):
        return rows.select(first), rows.select(second)
    return [rows[index] for index in first], [rows[index] for index in second]

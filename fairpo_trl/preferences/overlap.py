"""Prompts that are in two splits: what training leaks into an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from fairpo_trl.core.messages import shortened
from fairpo_trl.preferences.rules import Problem, completion_text, explicit_pair, prompt_key, row_numbers


@dataclass(frozen=True)
class Overlap:
    """
    Prompts of one split that are in another one too.

    Attributes:
        first (`str`), second (`str`): The splits.
        prompts (`int`): Common prompts, not counting differences of case and white space.
        pairs (`int`): Pairs of `second` on these prompts.
        example (`str`): The first of them.
    """

    first: str
    second: str
    prompts: int
    pairs: int
    example: str


def prompts_of(rows: Any) -> dict[int, Any]:
    """Row -> its prompt, also where it is only what both completions share; of a `Dataset` or a list of rows."""
    if hasattr(rows, "select_columns"):
        rows = rows.select_columns([name for name in ("prompt", "chosen", "rejected") if name in rows.column_names])
    return {index: explicit_pair(row)[0] for index, row in enumerate(rows)}


def find_overlap(train: Mapping[int, Any], evaluation: Mapping[int, Any], name: str) -> Problem | None:
    """
    The rows of an evaluation split whose prompt is in the training data too, as the problem `prompt_overlap`; `None`
    without any. Case and white space make no difference.

    Args:
        train, evaluation (`Mapping[int, Any]`):
            Row -> prompt of both splits (see [`prompts_of`]).
        name (`str`):
            Of the evaluation split, for the message.
    """
    seen = {prompt_key(prompt) for prompt in train.values()}
    shared = [index for index, prompt in evaluation.items() if prompt_key(prompt) in seen]
    if not shared:
        return None
    message = (
        f"{row_numbers(shared, capital=True)} of the {name} data have a prompt of the training data "
        f"({shortened(completion_text(evaluation[shared[0]]))}), so training leaks into the evaluation. Remove these "
        "rows, divide the pairs by prompt (without a column `split`: `--test_share 0.1`, in Python "
        "`fairpo_trl.preferences.split_by_prompt`), or allow it (`--allow_prompt_overlap true`, in Python "
        "`allow_prompt_overlap=True`)."
    )
    return Problem("prompt_overlap", tuple(shared), message)


def find_overlaps(prompts: Mapping[str, Mapping[int, Any]]) -> tuple[Overlap, ...]:
    """What any two splits have in common, from split -> row -> prompt."""
    counts = {
        split: Counter(key for prompt in rows.values() if (key := prompt_key(prompt)))
        for split, rows in prompts.items()
    }
    overlaps = []
    for a, b in combinations(counts, 2):
        common = [key for key in counts[b] if key in counts[a]]
        if common:
            overlaps.append(Overlap(a, b, len(common), sum(counts[b][key] for key in common), common[0][:200]))
    return tuple(overlaps)

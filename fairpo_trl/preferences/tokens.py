"""Pairs as tokens: how long they are, what a limit cuts, and which of them would teach nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from fairpo_trl.preferences.rules import Problem, attribute_names, explicit_pair, row_numbers


TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")
"""Columns of a tokenised pair."""

TokenRow = Mapping[str, Sequence[int]]
"""The [`TOKENS`] of a pair, as TRL makes them, before anything is cut."""


@dataclass(frozen=True)
class TokenLengths:
    """
    Lengths of prompt and longer response together, in tokens.

    Attributes:
        median (`int`), p95 (`int`), longest (`int`): Over all pairs.
        limit (`int`, *optional*): The trainer's `max_length`.
        cut (`dict[str, int]`): Attribute -> pairs of which a response or the prompt loses an end at the limit.
        pairs (`dict[str, int]`): Attribute -> pairs.
    """

    median: int
    p95: int
    longest: int
    limit: int | None
    cut: dict[str, int]
    pairs: dict[str, int]


class ModelLimits(NamedTuple):
    """
    What a model can take.

    Attributes:
        vocabulary (`int`, *optional*): Rows of its embedding; token ids are below.
        positions (`int`, *optional*): Longest sequence, of a model with learned positions.
    """

    vocabulary: int | None = None
    positions: int | None = None


def token_problems(
    rows: Iterable[tuple[int, TokenRow]],
    split: str,
    max_length: int | None = None,
    truncation_mode: str = "keep_start",
    limits: ModelLimits | None = None,
) -> list[Problem]:
    """
    The rules that hold for tokens, as they are trained on: the trainer and `check_preferences` ask here.

    Args:
        rows (`Iterable[tuple[int, TokenRow]]`):
            (number of the row, its tokens).
        split (`str`):
            Name of the split, for messages.
        max_length, truncation_mode (`int`, `str`, *optional*):
            Tokens of prompt and completion that training keeps, `None` for all, and at which end: `"keep_start"` or
            `"keep_end"`.
        limits (`ModelLimits`, *optional*):
            Of the model, if it is known.

    Returns:
        `list[Problem]`: a problem for each rule of [`pair_problem`] that is broken, and `unknown_token` and `too_long`
        for what the model has no embedding or position for; gravest first.
    """
    limits = ModelLimits() if limits is None else limits
    found: dict[str, list[int]] = {}
    longest_prompt = needed = longest = largest = 0
    for index, row in rows:
        prompt, chosen, rejected = (list(row[name]) for name in TOKENS)
        rule = pair_problem(prompt, chosen, rejected, max_length, truncation_mode)
        if rule == "prompt_fills_max_length":
            longest_prompt = max(longest_prompt, len(prompt))
        elif rule == "equal_after_truncation":
            needed = max(needed, _length_that_tells(prompt, chosen, rejected, truncation_mode))
        elif rule is None:
            length = pair_length(row) if max_length is None else min(pair_length(row), max_length)
            token = max(map(max, (prompt, chosen, rejected)))
            longest, largest = max(longest, length), max(largest, token)
            if limits.vocabulary is not None and token >= limits.vocabulary:
                rule = "unknown_token"
            elif limits.positions is not None and length > limits.positions:
                rule = "too_long"
        if rule is not None:
            found.setdefault(rule, []).append(index)
    sentences = {
        "no_tokens": "{Rows} have a completion without a single token once the chat template and tokenizer are "
        "applied. Remove them, or check the chat template.",
        "no_prompt_tokens": "In {rows} no token of the prompt is left: the chat template or tokenizer renders the "
        "prompt otherwise when a completion follows. Check the chat template.",
        "prompt_fills_max_length": f"In {{rows}} the prompt alone fills max_length={max_length} (the longest has "
        f"{longest_prompt} tokens), so truncation leaves nothing of the completions. Raise `max_length` above that, "
        "or remove these rows.",
        "equal_tokens": "{Rows} have completions of the same tokens (white space, unknown words or the chat template "
        "make them equal), so there is no preference. Remove them.",
        "equal_after_truncation": f"{{Rows}} have completions that differ only in what is cut off at "
        f"max_length={max_length} (truncation_mode={truncation_mode!r}): such pairs teach nothing (loss log 2, no "
        f"gradient). Set `max_length` to at least {needed}, or remove these rows.",
        "unknown_token": f"{{Rows}} have tokens without an embedding in the model (the largest is {largest}, it has "
        f"{limits.vocabulary}): use the model's own tokenizer, or enlarge the model with "
        "`model.resize_token_embeddings(len(tokenizer))`.",
        "too_long": f"{{Rows}} are longer than the {limits.positions} positions of the model (the longest has "
        f"{longest} tokens): set `max_length` to at most {limits.positions}.",
    }
    problems = []
    for rule, sentence in sentences.items():
        if rule in found:
            small, capital = (f"{row_numbers(found[rule], large)} of the {split} data" for large in (False, True))
            problems.append(Problem(rule, tuple(found[rule]), sentence.format(rows=small, Rows=capital)))
    return problems


def pair_length(row: TokenRow) -> int:
    """Tokens of the longer sequence of a pair."""
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def pair_problem(
    prompt: list[int], chosen: list[int], rejected: list[int], max_length: int | None, truncation_mode: str
) -> str | None:
    """
    The rule that a tokenised pair breaks, cut as TRL's collator cuts it; `None` for a pair that trains.

    `no_tokens`: a completion is empty. `no_prompt_tokens`. `equal_tokens`: the completions are the same.
    `prompt_fills_max_length`: nothing is left of the completions. `equal_after_truncation`: what is left of both is
    the same, so that the pair would stay at loss log 2 for ever.
    """
    if not (chosen and rejected):
        return "no_tokens"
    if not prompt:
        return "no_prompt_tokens"
    if chosen == rejected:
        return "equal_tokens"
    if max_length is None:
        return None
    if truncation_mode == "keep_start" and len(prompt) >= max_length:
        return "prompt_fills_max_length"
    room = max_length - len(prompt)
    kept = [part[:room] if truncation_mode == "keep_start" else part[-max_length:] for part in (chosen, rejected)]
    return "equal_after_truncation" if kept[0] == kept[1] or max_length < 2 else None


def _length_that_tells(prompt: list[int], chosen: list[int], rejected: list[int], truncation_mode: str) -> int:
    """The least `max_length` at which the completions of a pair differ."""
    if truncation_mode == "keep_end":
        chosen, rejected = chosen[::-1], rejected[::-1]
    same = _common(chosen, rejected)
    return max(2, same + 1 + (len(prompt) if truncation_mode == "keep_start" else 0))


def tokenize_pair(tokenizer: Any, row: Mapping[str, Any]) -> dict[str, list[int]]:
    """
    `prompt_ids`, `chosen_ids` and `rejected_ids` of a pair, token by token as `DPOTrainer` makes them.

    The pair breaks none of the rules for text. Raises whatever the chat template raises for a conversation that it
    does not take.
    """
    prompt, chosen, rejected = explicit_pair(row)
    if isinstance(prompt, list):
        tools = row.get("tools")
        options = {"tools": json.loads(tools) if isinstance(tools, str) else tools}
        options |= row.get("chat_template_kwargs") or {}
        write: Callable[..., Any] = partial(tokenizer.apply_chat_template, tokenize=True, return_dict=True, **options)
        of_prompt = write(prompt, add_generation_prompt=True)["input_ids"]
    else:
        end = tokenizer.eos_token or ""  # TRL ends plain text so
        chosen, rejected = (text if text.endswith(end) else text + end for text in (chosen, rejected))
        write = tokenizer
        of_prompt = write(prompt)["input_ids"]
    of_chosen, of_rejected = (write(prompt + completion)["input_ids"] for completion in (chosen, rejected))
    # The completion starts where prompt and whole diverge, which is not always after the prompt.
    start = min(_common(of_prompt, of_chosen), _common(of_prompt, of_rejected))
    return dict(zip(TOKENS, (of_prompt[:start], of_chosen[start:], of_rejected[start:]), strict=True))


def token_lengths(
    usable: Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]],
    column: str,
    tokenizer: Any,
    max_length: int | None,
    truncation_mode: str = "keep_start",
    limits: ModelLimits | None = None,
) -> tuple[TokenLengths | None, list[Problem]]:
    """
    Measures every pair as the trainer would tokenise it.

    Args:
        usable (`Mapping[str, Sequence[tuple[int, Mapping[str, Any]]]]`):
            Split -> (number of the row, row).
        column (`str`):
            The attribute column.
        tokenizer (`PreTrainedTokenizerBase`):
            The model's, with a chat template for conversational pairs.
        max_length, truncation_mode, limits:
            As in [`token_problems`].

    Returns:
        `tuple[TokenLengths | None, list[Problem]]`: the lengths (`None` without pairs), and what [`token_problems`]
        finds; `chat_template` for conversations that the template refuses, `no_end_token` for plain text without one.
    """
    lengths: list[int] = []
    cut: dict[str, int] = {}
    pairs: dict[str, int] = {}
    problems: list[Problem] = []
    for split, part in usable.items():
        tokens: list[tuple[int, TokenRow]] = []
        refused: list[tuple[int, str]] = []
        if tokenizer.eos_token is None and any(isinstance(row["chosen"], str) for _, row in part):
            message = (
                f"The {split} data are text, but the tokenizer has no end-of-sequence token, with which every "
                "completion ends: set `tokenizer.eos_token`."
            )
            problems.append(Problem("no_end_token", (), message))
        for index, row in part:
            try:
                ids = tokenize_pair(tokenizer, row)
            except Exception as error:  # a template may raise anything, Jinja's errors among them
                refused.append((index, " ".join(str(error).split())[:200]))
                continue
            tokens.append((index, ids))
            whole = pair_length(ids)
            lengths.append(whole)
            for name in set(attribute_names(row[column])):
                pairs[name] = pairs.get(name, 0) + 1
                cut[name] = cut.get(name, 0) + (max_length is not None and whole > max_length)
        if refused:
            message = (
                f"{row_numbers((i for i, _ in refused), capital=True)} of the {split} data cannot be written with the "
                f"tokenizer's chat template: {refused[0][1]}. Change these rows, or use a model with another template."
            )
            problems.append(Problem("chat_template", tuple(index for index, _ in refused), message))
        problems += token_problems(tokens, split, max_length, truncation_mode, limits)
    if not lengths:
        return None, problems
    median, p95 = np.percentile(lengths, [50, 95], method="higher")
    return TokenLengths(int(median), int(p95), max(lengths), max_length, cut, pairs), problems


def _common(ids: Sequence[int], others: Sequence[int]) -> int:
    """Tokens that both have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ids, others, strict=False)))

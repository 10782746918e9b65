"""Pairs from ratings: a table with a prompt, a response and a number per attribute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from fairpo_trl.core.messages import second_spellings, shortened
from fairpo_trl.preferences.pairing import Pairing, PairingRule, pairs_of_prompt
from fairpo_trl.preferences.read import check_columns
from fairpo_trl.preferences.rows import Collector, Converted, as_number, assistant
from fairpo_trl.preferences.rules import completion_text, row_numbers


def pairs_from_ratings(
    frame: pd.DataFrame,
    attributes: Sequence[str],
    *,
    min_margin: float = 0.0,
    ties: Literal["drop", "raise"] = "drop",
    missing: Literal["drop", "raise"] = "drop",
    max_pairs_per_prompt: int | None = None,
    seed: int = 0,
    pairing: Pairing = "each",
    tolerance: float = 0.0,
) -> Converted:
    """
    For every attribute, pairs of responses to the same prompt with different ratings.

    Args:
        frame (`pd.DataFrame`):
            Columns `prompt`, `response` (text, or messages) and a numeric one per attribute, higher meaning better. A
            column `id` is kept: the id of a pair then names both responses. Messages name rows by the frame's index.
        attributes (`Sequence[str]`):
            The rating columns; their names become the attributes.
        min_margin (`float`, *optional*, defaults to `0.0`):
            Least difference of two ratings, in their own units.
        ties (`str`, *optional*, defaults to `"drop"`):
            What equal ratings do: `"drop"` leaves the pair out and counts it, `"raise"` is an error.
        missing (`str`, *optional*, defaults to `"drop"`):
            What an empty rating does: `"drop"` leaves the response out for that attribute, `"raise"` is an error.
        max_pairs_per_prompt (`int`, *optional*):
            Pairs per prompt and attribute at most, widest margins first; `None` for all.
        seed (`int`, *optional*, defaults to `0`):
            Chooses among equal margins.
        pairing (`str`, *optional*, defaults to `"each"`):
            `"each"` pairs every attribute by itself; `"consistent"` keeps only pairs whose winner is not worse on any
            other attribute (cf. [Pareto-consistent pairs](https://arxiv.org/abs/2504.11337)). A missing rating of
            another attribute says nothing.
        tolerance (`float`, *optional*, defaults to `0.0`):
            With `pairing="consistent"`: how much worse the winner may be on another attribute, in units of the
            ratings.

    Returns:
        `Converted`: the pairs, conversational if the prompts are messages and plain if they are text; its `summary()`
        says what came out per attribute.

    Raises:
        ValueError: If a column is missing or misspelt, a rating is no finite number, a prompt or response is empty, a
            prompt has the same response twice, or an attribute gets no pair. The message names the rows.

    Example:

    ```python
    >>> frame = pd.DataFrame({"prompt": ["Hi", "Hi"], "response": ["Hello!", "What?"], "polite": [5, 1]})
    >>> pairs_from_ratings(frame, ["polite"]).rows
    [{'id': '0-1', 'prompt': 'Hi', 'chosen': 'Hello!', 'rejected': 'What?', 'attribute': 'polite'}]
    ```
    """
    rule = PairingRule(min_margin, max_pairs_per_prompt, pairing, tolerance, seed)
    for value, name in ((ties, "ties"), (missing, "missing")):
        if value not in ("drop", "raise"):
            raise ValueError(f"`{name}` must be 'drop' or 'raise', got {value!r}.")
    if isinstance(attributes, str) or not attributes:
        raise ValueError(f"`attributes` must list the rating columns, got {attributes!r}.")
    if len(set(attributes)) < len(attributes):
        raise ValueError(f"Each rating column may be named once, got {list(attributes)}.")
    if same := second_spellings(attributes):
        raise ValueError(f"The rating columns {same[0]} differ only in case or white space: name one of them.")
    repeated = frame.columns[frame.columns.duplicated()].tolist()
    if repeated:
        raise ValueError(f"The table of ratings has the column {repeated[0]!r} more than once.")
    check_columns(["prompt", "response", *attributes], [str(name) for name in frame.columns], "The table of ratings")
    if frame.empty:
        raise ValueError("The table of ratings has no rows.")

    if not pd.api.types.is_integer_dtype(frame.index):
        frame = frame.reset_index(drop=True)
    labels = frame.index.tolist()
    prompts, responses = list(frame["prompt"]), list(frame["response"])
    groups = _groups(prompts, responses, labels)
    scores = {name: _scores(frame[name], missing) for name in attributes}
    ids = [str(value) for value in (frame["id"] if "id" in frame.columns else labels)]
    _refuse_repeated(ids, labels)
    collected = Collector()
    for key, members in groups.items():
        own = {name: [scores[name][i] for i in members] for name in attributes}
        for name, given in own.items() if ties == "raise" else ():
            known = [score for score in given if score is not None]
            if len(set(known)) < len(known):
                among = row_numbers(labels[i] for i in members)
                raise ValueError(
                    f"Equal ratings of {name!r} for the same prompt among {among}. Pass ties='drop' to leave such "
                    "pairs out."
                )
        for name, better, worse in pairs_of_prompt(own, key, rule, collected):
            first, second = members[better], members[worse]
            chosen, rejected = responses[first], responses[second]
            if not isinstance(prompts[first], str):  # messages: the completions too
                chosen, rejected = (assistant(r) if isinstance(r, str) else r for r in (chosen, rejected))
            collected.add(f"{ids[first]}-{ids[second]}", prompts[first], chosen, rejected, name)
    converted = collected.done()
    for name in attributes:
        if not any(row["attribute"] == name for row in converted.rows):
            reasons = ", ".join(
                f"{reason} {count}" for reason, count in converted.dropped_by_attribute[name].most_common()
            )
            raise ValueError(
                f"The ratings of {name!r} give no pair ({reasons}). It takes two responses to the same prompt whose "
                "ratings differ by the margin: lower `min_margin`, or leave the attribute out."
            )
    return converted


def _groups(prompts: list[Any], responses: list[Any], labels: list[int]) -> dict[str, list[int]]:
    """Prompt -> positions of its rows, after looking for empty texts and repeated responses."""
    for values, name in ((prompts, "prompt"), (responses, "response")):
        bad = [label for label, value in zip(labels, values, strict=True) if not _has_text(value)]
        if bad:
            raise ValueError(
                f"{row_numbers(bad, capital=True)}: column {name!r} has no text. Fill it in, or remove these rows."
            )
    kind = type(prompts[0])
    mixed = [label for label, prompt in zip(labels, prompts, strict=True) if type(prompt) is not kind]
    if mixed:
        raise ValueError(f"Column 'prompt' holds text in some rows and messages in others ({row_numbers(mixed)}).")
    if kind is str:
        wrong = [label for label, response in zip(labels, responses, strict=True) if not isinstance(response, str)]
        if wrong:
            raise ValueError(f"The prompts are text, but the response is not in {row_numbers(wrong)}.")
    groups: dict[str, list[int]] = {}
    seen: dict[tuple[str, str], int] = {}
    repeated: list[tuple[int, int]] = []
    for index, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        key = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
        groups.setdefault(key, []).append(index)
        before = seen.setdefault((key, completion_text(response).strip()), index)
        if before != index:
            repeated.append((labels[before], labels[index]))
    if repeated:
        first, again = repeated[0]
        raise ValueError(
            f"{row_numbers([again for _, again in repeated], capital=True)}: the same response to the same prompt as "
            f"an earlier row (row {again} as row {first}). Average their ratings or keep one of them."
        )
    return groups


def _refuse_repeated(ids: list[str], labels: list[int]) -> None:
    first: dict[str, int] = {}
    for label, identity in zip(labels, ids, strict=True):
        before = first.setdefault(identity, label)
        if before != label:
            raise ValueError(
                f"Rows {before} and {label} have the same id {shortened(identity)}, which is to name one response. "
                "Give each row its own, or leave out the column 'id'."
            )


def _has_text(value: Any) -> bool:
    return isinstance(value, (str, list)) and bool(completion_text(value).strip())


def _scores(column: pd.Series, missing: str) -> list[float | None]:
    """The ratings of one attribute, `None` where there is none."""
    scores: list[float | None] = []
    wrong: list[tuple[int, Any]] = []
    for label, value in column.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if pd.api.types.is_scalar(plain) and pd.isna(plain):
            scores.append(None)
        elif isinstance(plain, bool):  # thumbs up or down
            scores.append(float(plain))
        else:
            scores.append(as_number(plain))
            if scores[-1] is None:
                wrong.append((label, value))
    if wrong:
        shown = ", ".join(f"{value!r} in row {label}" for label, value in wrong[:3])
        raise ValueError(
            f"The ratings of {column.name!r} must be finite numbers, but {row_numbers(i for i, _ in wrong)} "
            f"{'holds another value' if len(wrong) == 1 else 'hold other values'} ({shown}). Correct them; a missing "
            "rating is an empty cell or null."
        )
    empty = [label for label, score in zip(column.index, scores, strict=True) if score is None]
    if empty and missing == "raise":
        raise ValueError(
            f"{row_numbers(empty, capital=True)}: no rating of {column.name!r}. Pass missing='drop' to leave these "
            "responses out for it."
        )
    return scores

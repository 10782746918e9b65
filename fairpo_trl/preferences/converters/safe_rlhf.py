"""PKU-SafeRLHF: which of two responses helps more, and which is safer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.preferences.rows import Collector, Converted, number_field, text_field, user


_COLUMN_OF = {"helpfulness": "better_response_id", "harmlessness": "safer_response_id"}


def convert(rows: Iterable[Mapping[str, Any]]) -> Converted:
    """
    Two pairs, `helpfulness` and `harmlessness`, from each row of `PKU-Alignment/PKU-SafeRLHF` (CC-BY-NC-4.0).

    A row has `prompt`, `response_0`, `response_1`, `better_response_id` and `safer_response_id` (0 or 1). Both are
    forced choices: of two safe (or two unsafe) responses one is still called safer. On part of the rows they disagree,
    which makes this the natural test of one attribute against the other. Safety labels, severity and harm categories
    are not read; filter on them before converting if you want only some rows.

    The ids of both pairs of a row name it.

    Dropped: comparisons whose id is neither 0 nor 1 (`no_preference`), rows without a prompt (`empty_prompt`), pairs
    with an empty response (`empty_response`) or the same response twice (`identical_responses`).
    """
    collected = Collector()
    for index, row in enumerate(rows):
        where = f"Row {index} of PKU-SafeRLHF"
        prompt = text_field(row, "prompt", where)
        responses = text_field(row, "response_0", where), text_field(row, "response_1", where)
        choices = {attribute: number_field(row, column, where) for attribute, column in _COLUMN_OF.items()}
        if not prompt.strip():
            collected.drop("empty_prompt")
            continue
        for attribute, choice in choices.items():
            if choice == 0:
                collected.keep(f"safe_rlhf-{index}", user(prompt), *responses, attribute)
            elif choice == 1:
                collected.keep(f"safe_rlhf-{index}", user(prompt), *responses[::-1], attribute)
            else:
                collected.drop("no_preference", attribute)
    return collected.done()

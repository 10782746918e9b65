"""MultiPref: four people compare two responses on three aspects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.preferences.rows import Collector, Converted, field, list_field, text_field, user


ASPECTS = ("helpful", "truthful", "harmless")

_VOTES = {
    "A-is-clearly-better": "a",
    "A-is-slightly-better": "a",
    "Tie": "tie",
    "B-is-slightly-better": "b",
    "B-is-clearly-better": "b",
}


def convert(rows: Iterable[Mapping[str, Any]]) -> Converted:
    """
    Pairs of each aspect from rows of `allenai/multipref` (ODC-By).

    A row has `comparison_id`, `text` (the prompt), `completion_a`, `completion_b`, and two lists of annotations,
    `normal_worker_annotations` and `expert_worker_annotations`, each with `helpful_pref`, `truthful_pref` and
    `harmless_pref`: "A-is-clearly-better", "A-is-slightly-better", "Tie" or the same for B. Every annotation is one
    vote, however strong; a pair needs more than half of all votes, ties counted among them. `overall_pref` is no
    aspect and is not read.

    The ids of pairs are the published `comparison_id`.

    Dropped: aspects without a vote, or with a majority for a tie (`no_preference`), without a majority for one
    response (`no_majority`), rows without a prompt (`empty_prompt`), pairs with an empty response (`empty_response`)
    or the same response twice (`identical_responses`).
    """
    collected = Collector()
    for index, row in enumerate(rows):
        where = f"Row {index} of MultiPref"
        identity = text_field(row, "comparison_id", where) or f"multipref-{index}"
        prompt = text_field(row, "text", where)
        a, b = text_field(row, "completion_a", where), text_field(row, "completion_b", where)
        annotations = [
            *list_field(row, "normal_worker_annotations", where),
            *list_field(row, "expert_worker_annotations", where),
        ]
        ballots = {aspect: [_vote(entry, aspect, where) for entry in annotations] for aspect in ASPECTS}
        if not prompt.strip():
            collected.drop("empty_prompt")
            continue
        for aspect, ballot in ballots.items():
            votes = [vote for vote in ballot if vote is not None]
            winner = next((side for side in ("a", "b", "tie") if votes.count(side) * 2 > len(votes)), None)
            if not votes or winner == "tie":
                collected.drop("no_preference", aspect)
            elif winner is None:
                collected.drop("no_majority", aspect)
            else:
                collected.keep(identity, user(prompt), *((a, b) if winner == "a" else (b, a)), aspect)
    return collected.done()


def _vote(annotation: Any, aspect: str, where: str) -> str | None:
    """`"a"`, `"b"` or `"tie"`; `None` if this person did not judge the aspect."""
    value = field(annotation, f"{aspect}_pref", f"{where}, annotation")
    if value is None:
        return None
    if not isinstance(value, str) or value not in _VOTES:
        raise ValueError(f"{where}: {unknown_names_message(f'vote in {aspect}_pref', [str(value)], list(_VOTES))}")
    return _VOTES[value]

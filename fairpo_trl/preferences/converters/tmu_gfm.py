"""TMU-GFM: corrections of learners' sentences, rated by five people for grammar, fluency and meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.preferences.pairing import Pairing, PairingRule, pairs_of_rated
from fairpo_trl.preferences.rows import Collector, Converted, number_field, text_field


_COLUMNS = {"grammar": "ave_g", "fluency": "ave_f", "meaning": "ave_m"}
ATTRIBUTES = tuple(_COLUMNS)

_TASK = "Correct the sentence of a learner of English. Answer with the corrected sentence only.\n\n{sentence}"


def convert(
    rows: Iterable[Mapping[str, Any]],
    *,
    task: str = _TASK,
    min_margin: float = 0.0,
    max_pairs: int | None = None,
    pairing: Pairing = "each",
    tolerance: float = 0.0,
    seed: int = 0,
) -> Converted:
    """
    Pairs of `grammar`, `fluency` and `meaning` from the published table of TMU-GFM-Dataset (no licence stated).

    A row is a correction: `source`, `output` and the mean ratings from 0 to 4 `ave_g`, `ave_f`, `ave_m`, as published;
    or the same as `prompt`, `response`, `grammar`, `fluency`, `meaning`. Corrections of the same sentence are
    compared; meaning conflicts with the other two on about half of the pairs.

    Dropped: rows without a sentence (`empty_prompt`), and what `pairs_from_scores` drops: `equal`, `single_response`,
    `no_score`, `below_margin`, `over_limit`, `inconsistent`; pairs with an empty correction (`empty_response`).

    Args:
        task (`str`, *optional*):
            What is asked of the model; `{sentence}` is the learner's sentence.
        min_margin, pairing, tolerance, seed:
            As in [`pairs_from_ratings`]; the margin is that of two mean ratings.
        max_pairs (`int`, *optional*):
            Pairs per sentence and attribute at most; `None` for all.

    Raises:
        ValueError: If `task` has no place for the sentence, or a row is of another schema.
    """
    if "{sentence}" not in task:
        raise ValueError(f"`task` must say where the sentence goes, with {{sentence}}; got {task!r}.")
    rule, collected = PairingRule(min_margin, max_pairs, pairing, tolerance, seed), Collector()
    rated: list[tuple[str, str, dict[str, float]]] = []
    for index, row in enumerate(rows):
        where = f"Row {index} of TMU-GFM"
        published = "ave_g" in row
        sentence = text_field(row, "source" if published else "prompt", where)
        response = text_field(row, "output" if published else "response", where)
        columns = _COLUMNS if published else {name: name for name in _COLUMNS}
        numbers = {name: number_field(row, column, where) for name, column in columns.items()}
        if not sentence.strip():
            collected.drop("empty_prompt")
            continue
        scores = {name: number for name, number in numbers.items() if number is not None}
        rated.append((task.replace("{sentence}", sentence.strip()), response, scores))
    return pairs_of_rated(rated, "tmu_gfm", rule, collected)

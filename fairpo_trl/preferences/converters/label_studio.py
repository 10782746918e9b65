"""Tasks of Label Studio: pairwise comparisons, choices or ratings of responses; the control's name is the "
"attribute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.core.messages import shortened
from fairpo_trl.preferences.converters.ratings_rows import pairs_of_rated
from fairpo_trl.preferences.rows import Collector, Converted, as_number, field, list_field, user


_PROMPTS = ("prompt", "instruction", "question", "input")
_SIDES = {"left": 0, "right": 1, "a": 0, "b": 1, "1": 0, "2": 1}
_TIES = ("tie", "equal", "both", "neither", "none")


def convert(rows: Iterable[Mapping[str, Any]]) -> Converted:
    """
    Pairs of each control from tasks as Label Studio's export "JSON" writes them.

    A task has `data` (a prompt: `prompt`, `instruction`, `question` or `input`; the other texts are responses in their
    order, such as `answer1` and `answer2`) and `annotations`, each with `result`: entries with `from_name`, `type` and
    `value`. A `pairwise` entry selects `left` or `right`; `choices` name a side (`left`, `a`, `1`, ...), the field or
    a tie; with a single response, `rating` and `number` entries rate it, and pairs are made of the mean ratings of the
    tasks with the same prompt. The majority of the annotations decides; cancelled ones and predictions are not read.

    Dropped: tasks without a prompt (`empty_prompt`), comparisons without a preference (`no_preference`), pairs with an
    empty response (`empty_response`) or the same one twice (`identical_responses`), and for ratings what
    `pairs_from_scores` drops.

    Args:
        rows (`Iterable[Mapping[str, Any]]`):
            The tasks.

    Returns:
        `Converted`: the pairs.

    Raises:
        ValueError: If a task is of another form, or a choice names no side; names the task.
    """
    collected = Collector()
    rated: list[tuple[str, str, dict[str, float]]] = []
    for index, row in enumerate(rows):
        where = f"Task {index} of the Label Studio export"
        data = field(row, "data", where)
        if not isinstance(data, Mapping):
            raise ValueError(f"{where}: `data` must be an object, got {shortened(data)}.")
        texts = {name: value for name, value in data.items() if isinstance(value, str)}
        prompt = next((texts[name] for name in _PROMPTS if texts.get(name, "").strip()), None)
        fields = [name for name in texts if name not in _PROMPTS]
        entries = [
            entry
            for annotation in list_field(row, "annotations", where)
            if isinstance(annotation, Mapping) and not annotation.get("was_cancelled")
            for entry in annotation.get("result") or ()
            if isinstance(entry, Mapping) and isinstance(entry.get("value"), Mapping)
        ]
        if prompt is None or not fields:
            collected.drop("empty_prompt")
            continue
        votes: dict[str, Counter[int]] = {}
        ratings: dict[str, list[float]] = {}
        for entry in entries:
            control, value = str(entry.get("from_name")), entry["value"]
            number = as_number(value.get("rating", value.get("number")))
            if number is not None:
                ratings.setdefault(control, []).append(number)
            elif entry.get("type") in ("pairwise", "choices"):
                side = _side(value, fields, f"{where}, {control!r}")
                votes.setdefault(control, Counter()).update([side] if side is not None else [])
        if len(fields) == 1:
            means = {name: sum(numbers) / len(numbers) for name, numbers in ratings.items()}
            rated.append((prompt, texts[fields[0]], means))
            continue
        if len(fields) > 2:
            raise ValueError(f"{where} has the texts {fields} besides the prompt: keep the two that are compared.")
        for control, counted in votes.items():
            if counted[0] == counted[1]:
                collected.drop("no_preference", control)
                continue
            better = 0 if counted[0] > counted[1] else 1
            chosen, rejected = texts[fields[better]], texts[fields[1 - better]]
            collected.keep(f"label_studio-{row.get('id', index)}", user(prompt), chosen, rejected, control)
    return pairs_of_rated(rated, "label_studio", collected)


def _side(value: Mapping[str, Any], fields: list[str], where: str) -> int | None:
    """0 for the first response, 1 for the second, `None` for a tie."""
    chosen = value.get("selected", value.get("choices"))
    names = [chosen] if isinstance(chosen, str) else list(chosen or ())
    name = str(names[0]).strip() if len(names) == 1 else ""
    if name in fields:
        return fields.index(name)
    if name.casefold() in _SIDES:
        return _SIDES[name.casefold()]
    if name.casefold() in _TIES:
        return None
    raise ValueError(
        f"{where}: the choice {shortened(chosen)} names no side; known are {', '.join(_SIDES)}, the fields {fields} "
        f"and {', '.join(_TIES)}."
    )

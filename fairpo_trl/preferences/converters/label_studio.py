"""Tasks of Label Studio: pairwise comparisons, choices or ratings of responses; a control's name is the attribute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairpo_trl.core.messages import shortened
from fairpo_trl.preferences.converters.annotated import TIES, Annotated, pairs_of_annotated
from fairpo_trl.preferences.rows import Converted, as_number, field, list_field


_SIDES = {"left": 0, "right": 1, "a": 0, "b": 1, "1": 0, "2": 1}


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

    Raises:
        ValueError: If a task is of another form, or a choice names no side; names the task.
    """
    return pairs_of_annotated((_read(row, index) for index, row in enumerate(rows)), "label_studio")


def _read(row: Mapping[str, Any], index: int) -> Annotated:
    where = f"Task {index} of the Label Studio export"
    data = field(row, "data", where)
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: `data` must be an object, got {shortened(data)}.")
    entries = [
        entry
        for annotation in list_field(row, "annotations", where)
        if isinstance(annotation, Mapping) and not annotation.get("was_cancelled")
        for entry in annotation.get("result") or ()
        if isinstance(entry, Mapping) and isinstance(entry.get("value"), Mapping)
    ]
    record = Annotated.of(row.get("id", index), data, where)
    names = list(record.texts)
    if record.usable and len(names) > 2:
        raise ValueError(f"{where} has the texts {names} besides the prompt: keep the two that are compared.")
    for entry in entries if record.usable else ():
        control, value = str(entry.get("from_name")), entry["value"]
        number = as_number(value.get("rating", value.get("number")))
        if number is not None:
            record.ratings.setdefault(control, []).append(number)
        elif entry.get("type") in ("pairwise", "choices") and len(names) == 2:
            better = _side(value, names, f"{where}, {control!r}")
            votes = record.votes.setdefault(control, [])
            if better is not None:
                votes.append((names[better], names[1 - better]))
    return record


def _side(value: Mapping[str, Any], fields: list[str], where: str) -> int | None:
    """0 for the first response, 1 for the second, `None` for a tie."""
    chosen = value.get("selected", value.get("choices"))
    names = [chosen] if isinstance(chosen, str) else list(chosen or ())
    name = str(names[0]).strip() if len(names) == 1 else ""
    if name in fields:
        return fields.index(name)
    if name.casefold() in _SIDES:
        return _SIDES[name.casefold()]
    if name.casefold() in TIES:
        return None
    raise ValueError(
        f"{where}: the choice {shortened(chosen)} names no side; known are {', '.join(_SIDES)}, the fields {fields} "
        f"and {', '.join(TIES)}."
    )

"""`selection.json`: what a selection found, as a file that is checked when it is written and when it is read."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from fairpo_trl.evaluation.bounds import Bound
from fairpo_trl.evaluation.selection import CandidateTest, HeldTest, Selection, Status
from fairpo_trl.files import write_json
from fairpo_trl.hub.privacy import public


FILE_NAME = "selection.json"
VERSION = 1


@dataclass(frozen=True)
class SelectionResults:
    """
    Everything that is reported of a selection.

    Attributes:
        model (`str`): What was selected from, without its place on disk.
        reference (`str`): What it was compared with, likewise.
        data (`str`): Which prompts, in words.
        selection ([`~fairpo_trl.evaluation.selection.Selection`]): The test.
        statement (`str`): The verdict in sentences.
        scales (`dict[str, float]`): Candidate -> its scale, for those that have one.
        test ([`~fairpo_trl.evaluation.selection.CandidateTest`], *optional*): What is handed over, on prompts that
            decided nothing.
        privileged (`list[str]`): Measures whose mean is the gain.
        lost_texts (`dict[str, dict[str, int]]`): Candidate -> measure -> texts that the judge could not score and that
            count as lost.
        judges (`dict[str, str]`): Measure -> who measured it.
        settings (`dict[str, Any]`): Sampling and the like.
        seconds (`float`): How long it took.
        command (`str`): The command line, without places; empty if there was none.
    """

    model: str
    reference: str
    data: str
    selection: Selection
    statement: str
    scales: dict[str, float] = field(default_factory=dict)
    test: CandidateTest | None = None
    privileged: list[str] = field(default_factory=list)
    lost_texts: dict[str, dict[str, int]] = field(default_factory=dict)
    judges: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    command: str = ""

    def _repr_html_(self) -> str:
        from fairpo_trl.reporting.selection_report import selection_html

        return selection_html(self.selection, self.statement, self.test)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Any) -> SelectionResults:
        """
        Checks plain data, and makes objects of it.

        Raises:
            ValueError: If it is not what [`to_dict`] gives; names the place.
        """
        if not isinstance(data, dict) or data.get("version") != VERSION:
            raise ValueError(f"it is no selection of version {VERSION}")
        entries = {name: value for name, value in data.items() if name != "version"}
        _only_fields(cls, entries, "the selection")
        found = dict(entries.get("selection") or {})
        _only_fields(Selection, found, "selection")
        if found.get("bound") not in get_args(Bound):
            raise ValueError(f"selection.bound is {found.get('bound')!r}, not one of {list(get_args(Bound))}")
        candidates = tuple(_candidate(entry, f"candidate {i}") for i, entry in enumerate(found.get("candidates", ())))
        chosen = found.get("chosen")
        passed = [test.name for test in candidates if test.status == "passed"]
        if chosen is not None and chosen not in passed:
            raise ValueError(f"selection.chosen is {chosen!r}, which did not pass")
        entries["selection"] = Selection(
            level=_number(found.get("level"), "selection.level"),
            bound=found["bound"],
            candidates=candidates,
            chosen=chosen,
        )
        if entries.get("test") is not None:
            entries["test"] = _candidate(entries["test"], "test")
        for name in ("model", "reference", "data", "statement"):
            if not isinstance(entries.get(name), str):
                raise ValueError(f"{name} is no text")
        return cls(**entries)


def write_selection(results: SelectionResults, folder: str | os.PathLike[str]) -> Path:
    """
    Writes `selection.json` into a folder, atomically.

    Raises:
        ValueError: If a number is not finite or the results contradict themselves.
    """
    path = Path(folder) / FILE_NAME
    SelectionResults.from_dict(json.loads(json.dumps(results.to_dict())))
    write_json(path, public(results.to_dict()), indent=2)
    return path


def read_selection(path: str | os.PathLike[str]) -> SelectionResults:
    """
    Reads `selection.json`, or the one in a folder.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is damaged; names file and place.
    """
    path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    try:
        return SelectionResults.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"The selection {path} cannot be read ({error}): run `fairpo select` again.") from error


def _candidate(entry: Any, place: str) -> CandidateTest:
    _only_fields(CandidateTest, entry, place)
    if entry.get("status") not in get_args(Status):
        raise ValueError(f"{place}: status is {entry.get('status')!r}, not one of {list(get_args(Status))}")
    held = []
    for test in entry["held"]:
        _only_fields(HeldTest, test, f"{place}, held")
        for name in ("margin", "mean", "bound", "spread"):
            _number(test[name], f"{place}, {test['measure']}: {name}")
        if test["passed"] != (test["bound"] > -test["margin"]):
            raise ValueError(f"{place}, {test['measure']}: whether it passed contradicts its bound")
        held.append(HeldTest(**test))
    if (entry["status"] == "passed") and not all(test.passed for test in held):
        raise ValueError(f"{place} passed although a held measure of it did not")
    numbers = {name: _number(entry[name], f"{place}: {name}") for name in ("gain", "gain_bound")}
    return CandidateTest(name=str(entry["name"]), held=tuple(held), status=entry["status"], **numbers)


def _only_fields(kind: type, entry: Any, place: str) -> None:
    names = {item.name for item in fields(kind)}
    if not isinstance(entry, dict) or (extra := sorted(entry.keys() - names)):
        raise ValueError(
            f"{place} is no mapping" if not isinstance(entry, dict) else f"{place} has the unknown {extra}"
        )


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{place} is {value!r}, no finite number")
    return float(value)

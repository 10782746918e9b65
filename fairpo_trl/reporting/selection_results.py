"""`selection.json`: what the test of a path of models found, of either half."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, model_validator

from fairpo_trl.evaluation.selection import CandidateTest, HeldTest, Selection
from fairpo_trl.reporting.documents import Count, Document, Facts, Number, require


Kind: TypeAlias = Literal["language model", "multi-label classifier", "label-set writer"]

for _kind in (HeldTest, CandidateTest, Selection):  # the statistics know nothing of files
    setattr(_kind, "__pydantic_config__", ConfigDict(extra="forbid", allow_inf_nan=False))  # noqa: B010


class SelectionResults(Document):
    """
    Everything that is reported of a selection.

    Attributes:
        model (`str`): What was selected from, without its place on disk.
        reference (`str`): What it was compared with, likewise.
        data (`str`): Which examples, in words.
        selection ([`~fairpo_trl.evaluation.selection.Selection`]): The test.
        statement (`str`): The verdict in sentences.
        kind (`str`, *optional*, defaults to `"language model"`): Or `"multi-label classifier"`, whose numbers are
            points of average precision, or `"label-set writer"`, whose are points of F1.
        scales (`dict[str, float]`, *optional*): Candidate -> its scale, for those that have one.
        test ([`~fairpo_trl.evaluation.selection.CandidateTest`], *optional*): What is handed over, on examples that
            decided nothing.
        privileged (`list[str]`, *optional*): Measures whose mean is the gain.
        lost_texts (`dict[str, dict[str, int]]`, *optional*): Candidate -> measure -> texts that the judge could not
            score and that count as lost.
        judges (`dict[str, str]`, *optional*): Measure -> who measured it.
        settings (`dict[str, Any]`, *optional*): Sampling and the like.
        seconds (`float`, *optional*): How long it took.
        command (`str`, *optional*): The command line, without places.
    """

    model: str
    reference: str
    data: str
    selection: Selection
    statement: str
    kind: Kind = "language model"
    scales: dict[str, Number] = {}
    test: CandidateTest | None = None
    privileged: list[str] = []
    lost_texts: dict[str, dict[str, Count]] = {}
    judges: dict[str, str] = {}
    settings: Facts = {}
    seconds: Number | None = None
    command: str = ""

    def __init__(self, **fields: Any) -> None:
        plain = {
            name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]
            for name, value in fields.items()
        }
        super().__init__(**plain)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> SelectionResults:
        tests = [*self.selection.candidates, *([self.test] if self.test else [])]
        for test in tests:
            for held in test.held:
                require(
                    held.passed == (held.bound > -held.margin),
                    f"{test.name}, {held.measure}: whether it passed contradicts its bound",
                )
            passed = all(held.passed for held in test.held)
            require(test.status != "passed" or passed, f"{test.name} passed although a held measure of it did not")
        passed_names = [test.name for test in self.selection.candidates if test.status == "passed"]
        chosen = self.selection.chosen
        require(chosen is None or chosen in passed_names, f"selection.chosen is {chosen!r}, which did not pass")
        return self

"""The results of multi-label runs, of the classifier and of a model that writes label sets: one run, and many methods.

All metrics are shares from 0 to 1, and so are their differences.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.reporting.cells import Cell
from fairpo_trl.reporting.documents import (
    Both,
    Count,
    Document,
    Facts,
    Frame,
    History,
    Interval,
    Number,
    Part,
    Role,
    one_of,
    require,
)


METRICS = ("map", "sample_f1", "accuracy", "exact_match")
Measure: TypeAlias = Literal["mAP", "F1"]
"""What the changes of a run are changes of: average precision of scores, or F1 of label sets, which have no scores."""
GroupName: TypeAlias = Literal["all", "privileged", "non_privileged"]
GROUPS: tuple[GroupName, ...] = ("privileged", "non_privileged", "all")


def _probability(value: float) -> float:
    require(0 <= value <= 1, f"{value} is no probability; pass them, not logits")
    return value


def _below_the_report(path: str | None) -> str | None:
    inside = path is None or not (PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts)
    require(inside, f"must be a path below the report's folder, got {path!r}")
    return path


Probability: TypeAlias = Annotated[Number, AfterValidator(_probability)]
MaybeNumber: TypeAlias = Number | None


class ChangeRow(BaseModel):
    """
    A row of a comparison: a group or a label, with its change (trained less reference) and the interval of that.

    Further columns (`ap_reference`, `ap`, `positives`, `role`, ...) are had by [`ChangeRow.get`].

    Attributes:
        delta, low, high (`float`, *optional*): The change, and the ends of its interval.
        seed_sd (`float`, *optional*): Its standard deviation over seeds.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    delta: MaybeNumber = None
    low: MaybeNumber = None
    high: MaybeNumber = None
    seed_sd: MaybeNumber = None

    @model_validator(mode="after")
    def _check(self) -> ChangeRow:
        self.change  # noqa: B018 (raises for an interval upside down)
        for name, value in (self.model_extra or {}).items():
            require(value == value and value not in (float("inf"), float("-inf")), f"{name} is {value}")
        return self

    @property
    def change(self) -> Interval | None:
        """The difference with its interval; `None` if there is none."""
        if self.delta is None:
            return None
        low, high = (None, None) if self.low is None or self.high is None else (self.low, self.high)
        return Interval(mean=self.delta, low=low, high=high, seed_sd=self.seed_sd)

    def get(self, column: str) -> Any:
        """A further column; `None` if it is absent."""
        return (self.model_extra or {}).get(column)


class GroupEvaluationPart(Part):
    """`GroupEvaluation.to_dict()`."""

    by_group: Frame
    by_label: Frame
    labels_without_positives: list[str]
    labels_without_negatives: list[str] = Field(default_factory=list)
    zero_division: MaybeNumber
    samples: str | int


class ComparisonPart(Part):
    """`ReferenceComparison.to_dict()`, or that of label sets."""

    by_group: dict[str, ChangeRow]
    by_label: dict[str, ChangeRow]
    fell: list[str]
    fell_surely: list[str]
    eps: Number
    seeds: Count
    series: Count
    resamples: Count
    level: Number


class Hinge(Part):
    """Share of held pairs, and of held labels in the mean, whose BCE is at most the reference's + `eps` (nats)."""

    pairs: MaybeNumber
    labels: MaybeNumber
    eps: MaybeNumber = None


class FurtherTable(Part):
    """
    One more table of a run.

    Attributes:
        title (`str`): Its title.
        header (`list[str]`): Names of the columns.
        rows (`list[list[Cell]]`): Texts and numbers (`{"value": 0.04, "unit": "percent"}`, `{"change": {...}}`).
        texts (`int`, *optional*, defaults to 1): Leading columns of words; the others are set to the right.
        note (`str`, *optional*): What a reader has to know.
        picture (`str`, *optional*): A PNG of it, below the report's folder.
    """

    title: str
    header: list[str]
    rows: list[list[Cell]]
    texts: Count = 1
    note: str = ""
    picture: Annotated[str | None, AfterValidator(_below_the_report)] = None

    @model_validator(mode="after")
    def _as_many_cells(self) -> FurtherTable:
        for row in self.rows:
            require(len(row) == len(self.header), f"{len(self.header)} columns, but a row of {len(row)}")
        return self


class LabelSample(Part):
    """One image: its file below the report's folder (or `None`), true labels, and (label, probability), best first."""

    image: Annotated[str | None, AfterValidator(_below_the_report)]
    id: str
    true: list[str]
    reference: list[tuple[str, Probability]]
    trained: list[tuple[str, Probability]]


class LabelDocument(Document):
    """
    What one run and many methods have in common.

    Attributes:
        title (`str`): Title of the reports; it names the data.
        data (`dict[str, dict]`): Split -> `images` or `items`, `series`, and what else was counted.
        partition (`dict[str, str]`): Label -> role.
        label_counts (`dict[str, int]`): Label -> positives in train.
        command, hardware, settings, seconds (*optional*): As in [`~fairpo_trl.reporting.Results`].
        measure (`str`, *optional*, defaults to `"mAP"`): What changes are changes of.
        notes (`list[str]`, *optional*): What a reader has to know.
    """

    title: str
    data: Facts
    partition: dict[str, Role]
    label_counts: dict[str, Count]
    command: str | None = None
    settings: Facts = {}
    hardware: str | None = None
    seconds: Number | None = None
    measure: Annotated[Measure, one_of("measure", get_args(Measure))] = "mAP"
    notes: list[str] = []

    @model_validator(mode="after")
    def _counts_of_every_label(self) -> LabelDocument:
        self.check_labels("label_counts", self.label_counts, complete=True)
        return self

    def names_of(self, role: Role) -> list[str]:
        """The labels of this role, in the order of the partition."""
        return [name for name, found in self.partition.items() if found == role]

    def check_labels(self, place: str, found: Iterable[str], complete: bool = False) -> None:
        """Raises for names that are no labels and, if the list is to be complete, for labels it lacks."""
        found = list(found)
        strange = [name for name in found if name not in self.partition]
        require(not strange, f"{place}: " + unknown_names_message("label", strange, list(self.partition)))
        missing = [name for name in self.partition if name not in set(found)]
        require(not complete or not missing, f"{place} lacks the labels {missing}")


class LabelResults(LabelDocument):
    """
    One run. Further attributes than [`LabelDocument`]'s:

    Attributes:
        method (`str`): Its method.
        evaluations, comparison: Of both models on the same split, and of the trained one with the reference. With F1
            as the measure, `comparison` holds `f1_reference` and `f1` in place of those of average precision.
        hinge ([`Hinge`]): Held pairs no worse than the reference; may be `None` for label sets, as `confusion`.
        confusion (`Both[float]`): Share of present privileged labels that some absent label outscores.
        seeds (`list[int]`, *optional*): Of the training.
        calibration (`Both[dict]`, *optional*): `calibration_by_group` as `{group: {"ece": ..., "brier": ..., ...}}`.
        weights_history (`list[dict[str, float]]`, *optional*): Group weights by optimizer step.
        samples (`list[LabelSample]`, *optional*): Images with the best labels of both models.
        tables (`list[FurtherTable]`, *optional*): What else was measured.
    """

    VERBATIM: ClassVar[Mapping[str, frozenset[str]]] = {"samples": frozenset({"image"})}

    method: str
    evaluations: Both[GroupEvaluationPart]
    comparison: ComparisonPart
    hinge: Hinge
    confusion: Both[MaybeNumber]
    seeds: list[Count] = []
    calibration: Both[Frame] | None = None
    weights_history: History = []
    samples: list[LabelSample] = []
    tables: list[FurtherTable] = []

    @model_validator(mode="after")
    def _known_labels(self) -> LabelResults:
        for name, evaluated in self.evaluations.by_model().items():
            self.check_labels(f"evaluations.{name}.by_label", evaluated.by_label, complete=True)
        self.check_labels("comparison.by_label", self.comparison.by_label, complete=True)
        for i, sample in enumerate(self.samples):
            self.check_labels(f"samples[{i}].true", sample.true)
            for model in ("reference", "trained"):
                self.check_labels(f"samples[{i}].{model}", [label for label, _ in getattr(sample, model)])
        return self

    def changes(self) -> dict[str, Interval]:
        """Change of every label that has one, in the order of the partition."""
        found = {name: self.comparison.by_label[name].change for name in self.partition}
        return {name: value for name, value in found.items() if value is not None}

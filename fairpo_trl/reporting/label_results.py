"""The results files of the multi-label classifier: one run, and the comparison of many methods.

As in `results.json` of the language model, numbers are finite, what was not measured is absent or `None`, and absolute
paths are cut to their last part. All metrics are shares from 0 to 1, and so are their differences.
"""

import difflib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, cast, get_args

from fairpo_trl.reporting.results import Delta, Role, check_document, public, write_document


Section: TypeAlias = Literal["reference", "methods", "reweighting", "ablations", "variants"]
"""Part of the table a method stands in, in this order."""

SECTIONS: tuple[Section, ...] = get_args(Section)
CONTINUED = "bce_continued"
"""Name of the control: the reference, trained further for as long as the methods."""

METRICS = ("map", "sample_f1", "accuracy", "exact_match")
Measure: TypeAlias = Literal["mAP", "F1"]
"""What the changes of a run are changes of: average precision of scores, or F1 of label sets, which have no scores."""
Group: TypeAlias = Literal["all", "privileged", "non_privileged"]
GROUPS: tuple[Group, ...] = ("privileged", "non_privileged", "all")

Frame: TypeAlias = dict[str, dict[str, Any]]
"""A table as `{row: {column: value}}`, `None` where there is no number."""

SplitSummary: TypeAlias = dict[str, int | str]
"""`images`, `series`, and what else was counted: dropped images, unknown labels."""


class GroupEvaluationDict(TypedDict):
    """`GroupEvaluation.to_dict()`."""

    by_group: Frame
    by_label: Frame
    labels_without_positives: list[str]
    zero_division: float | None
    samples: str


class ComparisonDict(TypedDict):
    """`Comparison.to_dict()`."""

    by_group: Frame
    by_label: Frame
    fell: list[str]
    fell_surely: list[str]
    eps: float
    seeds: int
    series: int
    resamples: int
    level: float


class Evaluations(TypedDict):
    """Of the reference and of the trained model, on the same split."""

    reference: GroupEvaluationDict
    trained: GroupEvaluationDict


class Hinge(TypedDict):
    """Share of held pairs, and of held labels in the mean, whose BCE is at most the reference's + `eps` (nats)."""

    pairs: float | None
    labels: float | None
    eps: NotRequired[float]


class FurtherTable(TypedDict):
    """One more table of a run, all cells as text; `texts` leading columns (1) are words, the others numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    texts: NotRequired[int]
    note: NotRequired[str]


class Shares(TypedDict):
    """A share of the reference and of the trained model."""

    reference: float | None
    trained: float | None


class Calibration(TypedDict):
    """`calibration_by_group` of both models as `{group: {"ece": ..., "ece_temperature": ..., "brier": ...}}`."""

    reference: Frame
    trained: Frame


class LabelSample(TypedDict):
    """One image: its file relative to the report (or `None`), true labels, and (label, probability), best first."""

    image: str | None
    id: str
    true: list[str]
    reference: list[list[Any]]
    trained: list[list[Any]]


class LabelResults(TypedDict):
    """One run.

    `data` maps split to its summary, `partition` label to role, `label_counts` label to positives in train.
    `confusion` is the share of present privileged labels that some absent label outscores. `weights_history` is a list
    of `{"step": optimizer step, group: weight}`. `measure` is mAP where it is absent; with F1, `comparison` holds
    `f1_reference` and `f1` where it has those of average precision, and hinge and confusion may be `None`.
    """

    title: str
    data: dict[str, SplitSummary]
    partition: dict[str, Role]
    label_counts: dict[str, int]
    method: str
    evaluations: Evaluations
    comparison: ComparisonDict
    hinge: Hinge
    confusion: Shares
    command: NotRequired[str]
    settings: NotRequired[dict[str, Any]]
    hardware: NotRequired[str]
    seconds: NotRequired[float]
    seeds: NotRequired[list[int]]
    calibration: NotRequired[Calibration]
    weights_history: NotRequired[list[dict[str, float]]]
    samples: NotRequired[list[LabelSample]]
    notes: NotRequired[list[str]]
    measure: NotRequired[Measure]
    tables: NotRequired[list[FurtherTable]]


class MethodResult(TypedDict):
    """One method with one head: means over its seeds, and what changed.

    `groups` maps group to metric, `seed_sd` likewise to the standard deviation over seeds; `paper_map` follows the
    per-batch protocol of the slides and is comparable with nothing else. The deltas are changes of mAP by group
    against the reference and against continued BCE. `fell`: held labels that lost more than the allowed points;
    `fell_surely`: with their whole interval. `bands`: mAP of frequent (`head`), middling and rare (`tail`) labels.
    """

    name: str
    label: str
    section: Section
    head: str
    groups: dict[str, dict[str, float | None]]
    seeds: NotRequired[int]
    seconds: NotRequired[float]
    seed_sd: NotRequired[dict[str, dict[str, float | None]]]
    delta_reference: NotRequired[dict[str, Delta]]
    delta_continued: NotRequired[dict[str, Delta]]
    fell: NotRequired[list[str]]
    fell_surely: NotRequired[list[str]]
    hinge: NotRequired[Hinge]
    confusion: NotRequired[float | None]
    bands: NotRequired[dict[str, float | None]]


class ConfusedPair(TypedDict):
    """In how many images with `label`, out of `opportunities`, the absent `confused_with` scored as high or higher."""

    label: str
    confused_with: str
    before: int
    after: int
    opportunities: NotRequired[int]
    change: NotRequired[int]


class ConfusedPairs(TypedDict, total=False):
    """The most confused pairs of the reference (`before`) and of a method (`after`, named by `method`)."""

    method: str
    pairs: list[ConfusedPair]


class LabelComparison(TypedDict):
    """Many methods on one split.

    `heads` maps a head's name to its description; `trivial` maps baseline to group to metric; `per_label` maps
    [`method_key`] to label to its change of AP against the reference. `allowed_fall` is the fall of AP that a held
    label was allowed: 0.01 is one point. `measure`: see [`LabelResults`].
    """

    title: str
    data: dict[str, SplitSummary]
    partition: dict[str, Role]
    label_counts: dict[str, int]
    heads: dict[str, str]
    trivial: dict[str, dict[str, dict[str, float | None]]]
    methods: list[MethodResult]
    command: NotRequired[str]
    settings: NotRequired[dict[str, Any]]
    hardware: NotRequired[str]
    seconds: NotRequired[float]
    per_label: NotRequired[dict[str, dict[str, Delta]]]
    measure: NotRequired[Measure]
    allowed_fall: NotRequired[float]
    confused_pairs: NotRequired[ConfusedPairs]
    notes: NotRequired[list[str]]


def method_key(method: MethodResult) -> str:
    """`name, head`: the key of a method in `per_label`."""
    return f"{method['name']}, {method['head']}"


def check_label_results(results: LabelResults) -> None:
    """Raise unless a run has the shape of [`LabelResults`].

    Raises:
        ValueError: A required part is missing, a number is NaN or infinite, an interval is upside down, a role, a
            label or the measure is unknown, a row of a table has too few or too many cells, a probability is none, or
            the image of a sample is not relative. The message names the place.
    """
    check_document(results, LabelResults)
    _check_measure(results)
    for i, table in enumerate(results.get("tables", [])):
        if wrong := [row for row in table["rows"] if len(row) != len(table["header"])]:
            raise ValueError(f"tables[{i}]: {len(table['header'])} columns, but a row of {len(wrong[0])}.")
    labels = results["partition"]
    _check_labels("label_counts", results["label_counts"], labels, complete=True)
    for name in ("reference", "trained"):
        if name not in results["evaluations"]:
            raise ValueError(f"evaluations lacks {name!r}.")
        by_label = cast(Mapping[str, Any], results["evaluations"])[name]["by_label"]
        _check_labels(f"evaluations.{name}.by_label", by_label, labels, complete=True)
    _check_labels("comparison.by_label", results["comparison"]["by_label"], labels, complete=True)
    for i, sample in enumerate(results.get("samples", [])):
        image = sample["image"]
        if image is not None and (PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts):
            raise ValueError(f"samples[{i}].image must be a path below the report's folder, got {image!r}.")
        _check_labels(f"samples[{i}].true", sample["true"], labels)
        for model, top in (("reference", sample["reference"]), ("trained", sample["trained"])):
            _check_labels(f"samples[{i}].{model}", [label for label, _ in top], labels)
            if wrong := [p for _, p in top if not 0 <= p <= 1]:
                raise ValueError(f"samples[{i}].{model}: {wrong[0]} is no probability; pass them, not logits.")


def check_label_comparison(comparison: LabelComparison) -> None:
    """Raise unless a comparison has the shape of [`LabelComparison`].

    Raises:
        ValueError: A required part is missing, a number is NaN or infinite, an interval is upside down, a role,
            section, head, method or label is unknown, or a method stands there twice. The message names the place.
    """
    check_document(comparison, LabelComparison)
    _check_measure(comparison)
    labels = comparison["partition"]
    _check_labels("label_counts", comparison["label_counts"], labels, complete=True)
    keys = [method_key(method) for method in comparison["methods"]]
    for i, method in enumerate(comparison["methods"]):
        missing = MethodResult.__required_keys__ - method.keys()
        unknown = method.keys() - MethodResult.__annotations__.keys()
        if missing or unknown:
            raise ValueError(f"methods[{i}] lacks {sorted(missing)} and has unknown parts {sorted(unknown)}.")
        if method["section"] not in SECTIONS:
            raise ValueError(
                f"methods[{i}] ({method['name']}): " + _unknown("section", [method["section"]], list(SECTIONS))
            )
        if method["head"] not in comparison["heads"]:
            raise ValueError(
                f"methods[{i}] ({method['name']}): " + _unknown("head", [method["head"]], list(comparison["heads"]))
            )
        if keys.index(keys[i]) != i:
            raise ValueError(f"methods[{i}]: {keys[i]!r} stands there twice.")
        for part in ("fell", "fell_surely"):
            _check_labels(f"methods[{i}].{part}", cast(Mapping[str, Any], method).get(part, []), labels)
    for key, deltas in comparison.get("per_label", {}).items():
        if key not in keys:
            raise ValueError("per_label: " + _unknown("method, head", [key], keys))
        _check_labels(f"per_label.{key}", deltas, labels)


def write_label_results(results: LabelResults, path: str | os.PathLike[str]) -> Path:
    """Check and write a run as JSON, whole or not at all; absolute paths in texts are cut to their last part.

    Args:
        results: The run.
        path: The file; its folder is created if needed.

    Returns:
        The path.

    Raises:
        ValueError: See [`check_label_results`].
    """
    check_label_results(results)
    return write_document(public_document(results), path)


def write_label_comparison_json(comparison: LabelComparison, path: str | os.PathLike[str]) -> Path:
    """Check and write a comparison as JSON, as [`write_label_results`] does.

    Raises:
        ValueError: See [`check_label_comparison`].
    """
    check_label_comparison(comparison)
    return write_document(public_document(comparison), path)


def read_label_results(path: str | os.PathLike[str]) -> LabelResults:
    """Read and check a run.

    Args:
        path: A file written by [`write_label_results`].

    Returns:
        The run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, or not a run; see [`check_label_results`].
    """
    results = cast(LabelResults, json.loads(Path(path).read_text(encoding="utf-8")))
    check_label_results(results)
    return results


def read_label_comparison(path: str | os.PathLike[str]) -> LabelComparison:
    """Read and check a comparison; see [`read_label_results`].

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, or not a comparison; see [`check_label_comparison`].
    """
    comparison = cast(LabelComparison, json.loads(Path(path).read_text(encoding="utf-8")))
    check_label_comparison(comparison)
    return comparison


def difference(row: Mapping[str, Any]) -> Delta | None:
    """A row of a comparison's `by_group` or `by_label` as a delta; `None` if there is none."""
    if row.get("delta") is None:
        return None
    found: Delta = {"mean": row["delta"]}
    if row.get("low") is not None and row.get("high") is not None:
        found |= {"low": row["low"], "high": row["high"]}
    if row.get("seed_sd") is not None:
        found["seed_sd"] = row["seed_sd"]
    return found


def _check_measure(document: LabelResults | LabelComparison) -> None:
    if (measure := document.get("measure", "mAP")) not in get_args(Measure):
        raise ValueError("measure: " + _unknown("measure", [measure], get_args(Measure)))


def _check_labels(place: str, found: Iterable[str], labels: Mapping[str, Role], complete: bool = False) -> None:
    found = list(found)
    if unknown := [name for name in found if name not in labels]:
        raise ValueError(f"{place}: " + _unknown("label", unknown, list(labels)))
    if complete and (missing := [name for name in labels if name not in set(found)]):
        raise ValueError(f"{place} lacks the labels {missing}.")


def _unknown(what: str, unknown: Iterable[str], known: Sequence[str]) -> str:
    """Every unknown name with its nearest known one. (The core has such a message too, but the core loads torch.)"""
    parts = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        parts.append(f"{name!r} (did you mean {near[0]!r}?)" if near else repr(name))
    listed = ", ".join(map(repr, known[:12])) + (f", ... ({len(known)} in all)" if len(known) > 12 else "")
    return f"unknown {what} {', '.join(parts)}; known: {listed}."


def public_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """A run or a comparison without local paths in free text; names of labels are keys elsewhere and stay."""
    texts = ("title", "command", "data", "settings", "hardware", "method", "heads", "notes")
    written = {key: public(value) if key in texts else value for key, value in document.items()}
    if "samples" in written:
        written["samples"] = [sample | {"id": public(sample["id"])} for sample in written["samples"]]
    return written

"""The tables of the classification half as plain text cells, which terminal, Markdown and LaTeX then dress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairpo_trl.reporting.label_results import (
    GROUPS,
    METRICS,
    LabelComparison,
    LabelResults,
    Measure,
    difference,
)
from fairpo_trl.reporting.numbers import ABSENT, delta, percent, role_text


METRIC_NAMES = {"map": "mAP", "sample_f1": "F1", "accuracy": "acc", "exact_match": "EMR"}


@dataclass(frozen=True)
class MeasureText:
    """How a [`Measure`] is spoken of.

    Attributes:
        group: Of a group: `mAP`.
        label: Of a label, in a column's name: `AP`.
        words: Of a label, in a title.
        key: In rows of a label.
        columns: Key -> column, of what is shown of a group.
    """

    group: str
    label: str
    words: str
    key: str
    columns: Mapping[str, str]


MEASURES: dict[Measure, MeasureText] = {
    "mAP": MeasureText(
        "mAP",
        "AP",
        "average precision",
        "ap",
        {"map": "mAP", "sample_f1": "sample-F1", "accuracy": "accuracy", "exact_match": "exact match"},
    ),
    "F1": MeasureText(
        "F1",
        "F1",
        "F1",
        "f1",
        {
            "precision": "precision",
            "recall": "recall",
            "f1": "F1",
            "sample_f1": "set-F1",
            "exact_match": "exact match",
        },
    ),
}
"""Of a group, mAP, sample-F1 and set-F1 are means; precision, recall and F1 are over its (item, label) entries."""

BASELINE_NAMES = {"all_negative": "all-negative", "label_prior": "label prior"}


@dataclass(frozen=True)
class Block:
    """One table.

    Attributes:
        title: Its title.
        header: Names of the columns; a line break may stand where a narrow column wants one.
        sections: (name, rows) each; a name may be empty. All cells are text.
        texts: Number of leading columns of text; the others hold numbers.
        note: What a reader has to know, printed below.
        wide: Whether a terminal has no room for an interval beside its number, so that it stands below it.
    """

    title: str
    header: tuple[str, ...]
    sections: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    texts: int = 1
    note: str = ""
    wide: bool = False

    def rows(self) -> list[tuple[str, ...]]:
        """All rows, without the names of the sections."""
        return [row for _, rows in self.sections for row in rows]


def measure_text(document: LabelResults | LabelComparison) -> MeasureText:
    """What the changes in a document are changes of."""
    return MEASURES[document.get("measure", "mAP")]


def groups_block(results: LabelResults) -> Block:
    """Reference and trained model per group, with what the trivial baselines get beside them."""
    before, after = (results["evaluations"][model]["by_group"] for model in ("reference", "trained"))  # type: ignore[literal-required]
    changes = results["comparison"]["by_group"]
    measure = measure_text(results)
    sections = []

    def cells(values: Mapping[str, Any], suffix: str = "") -> tuple[str, ...]:
        return tuple(percent(values.get(column + suffix)) for column in measure.columns)

    for group in GROUPS:
        if group not in before:
            continue
        found = delta(difference(changes.get(group, {})))
        rows = [
            ("reference", *cells(before[group]), ABSENT),
            ("trained", *cells(after[group]), found),
        ]
        if measure.group == "mAP":
            rows += [(name, *cells(before[group], f"_{key}"), ABSENT) for key, name in BASELINE_NAMES.items()]
        labels = before[group].get("labels_counted", before[group].get("labels"))
        sections.append((f"{role_text(group)}, {labels} labels" if labels else role_text(group), tuple(rows)))
    comparison = results["comparison"]
    return Block(
        f"Metrics by group, in per cent; change of {measure.group} in points with {100 * comparison['level']:.0f} % "
        "intervals",
        ("", *measure.columns.values(), f"change of {measure.group}"),
        tuple(sections),
        note=_conventions(results),
    )


def moved_block(results: LabelResults, k: int | None = 5) -> Block:
    """The `k` labels that gained most in AP (or F1) and the `k` that fell most, with intervals; `None`: all labels."""
    measure = measure_text(results)
    rows = {name: (row, found) for name, row in label_deltas(results).items() if (found := difference(row))}
    ordered = sorted(rows, key=lambda name: (-rows[name][1]["mean"], name))
    gained = [name for name in ordered if rows[name][1]["mean"] > 0]
    fell = [name for name in reversed(ordered) if rows[name][1]["mean"] < 0]

    def cells(name: str) -> tuple[str, ...]:
        row, found = rows[name]
        counts = (str(results["label_counts"][name]), str(row.get("positives", ABSENT)))
        values = (percent(row.get(f"{measure.key}_reference")), percent(row.get(measure.key)))
        return (name, role_text(results["partition"][name]), *counts, *values, delta(found))

    if k is None:
        sections = [("", tuple(map(cells, ordered)))]
    else:
        sections = [("gained most", tuple(map(cells, gained[:k]))), ("fell most", tuple(map(cells, fell[:k])))]
    return Block(
        f"Change of {measure.words} per label, in points"
        if k is None
        else f"Labels that gained and fell most, of {len(gained)} that gained and {len(fell)} that fell",
        (
            "label",
            "role",
            "positives\nin train",
            "in test",
            f"{measure.label}, ref-\nerence",
            f"{measure.label},\ntrained",
            f"change of {measure.label}",
        ),
        tuple(sections),
        texts=2,
    )


def label_deltas(results: LabelResults) -> dict[str, dict[str, Any]]:
    """Rows of the comparison by label, in the order of the partition."""
    by_label = results["comparison"]["by_label"]
    return {name: by_label[name] for name in results["partition"]}


def calibration_block(results: LabelResults) -> Block | None:
    """Expected calibration error and Brier score by group, before and after a temperature; `None` if not measured."""
    if "calibration" not in results:
        return None
    columns = ("ece", "ece_temperature", "brier", "brier_temperature", "brier_all_negative", "brier_label_prior")
    sections = []
    for group in GROUPS:
        if group not in results["calibration"]["reference"]:
            continue
        rows = [
            (model, *(_digits(results["calibration"][model][group].get(column)) for column in columns))  # type: ignore[literal-required]
            for model in ("reference", "trained")
        ]
        sections.append((role_text(group), tuple(rows)))
    header = ("ECE", "ECE with\ntemperature", "Brier", "Brier with\ntemperature", "Brier,\nall-negative")
    return Block("Calibration", ("", *header, "Brier,\nlabel prior"), tuple(sections))


def promises(results: LabelResults) -> list[str]:
    """Sentences on held labels that fell, and on hinge and confusion where they were measured."""
    hinge, comparison, confusion = results["hinge"], results["comparison"], results["confusion"]
    slack = f" + {hinge['eps']:g}" if "eps" in hinge else ""
    fell, surely = comparison["fell"], set(comparison["fell_surely"])
    names = ", ".join(f"{name} ▼" if name in surely else name for name in fell)
    points = f"{100 * comparison['eps']:g} point{'' if comparison['eps'] == 0.01 else 's'}"
    found = [
        f"Held labels whose {measure_text(results).label} fell by more than {points}: {len(fell)}"
        + (f" ({names}); ▼ with the whole interval: {len(surely)}." if fell else ".")
    ]
    if hinge["pairs"] is not None:
        found.insert(
            0,
            f"Hinge: loss at most the reference's{slack} for {percent(hinge['pairs'])} % of the held (image, label) "
            f"pairs and, in the mean, for {percent(hinge['labels'])} % of the held labels.",
        )
    if confusion["reference"] is not None:
        found.append(
            f"Confusion: {percent(confusion['reference'])} % -> {percent(confusion['trained'])} % of the "
            "privileged labels present in an image are outscored by some absent label."
        )
    return found


def further_blocks(results: LabelResults) -> list[Block]:
    """The further tables of a run."""
    return [
        Block(
            table["title"],
            tuple(table["header"]),
            (("", tuple(tuple(row) for row in table["rows"])),),
            texts=table.get("texts", 1),
            note=table.get("note", ""),
            wide=True,
        )
        for table in results.get("tables", [])
    ]


def top_text(results: LabelResults, top: Sequence[Sequence[Any]], true: Sequence[str]) -> list[str]:
    """Lines `✓ cat * 93` (a true and privileged label) or `· dog 12`, probabilities in per cent."""
    return [f"{'✓' if name in true else '·'} {starred(results, name)} {100 * p:.0f}" for name, p in top]


def starred(results: LabelResults, name: str) -> str:
    """A label, with a star if it is privileged."""
    return f"{name} *" if results["partition"][name] == "privileged" else name


def data_rows(document: LabelResults | LabelComparison) -> list[tuple[str, str]]:
    """Name and text of each split, of the roles and of the run's circumstances, for the head of a report."""
    rows = []
    for split, summary in document["data"].items():
        counted = [
            f"{value:,} {name}"
            if isinstance(value, int) and name in ("images", "items", "series")
            else f"{name} {value}"
            for name, value in summary.items()
        ]
        rows.append((split, ", ".join(counted)))
    for role in ("privileged", "non_privileged"):
        names = [name for name, found in document["partition"].items() if found == role]
        named = [f"{name} ({document['label_counts'][name]})" for name in names]
        rows.append((f"{len(names)} {role_text(role)}", ", ".join(named) or ABSENT))
    return rows


def metric_cells(values: Mapping[str, float | None], suffix: str = "") -> tuple[str, ...]:
    """The four metrics of a group, in per cent; `suffix` names a trivial baseline's."""
    return tuple(percent(values.get(metric + suffix)) for metric in METRICS)


def _conventions(results: LabelResults) -> str:
    trained = results["evaluations"]["trained"]
    comparison = results["comparison"]
    sets = measure_text(results).group == "F1"
    units = f"{comparison['series']} {'items' if sets else 'series'}"
    bootstrap = f"Intervals: paired bootstrap over {units}, {comparison['resamples']} resamples."
    if sets:
        return (
            "Precision, recall and F1: over all (item, label) entries of the group. Set-F1: mean over items of 2 hits "
            f"/ (predicted + true labels), {trained['samples']} items. {bootstrap}"
        )
    without = trained["labels_without_positives"]
    left_out = f"{len(without)} left out: {', '.join(without)}" if without else "none left out"
    division = trained["zero_division"]
    return (
        f"mAP: macro over labels with a positive in this split ({left_out}). Sample-F1: zero_division = "
        f"{'nan' if division is None else f'{division:g}'}, samples = {trained['samples']}. {bootstrap} "
        "All-negative and label prior look at no image: accuracy and exact match of rare labels are high without "
        "learning anything."
    )


def _digits(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"

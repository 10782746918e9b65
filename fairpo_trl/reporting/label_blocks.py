"""The tables of the classification half as plain text cells, which terminal, Markdown and LaTeX then dress."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairpo_trl.reporting.label_results import GROUPS, METRICS, LabelComparison, LabelResults, difference
from fairpo_trl.reporting.numbers import ABSENT, delta, percent, role_text


METRIC_NAMES = {"map": "mAP", "sample_f1": "F1", "accuracy": "acc", "exact_match": "EMR"}
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


def groups_block(results: LabelResults) -> Block:
    """Reference and trained model per group, with what the trivial baselines get beside them."""
    before, after = (results["evaluations"][model]["by_group"] for model in ("reference", "trained"))  # type: ignore[literal-required]
    changes = results["comparison"]["by_group"]
    sections = []
    for group in GROUPS:
        if group not in before:
            continue
        found = delta(difference(changes.get(group, {})))
        rows = [
            ("reference", *metric_cells(before[group]), ABSENT),
            ("trained", *metric_cells(after[group]), found),
            *((name, *metric_cells(before[group], f"_{key}"), ABSENT) for key, name in BASELINE_NAMES.items()),
        ]
        labels = before[group].get("labels_counted", before[group].get("labels"))
        sections.append((f"{role_text(group)}, {labels} labels" if labels else role_text(group), tuple(rows)))
    comparison = results["comparison"]
    return Block(
        f"Metrics by group, in per cent; change of mAP in points with {100 * comparison['level']:.0f} % intervals",
        ("", "mAP", "sample-F1", "accuracy", "exact match", "change of mAP"),
        tuple(sections),
        note=_conventions(results),
    )


def moved_block(results: LabelResults, k: int | None = 5) -> Block:
    """The `k` labels whose AP gained most, and the `k` that fell most, with intervals; all labels for `None`."""
    rows = {name: (row, found) for name, row in label_deltas(results).items() if (found := difference(row))}
    ordered = sorted(rows, key=lambda name: (-rows[name][1]["mean"], name))
    gained = [name for name in ordered if rows[name][1]["mean"] > 0]
    fell = [name for name in reversed(ordered) if rows[name][1]["mean"] < 0]

    def cells(name: str) -> tuple[str, ...]:
        row, found = rows[name]
        counts = (str(results["label_counts"][name]), str(row.get("positives", ABSENT)))
        ap = (percent(row.get("ap_reference")), percent(row.get("ap")))
        return (name, role_text(results["partition"][name]), *counts, *ap, delta(found))

    if k is None:
        sections = [("", tuple(map(cells, ordered)))]
    else:
        sections = [("gained most", tuple(map(cells, gained[:k]))), ("fell most", tuple(map(cells, fell[:k])))]
    return Block(
        "Change of average precision per label, in points"
        if k is None
        else f"Labels that gained and fell most, of {len(gained)} that gained and {len(fell)} that fell",
        ("label", "role", "positives\nin train", "in test", "AP, ref-\nerence", "AP,\ntrained", "change of AP"),
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
    """Sentences on the hinge, on held labels that fell, and on confusion."""
    hinge, comparison, confusion = results["hinge"], results["comparison"], results["confusion"]
    slack = f" + {hinge['eps']:g}" if "eps" in hinge else ""
    fell, surely = comparison["fell"], set(comparison["fell_surely"])
    names = ", ".join(f"{name} ▼" if name in surely else name for name in fell)
    points = 100 * comparison["eps"]
    return [
        f"Hinge: loss at most the reference's{slack} for {percent(hinge['pairs'])} % of the held (image, label) pairs "
        f"and, in the mean, for {percent(hinge['labels'])} % of the held labels.",
        f"Held labels whose AP fell by more than {points:g} points: {len(fell)}"
        + (f" ({names}); ▼ with the whole interval: {len(surely)}." if fell else "."),
        f"Confusion: {percent(confusion['reference'])} % -> {percent(confusion['trained'])} % of the "
        "privileged labels present in an image are outscored by some absent label.",
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
            f"{value:,} {name}" if isinstance(value, int) and name in ("images", "series") else f"{name} {value}"
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
    without = trained["labels_without_positives"]
    left_out = f"{len(without)} left out: {', '.join(without)}" if without else "none left out"
    comparison = results["comparison"]
    division = trained["zero_division"]
    return (
        f"mAP: macro over labels with a positive in this split ({left_out}). Sample-F1: zero_division = "
        f"{'nan' if division is None else f'{division:g}'}, samples = {trained['samples']}. Intervals: paired "
        f"bootstrap over {comparison['series']} series, {comparison['resamples']} resamples. All-negative and "
        "label prior look at no image: accuracy and exact match of rare labels are high without learning anything."
    )


def _digits(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4f}"

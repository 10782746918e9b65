"""The report of a multi-label run, of a classifier or of label sets: its results as tables of typed cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fairpo_trl.reporting.blocks import (
    Block,
    Figure,
    Guess,
    Lines,
    Picture,
    Pictures,
    Report,
    Row,
    Sentences,
    Shown,
    known,
    sections_of,
    with_content,
)
from fairpo_trl.reporting.cells import Change, Value
from fairpo_trl.reporting.documents import ROLES
from fairpo_trl.reporting.label_results import GROUPS, METRICS, LabelDocument, LabelResults, LabelSample, Measure
from fairpo_trl.reporting.numbers import ABSENT, duration, percent, role_text
from fairpo_trl.reporting.verdict import label_verdict, points_text


class MeasureText(NamedTuple):
    """How a [`Measure`] is called of a label (in columns' names and in titles), and key -> column of a group."""

    label: str
    words: str
    columns: Mapping[str, str]


# Of a group, mAP, sample-F1 and set-F1 are means; precision, recall and F1 are over its (item, label) entries.
MEASURES: dict[Measure, MeasureText] = {
    "mAP": MeasureText(
        "AP",
        "average precision",
        {"map": "mAP", "sample_f1": "sample-F1", "accuracy": "accuracy", "exact_match": "exact match"},
    ),
    "F1": MeasureText(
        "F1",
        "F1",
        {
            "precision": "precision",
            "recall": "recall",
            "f1": "F1",
            "sample_f1": "set-F1",
            "exact_match": "exact match",
        },
    ),
}

BASELINE_NAMES = {"all_negative": "all-negative", "label_prior": "label prior"}


def label_report(results: LabelResults, brief: bool = False) -> Report:
    """
    What every medium shows of a run; a part without numbers is left out. `brief`: only the labels that moved most.

    A new part is one more function from the results to a [`Block`] (or `None`), named in one of the two lists below.
    """
    unmeasured = [name for name in results.partition if name not in results.changes()]
    lacking = f"Not measured, for want of a positive in this split: {', '.join(unmeasured)}."
    first: list[Shown | None] = [groups_block(results), Sentences((*promises(results), *results.notes))]
    further: list[Shown | None] = [
        moved_block(results, 5 if brief else None),
        Sentences((lacking,) if unmeasured else ()),
        *further_blocks(results),
        calibration_block(results),
        Lines("Group weights during training", "weight", results.weights_history, results.partition),
        Pictures("Best labels per image", tuple(_picture(sample, results) for sample in results.samples)),
    ]
    how = {"method": results.method, "seeds": ", ".join(map(str, results.seeds))}
    return Report(
        title=results.title,
        kind="label sets" if results.measure == "F1" else "multi-label classifier",
        first=with_content(first),
        further=with_content(further),
        facts=known(label_facts(results) | how | circumstances(results)),
        settings=results.settings,
        command=results.command,
        verdict=label_verdict(results),
    )


def groups_block(results: LabelResults) -> Block:
    """Reference and trained model per group, with what the trivial baselines get beside them."""
    before, after = results.evaluations.reference.by_group, results.evaluations.trained.by_group
    comparison, measure = results.comparison, MEASURES[results.measure]

    def cells(values: Mapping[str, Any], suffix: str = "") -> Row:
        return tuple(Value(values.get(column + suffix), "percent") for column in measure.columns)

    sections = []
    for group in (group for group in GROUPS if group in before):
        row = comparison.by_group.get(group)
        rows: list[Row] = [
            ("reference", *cells(before[group]), ABSENT),
            ("trained", *cells(after[group]), Change(row.change if row else None)),
        ]
        if results.measure == "mAP":  # a set without scores has no trivial baseline
            rows += [(name, *cells(before[group], f"_{key}"), ABSENT) for key, name in BASELINE_NAMES.items()]
        labels = before[group].get("labels_counted", before[group].get("labels"))
        sections.append((f"{role_text(group)}, {labels} labels" if labels else role_text(group), tuple(rows)))
    return Block(
        f"Metrics by group, in per cent; change of {results.measure} in points with {100 * comparison.level:.0f} % "
        "intervals",
        ("", *measure.columns.values(), f"change of {results.measure}"),
        tuple(sections),
        note=_conventions(results),
    )


def moved_block(results: LabelResults, most: int | None = None) -> Block | None:
    """The `most` labels that gained most in AP (or F1) and as many that fell most; `None`: all labels, best first."""
    measure, changes = MEASURES[results.measure], results.changes()
    ordered = sorted(changes, key=lambda name: (-changes[name].mean, name))
    gained = [name for name in ordered if changes[name].mean > 0]
    fell = [name for name in reversed(ordered) if changes[name].mean < 0]

    def cells(name: str) -> Row:
        row, key = results.comparison.by_label[name], measure.label.lower()
        return (
            name,
            role_text(results.partition[name]),
            Value(results.label_counts[name], "count"),
            Value(row.get("positives"), "count"),
            Value(row.get(f"{key}_reference"), "percent"),
            Value(row.get(key), "percent"),
            Change(changes[name]),
        )

    if not ordered:
        return None
    names = {"": ordered} if most is None else {"gained most": gained[:most], "fell most": fell[:most]}
    return Block(
        f"Change of {measure.words} per label, in points"
        if most is None
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
        tuple((title, tuple(map(cells, found))) for title, found in names.items()),
        texts=2,
        note="" if most is not None else _by_chance(results),
        roles=tuple(results.partition[name] for found in names.values() for name in found),
        drawn=6,
        filtered=True,
    )


def calibration_block(results: LabelResults) -> Block | None:
    """Expected calibration error and Brier score by group, before and after a temperature; `None` if not measured."""
    if results.calibration is None:
        return None
    found = results.calibration.by_model()
    columns = {
        "ece": "ECE",
        "ece_temperature": "ECE with\ntemperature",
        "brier": "Brier",
        "brier_temperature": "Brier with\ntemperature",
        "brier_all_negative": "Brier,\nall-negative",
        "brier_label_prior": "Brier,\nlabel prior",
    }
    rows: list[tuple[str, Row]] = [
        (role_text(group), (model, *(Value(frame[group].get(column), "fine") for column in columns)))
        for group in GROUPS
        if group in found["reference"]
        for model, frame in found.items()
    ]
    return Block("Calibration", ("", *columns.values()), sections_of(rows))


def promises(results: LabelResults) -> list[str]:
    """Sentences on held labels that fell, and on hinge and confusion where they were measured."""
    hinge, comparison, confusion = results.hinge, results.comparison, results.confusion
    found = []
    if hinge.pairs is not None:
        slack = f" + {hinge.eps:g}" if hinge.eps is not None else ""
        found.append(
            f"Hinge: loss at most the reference's{slack} for {percent(hinge.pairs)} % of the held (image, label) "
            f"pairs and, in the mean, for {percent(hinge.labels)} % of the held labels."
        )
    fell, surely = comparison.fell, set(comparison.fell_surely)
    names = ", ".join(f"{name} ▼" if name in surely else name for name in fell)
    found.append(
        f"Held labels whose {MEASURES[results.measure].label} fell by more than {points_text(comparison.eps)}: "
        f"{len(fell)}" + (f" ({names}); ▼ with the whole interval: {len(surely)}." if fell else ".")
    )
    if confusion.reference is not None:
        found.append(
            f"Confusion: {percent(confusion.reference)} % -> {percent(confusion.trained)} % of the "
            "privileged labels present in an image are outscored by some absent label."
        )
    return found


def further_blocks(results: LabelResults) -> list[Shown]:
    """The further tables of a run, with the picture of those that have one."""
    found: list[Shown] = []
    for table in results.tables:
        rows = tuple(map(tuple, table.rows))
        found.append(
            Block(table.title, tuple(table.header), (("", rows),), texts=table.texts, note=table.note, wide=True)
        )
        if table.picture is not None:
            found.append(Figure(table.title, table.picture))
    return found


def label_facts(document: LabelDocument) -> dict[str, str]:
    """What is in each split, and the labels of each role."""
    facts = {}
    for split, summary in document.data.items():
        counted = (
            f"{value:,} {name}"
            if isinstance(value, int) and name in ("images", "items", "series")
            else f"{name} {value}"
            for name, value in summary.items()
        )
        facts[split] = ", ".join(counted)
    for role in ROLES:
        names = document.names_of(role)
        named = (f"{name} ({document.label_counts[name]})" for name in names)
        facts[f"{len(names)} {role_text(role)}"] = ", ".join(named) or ABSENT
    return facts


def circumstances(document: LabelDocument) -> dict[str, str | None]:
    """Hardware and time."""
    return {
        "hardware": document.hardware,
        "time": None if document.seconds is None else duration(document.seconds),
    }


def metric_cells(groups: Mapping[str, Mapping[str, float | None]]) -> Row:
    """The four metrics of either role, in per cent."""
    return tuple(Value(groups.get(role, {}).get(metric), "percent") for role in ROLES for metric in METRICS)


def _picture(sample: LabelSample, results: LabelResults) -> Picture:
    roles = results.partition
    true = sorted(sample.true, key=lambda name: roles[name] != "privileged")
    guesses = tuple(
        (model, tuple(Guess(name, roles[name], name in sample.true, p) for name, p in top))
        for model, top in (("reference", sample.reference), ("trained", sample.trained))
    )
    return Picture(sample.id, sample.image, tuple((name, roles[name]) for name in true), guesses)


def _by_chance(results: LabelResults) -> str:
    """What the signs mean, and how many held labels would look worse without having got worse."""
    level, changes = results.comparison.level, results.changes()
    expected = (1 - level) / 2 * sum(results.partition[name] == "non_privileged" for name in changes)
    note = f"▲ better, ▼ worse, ≈ unclear: whether the {100 * level:.0f} % interval holds 0."
    if expected >= 0.1:
        note += f" By chance alone about {expected:.1f} of the held labels would look worse if none were."
    return note


def _conventions(results: LabelResults) -> str:
    trained, comparison = results.evaluations.trained, results.comparison
    sets = results.measure == "F1"
    units = f"{comparison.series} {'items' if sets else 'series'}"
    bootstrap = f"Intervals: paired bootstrap over {units}, {comparison.resamples} resamples."
    if sets:
        return (
            "Precision, recall and F1: over all (item, label) entries of the group. Set-F1: mean over items of 2 hits "
            f"/ (predicted + true labels), {trained.samples} items. {bootstrap}"
        )
    without = [*trained.labels_without_positives, *trained.labels_without_negatives]
    kind = "a positive and a negative" if trained.labels_without_negatives else "a positive"
    left_out = f"{len(without)} left out: {', '.join(without)}" if without else "none left out"
    division = "nan" if trained.zero_division is None else f"{trained.zero_division:g}"
    return (
        f"mAP: macro over labels with {kind} in this split ({left_out}). Sample-F1: zero_division = {division}, "
        f"samples = {trained.samples}. {bootstrap} All-negative and label prior look at no image: accuracy and exact "
        "match of rare labels are high without learning anything."
    )

"""The report of many methods on one split: the slides' table, what a gain cost, the labels."""

from __future__ import annotations

from collections.abc import Callable

from fairpo_trl.reporting.blocks import Block, Report, Row, Sentences, Shown, known, sections_of, with_content
from fairpo_trl.reporting.cells import Change, Value
from fairpo_trl.reporting.comparison_results import CONTINUED, LabelComparison, MethodResult
from fairpo_trl.reporting.documents import Role
from fairpo_trl.reporting.label_report import BASELINE_NAMES, circumstances, label_facts, metric_cells
from fairpo_trl.reporting.label_results import METRICS
from fairpo_trl.reporting.numbers import ABSENT
from fairpo_trl.reporting.verdict import points_text


METRIC_NAMES = {"map": "mAP", "sample_f1": "F1", "accuracy": "acc", "exact_match": "EMR"}
SECTION_NAMES = {
    "trivial": "trivial baselines",
    "reference": "reference",
    "methods": "methods",
    "reweighting": "re-weighting curve",
    "ablations": "ablations",
    "variants": "variants",
}
MOST_SHOWN, HELD_LABELS = 4, 10
"""Methods beside each other in the table of labels, and its held labels in a terminal."""


def comparison_report(comparison: LabelComparison, brief: bool = False) -> Report:
    """
    What every medium shows of a comparison; `brief`: for a terminal only the first head's labels, and of the held ones
    those with the lowest change.
    """
    heads, facts = comparison.used_heads(), label_facts(comparison)
    notes = Sentences(tuple(comparison.notes))
    tables: list[Shown | None] = []
    for head in heads:
        tables += [main_block(comparison, head), detail_block(comparison, head)]
        if not brief:
            tables += [fell_block(comparison, head), per_label_block(comparison, head)]
    if brief and heads:
        tables.append(per_label_block(comparison, heads[0], HELD_LABELS))
    tables.append(confused_block(comparison))
    return Report(
        title=comparison.title,
        kind="comparison of methods",
        first=with_content([Sentences(tuple(f"{name}: {text}" for name, text in facts.items())) if brief else notes]),
        further=with_content([*tables, notes if brief else None]),
        facts=known(facts | circumstances(comparison)),
        settings=comparison.settings,
        command=comparison.command,
    )


def main_block(comparison: LabelComparison, head: str) -> Block:
    """The table of the slides: four metrics of both groups, and the change of mAP(P) against two controls."""

    def row(method: MethodResult) -> Row:
        changes = (method.delta_reference, method.delta_continued)
        return (*metric_cells(method.groups), *(Change(found.get("privileged")) for found in changes))

    trivial: list[tuple[str, Row]] = [
        (SECTION_NAMES["trivial"], (BASELINE_NAMES.get(name, name), *metric_cells(groups), ABSENT, ABSENT))
        for name, groups in comparison.trivial.items()
    ]
    return Block(
        f"Means over seeds, in per cent. Head: {comparison.heads[head]}",
        (
            "method",
            *(f"{group}\n{METRIC_NAMES[metric]}" for group in ("P", "held") for metric in METRICS),
            "change of mAP(P)\nvs reference",
            "change of mAP(P)\nvs continued BCE",
        ),
        sections_of([*trivial, *_rows(comparison, head, row)]),
        note="P: privileged labels. Changes in points, ± standard deviation over seeds, [95 % interval over series]; "
        "▲ better, ▼ worse, ≈ unclear: whether the interval holds 0. All-negative and label prior look at no image.",
        wide=True,
    )


def detail_block(comparison: LabelComparison, head: str) -> Block:
    """What a gain cost: the held labels, the hinge, confusion, the long tail; and the slides' protocol, set apart."""

    def row(method: MethodResult) -> Row:
        hinge, fell, surely = method.hinge, method.fell, method.fell_surely
        return (
            Change(method.delta_reference.get("non_privileged")),
            ABSENT if fell is None or surely is None else f"{len(fell)} ({len(surely)})",
            *(
                Value(value, "percent")
                for value in (
                    hinge.pairs if hinge else None,
                    hinge.labels if hinge else None,
                    method.confusion,
                    *(method.bands.get(band) for band in ("head", "mid", "tail")),
                    *(method.groups.get(group, {}).get("paper_map") for group in ("privileged", "non_privileged")),
                )
            ),
        )

    return Block(
        f"What it cost. Head: {comparison.heads[head]}",
        (
            "method",
            "change of\nmAP(held)",
            "held\nthat\nfell",
            "hinge\npairs",
            "hinge\nlabels",
            "con-\nfused",
            "mAP\nhead",
            "mAP\nmid",
            "mAP\ntail",
            "slides'\nP*",
            "slides'\nheld*",
        ),
        sections_of(_rows(comparison, head, row)),
        note=f"Held that fell: labels whose AP fell by more than {_allowed(comparison)} (those whose whole interval "
        "did). Hinge: share of held pairs, and of held labels in the mean, no worse than the reference. Confused: "
        "share of present privileged labels outscored by an absent one. Head, mid, tail: thirds of the labels by "
        "frequency in train. * Mean of per-batch mAPs, as in the slides' code: NOT comparable with any mAP here or "
        "elsewhere.",
        wide=True,
    )


def per_label_block(comparison: LabelComparison, head: str, most_held: int | None = None) -> Block | None:
    """
    Change of AP per label for continued BCE and the FairPO methods of a head; `None` if none was measured.

    Of the held labels, those with the lowest change come first; `most_held`: how many of them are shown.
    """
    measured = [method for method in comparison.of_head(head) if method.key in comparison.per_label]
    own = [m for m in measured if m.section == "methods" and m.name.startswith((CONTINUED, "fairpo"))]
    shown = (own or measured)[:MOST_SHOWN]
    if not shown:
        return None
    columns = [comparison.per_label[method.key] for method in shown]
    counts = comparison.label_counts

    def lowest(name: str) -> float:
        return min((column[name].mean for column in columns if name in column), default=float("inf"))

    def rows(role: Role, order: Callable[[str], float], most: int | None = None) -> tuple[Row, ...]:
        names = sorted(comparison.names_of(role), key=order)
        return tuple(
            (name, Value(counts[name], "count"), *(Change(column.get(name)) for column in columns))
            for name in names[:most]
        )

    held = "held, lowest change first" + ("" if most_held is None else f", {most_held} at most")
    return Block(
        f"Change of AP per label against the reference, in points. Head: {comparison.heads[head]}",
        ("label", "in\ntrain", *(method.label for method in shown)),
        (
            ("privileged, rarest first", rows("privileged", lambda name: counts[name])),
            (held, rows("non_privileged", lowest, most_held)),
        ),
        wide=True,
    )


def fell_block(comparison: LabelComparison, head: str) -> Block | None:
    """Which held labels fell under which method; `None` if it was not measured."""
    rows: list[Row] = []
    for method in comparison.of_head(head):
        if method.fell is not None:
            surely = method.fell_surely or []
            names = (f"{name} ▼" if name in surely else name for name in method.fell)
            rows.append((_named(comparison, method), ", ".join(names) or "none"))
    if not rows:
        return None
    return Block(
        f"Held labels that fell by more than {_allowed(comparison)}, worst first (▼ with their whole interval). "
        f"Head: {comparison.heads[head]}",
        ("method", "labels"),
        (("", tuple(rows)),),
        texts=2,
    )


def confused_block(comparison: LabelComparison) -> Block | None:
    """The most confused pairs of labels, before and after; `None` if there are none."""
    found = comparison.confused_pairs
    if not found.pairs:
        return None
    rows = tuple(
        (
            pair.label,
            pair.confused_with,
            Value(pair.opportunities, "count"),
            Value(pair.before, "count"),
            Value(pair.after, "count"),
            f"{pair.after - pair.before:+d}",
        )
        for pair in found.pairs
    )
    after = f" (after: {found.method})" if found.method else ""
    return Block(
        f"Most confused pairs: images with a privileged label in which an absent one scores as high{after}",
        ("label present", "absent label", "images", "before", "after", "change"),
        (("", rows),),
        texts=2,
    )


def _allowed(comparison: LabelComparison) -> str:
    """The fall that a held label was allowed, in words."""
    return "the allowed points" if comparison.allowed_fall is None else points_text(comparison.allowed_fall)


def _named(comparison: LabelComparison, method: MethodResult) -> str:
    """The method's label, with its number of seeds where that is not everyone's."""
    usual = max((m.seeds for m in comparison.methods if m.seeds is not None), default=None)
    if method.seeds in (None, usual):
        return method.label
    return f"{method.label} ({method.seeds} of {usual} seeds)"


def _rows(comparison: LabelComparison, head: str, row: Callable[[MethodResult], Row]) -> list[tuple[str, Row]]:
    """(section, row) of the methods of a head."""
    return [
        (SECTION_NAMES[method.section], (_named(comparison, method), *row(method)))
        for method in comparison.of_head(head)
    ]

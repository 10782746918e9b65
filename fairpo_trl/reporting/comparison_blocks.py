"""The tables of the comparison of methods as plain text cells: the slides' table, what it cost, labels."""

from collections.abc import Callable

from fairpo_trl.reporting.label_blocks import BASELINE_NAMES, METRIC_NAMES, Block, metric_cells
from fairpo_trl.reporting.label_results import (
    CONTINUED,
    METRICS,
    SECTIONS,
    LabelComparison,
    MethodResult,
    method_key,
)
from fairpo_trl.reporting.numbers import ABSENT, delta, percent
from fairpo_trl.reporting.results import Role


SECTION_NAMES = {
    "trivial": "trivial baselines",
    "reference": "reference",
    "methods": "methods",
    "reweighting": "re-weighting curve",
    "ablations": "ablations",
    "variants": "variants",
}


def of_head(comparison: LabelComparison, head: str) -> list[MethodResult]:
    """The methods of a head in the order of the sections."""
    found = [method for method in comparison["methods"] if method["head"] == head]
    return sorted(found, key=lambda method: SECTIONS.index(method["section"]))


def heads(comparison: LabelComparison) -> list[str]:
    """The heads that have a method."""
    return [head for head in comparison["heads"] if of_head(comparison, head)]


def main_block(comparison: LabelComparison, head: str) -> Block:
    """The table of the slides: four metrics of both groups, and the change of mAP(P) against two controls."""

    def row(method: MethodResult) -> tuple[str, ...]:
        groups = method["groups"]
        return (
            *metric_cells(groups.get("privileged", {})),
            *metric_cells(groups.get("non_privileged", {})),
            delta(method.get("delta_reference", {}).get("privileged")),
            delta(method.get("delta_continued", {}).get("privileged")),
        )

    trivial = tuple(
        (
            BASELINE_NAMES.get(name, name),
            *metric_cells(groups.get("privileged", {})),
            *metric_cells(groups.get("non_privileged", {})),
            ABSENT,
            ABSENT,
        )
        for name, groups in comparison["trivial"].items()
    )
    metrics = tuple(METRIC_NAMES[metric] for metric in METRICS)
    return Block(
        f"Means over seeds, in per cent. Head: {comparison['heads'][head]}",
        (
            "method",
            *(f"P\n{name}" for name in metrics),
            *(f"held\n{name}" for name in metrics),
            "change of mAP(P)\nvs reference",
            "change of mAP(P)\nvs continued BCE",
        ),
        (*((SECTION_NAMES["trivial"], rows) for rows in (trivial,) if rows), *_in_sections(comparison, head, row)),
        note="P: privileged labels. Changes in points, ± standard deviation over seeds, [95 % interval over series]; "
        "▲ better, ▼ worse, ≈ unclear: whether the interval holds 0. All-negative and label prior look at no image.",
        wide=True,
    )


def detail_block(comparison: LabelComparison, head: str) -> Block:
    """What a gain cost: the held labels, the hinge, confusion, the long tail; and the slides' protocol, set apart."""

    def row(method: MethodResult) -> tuple[str, ...]:
        hinge = method.get("hinge")
        groups = method["groups"]
        fell = (
            f"{len(method['fell'])} ({len(method['fell_surely'])})"
            if "fell" in method and "fell_surely" in method
            else ABSENT
        )
        return (
            delta(method.get("delta_reference", {}).get("non_privileged")),
            fell,
            percent(hinge["pairs"] if hinge else None),
            percent(hinge["labels"] if hinge else None),
            percent(method.get("confusion")),
            *(percent(method.get("bands", {}).get(band)) for band in ("head", "mid", "tail")),
            *(percent(groups.get(group, {}).get("paper_map")) for group in ("privileged", "non_privileged")),
        )

    return Block(
        f"What it cost. Head: {comparison['heads'][head]}",
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
        _in_sections(comparison, head, row),
        note=f"Held that fell: labels whose AP fell by more than {_allowed(comparison)} (those whose whole interval "
        "did). Hinge: share of held pairs, and of held labels in the mean, no worse than the reference. Confused: "
        "share of present privileged labels outscored by an absent one. Head, mid, tail: thirds of the labels by "
        "frequency in train. * Mean of per-batch mAPs, as in the slides' code: NOT comparable with any mAP here or "
        "elsewhere.",
        wide=True,
    )


def per_label_block(comparison: LabelComparison, head: str, most_held: int | None = None) -> Block | None:
    """Change of AP per label for continued BCE and the FairPO methods of a head; `None` if none was measured.

    Args:
        comparison: Many methods.
        head: One of its heads.
        most_held: Number of held labels shown, those with the lowest change first; all of them for `None`.
    """
    per_label = comparison.get("per_label", {})
    measured = [method for method in of_head(comparison, head) if method_key(method) in per_label]
    shown = [m for m in measured if m["section"] == "methods" and m["name"].startswith((CONTINUED, "fairpo"))]
    shown = (shown or measured)[:4]
    if not shown:
        return None
    columns = [per_label[method_key(method)] for method in shown]
    counts = comparison["label_counts"]

    def lowest(name: str) -> float:
        return min((column[name]["mean"] for column in columns if name in column), default=float("inf"))

    def rows(role: Role, order: Callable[[str], float], most: int | None = None) -> tuple[tuple[str, ...], ...]:
        names = sorted((name for name, found in comparison["partition"].items() if found == role), key=order)
        return tuple(
            (name, str(counts[name]), *(delta(column.get(name)) for column in columns)) for name in names[:most]
        )

    held = "held, lowest change first"
    return Block(
        f"Change of AP per label against the reference, in points. Head: {comparison['heads'][head]}",
        ("label", "in\ntrain", *(method["label"] for method in shown)),
        (
            ("privileged, rarest first", rows("privileged", lambda name: counts[name])),
            (
                held if most_held is None else f"{held}, {most_held} at most",
                rows("non_privileged", lowest, most_held),
            ),
        ),
        wide=True,
    )


def fell_block(comparison: LabelComparison, head: str) -> Block | None:
    """Which held labels fell under which method; `None` if it was not measured."""
    methods = [method for method in of_head(comparison, head) if "fell" in method]
    if not methods:
        return None
    rows = tuple(
        (
            _named(comparison, method),
            ", ".join(f"{name} ▼" if name in method.get("fell_surely", []) else name for name in method["fell"])
            or "none",
        )
        for method in methods
    )
    return Block(
        f"Held labels that fell by more than {_allowed(comparison)}, worst first (▼ with their whole interval). "
        f"Head: {comparison['heads'][head]}",
        ("method", "labels"),
        (("", rows),),
        texts=2,
    )


def confused_block(comparison: LabelComparison) -> Block | None:
    """The most confused pairs of labels, before and after; `None` if there are none."""
    found = comparison.get("confused_pairs", {})
    if not found.get("pairs"):
        return None
    rows = tuple(
        (
            pair["label"],
            pair["confused_with"],
            str(pair.get("opportunities", ABSENT)),
            str(pair["before"]),
            str(pair["after"]),
            f"{pair['after'] - pair['before']:+d}",
        )
        for pair in found["pairs"]
    )
    after = f" (after: {found['method']})" if "method" in found else ""
    return Block(
        f"Most confused pairs: images with a privileged label in which an absent one scores as high{after}",
        ("label present", "absent label", "images", "before", "after", "change"),
        (("", rows),),
        texts=2,
    )


def _allowed(comparison: LabelComparison) -> str:
    """The fall that a held label was allowed, in words."""
    if "allowed_fall" not in comparison:
        return "the allowed points"
    allowed = 100 * comparison["allowed_fall"]
    return f"{allowed:g} point" + ("" if allowed == 1 else "s")


def _named(comparison: LabelComparison, method: MethodResult) -> str:
    """The method's label, with its number of seeds where that is not everyone's."""
    usual = max((m["seeds"] for m in comparison["methods"] if "seeds" in m), default=None)
    if "seeds" not in method or method["seeds"] == usual:
        return method["label"]
    return f"{method['label']} ({method['seeds']} of {usual} seeds)"


def _in_sections(
    comparison: LabelComparison, head: str, row: Callable[[MethodResult], tuple[str, ...]]
) -> tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]:
    methods = of_head(comparison, head)
    return tuple(
        (SECTION_NAMES[section], rows)
        for section in SECTIONS
        if (rows := tuple((_named(comparison, m), *row(m)) for m in methods if m["section"] == section))
    )

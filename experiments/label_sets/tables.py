"""The comparison's points as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from label_sets.report import Written, measure_all, set_blocks, show

from fairpo_trl.files import write_json
from fairpo_trl.label_sets.measures import change, resample_items
from fairpo_trl.reporting import LabelComparison
from fairpo_trl.reporting.comparison_plot import plot_pareto
from fairpo_trl.reporting.documents import ROLES, Interval
from fairpo_trl.reporting.plots import plot_label_deltas

from .measure import REFERENCE, Row, SetComparison


TITLE = "Label sets written by a language model"
ALLOWED_FALL = 0.01
"""Of the F1 of the held labels, in a search."""


def write_tables(
    comparison: SetComparison, rows: Sequence[Row], seeds: Sequence[int], families: Mapping[str, Sequence[Row]]
) -> None:
    """
    Prints the comparison of the points there are and writes `comparison.md`, `comparison.json` and its pictures; for
    a search, where `families` holds the rows of which one is to be chosen, `search.md` and `search.json`.

    All rows are shown with the seeds that every one of them has, so that differences are paired.

    Raises:
        ValueError: If no seed has its reference.
    """
    prepared = [seed for seed in seeds if comparison.complete(REFERENCE, seed)]
    if not prepared:
        raise ValueError(f"{comparison.folder.name!r} has no complete reference: run without --tables_only.")
    shown = [row for row in rows if any(comparison.complete(row, seed) for seed in prepared)]
    done = [seed for seed in prepared if all(comparison.complete(row, seed) for row in shown)]
    if not done:
        raise ValueError(f"No seed of {prepared} has all rows {[row.name for row in shown]} yet: run again.")
    named: list[tuple[str, Written]] = []
    for row in shown:
        named.append((row.name, comparison.written(row, done)))
        if row.constrained:
            named.append((f"{row.name}_constrained", comparison.written(row, done, "constrained")))
    methods = [method for _, method in named]
    labels = comparison.parts["test"].split.labels
    blocks = set_blocks(labels, methods, comparison.partition)
    measures, weights = measure_all(labels, methods, comparison.partition), resample_items(len(labels))
    numbers = []
    for method in methods:
        found = measures[method.label]
        values = {name: value for name in found.names if not np.isnan(value := found.mean(name))}
        changes = {}
        if method.reference is not None:
            base = measures[method.reference]
            changes = {name: delta for name in found.names if (delta := change(found, base, name, weights))}
        numbers.append(
            {"label": method.label, "values": values, "changes": changes, "problems": dict(method.problems)}
        )
    notes, name, title = _notes(comparison, shown, done), "comparison", TITLE
    images: dict[str, str] = {}
    if families:
        notes, name, title = [*choices(families, numbers), *notes], "search", f"{TITLE}: validation items"
        blocks = blocks[:-1]  # too few items of a label
    else:
        images = _pictures(comparison, named, numbers, len(done))
    show(blocks, notes, title, comparison.folder / f"{name}.md", images)
    write_json(
        comparison.folder / f"{name}.json",
        {
            "seeds": done,
            "model": comparison.origin,
            "partition": comparison.partition.to_dict()["roles"],
            "label_counts": {name: part.split.label_counts() for name, part in comparison.parts.items()},
            "pairs": {str(seed): comparison.pairs(seed)["counts"] for seed in done},
            "methods": numbers,
        },
        indent=1,
    )
    print(f"Written to {comparison.folder}: {', '.join([f'{name}.md', f'{name}.json', *images.values()])}")


def choices(families: Mapping[str, Sequence[Row]], numbers: Sequence[dict[str, Any]]) -> list[str]:
    """
    The row of each family that gains most F1 of the privileged labels among those whose held labels lose at most
    [`ALLOWED_FALL`]; where all lose more, the one that loses least.
    """
    changes = {entry["label"]: entry["changes"] for entry in numbers}
    found = []
    for family, rows in families.items():
        gained = {
            row.label: (changes[row.label]["privileged/f1"]["mean"], changes[row.label]["non_privileged/f1"]["mean"])
            for row in rows
            if row.label in changes
        }
        kept = {label: gain for label, (gain, held) in gained.items() if held >= -ALLOWED_FALL}
        chosen = max(kept, key=kept.__getitem__) if kept else max(gained, key=lambda label: gained[label][1])
        found.append(f"Chosen of {family}: {chosen}" + ("." if kept else "; all lose more than allowed."))
    return found


def _pictures(
    comparison: SetComparison, named: Sequence[tuple[str, Written]], numbers: Sequence[dict[str, Any]], seeds: int
) -> dict[str, str]:
    """Privileged against held labels for all methods, and FairPO's change of every label; description -> file."""
    partition = comparison.partition.to_dict()["roles"]
    methods, images = [], {}
    for (name, method), found in zip(named, numbers, strict=True):
        if method.reference is None:
            continue
        deltas = {role: d for role in ROLES if (d := found["changes"].get(f"{role}/f1"))}
        if len(deltas) == len(ROLES):
            methods.append(
                {"name": name, "label": method.label, "section": "methods", "head": "sets", "groups": {}}
                | {"seeds": seeds, "delta_reference": deltas}
            )
        by_label = {label: Interval(**d) for label in partition if (d := found["changes"].get(f"label/{label}/f1"))}
        if name == "fairpo" and by_label:
            path = comparison.folder / "label_deltas.png"
            plot_label_deltas(by_label, partition, path, TITLE, method.label, measure="F1")
            images["Change of F1 per label, FairPO"] = path.name
    if methods:
        document = {
            "title": TITLE,
            "measure": "F1",
            "data": {},
            "partition": partition,
            "label_counts": comparison.parts["train"].split.label_counts(),
            "heads": {"sets": "label sets"},
            "trivial": {},
            "methods": methods,
        }
        path = plot_pareto(LabelComparison(**document), comparison.folder / "pareto.png")
        images = {"Privileged against held labels": path.name, **images}
    return images


def _notes(comparison: SetComparison, rows: Sequence[Row], seeds: Sequence[int]) -> list[str]:
    """Data, roles, pairs and costs in words."""
    counts = comparison.parts["train"].split.label_counts()
    pairs = [comparison.pairs(seed)["counts"] for seed in seeds]

    def mean(name: str) -> float:
        return float(np.mean([entry[name] for entry in pairs]))

    minutes = {
        row.name: float(np.mean([_processor_seconds(comparison, row, seed) for seed in seeds])) / 60 for row in rows
    }
    minutes.pop("classifier_fairpo", None)  # one run writes both
    return [
        f"Seeds: {', '.join(map(str, seeds))}. {len(comparison.parts['train'])} training items, "
        f"{len(comparison.parts['test'])} test items, {len(comparison.vocabulary.labels)} labels.",
        "Privileged: " + ", ".join(f"{name} ({counts[name]} in train)" for name in comparison.partition.privileged)
        + ".",
        f"Pairs, mean over seeds: {mean('pairs'):.0f}, of which {mean('own'):.0f} are the model's own mistakes and "
        f"{mean('made_up'):.0f} made up; {mean('items_unreadable'):.0f} items without a readable set; "
        f"{100 * mean('drawn_malformed_sets'):.1f} % of the drawn sets malformed. Chosen set first in canonical order "
        f"in {100 * mean('chosen_first'):.0f} %, longer in {100 * mean('chosen_longer'):.0f} %, shorter in "
        f"{100 * mean('chosen_shorter'):.0f} %.",
        f"A seed: {sum(minutes.values()):.0f} processor minutes; of a row: "
        + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items()) + ".",
        f"Model: {comparison.origin}",
    ]  # fmt: skip


def _processor_seconds(comparison: SetComparison, row: Row, seed: int) -> float:
    facts = comparison.read(row, seed)["facts"]
    return sum(value for name, value in facts.items() if name.endswith("_cpu_seconds"))

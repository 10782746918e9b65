"""The comparison's points as tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairpo_trl.files import write_json
from fairpo_trl.label_sets.measures import change, resample_items

from .comparison import REFERENCE, Row, SetComparison
from .report import measure_all, set_blocks, show


def write_tables(comparison: SetComparison, rows: Sequence[Row], seeds: Sequence[int]) -> None:
    """
    Prints the comparison of the points there are and writes `comparison.md` and `comparison.json`.

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
    methods = []
    for row in shown:
        methods.append(comparison.written(row, done))
        if row.constrained:
            methods.append(comparison.written(row, done, "constrained"))
    labels = comparison.parts["test"].split.labels
    blocks = set_blocks(labels, methods, comparison.partition)
    notes = [*_notes(comparison, shown, done)]
    show(blocks, notes, "Label sets written by a language model", comparison.folder / "comparison.md")

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
    write_json(
        comparison.folder / "comparison.json",
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
    print(f"Written to {comparison.folder}: comparison.md, comparison.json")


def _notes(comparison: SetComparison, rows: Sequence[Row], seeds: Sequence[int]) -> list[str]:
    """Data, roles, pairs and costs in words."""
    counts = comparison.parts["train"].split.label_counts()
    pairs = [comparison.pairs(seed)["counts"] for seed in seeds]

    def mean(name: str) -> float:
        return float(np.mean([entry[name] for entry in pairs]))

    seconds = {
        row.name: {
            kind: float(np.mean([
                sum(v for k, v in comparison.read(row, seed)["facts"].items()
                    if k.endswith(kind) and (kind == "_cpu_seconds" or not k.endswith("_cpu_seconds")))
                for seed in seeds
            ]))
            for kind in ("_seconds", "_cpu_seconds")
        }
        for row in rows
    }  # fmt: skip
    seconds.pop("classifier_fairpo", None)  # one run writes both
    total = {kind: sum(entry[kind] for entry in seconds.values()) for kind in ("_seconds", "_cpu_seconds")}
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
        f"A seed: {total['_cpu_seconds'] / 60:.0f} processor minutes, {total['_seconds'] / 60:.0f} minutes of work "
        "one after the other; processor minutes a row: "
        + ", ".join(f"{name} {entry['_cpu_seconds'] / 60:.1f}" for name, entry in seconds.items()) + ".",
        f"Model: {comparison.origin}",
    ]  # fmt: skip

"""Tables of written label sets, in the form of the classifier's reports: of one run, or of many methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairpo_trl import Partition
from fairpo_trl.files import write_text
from fairpo_trl.label_sets.measures import SetMeasures, change, resample_items
from fairpo_trl.reporting.blocks import Block
from fairpo_trl.reporting.cells import Value, change_of
from fairpo_trl.reporting.numbers import ABSENT, role_text
from fairpo_trl.reporting.render.markdown import block_markdown, image_markdown
from fairpo_trl.reporting.render.terminal import new_console, print_part


PROBLEMS = {
    "malformed_sets": "malformed",
    "unknown": "unknown\nlabel",
    "repeated": "repeated\nlabel",
    "form": "broken\nform",
    "cut": "cut\noff",
    "out_of_order": "other\norder",
}


@dataclass(frozen=True)
class Written:
    """
    What one method wrote.

    Attributes:
        label (`str`): Name in tables.
        predicted (`np.ndarray`): `[seeds, items, labels]`, 0 and 1; a malformed text is an empty set.
        problems (`Mapping[str, float]`, *optional*): Shares of texts with a problem, see `count_problems`; a
            classifier has none.
        reference (`str`, *optional*): Label of what it is compared with.
    """

    label: str
    predicted: NDArray[np.bool_]
    problems: Mapping[str, float] = field(default_factory=dict)
    reference: str | None = None


def measure_all(labels: NDArray[Any], methods: Sequence[Written], partition: Partition) -> dict[str, SetMeasures]:
    """The measures of every method, by its label."""
    return {method.label: SetMeasures(labels, method.predicted, partition) for method in methods}


def set_blocks(labels: NDArray[Any], methods: Sequence[Written], partition: Partition) -> list[Block]:
    """
    The tables: sets and groups, what was read, and the change of every label.

    Args:
        labels (`np.ndarray`): `[items, labels]`: the true sets.
        methods (`Sequence[Written]`): References before what is compared with them.
        partition (`Partition`): Labels and roles.
    """
    measures = measure_all(labels, methods, partition)
    weights = resample_items(len(labels))

    def against(method: Written, name: str) -> dict[str, float] | None:
        if method.reference is None:
            return None
        return change(measures[method.label], measures[method.reference], name, weights)

    roles = [group.name for group in partition.groups("role")]
    sets, groups, read, deltas = [], [], [], []
    for method in methods:
        found = measures[method.label]
        sets.append(
            (
                method.label,
                _percent(found.mean("set_f1")),
                change_of(against(method, "set_f1")),
                _percent(found.mean("exact_match")),
                Value(found.mean("size_error"), "decimal", signed=True),
                Value(found.mean("absolute_size_error"), "decimal"),
                Value(method.problems.get("malformed_sets"), "percent"),
            )
        )
        for role in roles:
            groups.append(
                (
                    f"{method.label}: {role_text(role)}",
                    *(_percent(found.mean(f"{role}/{name}")) for name in ("precision", "recall", "f1")),
                    *(change_of(against(method, f"{role}/{name}")) for name in ("recall", "f1")),
                )
            )
        if method.problems:
            read.append((method.label, *(Value(method.problems[name], "percent") for name in PROBLEMS)))
    compared = [method for method in methods if method.reference is not None]
    positives = (labels == 1).sum(axis=0)
    for role in roles:
        rows = []
        for name in partition.names:
            if partition.role_of(name) == role:
                cells = tuple(change_of(against(method, f"label/{name}/f1")) for method in compared)
                first = measures[methods[0].label].mean(f"label/{name}/f1")
                rows.append(
                    (name, Value(int(positives[partition.names.index(name)]), "count"), _percent(first), *cells)
                )
        deltas.append((role_text(role), tuple(rows)))
    counted = f"{len(labels)} test items"
    blocks = [
        Block(
            f"Written label sets, in per cent ({counted})",
            ("method", "set-F1", "change of\nset-F1", "exact\nmatch", "size\nerror", "|size\nerror|", "malformed"),
            (("", tuple(sets)),),
            note="Set-F1: mean over items of 2 hits / (written + true labels). Size error: labels written less true "
            "labels. Malformed: share of texts that are no label set; each counts as an empty set. Changes in points "
            "against the reference, ± standard deviation over seeds, [95 % paired bootstrap interval over items]; ▲ "
            "better, ▼ worse, ≈ unclear. The intervals say how other items would move the result; they do not say how "
            "another seed would.",
            wide=True,
        ),
        Block(
            "By group, in per cent",
            ("method: group", "precision", "recall", "F1", "change of\nrecall", "change of\nF1"),
            (("", tuple(groups)),),
            note="Precision, recall and F1 over all (item, label) entries of the group.",
            wide=True,
        ),
        Block(
            "What was read, in per cent of the texts",
            ("method", *PROBLEMS.values()),
            (("", tuple(read)),),
            note="Other order: a set in another than the canonical order; it is read and no fault.",
        ),
    ]
    if compared:
        blocks.append(
            Block(
                "Change of F1 per label, in points",
                ("label", "in\ntest", f"F1, {methods[0].label}", *(method.label for method in compared)),
                tuple(deltas),
                note=f"{ABSENT}: neither true nor written anywhere. With a dozen items of a label the intervals are "
                f"wide, and of {len(partition.names)} intervals one in twenty misses by chance.",
                wide=True,
            )
        )
    return blocks


def show(blocks: Sequence[Block], notes: Sequence[str], title: str, path: Path, images: Mapping[str, str]) -> None:
    """Prints the tables and writes them as Markdown, after the images (description -> file beside it)."""
    console = new_console()
    for block in blocks:
        print_part(block, console)
    for note in notes:
        console.print(note, markup=False)
    parts = [f"# {title}", *(image_markdown(text, name) for text, name in images.items())]
    parts += [*(block_markdown(block) for block in blocks), "\n".join(f"- {note}" for note in notes)]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")


def _percent(value: float) -> Value:
    return Value(None if np.isnan(value) else value, "percent")

"""One run as the results of the multi-label half: the same document, measured by F1 of sets, which have no scores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairpo_trl import Partition
from fairpo_trl.hub.privacy import public_command
from fairpo_trl.label_sets.items import LabelledTexts
from fairpo_trl.label_sets.measures import comparison_dict, evaluation_dict
from fairpo_trl.label_sets.reader import SetReading
from fairpo_trl.reporting import LabelResults
from fairpo_trl.reporting.blocks import Block
from fairpo_trl.reporting.documents import hardware
from fairpo_trl.training.logs import history_of

from .report import Written, set_blocks


EXAMPLES = 8
"""Items whose sets are shown as they were written."""


def run_results(
    parts: Mapping[str, LabelledTexts],
    partition: Partition,
    methods: Sequence[Written],
    readings: Mapping[str, Sequence[SetReading]],
    method: str,
    history: list[dict[str, Any]],
    facts: Mapping[str, Any],
    seconds: float,
    notes: list[str],
) -> LabelResults:
    """
    The results of a run, for `write_report` and `print_results`.

    Args:
        parts (`Mapping`): `train` and `test`.
        partition (`Partition`): Labels and roles.
        methods (`Sequence[Written]`): `reference` and `trained`, then what else was written.
        readings (`Mapping`): `reference` and `trained`: what was read of each test item.
        method (`str`): Of the recipe.
        history (`list[dict]`): The trainer's log, of which the weights are kept.
        facts (`Mapping`): Settings, and counts of pairs.
        seconds (`float`): Of the whole run.
        notes (`list[str]`): What a reader has to know.
    """
    labels = parts["test"].split.labels
    written: dict[str, NDArray[np.bool_]] = {entry.label: entry.predicted[0] for entry in methods}
    sets, groups, read, _ = set_blocks(labels, methods, partition)
    blocks = [sets, *([groups] if len(methods) > len(readings) else []), read, examples(parts["test"], readings)]
    count = len(partition.privileged)
    results = {
        "title": f"Label sets: {method}, {count} privileged label{'s' if count > 1 else ''}",
        "command": public_command(sys.argv),
        "measure": "F1",
        "data": {name: {"items": len(part), **dict(part.split.notes)} for name, part in parts.items()},
        "partition": {name: partition.role_of(name) for name in partition.names},
        "label_counts": parts["train"].split.label_counts(),
        "method": method,
        "settings": dict(facts),
        "hardware": hardware(),
        "seconds": seconds,
        "evaluations": {name: evaluation_dict(labels, written[name], partition) for name in readings},
        "comparison": comparison_dict(labels, written["trained"], written["reference"], partition),
        "hinge": {"pairs": None, "labels": None},
        "confusion": {"reference": None, "trained": None},
        "weights_history": history_of(history, "weight/"),
        "tables": [_table(block) for block in blocks if block.rows()],
        "notes": notes,
    }
    return LabelResults(**results)


def examples(test: LabelledTexts, readings: Mapping[str, Sequence[SetReading]]) -> Block:
    """The first [`EXAMPLES`] items for which `reference` and `trained` wrote different texts."""
    pairs = zip(readings["reference"], readings["trained"], strict=True)
    different = [number for number, (one, other) in enumerate(pairs) if one.text != other.text]
    sets = test.sets()
    rows = tuple(
        (test.texts[n], ", ".join(sets[n]), readings["reference"][n].text.strip(), readings["trained"][n].text.strip())
        for n in different[:EXAMPLES]
    )
    return Block(
        f"Sets as they were written: {len(rows)} of {len(different)} items where the two differ",
        ("text", "true", "reference", "trained"),
        (("", rows),),
        texts=4,
    )


def _table(block: Block) -> dict[str, Any]:
    return {
        "title": block.title,
        "header": list(block.header),
        "rows": [list(row) for row in block.rows()],
        "texts": block.texts,
        "note": block.note,
    }

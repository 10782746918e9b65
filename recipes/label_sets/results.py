"""One run in the results file of the multi-label half: the same document, checked by the same code, without scores."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fairpo_trl import Partition
from fairpo_trl.label_sets.items import LabelledTexts
from fairpo_trl.label_sets.measures import evaluation_dict, without_average_precision
from fairpo_trl.reporting.label_results import LabelResults, write_label_results
from fairpo_trl.training.publishing import public_command


def write_run(
    folder: Path,
    parts: Mapping[str, LabelledTexts],
    partition: Partition,
    predicted: Mapping[str, NDArray[np.bool_]],
    method: str,
    history: list[dict[str, Any]],
    facts: Mapping[str, Any],
    seconds: float,
    notes: list[str],
) -> Path:
    """
    Writes `results.json` of a run.

    Args:
        folder (`Path`): The run's folder.
        parts (`Mapping`): `train` and `test`.
        partition (`Partition`): Labels and roles.
        predicted (`Mapping`): `reference` and `trained`: sets of the test items, `[N, T]`.
        method (`str`): Of the recipe.
        history (`list[dict]`): The trainer's log, of which the weights are kept.
        facts (`Mapping`): Settings, counts of pairs and problems of reading.
        seconds (`float`): Of the whole run.
        notes (`list[str]`): What a reader has to know.
    """
    labels = parts["test"].split.labels
    results = {
        "title": f"Label sets: {method}, {len(partition.privileged)} privileged labels",
        "command": public_command(sys.argv),
        "data": {
            name: {"images": len(part), "series": len(set(part.split.series or part.ids)), **dict(part.split.notes)}
            for name, part in parts.items()
        },
        "partition": {name: partition.role_of(name) for name in partition.names},
        "label_counts": parts["train"].split.label_counts(),
        "method": method,
        "settings": dict(facts),
        "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
        "seconds": seconds,
        "evaluations": {name: evaluation_dict(labels, sets, partition) for name, sets in predicted.items()},
        "comparison": without_average_precision(labels, partition),
        "hinge": {"pairs": None, "labels": None},
        "confusion": {"reference": None, "trained": None},
        "weights_history": [
            {"step": entry["step"], **{k[7:]: v for k, v in entry.items() if k.startswith("weight/")}}
            for entry in history
            if any(key.startswith("weight/") for key in entry)
        ],
        "notes": ["Sets have no scores: average precision, hinge and confusion do not exist.", *notes],
    }
    return write_label_results(cast(LabelResults, results), folder / "results.json")

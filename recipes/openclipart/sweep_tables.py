"""The sweep's runs as one table and one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fairpo_trl.classification.evaluation.group_report import evaluate_groups
from fairpo_trl.reporting.sweep_plot import plot_sweep

from .experiment import REFERENCE, Experiment, Head, Row


def write_sweep(
    experiments: Mapping[str, Experiment],
    rows: Sequence[tuple[str, float, Row]],
    head: Head,
    seeds: Sequence[int],
    folder: Path,
) -> pd.DataFrame:
    """
    Writes `sweep.csv` and `sweep.png`.

    Returns:
        `pandas.DataFrame`: partition, option, value, seeds, and for validation and test the change of mAP against the
        reference of the same seed, of privileged and of held labels: mean and standard deviation over the seeds.
    """
    records = []
    for partition, experiment in experiments.items():
        for option, value, row in rows:
            record: dict[str, object] = {
                "partition": partition, "option": option, "value": value, "seeds": len(seeds)
            }  # fmt: skip
            for split in ("validation", "test"):
                labels = experiment.splits[split].labels
                deltas = []
                for seed in seeds:
                    after, before = (
                        evaluate_groups(labels, experiment.logits(r, head, seed, split), experiment.partition)
                        for r in (row, REFERENCE)
                    )
                    deltas.append(after.by_group["map"] - before.by_group["map"])
                frame = pd.DataFrame(deltas)
                for group, short in (("privileged", "privileged"), ("non_privileged", "held")):
                    record[f"{split}_{short}"] = float(frame[group].mean())
                    record[f"{split}_{short}_sd"] = float(frame[group].std(ddof=1)) if len(seeds) > 1 else np.nan
            records.append(record)
    table = pd.DataFrame(records)
    table.to_csv(folder / "sweep.csv", index=False, float_format="%.6g")
    plot_sweep(table, folder / "sweep.png", title="openclipart: FairPO against its reference, by option and partition")
    return table

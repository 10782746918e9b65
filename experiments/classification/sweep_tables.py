"""The sweep's runs as one table and one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.pages import write_page
from fairpo_trl.reporting.cells import change_text
from fairpo_trl.reporting.documents import hardware
from fairpo_trl.reporting.numbers import duration
from fairpo_trl.reporting.render.markdown import pipe_table

from .runs import Experiment, Head, Row
from .sweep_plot import plot_sweep


def write_sweep(
    experiments: Mapping[str, Experiment],
    rows: Sequence[tuple[str, float, Row]],
    head: Head,
    seeds: Sequence[int],
    folder: Path,
    command: str,
) -> pd.DataFrame:
    """
    Writes `sweep.csv`, `sweep.md` and `sweep.png`.

    Returns:
        `pandas.DataFrame`: partition, its number of privileged labels, option, value, whether it is the default,
        seeds, and for validation and test the change of mAP against the reference of the same seed, of privileged and
        of held labels: mean and standard deviation over the seeds.
    """
    records = []
    for partition, experiment in experiments.items():
        for option, value, row in rows:
            record: dict[str, object] = {
                "partition": partition, "privileged_labels": len(experiment.partition.privileged),
                "option": option, "value": value, "default": not row.options, "seeds": len(seeds),
            }  # fmt: skip
            for split in ("validation", "test"):
                frame = pd.DataFrame([experiment.change_of_map(row, head, seed, split) for seed in seeds])
                for group, short in (("privileged", "privileged"), ("non_privileged", "held")):
                    record[f"{split}_{short}"] = float(frame[group].mean())
                    record[f"{split}_{short}_sd"] = float(frame[group].std(ddof=1)) if len(seeds) > 1 else np.nan
            records.append(record)
    table = pd.DataFrame(records)
    table.to_csv(folder / "sweep.csv", index=False, float_format="%.6g")
    method = rows[0][2].method
    plot_sweep(table, folder / "sweep.png", f"openclipart, {method}, {head.label}: change against the reference")
    runs = {(name, row.name): (each, row) for name, each in experiments.items() for _, _, row in rows}
    seconds = sum(each.facts(row, head, seed)["seconds"] for each, row in runs.values() for seed in seeds)
    about = {
        "command": f"`{command}`",
        "seeds": ", ".join(map(str, seeds)),
        "hardware": hardware(),
        "time": f"{duration(seconds)}, {len(runs) * len(seeds)} runs added up, without the references",
    }
    parts = [
        "One option at a time, the others at their defaults. Change of mAP on test against the reference of the same "
        "seed, in points, ± standard deviation over seeds; with few seeds the differences between rows are within it. "
        "`sweep.csv` has validation beside it.",
        "![Change of mAP over the values of each option](sweep.png)",
    ]
    names = {partition: f"{partition.replace('_', ' ')} ({len(e.partition.privileged)} labels)"
             for partition, e in experiments.items()}  # fmt: skip
    for group in ("privileged", "held"):
        cells = [
            [option, f"{value:g}" + ("" if row.options else " (default)")]
            + [_cell(table, partition, option, value, group) for partition in names]
            for option, value, row in rows
        ]
        parts.append(
            f"## {group} labels\n\n" + pipe_table(["option", "value", *names.values()], cells, numbers_from=2)
        )
    write_page(folder / "sweep.md", f"openclipart: sensitivity of {method}, {head.label}", about, parts)
    return table


def _cell(table: pd.DataFrame, partition: str, option: str, value: float, group: str) -> str:
    found = table[(table["partition"] == partition) & (table["option"] == option) & (table["value"] == value)].iloc[0]
    spread = found[f"test_{group}_sd"]
    return change_text({"mean": found[f"test_{group}"]} | ({} if np.isnan(spread) else {"seed_sd": spread}))

"""The picture of a sweep: one column per option, one line per way to choose the privileged labels."""

import os
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fairpo_trl.reporting.drawing import BAND, DPI


_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_MARKERS = ("o", "s", "^", "D")


def plot_sweep(table: pd.DataFrame, path: str | os.PathLike[str], title: str = "", split: str = "test") -> Path:
    """
    Change of mAP against the reference over the values of each option; privileged labels above, held ones below.

    Args:
        table: Columns `partition`, `option`, `value`, `<split>_privileged`, `<split>_held` and their `_sd` over seeds,
            as fractions.
        path: The PNG to write.
        title: Title of the figure; it names the data.
        split: `test` or `validation`.

    Returns:
        The path.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    missing = {"partition", "option", "value", f"{split}_privileged", f"{split}_held"} - set(table.columns)
    if missing or table.empty:
        raise ValueError(f"The table of a sweep lacks {sorted(missing) or 'rows'}.")
    options = list(dict.fromkeys(table["option"]))
    partitions = list(dict.fromkeys(table["partition"]))
    figure = Figure(figsize=(3.6 * len(options), 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(options), sharex="col", sharey="row", squeeze=False)
    for column, option in enumerate(options):
        values = sorted(table.loc[table["option"] == option, "value"].unique())
        for row, group in enumerate(("privileged", "held")):
            axes = grid[row][column]
            axes.axhline(0, color=BAND, linewidth=1)
            for number, partition in enumerate(partitions):
                part = table[(table["option"] == option) & (table["partition"] == partition)].sort_values("value")
                axes.errorbar(
                    [values.index(value) for value in part["value"]],
                    100 * part[f"{split}_{group}"],
                    yerr=100 * part[f"{split}_{group}_sd"].fillna(0),
                    color=_COLOURS[number % len(_COLOURS)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    markersize=5,
                    linewidth=1.4,
                    elinewidth=0.8,
                    capsize=2,
                    label=partition.replace("_", " "),
                )
            axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
        grid[1][column].set_xticks(range(len(values)), [f"{value:g}" for value in values])
        grid[1][column].set_xlabel(option)
    grid[0][0].set_ylabel("privileged labels:\nchange of mAP (points)")
    grid[1][0].set_ylabel("held labels:\nchange of mAP (points)")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(partitions), frameon=False)
    figure.suptitle(title)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return path

"""The picture of a sweep: one column per option, one line per way to choose the privileged labels."""

import os
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fairpo_trl.reporting.drawing import BAND, LINES, TEXT, plain, save_figure, style_axes


_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SPREAD = 0.3  # of the distance between two values: lines that stand beside each other keep their bars apart


def plot_sweep(table: pd.DataFrame, path: str | os.PathLike[str], title: str = "", split: str = "test") -> Path:
    """
    Change of mAP against the reference over the values of each option; privileged labels above, held ones below.

    Bars are standard deviations over seeds. The default of each option is shaded.

    Args:
        table: Columns `partition`, `option`, `value`, `default` (whether it is that of the option),
            `<split>_privileged`, `<split>_held` and their `_sd` over seeds, as fractions.
        path: The PNG to write.
        title: Title of the figure; it names the data.
        split: `test` or `validation`.

    Returns:
        The path.

    Raises:
        ValueError: The table is empty or lacks a column.
    """
    groups = ("privileged", "held")
    needed = {"partition", "option", "value", "default"}
    needed |= {f"{split}_{group}{suffix}" for group in groups for suffix in ("", "_sd")}
    missing = needed - set(table.columns)
    if missing or table.empty:
        raise ValueError(f"The table of a sweep lacks {sorted(missing) or 'rows'}.")
    options = list(dict.fromkeys(table["option"]))
    partitions = list(dict.fromkeys(table["partition"]))
    figure = Figure(figsize=(3.6 * len(options), 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(options), sharex="col", sharey="row", squeeze=False)
    for column, option in enumerate(options):
        of_option = table[table["option"] == option]
        values = sorted(of_option["value"].unique())
        for row, group in enumerate(groups):
            axes = grid[row][column]
            style_axes(axes)
            axes.grid(visible=False, axis="x")
            axes.axhline(0, color=BAND, linewidth=1)
            for value in of_option.loc[of_option["default"], "value"].unique():
                place = values.index(value)
                axes.axvspan(place - 0.45, place + 0.45, color="#F0F0F0", zorder=0)
            for number, partition in enumerate(partitions):
                part = of_option[of_option["partition"] == partition].sort_values("value")
                shift = _SPREAD * (number / max(1, len(partitions) - 1) - 0.5)
                axes.errorbar(
                    [values.index(value) + shift for value in part["value"]],
                    100 * part[f"{split}_{group}"],
                    yerr=100 * part[f"{split}_{group}_sd"].fillna(0),
                    color=LINES[number % len(LINES)],
                    marker=_MARKERS[number % len(_MARKERS)],
                    markersize=5,
                    linewidth=1.4,
                    elinewidth=0.8,
                    label=plain(partition.replace("_", " ")),
                )
        grid[1][column].set_xticks(range(len(values)), [f"{value:g}" for value in values])
        grid[1][column].set_xlabel(plain(option))
    grid[0][0].set_ylabel("privileged labels:\nchange of mAP (points)")
    grid[1][0].set_ylabel("held labels:\nchange of mAP (points)")
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(partitions), frameon=False)
    seeds = f", {table['seeds'].max()} seeds" if "seeds" in table.columns else ""
    about = f"{split}{seeds}; bars: standard deviation over seeds; shaded: the default"
    figure.suptitle(plain(f"{title}\n{about}"), x=0.01, ha="left", fontsize=11, color=TEXT)
    return save_figure(figure, path)

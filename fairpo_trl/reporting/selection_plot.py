"""The picture of a selection: the privileged gain along the path, and how far held measures are from their margins."""

import os
from pathlib import Path

from fairpo_trl.reporting.drawing import BAND, LINES, PRIVILEGED, TEXT, new_figure, plain, save_titled
from fairpo_trl.reporting.selection_results import SelectionResults


def plot_selection(results: SelectionResults, path: str | os.PathLike[str]) -> Path:
    """
    Draws gains above and bounds below, over scales or over the order of the candidates.

    The bounds are in units of their margins, so that one line stands for all of them: a candidate passes if all its
    bounds lie above -1. There is at least one candidate.
    """
    tests = results.selection.candidates
    scaled = all(test.name in results.scales for test in tests)
    places = [results.scales[test.name] for test in tests] if scaled else list(range(1, len(tests) + 1))
    figure, (above, below) = new_figure(7.5, 5.6, rows=2, sharex=True, height_ratios=(2, 3))

    above.axhline(0, color=BAND, linewidth=1)
    above.plot(places, [test.gain for test in tests], color=PRIVILEGED, marker="o", label="gain where it was chosen")
    chosen = next((i for i, test in enumerate(tests) if test.name == results.selection.chosen), None)
    if chosen is not None and results.test is not None:
        gain = results.test.gain
        above.errorbar(
            [places[chosen]],
            [gain],
            yerr=[[gain - results.test.gain_bound], [0]],
            color=TEXT,
            marker="D",
            capsize=4,
            label="of the chosen one, on other examples, with its lower bound",
        )
    unit = "" if results.kind == "language model" else ", points"
    above.set_ylabel(f"privileged gain{unit}", fontsize=9)
    above.legend(fontsize=8, frameon=False, loc="best")

    names = list(dict.fromkeys(held.measure for test in tests for held in test.held))
    for i, name in enumerate(names):
        found = [
            (x, held.bound / held.margin)
            for x, t in zip(places, tests, strict=True)
            for held in t.held
            if held.measure == name
        ]
        below.plot(
            [x for x, _ in found],
            [y for _, y in found],
            color=LINES[1:][i % (len(LINES) - 1)],
            linestyle=("--", ":", "-.")[i // (len(LINES) - 1) % 3],
            marker="s",
            markerfacecolor="white",
            label=plain(name),
        )
    below.axhline(-1, color=TEXT, linewidth=1.6)
    below.annotate(
        "minus the margin", (1, -1), xycoords=("axes fraction", "data"), xytext=(-2, -10), textcoords="offset points",
        ha="right", fontsize=8, color=TEXT,
    )  # fmt: skip
    below.axhline(0, color=BAND, linewidth=1)
    below.set_ylabel("lower bound / margin", fontsize=9)
    below.set_xlabel(
        "scale: 0 is the reference, 1 the trained model" if scaled else "candidate, from the safest", fontsize=9
    )
    # Below the axes: curves may be anywhere within.
    figure.legend(handles=below.lines[: len(names)], fontsize=8, frameon=False, loc="outside lower center", ncols=3)
    below.set_xticks(places, [f"{x:g}" for x in places] if scaled else [plain(test.name) for test in tests])
    below.margins(x=0.06)
    bottom, top = below.get_ylim()
    below.set_ylim(min(bottom, -1 - 0.14 * (top + 1)), top)  # room for the words under the line
    half = 0.02 * (max(places) - min(places)) or 0.05
    for axes in (above, below):
        for x, test in zip(places, tests, strict=True):
            if test.name == results.selection.chosen:
                axes.axvspan(x - half, x + half, color="#F0E442", alpha=0.45, zorder=0)
            elif test.status == "untested":
                axes.axvspan(x - half, x + half, color="#EEEEEE", zorder=0)
    sure = f"{100 * (1 - results.selection.level):g} %"
    chosen_name = results.selection.chosen
    subtitle = f"{sure} bounds; handed over: " + (f"{chosen_name} (yellow)" if chosen_name else "the reference")
    if any(test.status == "untested" for test in tests):
        subtitle += "; grey: not tested"
    return save_titled(figure, above, f"{results.model} against {results.reference}", subtitle, path)

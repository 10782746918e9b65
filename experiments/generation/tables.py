"""The comparison's points as one table and one plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from demo import evaluation, scorers
from numpy.typing import NDArray

from experiments.pages import write_page
from fairpo_trl import Partition
from fairpo_trl.evaluation import Estimate, paired_bootstrap, win_rate
from fairpo_trl.reporting import ComparisonPoint, plot_comparison
from fairpo_trl.reporting.documents import Interval, hardware
from fairpo_trl.reporting.render.markdown import pipe_table

from .early_stopping import above_curve
from .measure import At, Measurer, Row


JUDGE, SECOND = evaluation.JUDGES

CURVE = "dpo_privileged_only"
"""Row whose stopping points are the curve that the others are compared with."""

Values = dict[str, dict[str, NDArray[np.float64]]]
"""judge -> attribute -> difference of win values per seed and prompt, `[seeds, prompts]`."""


def write_tables(measurer: Measurer, rows: Sequence[Row], seeds: Sequence[int] = (0, 1, 2)) -> None:
    """
    Prints the comparison and writes `comparison.{md,json,png}`.

    Every number is a difference of win rates: the row's model against the reference, less the reference with other
    draws against itself; averaged over the seeds there are, with a bootstrap interval over prompts. "Above the curve"
    compares with DPO on privileged pairs of the same seeds, interpolated at an equal privileged gain.
    """
    reference = measurer.reference(evaluation.REFERENCE_SEED)
    again = measurer.reference(evaluation.FRESH_SEED)
    lines: list[dict[str, Any]] = []
    measured: list[Values] = []
    for row in rows:
        for at in measurer.measured(row):
            points = [point for seed in seeds if (point := measurer.read(row, seed, at)) is not None]
            if points:
                measured.append(_values(measurer, points, reference, again))
                lines.append(_line(measurer, row, at, points, measured[-1]))
    if not lines:
        print("There are no points yet.")
        return
    curve = [pair for pair in zip(lines, measured, strict=True) if _on_curve(pair[0])]
    for line, values in zip(lines, measured, strict=True):
        line["above_curve"] = _above_curve(line, values, curve)
    measurer.points.write(measurer.folder / "comparison.json", lines)
    print(_page(lines, measurer, reference, again))
    plotted = _plot(lines, measurer)
    names = ["comparison.md", "comparison.json", *(["comparison.png"] if plotted else [])]
    print(f"Written to {measurer.folder}: {', '.join(names)}")


def _on_curve(line: dict[str, Any]) -> bool:
    """Whether a line is a stopping point of the curve; scaled adapters of its end are points of their own."""
    return bool(line["row"] == CURVE and line["scale"] == 1)


def _values(
    measurer: Measurer, points: Sequence[dict[str, Any]], reference: evaluation.Writing, again: evaluation.Writing
) -> Values:
    """Win values of the points (one per seed) against the reference, less those of the reference against itself."""
    writings = [measurer.judged(point) for point in points]
    values: Values = {judge: {} for judge in evaluation.JUDGES}
    for judge in evaluation.JUDGES:
        for name in scorers.SCORERS:
            ours = reference.scores[judge][name]
            base = win_rate(again.scores[judge][name], ours)
            values[judge][name] = np.stack([win_rate(w.scores[judge][name], ours) - base for w in writings])
    return values


def _line(measurer: Measurer, row: Row, at: At, points: Sequence[dict[str, Any]], values: Values) -> dict[str, Any]:
    """One line: estimates per attribute and judge, the privileged, mean held and worst held difference, guards."""
    trained = row.options.get("privileged_attributes", measurer.demo["privileged_attributes"])
    privileged = row.judged_as or trained
    partition = Partition.by_name(list(scorers.SCORERS), privileged)
    held = partition.non_privileged

    def estimate(names: Sequence[str], judge: str = JUDGE) -> dict[str, float]:
        """Mean over names and seeds, with an interval over prompts."""
        return paired_bootstrap(np.mean([values[judge][name] for name in names], axis=(0, 1))).to_dict()

    def worst_of(judge: str) -> dict[str, Any]:
        name = min(held, key=lambda name: values[judge][name].mean())
        by_seed = np.min([values[judge][other].mean(axis=1) for other in held], axis=0)  # of each seed, its own worst
        return {"name": name, "by_seed": by_seed.tolist(), **estimate([name], judge)}

    by_seed = np.mean([values[JUDGE][name] for name in partition.privileged], axis=(0, 2))
    guards = [point["guards"] for point in points]
    return {
        "row": row.name,
        "label": row.label,
        "main": row.main,
        "step": at.step,
        "scale": at.scale,
        "last": at.step == measurer.end(row),
        "seeds": [point["seed"] for point in points],
        "partition": partition.to_dict()["roles"],
        "difference": {judge: {name: estimate([name], judge) for name in partition.names} for judge in values},
        "privileged": estimate(partition.privileged),
        "privileged_by_seed": by_seed.tolist(),
        "mean_held": estimate(held),
        "worst_held": worst_of(JUDGE),
        "worst_held_second": worst_of(SECOND),
        "guards": {key: float(np.mean([guard[key] for guard in guards])) for key in guards[0]},
        "training_seconds": float(np.median([point.get("training_seconds", 0.0) for point in points])),
    }


def _above_curve(
    line: dict[str, Any], values: Values, curve: Sequence[tuple[dict[str, Any], Values]]
) -> dict[str, dict[str, float]] | None:
    """The line against the curve, over its seeds; `None` where the curve lacks a seed or has other roles."""
    seeds = line["seeds"]
    if _on_curve(line) or not curve:
        return None
    if any(point["partition"] != line["partition"] or not set(seeds) <= set(point["seeds"]) for point, _ in curve):
        return None
    roles: dict[str, list[str]] = {"privileged": [], "non_privileged": []}
    for name, role in line["partition"].items():
        roles[role].append(name)

    def over_seeds(values: Values, measured: Sequence[int], role: str) -> NDArray[np.float64]:
        """`[attributes, prompts]`."""
        kept = [measured.index(seed) for seed in seeds]
        return np.stack([values[JUDGE][name][kept].mean(axis=0) for name in roles[role]])

    found = above_curve(
        over_seeds(values, seeds, "privileged").mean(axis=0),
        over_seeds(values, seeds, "non_privileged"),
        np.stack([over_seeds(v, point["seeds"], "privileged").mean(axis=0) for point, v in curve]),
        np.stack([over_seeds(v, point["seeds"], "non_privileged") for point, v in curve]),
    )
    return None if found is None else {name: estimate.to_dict() for name, estimate in found.items()}


def _text(estimate: dict[str, Any]) -> str:
    return str(Estimate(estimate["mean"], estimate.get("low"), estimate.get("high"), int(estimate.get("n", 0))))


def _cells(line: dict[str, Any]) -> list[str]:
    name = line["label"] if line["last"] else f"{line['label']}, {line['step']} steps"
    name += "" if line["scale"] == 1 else f", adapter x {line['scale']:g}"
    held = [n for n, role in line["partition"].items() if role == "non_privileged"]
    worst, second, above = line["worst_held"], line["worst_held_second"], line["above_curve"]
    return [
        name,
        str(len(line["seeds"])),
        _text(line["privileged"]),
        _text(line["mean_held"]),
        f"{_text(worst)} {worst['name']}",
        f"{_text(second)} {second['name']}",
        " / ".join(_text(line["difference"][JUDGE][n]).split(" ")[0] for n in held),
        *(("-", "-") if above is None else (_text(above["mean_held"]), _text(above["worst_held"]))),
        f"{line['guards']['mean_words']:.1f}",
        f"{line['guards']['mean_token_log_prob']:.2f}",
    ]


_HEADER = [
    "method",
    "seeds",
    "privileged",
    "held, mean",
    "held, worst",
    "by the second judge",
    "held, each",
    "above the curve, mean",
    "above the curve, worst",
    "words",
    "log-prob",
]


def _page(
    lines: Sequence[dict[str, Any]], measurer: Measurer, reference: evaluation.Writing, again: evaluation.Writing
) -> str:
    """`comparison.md`, and what it says about its columns."""
    itself = ", ".join(
        f"{name} {paired_bootstrap(win_rate(again.scores[JUDGE][name], reference.scores[JUDGE][name]))}"
        for name in scorers.SCORERS
    )
    privileged = measurer.demo["privileged_attributes"]
    about = {
        "command": "`make compare-generation`",
        "prompts": f"{len(measurer.prompts)} of {measurer.split}, {measurer.samples} completions each",
        "hardware": hardware(),
        "change": "of the win rate against the reference, less that of the reference against itself with other draws, "
        "[95 % over prompts]",
        "the reference against itself": itself,
        "privileged": ", ".join(privileged),
        "held, each": " / ".join(n for n in scorers.SCORERS if n not in privileged)
        + " (where the partition is swapped: its own held ones)",
        "by the second judge": "the worst held attribute as it sees them",
        "above the curve": "the mean and the worst held attribute, less those of DPO on privileged pairs (same seeds, "
        "linear between its stopping points and the reference) at an equal privileged gain, prompts resampled "
        "together; - where the curve does not reach",
        "words": "mean of a completion",
        "log-prob": "mean of a token under the reference, nats",
        "steps": "a row without a number of steps is measured at its end",
    }
    table = pipe_table(_HEADER, [_cells(line) for line in lines], numbers_from=1)
    return write_page(
        measurer.folder / "comparison.md", "FairPO and its opponents on the demo's pairs", about, [table]
    )


def _plot(lines: Sequence[dict[str, Any]], measurer: Measurer) -> bool:
    """Plots the rows with the demo's partition; `False` if there is none, or none at its end."""

    def point(line: dict[str, Any], label: str) -> ComparisonPoint:
        keep = ("mean", "low", "high", "n")
        three = ("privileged", "mean_held", "worst_held")
        interval = {key: Interval(**{k: v for k, v in line[key].items() if k in keep}) for key in three}
        return ComparisonPoint(label, **interval)

    demo = set(measurer.demo["privileged_attributes"])
    same = [line for line in lines if {n for n, role in line["partition"].items() if role == "privileged"} == demo]
    curve = [point(line, f"{line['step']}") for line in same if _on_curve(line)]
    shown = [line for line in same if line["row"] != CURVE and line["last"] and line["main"] and line["scale"] >= 1]
    points = [point(line, _cells(line)[0]) for line in shown]
    if not points and not curve:
        return False
    plot_comparison(
        points,
        measurer.folder / "comparison.png",
        curves={"DPO on privileged pairs, by steps": curve} if curve else None,
        title="Change of win rate: the privileged attribute against the held ones",
        subtitle=f"{len(measurer.prompts)} {measurer.split} prompts, less the reference against itself",
        differences=True,
    )
    return True

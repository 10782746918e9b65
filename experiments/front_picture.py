"""
Draws the two pictures of the README from the points of the comparisons.

    python experiments/front_picture.py

Each mark is one model. Texts: across, what it gains on the privileged attribute; up, what its worst held attribute
loses by whichever of the two judges sees it worse; both as changes of the win rate against the reference, with 95 %
intervals over prompts, mean over seeds. The band is the promise. Photographs: mAP of the privileged labels against
that of the held ones, in points, with 95 % intervals over photographs, mean over seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib


matplotlib.use("Agg")
import matplotlib.pyplot as plt


ROOT = Path(__file__).resolve().parents[1]
POINTS = ROOT / "experiments" / "generation" / "results" / "comparison.json"
PICTURE = ROOT / "docs" / "pictures" / "gain-against-held.png"
MARGIN = 0.05  # of win rate: what "not worse" allows
CURVES = {  # row -> its words, colour, where they stand
    "dpo_privileged_only": ("DPO on the privileged pairs", "#c62828", (0.20, -0.20)),
    "sft_on_chosen": ("SFT on their chosen texts", "#757575", (0.19, 0.045)),
    "fairpo_demo": ("FairPO-CPO", "#00796b", (0.37, -0.045)),
}
PHOTOGRAPHS = ROOT / "experiments" / "classification" / "results" / "photographs" / "shared_mlp" / "comparison.json"
LABELS_PICTURE = ROOT / "docs" / "pictures" / "photographs.png"
LABEL_CURVES = {  # words -> methods from the reference on, colour, where the words stand
    "re-weighting x3, x10, x30": (["reweighted_3", "reweighted_10", "reweighted_30"], "#757575", (0.22, -0.34)),
    "FairPO-DPO, .5 to 2 of the way": (
        ["fairpo_dpo_mix0.5", "fairpo_dpo", "fairpo_dpo_mix1.5", "fairpo_dpo_mix2"],
        "#3949ab",
        (0.1, -0.93),
    ),
    "held frozen, DPO": (["frozen_dpo"], "#6a1b9a", (0.38, -0.08)),
    "logit adjustment, .5 and 1 of the way": (
        ["logit_adjustment_mix0.5", "logit_adjustment"],
        "#c62828",
        (1.72, -0.62),
    ),
    "FairPO with logit adjustment": (["fairpo_adjusted"], "#00796b", (1.72, -0.20)),
}
CHOSEN = ("fairpo_demo", 40, 1.5)
"""The setting that validation chose (docs/study.md)."""


def main() -> None:
    """Reads the points, draws, writes the PNG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path, default=POINTS, help="comparison.json of the comparison.")
    parser.add_argument("--output", type=Path, default=PICTURE, help="The PNG that is written.")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS, help="comparison.json of the photographs.")
    parser.add_argument("--photographs_output", type=Path, default=LABELS_PICTURE, help="Their PNG.")
    arguments = parser.parse_args()
    draw(json.loads(arguments.points.read_text(encoding="utf-8")), arguments.output)
    draw_photographs(json.loads(arguments.photographs.read_text(encoding="utf-8")), arguments.photographs_output)
    print(f"Pictures: {arguments.output}, {arguments.photographs_output}")


def draw(points: list[dict[str, Any]], output: Path) -> None:
    """The reference at the origin, the band that the promise allows, and each method's models as a curve."""
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(7.6, 4.2), dpi=160)
        axes.axhspan(-MARGIN, 0.07, color="#00796b", alpha=0.08, lw=0)
        axes.axhline(-MARGIN, color="#00796b", lw=1, ls="--")
        words = f"the promise: no held attribute falls by more than {MARGIN:.2f}"
        axes.text(-0.015, -MARGIN - 0.013, words, color="#00796b", fontsize=9)
        axes.plot(0, 0, "k*", ms=12)
        axes.annotate("reference", (0, 0), (8, 8), textcoords="offset points")
        for row, (words, colour, place) in CURVES.items():
            curve = sorted((p for p in points if p["row"] == row), key=lambda p: p["privileged"]["mean"])
            xs = [0.0, *(p["privileged"]["mean"] for p in curve)]
            ys = [0.0, *(_worst(p)["mean"] for p in curve)]
            axes.plot(xs, ys, color=colour, lw=1.2)
            for point, x, y in zip(curve, xs[1:], ys[1:], strict=True):
                chosen = (row, point["step"], point["scale"]) == CHOSEN
                _mark(axes, point, colour, size=10 if chosen else 4.5)
                if chosen:
                    axes.annotate("chosen", (x, y), (8, 8), textcoords="offset points", color=colour)
            axes.text(*place, words, color=colour, weight="bold")
        axes.set_xlabel("gain of the privileged attribute (change of win rate)")
        axes.set_ylabel("worst held attribute, by either judge")
        axes.set_xlim(-0.02, 0.47)
        axes.set_ylim(-0.26, 0.07)
        _save(figure, output)


def draw_photographs(comparison: dict[str, Any], output: Path) -> None:
    """The reference at the origin, and each method as a curve or a mark with its intervals, in points of mAP."""
    deltas = {method["name"]: method.get("delta_reference") for method in comparison["methods"]}
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(7.6, 4.2), dpi=160)
        axes.axhline(0, color="#00796b", lw=1, ls="--")
        axes.plot(0, 0, "k*", ms=12)
        axes.annotate("reference", (0, 0), (-58, 8), textcoords="offset points")
        for words, (names, colour, place) in LABEL_CURVES.items():
            marks = [[deltas[name][role] for role in ("privileged", "non_privileged")] for name in names]
            means = [[100 * side["mean"] for side in mark] for mark in marks]
            axes.plot(*zip((0.0, 0.0), *means, strict=True), color=colour, lw=1.2 if len(names) > 1 else 0)
            for mark, (x, y) in zip(marks, means, strict=True):
                ends = [[[abs(100 * (side[end] - side["mean"]))] for end in ("low", "high")] for side in mark]
                axes.errorbar(
                    x, y, xerr=ends[0], yerr=ends[1], fmt="o", ms=5, color=colour, elinewidth=0.7, alpha=0.75
                )
            axes.text(*place, words, color=colour, weight="bold")
        axes.set_xlabel("mAP of the 4 rarest labels, change in points")
        axes.set_ylabel("mAP of the 14 held labels")
        axes.set_xlim(-0.85, 3.6)
        axes.set_ylim(-1.3, 0.3)
        _save(figure, output)


def _save(figure: Any, output: Path) -> None:
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    plt.close(figure)


def _worst(point: dict[str, Any]) -> dict[str, float]:
    return min(point["worst_held"], point["worst_held_second"], key=lambda worst: worst["mean"])


def _mark(axes: Any, point: dict[str, Any], colour: str, size: float = 5) -> None:
    gain, worst = point["privileged"], _worst(point)
    axes.errorbar(
        gain["mean"],
        worst["mean"],
        xerr=[[gain["mean"] - gain["low"]], [gain["high"] - gain["mean"]]],
        yerr=[[worst["mean"] - worst["low"]], [worst["high"] - worst["mean"]]],
        fmt="o",
        ms=size,
        color=colour,
        ecolor=colour,
        elinewidth=0.7,
        alpha=0.75,
    )


if __name__ == "__main__":
    main()

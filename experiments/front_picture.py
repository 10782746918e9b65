"""
Draws the picture of the README from the points of the comparison of language models.

    python experiments/front_picture.py

Each mark is one model: across, what it gains on the privileged attribute; up, what its worst held attribute loses by
whichever of the two judges sees it worse; both as changes of the win rate against the reference, with 95 % intervals
over prompts, mean over seeds. The band is the promise.
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
CHOSEN = ("fairpo_demo", 40, 1.5)
"""The setting that validation chose (docs/study.md)."""


def main() -> None:
    """Reads the points, draws, writes the PNG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=Path, default=POINTS, help="comparison.json of the comparison.")
    parser.add_argument("--output", type=Path, default=PICTURE, help="The PNG that is written.")
    arguments = parser.parse_args()
    points = json.loads(arguments.points.read_text(encoding="utf-8"))
    draw(points, arguments.output)
    print(f"Picture: {arguments.output}")


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

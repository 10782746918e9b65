"""
Draws the picture of the README from the points of the comparison of language models.

    python experiments/front_picture.py

Each mark is one method: across, what it gains on the privileged attribute; up, what its worst held attribute loses,
both as changes of the win rate against the reference, with 95 % intervals over prompts, mean over seeds. The band is
the promise.
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
SHOWN = {  # row -> its words in the picture, colour, where the words stand (points)
    "fairpo_demo": ("FairPO-CPO", "#00796b", (8, 8)),
    "fairpo_published": ("FairPO as published", "#757575", (6, 6)),
    "dpo_all": ("DPO, all pairs", "#757575", (8, 6)),
}


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
    """The reference at the origin, the band that the promise allows, the curve of DPO and the methods beside it."""
    curve = sorted((p for p in points if p["row"] == "dpo_privileged_only"), key=lambda p: p["step"])
    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(figsize=(7.6, 3.9), dpi=160)
        axes.axhspan(-MARGIN, 0.06, color="#00796b", alpha=0.08, lw=0)
        axes.axhline(-MARGIN, color="#00796b", lw=1, ls="--")
        words = f"the promise: no held attribute falls by more than {MARGIN:.2f}"
        axes.text(-0.015, -MARGIN - 0.009, words, color="#00796b", fontsize=9)
        axes.plot(0, 0, "k*", ms=12)
        axes.annotate("reference", (0, 0), (8, 6), textcoords="offset points")
        axes.plot(*zip(*((_gain(p)["mean"], _worst(p)["mean"]) for p in curve), strict=True), color="#c62828", lw=1.2)
        for point in curve:
            _mark(axes, point, "#c62828")
            axes.annotate(
                f"DPO on the privileged pairs, {point['step']} steps"
                if point is curve[-1]
                else f"{point['step']} steps",
                (_gain(point)["mean"], _worst(point)["mean"]),
                (-150, -24) if point is curve[-1] else (5, -13),
                textcoords="offset points",
                color="#c62828",
                fontsize=8,
            )
        for name, (words, colour, offset) in SHOWN.items():
            point = next(p for p in points if p["row"] == name and p["last"])
            _mark(axes, point, colour, size=9 if name == "fairpo_demo" else 5)
            axes.annotate(
                words,
                (_gain(point)["mean"], _worst(point)["mean"]),
                offset,
                textcoords="offset points",
                color=colour,
                weight="bold" if name == "fairpo_demo" else "normal",
            )
        axes.set_xlabel("gain of the privileged attribute (change of win rate)")
        axes.set_ylabel("worst held attribute")
        axes.set_xlim(-0.02, 0.36)
        axes.set_ylim(-0.105, 0.06)
        figure.tight_layout()
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output)
        plt.close(figure)


def _gain(point: dict[str, Any]) -> dict[str, float]:
    return point["privileged"]


def _worst(point: dict[str, Any]) -> dict[str, float]:
    return point["worst_held"]


def _mark(axes: Any, point: dict[str, Any], colour: str, size: float = 5) -> None:
    gain, worst = _gain(point), _worst(point)
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

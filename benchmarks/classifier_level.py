"""Does the promise of `fairpo classification --select true` hold? A simulation with known truth.

    python benchmarks/classifier_level.py                  # 4,000 runs a cell
    python benchmarks/classifier_level.py --runs 400       # a quick look

A candidate that falls by exactly the margin is tested by the code that the command runs
(`fairpo_trl.classification.metrics.held_precision`): how often does it pass? Two kinds of fall: a *shift* of all
positives towards the negatives, and *rare losses*, in which few positives fall below all negatives while the others
stay, the hardest case for a bootstrap. By itself one label among 400 images is held; of the mean ten labels fall
alike. The true fall is that of average precision in a sample without end.
"""

from __future__ import annotations

import argparse
import functools
import math
import time

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import brentq
from scipy.special import ndtr

from fairpo_trl.classification.metrics.held_precision import HeldPrecision
from fairpo_trl.core.partition import Partition
from fairpo_trl.evaluation.selection import assess


IMAGES, LEVEL, DISTANCE, CORRELATION = 400, 0.05, 2.5, 0.9
MARGIN = {"labels": 10.0, "mean": 2.0}
"""Points; of one label with few positives no smaller margin can be shown."""


def true_precision(share: float, distance: float, lost: float = 0.0) -> float:
    """Average precision in points, where positives lie `distance` above negatives, but for a share that is lost."""
    scores = np.linspace(-6, distance + 6, 20_001)
    density = np.exp(-((scores - distance) ** 2) / 2)
    above = (1 - lost) * ndtr(distance - scores)
    precision = share * above / (share * above + (1 - share) * ndtr(-scores))
    return 100 * ((1 - lost) * float((density / density.sum()) @ precision) + lost * share)


@functools.lru_cache(maxsize=64)
def fall(kind: str, share: float, margin: float) -> tuple[float, float]:
    """Distance and share of lost positives of a candidate whose average precision lies the margin lower."""
    target = true_precision(share, DISTANCE) - margin
    if kind == "shift":
        return brentq(lambda d: true_precision(share, d) - target, 0, DISTANCE), 0.0
    return DISTANCE, brentq(lambda lost: true_precision(share, DISTANCE, lost) - target, 0, 1)


def violations(kind: str, held: str, positives: int, runs: int, resamples: int = 200) -> float:
    """Share of runs in which a candidate that falls by the margin passes."""
    names = ["gains", *(f"held {i}" for i in range(10 if held == "mean" else 1))]
    partition = Partition.by_name(names, ["gains"])
    distance, lost = fall(kind, positives / IMAGES, MARGIN[held])
    passed = 0
    for run in range(runs):
        rng = np.random.default_rng([0, run])
        labels = np.zeros((IMAGES, len(names)), dtype=np.int8)
        for t in range(len(names)):
            labels[rng.choice(IMAGES, positives, replace=False), t] = 1
        noise, own = rng.standard_normal((2, *labels.shape))
        reference = DISTANCE * labels + noise
        own = CORRELATION * noise + math.sqrt(1 - CORRELATION**2) * own if kind == "shift" else noise
        candidate = np.where((labels == 1) & (rng.random(labels.shape) < lost), -10, distance * labels + own)
        precision = HeldPrecision(
            labels, reference, partition, held=held, margin=MARGIN[held], resamples=resamples, seed=run
        )
        passed += assess(precision.candidate("", candidate), bound="bootstrap", level=LEVEL).status == "passed"
    return passed / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--positives", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--held", nargs="+", default=["labels", "mean"], choices=list(MARGIN))
    args = parser.parse_args()
    started, console = time.time(), Console(highlight=False)
    table = Table("held", "margin", "positives", "shift", "rare losses", title="A fall by the margin passes, %")
    for held in args.held:
        for positives in args.positives:
            found = [violations(kind, held, positives, args.runs) for kind in ("shift", "rare losses")]
            table.add_row(held, f"{MARGIN[held]:g}", str(positives), *(f"{100 * share:.1f}" for share in found))
    console.print(table)
    allowed = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / args.runs)
    console.print(f"5 % + 3 simulation errors: {100 * allowed:.2f} %. {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()

"""Does the promise of `label_generation_fairpo.py --select true` hold? A simulation with known truth.

    python benchmarks/label_set_level.py                  # 4,000 runs a cell
    python benchmarks/label_set_level.py --runs 400       # a quick look

A candidate whose F1 falls by exactly the margin is tested by the code that the recipe runs
(`fairpo_trl.label_sets.select`): how often does it pass? Two kinds of fall: *mistakes*, more labels left out and put
in at random, and *lost items*, of which it writes nothing while all others stay, the hardest case for a bootstrap.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from fairpo_trl.core.partition import Partition
from fairpo_trl.evaluation.selection import assess
from fairpo_trl.label_sets.select import HeldSets


LEVEL, SHARE, MISSED, ADDED = 0.05, 0.2, 0.25, 0.06
"""Level; share of items that have a label; what the reference leaves out of a set, and puts in wrongly."""
MARGIN = {"labels": 10.0, "mean": 5.0}


def true_f1(missed: float, added: float, lost: float = 0.0) -> float:
    """F1 in points of a writer with these chances of a mistake, which writes nothing for a share of the items."""
    hits, wrong = SHARE * (1 - missed) * (1 - lost), (1 - SHARE) * added * (1 - lost)
    return 200 * hits / (hits + wrong + SHARE)


def fall(kind: str, margin: float) -> tuple[float, float]:
    """By which factor mistakes rise and which share of items is lost so that F1 falls by the margin; by bisection."""
    low, high = (1.0, 1 / MISSED) if kind == "mistakes" else (0.0, 1.0)
    for _ in range(60):
        middle = (low + high) / 2
        found = true_f1(MISSED * middle, ADDED * middle) if kind == "mistakes" else true_f1(MISSED, ADDED, middle)
        low, high = (middle, high) if true_f1(MISSED, ADDED) - found < margin else (low, middle)
    return (low, 0.0) if kind == "mistakes" else (1.0, low)


def violations(kind: str, held: str, items: int, runs: int, resamples: int = 200) -> float:
    """Share of runs in which a candidate that falls by the margin passes."""
    names = ["gains", *(f"held {i}" for i in range(10 if held == "mean" else 1))]
    partition = Partition.by_name(names, ["gains"])
    factor, lost = fall(kind, MARGIN[held])
    passed = 0
    for run in range(runs):
        rng = np.random.default_rng([0, run])
        shape = (items, len(names))
        true = rng.random(shape).argsort(axis=0) < SHARE * items  # as many items of every label in every run
        draw = rng.random(shape)

        def written(factor: float, true: np.ndarray = true, draw: np.ndarray = draw) -> np.ndarray:
            return np.where(true, draw >= MISSED * factor, draw < ADDED * factor)

        candidate = written(factor) & (rng.random((items, 1)) >= lost)
        sets = HeldSets(
            true.astype(np.int8),
            written(1.0),
            partition,
            held=held,
            margin=MARGIN[held],
            resamples=resamples,
            seed=run,
        )
        passed += assess(sets.candidate("", candidate), bound="bootstrap", level=LEVEL).status == "passed"
    return passed / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--items", type=int, nargs="+", default=[50, 100, 300])
    args = parser.parse_args()
    started, console = time.time(), Console(highlight=False)
    table = Table("held", "margin", "items", "mistakes", "lost items", title="A fall by the margin passes, %")
    for held in MARGIN:
        for items in args.items:
            found = [violations(kind, held, items, args.runs) for kind in ("mistakes", "lost items")]
            table.add_row(held, f"{MARGIN[held]:g}", str(items), *(f"{100 * share:.1f}" for share in found))
    console.print(table)
    allowed = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / args.runs)
    console.print(f"5 % + 3 simulation errors: {100 * allowed:.2f} %. {time.time() - started:.0f} s")


if __name__ == "__main__":
    main()

"""Does the promise of `fairpo select` hold, and what does it take to keep it? A simulation with known truth.

    python benchmarks/selection_power.py --output selection_power.json      # 4,000 runs a cell
    python benchmarks/selection_power.py --runs 400 --bounds t betting      # a quick look

Three parts, each through the code that `fairpo select` runs (`fairpo_trl.evaluation.bounds`):

1. Level. A path that begins with a candidate as good as the reference and crosses the margin in one held measure,
   while all others stay as good as the reference: the worst case for a test that all must pass. How often is a
   violation handed over? At most 5 % + simulation error may.
2. Noise. Six copies of the reference: how often is a gain claimed for the one that looks best?
3. Power. A candidate that is as good as the reference everywhere: how often does it pass?

Differences are what win rates of two samples a prompt give: steps of an eighth within -1 and 1, standard deviation
0.4 (as on the demo's prompts). In `rare losses` a candidate loses a prompt wholly with the chance of the margin, and
ties on all others: the hardest case for bounds that rely on normal means.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import ndtr

from fairpo_trl.evaluation.bounds import Bound, betting_wealth, lower_bounds


MARGIN, LEVEL, SEED, RESAMPLES = 0.05, 0.05, 0, 1000
TRUTHS = (0.0, -0.02, -0.05, -0.08)
"""True mean differences of the candidates in the measure that is violated, along the path."""

VALUES = np.arange(-1, 1.125, 0.125)
_CHUNK = 6_000_000


def rounded_normal(mean: float, spread: float = 0.4) -> NDArray[np.float64]:
    """Chances of VALUES whose mean is exactly `mean`: a normal variable, clipped and rounded to steps."""
    edges = np.concatenate([[-np.inf], (VALUES[1:] + VALUES[:-1]) / 2, [np.inf]])
    low, high = mean - 1, mean + 1
    for _ in range(60):  # clipping moves the mean: bisect for the centre that gives it
        centre = (low + high) / 2
        chances = np.diff(ndtr((edges - centre) / spread))
        low, high = (centre, high) if chances @ VALUES < mean else (low, centre)
    return chances


def rare_losses(mean: float) -> NDArray[np.float64]:
    """Chances of VALUES: a prompt is lost wholly with the chance `-mean`, and tied otherwise."""
    chances = np.zeros(len(VALUES))
    chances[0], chances[len(VALUES) // 2] = -mean, 1 + mean
    return chances


def draw(
    rng: np.random.Generator, chances: NDArray[np.float64], prompts: int, runs: int, correlation: float
) -> NDArray[np.float64]:
    """`[candidates, prompts, measures, runs]` differences, for `chances` of shape `[candidates, measures, values]`.

    A normal copula: measures of one prompt are correlated by `correlation`, candidates of one path by 0.8.
    """
    candidates, measures, _ = chances.shape
    shared = rng.standard_normal((prompts, 1, runs))
    prompt = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * rng.standard_normal(
        (prompts, measures, runs)
    )
    found = np.empty((candidates, prompts, measures, runs))
    for c in range(candidates):
        uniform = ndtr(math.sqrt(0.8) * prompt + math.sqrt(0.2) * rng.standard_normal(prompt.shape))
        for m in range(measures):
            found[c, :, m] = VALUES[np.searchsorted(chances[c, m].cumsum()[:-1], uniform[:, m])]
    return found


def passes(values: NDArray[np.float64], bound: Bound, seed: int) -> NDArray[np.bool_]:
    """`[runs]` whether every measure's bound lies above minus the margin, for `[prompts, measures, runs]`."""
    prompts, measures, runs = values.shape
    columns = values.reshape(prompts, measures * runs)
    if bound == "betting":  # the bound lies above a mean if betting against that mean wins: no bisection
        shuffled = (columns[np.random.default_rng(seed).permutation(prompts)] + 1) / 2
        passed = betting_wealth(shuffled, (1 - MARGIN) / 2, LEVEL) >= 1 / LEVEL
    else:
        passed = lower_bounds(columns, bound, level=LEVEL, seed=seed, resamples=RESAMPLES) > -MARGIN
    return passed.reshape(measures, runs).all(axis=0)


def chunks(runs: int, size: int) -> list[int]:
    """Runs drawn at once, which bounds the memory."""
    most = max(1, _CHUNK // size)
    return [min(most, runs - done) for done in range(0, runs, most)]


def violations(
    kind: str, prompts: int, measures: int, correlation: float, runs: int, bounds: list[Bound]
) -> dict[str, dict[str, float]]:
    """Per bound, shares of runs in which a violation is handed over: on the whole path, and if it comes first."""
    make = rare_losses if kind == "rare losses" else rounded_normal
    chances = np.array([[make(truth), *[make(0.0)] * (measures - 1)] for truth in TRUTHS])
    first = TRUTHS.index(-MARGIN)
    counts = {bound: {"on the path": 0, "first on the path": 0} for bound in bounds}
    for part, size in enumerate(chunks(runs, len(TRUTHS) * prompts * measures)):
        values = draw(np.random.default_rng([SEED, part]), chances, prompts, size, correlation)
        for bound in bounds:
            passed = passes(values[first], bound, part)
            counts[bound]["first on the path"] += int(passed.sum())
            # Gains rise along the path, so that a violation which passes is what is handed over.
            for safe in range(first):
                if passed.any():
                    passed[passed] = passes(values[safe][..., passed], bound, part)
            counts[bound]["on the path"] += int(passed.sum())
    return {bound: {name: count / runs for name, count in found.items()} for bound, found in counts.items()}


def false_gains(prompts: int, runs: int, bounds: list[Bound]) -> dict[str, float]:
    """Share of runs in which a gain is claimed for the one of six copies of the reference that looks best."""
    copies, claimed = 6, dict.fromkeys(bounds, 0)
    chances = np.array([[rounded_normal(0.0)]] * copies)
    for part, size in enumerate(chunks(runs, prompts * copies)):
        values = draw(np.random.default_rng([SEED, part]), chances, prompts, size, 0.0)[:, :, 0]
        best = values.mean(axis=1).argmax(axis=0)
        chosen = np.take_along_axis(values, best[None, None], axis=0)[0]
        for bound in bounds:
            found = lower_bounds(chosen, bound, level=LEVEL / copies, seed=part, resamples=RESAMPLES)
            claimed[bound] += int((found > 0).sum())
    return {bound: count / runs for bound, count in claimed.items()}


def power(prompts: int, measures: int, spread: float, runs: int, bounds: list[Bound]) -> dict[str, float]:
    """Share of runs in which a candidate that is as good as the reference in everything passes."""
    chances, passed = np.array([[rounded_normal(0.0, spread)] * measures]), dict.fromkeys(bounds, 0)
    for part, size in enumerate(chunks(runs, prompts * measures)):
        values = draw(np.random.default_rng([SEED, part]), chances, prompts, size, 0.3)
        for bound in bounds:
            passed[bound] += int(passes(values[0], bound, part).sum())
    return {bound: count / runs for bound, count in passed.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--bounds", nargs="+", default=list(get_args(Bound)), choices=get_args(Bound))
    parser.add_argument("--prompts", type=int, nargs="+", default=[100, 220, 500, 1000])
    parser.add_argument("--measures", type=int, nargs="+", default=[1, 4, 12])
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()
    started, results = time.time(), {"runs": args.runs, "margin": MARGIN, "level": LEVEL}
    console = Console(highlight=False)
    level: list[dict[str, Any]] = []
    for kind in ("win rates", "rare losses"):
        table = Table(
            "prompts",
            "held",
            "correlation",
            *args.bounds,
            title=f"Violation handed over, {kind}: on the path / first on it, %",
        )
        for prompts in args.prompts:
            for measures in args.measures:
                for correlation in (0.0, 0.6) if measures > 1 else (0.0,):
                    setting = {"kind": kind, "prompts": prompts, "measures": measures, "correlation": correlation}
                    found = violations(**setting, runs=args.runs, bounds=args.bounds)  # type: ignore[arg-type]
                    level.append({**setting, **found})
                    cells = [" / ".join(f"{100 * share:.1f}" for share in found[b].values()) for b in args.bounds]
                    table.add_row(str(prompts), str(measures), str(correlation), *cells)
        console.print(table)
    allowed = LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / args.runs)
    worst = max((share, row["kind"], bound) for row in level for bound in args.bounds for share in row[bound].values())
    console.print(
        f"Largest: {100 * worst[0]:.2f} % ({worst[1]}, {worst[2]}); 5 % + 3 simulation errors: {100 * allowed:.2f} %."
    )
    noise = [{"prompts": n, **false_gains(n, args.runs, args.bounds)} for n in args.prompts]
    table = Table("prompts", *args.bounds, title="A gain claimed for the best of six copies of the reference, %")
    for row in noise:
        table.add_row(str(row["prompts"]), *(f"{100 * row[b]:.1f}" for b in args.bounds))
    console.print(table)
    powers: list[dict[str, Any]] = []
    for spread in (0.4, 0.3, 0.2):
        for prompts in (*args.prompts, 2000):
            for m in args.measures:
                found = power(prompts, m, spread, min(args.runs, 1000), args.bounds)
                powers.append({"spread": spread, "prompts": prompts, "measures": m, **found})
    for bound in args.bounds:
        columns = (f"{m} held" for m in args.measures)
        title = f"{bound}: a candidate equal to the reference passes, %"
        table = Table("standard deviation", "prompts", *columns, title=title)
        cells = {(row["spread"], row["prompts"], row["measures"]): f"{100 * row[bound]:.0f}" for row in powers}
        for spread, prompts in dict.fromkeys((row["spread"], row["prompts"]) for row in powers):
            table.add_row(str(spread), str(prompts), *(cells[spread, prompts, m] for m in args.measures))
        console.print(table)
    results |= {"violations": level, "false_gains": noise, "power": powers}
    console.print(f"{time.time() - started:.0f} s")
    if args.output:
        args.output.write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

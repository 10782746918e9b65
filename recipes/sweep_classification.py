"""
How sensitive FairPO is: beta, epsilon and eta_alpha, one at a time, for four ways to choose the privileged labels.

    python recipes/sweep_classification.py                           (minutes on 2 cores, resumable)
    python recipes/sweep_classification.py --method fairpo_dpo --seeds 0 1 2

The changes against the reference are measured on validation (what one may choose settings by) and on test (what is
reported), and written to `sweep.csv` and `sweep.png`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any


HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from compare_classification import MAIN_HEAD, one_thread  # noqa: E402
from openclipart.experiment import HEADS, REFERENCE, Experiment, Row, load_experiment  # noqa: E402


GRID: dict[str, list[float]] = {
    "beta": [0.1, 0.3, 1.0, 3.0, 10.0],
    "epsilon": [0.0, 0.003, 0.01, 0.03, 0.1],
    "eta_alpha": [0.0, 0.01, 0.05, 0.2, 1.0],
}
PARTITIONS = ("least_frequent", "worst_reference_ap", "random", "by_name")
BY_NAME_STEP = 5
"""`by_name` takes every fifth label in the order of the data: a choice that knows nothing of frequency or score."""


def rows_of(method: str) -> list[tuple[str, float, Row]]:
    """(option, value, row) for every point of the grid; the default value of an option is one run for all of them."""
    defaults = {"beta": 1.0, "epsilon": 0.01, "eta_alpha": 0.05}
    rows = []
    for option, values in GRID.items():
        for value in values:
            options = {} if value == defaults[option] else {option: value}
            name = f"{method}-{option}-{value:g}" if options else method
            rows.append((option, value, Row(name, name, method, options)))
    return rows


def main() -> None:
    """Runs what is missing, then writes the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-sweep"))
    parser.add_argument("--method", default="fairpo_cpo", choices=["fairpo_dpo", "fairpo_simpo", "fairpo_cpo"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)

    from openclipart.sweep_tables import write_sweep

    rows, head = rows_of(args.method), HEADS[MAIN_HEAD]
    started = time.time()
    experiments = {name: load_experiment(args.output_dir, args.epochs, partition=name, seed=0) for name in PARTITIONS}
    with ProcessPoolExecutor(args.workers, get_context("spawn"), one_thread) as pool:
        # The reference of a seed serves all partitions: it comes first.
        list(pool.map(_run, [(experiments["least_frequent"], [REFERENCE], head, seed) for seed in args.seeds]))
        jobs = [
            (experiment, [row for _, _, row in rows], head, seed)
            for experiment in experiments.values()
            for seed in args.seeds
        ]
        for done, name in enumerate(pool.map(_run, jobs), start=1):
            print(f"[{done}/{len(jobs)}] {name} after {time.time() - started:.0f} s", flush=True)
    table = write_sweep(experiments, rows, head, args.seeds, args.output_dir)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


def _run(job: tuple[Experiment, list[Row], Any, int]) -> str:
    experiment, rows, head, seed = job
    log = experiment.folder / "logs" / f"{'-'.join(experiment.partition.privileged)[:40]}-seed{seed}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        for row in rows:
            experiment.run(row, head, seed)
    return f"{len(experiment.partition.privileged)} privileged labels, seed {seed}"


if __name__ == "__main__":
    main()

"""
How sensitive FairPO is: beta, epsilon and eta_alpha, one at a time, for four ways to choose the privileged labels.

    make sweep                                                       (minutes on 2 cores, resumable)
    make sweep ARGS="--method fairpo_dpo --seeds 0 1 2"

The changes against the reference are measured on validation (what one may choose settings by) and on test (what is
reported), and written to `sweep.csv`, `sweep.md` and `sweep.png`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .compare import MAIN_HEAD
from .pool import Job, run_jobs
from .runs import HEADS, Row, load_experiment


GRID: dict[str, list[float]] = {
    "beta": [0.1, 0.3, 1.0, 3.0, 10.0],
    "epsilon": [0.0, 0.003, 0.01, 0.03, 0.1],
    "eta_alpha": [0.0, 0.01, 0.05, 0.2, 1.0],
}
DEFAULTS = {"beta": 1.0, "epsilon": 0.01, "eta_alpha": 0.05}
PARTITIONS = ("least_frequent", "worst_reference_ap", "random", "by_name")


def rows_of(method: str) -> list[tuple[str, float, Row]]:
    """(option, value, row) for every point of the grid; the default value of an option is one run for all of them."""
    rows = []
    for option, values in GRID.items():
        for value in values:
            options = {} if value == DEFAULTS[option] else {option: value}
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

    from .sweep_tables import write_sweep

    rows, head = rows_of(args.method), HEADS[MAIN_HEAD]
    # The reference of a seed serves all partitions, and one partition asks it for its worst labels: it comes first.
    first = load_experiment(args.output_dir, args.epochs)
    run_jobs([Job(f"reference-seed{seed}", first, [], head, seed) for seed in {0, *args.seeds}], args.workers)
    experiments = {name: load_experiment(args.output_dir, args.epochs, partition=name, seed=0) for name in PARTITIONS}
    jobs = [
        Job(f"{name}-seed{seed}", experiment, [row for _, _, row in rows], head, seed)
        for name, experiment in experiments.items()
        for seed in args.seeds
    ]
    run_jobs(jobs, args.workers)
    command = f'make sweep ARGS="--method {args.method} --seeds {" ".join(map(str, args.seeds))}"'
    table = write_sweep(experiments, rows, head, args.seeds, args.output_dir, command)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))


if __name__ == "__main__":
    main()

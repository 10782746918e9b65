"""
Compares FairPO with its baselines and ablations on the demo's model, data and batches.

    make compare-generation                                   # everything; hours on 2 CPU cores, resumable
    make compare-generation ARGS="--rows fairpo_demo --seeds 0"

Every measured point is one JSON file under `--output_dir`; what is there is not computed again, so the command can be
stopped and repeated. All points share the reference's completions and the random numbers of sampling. The table goes
to `comparison.md`, `comparison.json` and `comparison.png`; `--tables_only` makes them from the points there are.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """
    One method of the comparison.

    Attributes:
        name (`str`): In file names.
        label (`str`): In tables.
        overrides (`dict[str, Any]`): Options that differ from what all rows share.
        method (`str`): `--method` of the recipe.
        main (`bool`): Whether the row has three seeds.
        stops (`tuple[int, ...]`): Steps after which it is measured besides the end.
        tuned (`bool`): Whether the row takes FairPO's options from the demo's YAML. The others share model, data,
            beta, learning rate, steps and batches with it, and start from the defaults of FairPO's options: tuning
            the demo leaves their points as they are.
    """

    name: str
    label: str
    overrides: dict[str, Any] = field(default_factory=dict)
    method: str = "fairpo"
    main: bool = False
    stops: tuple[int, ...] = ()
    tuned: bool = False


# Published FairPO: Algorithm 2 with two groups, the hinge of each pair, no scaling, no floor.
PUBLISHED = {
    "balancer": "mirror_ascent",
    "grouping": "role",
    "eta_alpha": 0.05,
    "epsilon": 0.05,
    "hinge_level": "pair",
}

ROWS = [
    Row("dpo_privileged_only", "DPO on privileged pairs", {"per_device_train_batch_size": 2}, "dpo_privileged_only",
        main=True, stops=(8, 12, 16)),
    Row("dpo_all", "DPO on all pairs", {**PUBLISHED, "balancer": "fixed", "hinge": False}, main=True),
    Row("fairpo_published", "FairPO as published", PUBLISHED, main=True),
    Row("fairpo_demo", "FairPO-CPO, the demo's setting", main=True, tuned=True),
    Row("fairpo_multipliers", "FairPO-DPO, a multiplier per held attribute", {"balancer": "lagrangian",
        "grouping": "attribute", "lagrangian_term": "excess", "eta_alpha": 0.5, "epsilon": 0.05}, main=True),
    Row("sft_on_chosen", "SFT on chosen (privileged)", {"per_device_train_batch_size": 2}, "sft_on_chosen"),
    Row("dpo_mixture_25", "DPO, weights .25 / .75", {**PUBLISHED, "balancer": "fixed", "hinge": False,
        "group_prior": {"privileged": 0.25, "non_privileged": 0.75}}),
    Row("dpo_mixture_75", "DPO, weights .75 / .25", {**PUBLISHED, "balancer": "fixed", "hinge": False,
        "group_prior": {"privileged": 0.75, "non_privileged": 0.25}}),
    Row("group_robust_dpo", "Group Robust DPO (Eq. 3)", PUBLISHED, "group_robust_dpo"),
    Row("fairpo_simpo", "FairPO, SimPO for privileged", {**PUBLISHED, "privileged_loss": "simpo"}),
    Row("fairpo_no_hinge", "FairPO without hinge", {**PUBLISHED, "hinge": False}),
    Row("fairpo_fixed", "FairPO, fixed .5 / .5", {**PUBLISHED, "balancer": "fixed"}),
    Row("fairpo_attributes", "FairPO, one group per attribute", {**PUBLISHED, "grouping": "attribute"}),
    Row("fairpo_lagrangian", "FairPO, one multiplier", {**PUBLISHED, "balancer": "lagrangian", "eta_alpha": 0.5}),
    Row("swapped", "the demo's setting, positive privileged", {"privileged_attributes": ["positive"]}, tuned=True),
]  # fmt: skip


def main() -> None:
    """Runs what is missing, then writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-comparison"))
    parser.add_argument("--rows", nargs="*", choices=[row.name for row in ROWS], help="only these rows")
    parser.add_argument("--seeds", nargs="*", type=int, help="only these seeds (default: 0 1 2 for main rows, else 0)")
    parser.add_argument("--split", default="test", choices=["test", "validation"], help="held-out prompts")
    parser.add_argument("--samples", type=int, default=2, help="completions per prompt")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--tables_only", action="store_true", help="train nothing")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)

    from experiments.generation.measure import Measurer
    from experiments.generation.tables import write_tables

    measurer = Measurer(args.output_dir, args.split, args.samples)
    if not args.tables_only:
        measurer.write_references()
        jobs = [
            (row, seed)
            for row in ROWS
            for seed in (args.seeds if args.seeds is not None else ((0, 1, 2) if row.main else (0,)))
            if not args.rows or row.name in args.rows
        ]
        jobs.sort(key=lambda job: (not job[0].main, job[1]))  # what matters most first: main rows, seed by seed
        jobs = [job for job in jobs if not measurer.complete(*job)]
        print(f"{len(jobs)} runs to do with {args.workers} processes.", flush=True)
        # One thread per process: several small processes use a CPU better than one with several threads.
        with ProcessPoolExecutor(args.workers, get_context("spawn"), _share_cores, (args.workers,)) as pool:
            started = time.time()
            for done, name in enumerate(pool.map(_run, [(measurer, *job) for job in jobs]), start=1):
                print(f"[{done}/{len(jobs)}] {name} after {time.time() - started:.0f} s", flush=True)
    write_tables(measurer, ROWS, sorted({0, 1, 2, *(args.seeds or ())}))


def _share_cores(workers: int) -> None:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def _run(job: tuple[Any, Row, int]) -> str:
    measurer, row, seed = job
    log = measurer.folder / "runs" / f"{row.name}-seed{seed}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        measurer.run(row, seed)
    return f"{row.name} seed {seed}"


if __name__ == "__main__":
    main()

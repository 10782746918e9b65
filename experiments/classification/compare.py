"""
Compares every method on the shipped openclipart set: FairPO, its baselines, the re-weighting curve, the ablations.

    make table                                                              (minutes on 2 cores, resumable)
    make table ARGS="--heads shared_mlp --seeds 0 --rows fairpo_cpo"

Every run is one file of logits under `--output_dir`; what is there is not computed again, so the command can be
stopped and repeated. All methods of a head and a seed start from the same reference and take the same number of
epochs. The tables go to `comparison.{md,json,csv,tex}`, the pictures beside them; `--tables_only` makes them from the
runs there are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .pool import Job, run_jobs
from .runs import HEADS, REFERENCE, Row, load_experiment


METHODS = [
    Row("bce_continued", "BCE continued", "bce_continued"),
    Row("group_dro", "Group DRO", "group_dro"),
    Row("fairpo_dpo", "FairPO-DPO", "fairpo_dpo"),
    Row("fairpo_simpo", "FairPO-SimPO", "fairpo_simpo"),
    Row("fairpo_cpo", "FairPO-CPO", "fairpo_cpo"),
    Row("focal", "focal", "focal"),
    Row("asymmetric", "asymmetric", "asymmetric"),
    Row("logit_adjustment", "logit adjustment", "logit_adjustment"),
    Row("balanced_sampler", "balanced sampler", "balanced_sampler"),
]
REWEIGHTING = [
    Row(f"reweighted_{factor}", f"re-weighted x{factor}", "reweighted", factor=float(factor))
    for factor in (2, 3, 5, 10, 30)
]
# The ablations of the slides, each one option away from FairPO-CPO.
ABLATIONS = [
    Row("no_preference", "without preference loss", "fairpo_cpo", {"privileged_loss": "bce"}),
    Row("no_constraint", "without the constraint", "fairpo_cpo", {"non_privileged_loss": "bce"}),
    Row("no_adaptive_weights", "fixed weights .5 / .5", "fairpo_cpo", {"balancer": "fixed"}),
    Row("negatives_only", "only confusing negatives", "fairpo_cpo", {"directions": "negatives"}),
    Row("negatives_only_none", "only confusing negatives, y = 0 gets nothing", "fairpo_cpo",
        {"directions": "negatives", "absent_labels": "none"}),
    Row("no_fallback", "without BCE fallback", "fairpo_cpo", {"fallback": False}),
]  # fmt: skip
VARIANTS = [
    Row("cpo_all", "CPO with BCE on every label", "fairpo_cpo", {"cpo_form": "all"}),
    Row("cpo_logit", "CPO on logits", "fairpo_cpo", {"score": "logit"}),
    Row("cpo_mean", "mean over the confusing set", "fairpo_cpo", {"confuser": "mean"}),
    Row("cpo_hardest", "hardest confuser", "fairpo_cpo", {"confuser": "hardest"}),
    Row("cpo_label_hinge", "hinge of each label's mean", "fairpo_cpo", {"hinge_level": "label"}),
    Row("cpo_lagrangian", "one multiplier per held label", "fairpo_cpo",
        {"balancer": "lagrangian", "grouping": "label", "eta_alpha": 0.5}),
    Row("cpo_uniform", "Algorithm 2 as printed (one label an image)", "fairpo_cpo",
        {"label_sampling": "uniform", "absent": "zero"}),
    Row("simpo_adjusted", "SimPO, held labels logit-adjusted instead of the hinge", "fairpo_simpo",
        {"non_privileged_loss": "logit_adjustment"}),
    Row("dpo_adjusted", "DPO, held labels logit-adjusted instead of the hinge", "fairpo_dpo",
        {"non_privileged_loss": "logit_adjustment"}),
    Row("cpo_fresh", "from new weights, the same epochs", "fairpo_cpo", fresh=True),
]  # fmt: skip
SECTIONS = {
    "reference": [REFERENCE],
    "methods": METHODS,
    "reweighting": REWEIGHTING,
    "ablations": ABLATIONS,
    "variants": VARIANTS,
}
MAIN_HEAD = "shared_mlp"
"""The head of all rows; the linear heads have the methods and the re-weighting curve."""


def rows_of(head: str) -> list[Row]:
    """The rows that are run with a head."""
    sections = SECTIONS if head == MAIN_HEAD else {k: SECTIONS[k] for k in ("reference", "methods", "reweighting")}
    return [row for rows in sections.values() for row in rows]


def main() -> None:
    """Runs what is missing, then writes tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-classification"))
    parser.add_argument("--heads", nargs="*", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--rows", nargs="*", help="only these rows (and the references)")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=20, help="further epochs of every method")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap over series")
    parser.add_argument("--tables_only", action="store_true", help="train nothing")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)

    from .compare_tables import write_tables

    experiment = load_experiment(args.output_dir, args.epochs)
    if not args.tables_only:
        # One job is one head and one seed: they share a reference.
        jobs = [
            Job(
                f"{name}-seed{seed}",
                experiment,
                [row for row in rows_of(name) if not args.rows or row.name in args.rows],
                HEADS[name],
                seed,
            )
            for seed in args.seeds
            for name in args.heads
        ]
        run_jobs(jobs, args.workers)
    write_tables(experiment, SECTIONS, [HEADS[name] for name in args.heads], args.seeds, args.resamples)


if __name__ == "__main__":
    main()

"""
Looks for a FairPO setting above the whole re-weighting curve on the shipped openclipart set, and says what it found.

    make search                                                      (about 300 short runs, resumable)
    make search ARGS="--heads shared_mlp --folds 4 --seeds 0 1 2 3 4"

The choice is made by cross-validation over series of the train set: every image of it is held out once, and the test
set is not looked at. The criterion, fixed beforehand, one choice per head: of the candidates whose held labels change
at least as well as under that factor of the curve which does most for the privileged labels, the one with the highest
privileged gain above that factor's. The choice is then run on test with several seeds beside the curve. The two tables
and the answer, positive or negative, go to `search.csv`, `test.csv` and `search.md`.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

from .compare import METHODS, REWEIGHTING
from .folds import load_folds
from .pool import Job, run_jobs
from .runs import HEADS, Row, load_experiment


CURVE = [row for row in METHODS if row.name == "bce_continued"] + REWEIGHTING
CONTROLS = [row for row in METHODS if row.name == "logit_adjustment"]
"""Shown beside the candidates, and not among them: it knows no roles."""


def held(loss: str, factor: int) -> dict[str, Any]:
    """Held labels with a pointwise loss instead of the hinge, and fixed weights as in the re-weighting curve."""
    # A fifth of the labels is privileged.
    prior = {"privileged": 0.2 * factor, "non_privileged": 0.8}
    return {"non_privileged_loss": loss, "balancer": "fixed", "group_prior": prior}


ONLY_POSITIVES = {"directions": "negatives", "absent_labels": "none"}
ADJUSTED = {"privileged_loss": "logit_adjustment"}
# method, what is changed
SETTINGS: list[tuple[str, str, dict[str, Any]]] = [
    ("fairpo_cpo", "", {}),
    ("fairpo_simpo", "", {}),
    ("fairpo_dpo", "", {}),
    ("fairpo_cpo", "beta 3", {"beta": 3.0}),
    ("fairpo_simpo", "beta 3", {"beta": 3.0}),
    ("fairpo_cpo", "epsilon 0", {"epsilon": 0.0}),
    ("fairpo_simpo", "no fallback", {"fallback": False}),
    ("fairpo_cpo", "BCE on all P", {"cpo_form": "all"}),
    ("fairpo_cpo", "BCE on all P, logits", {"cpo_form": "all", "score": "logit"}),
    ("fairpo_simpo", "hardest confuser", {"confuser": "hardest"}),
    ("fairpo_cpo", "hinge per label", {"hinge_level": "label"}),
    ("fairpo_simpo", "multiplier per label", {"balancer": "lagrangian", "grouping": "label", "eta_alpha": 0.5}),
    ("fairpo_cpo", "only positives", ONLY_POSITIVES),
    ("fairpo_simpo", "only positives", ONLY_POSITIVES),
    ("fairpo_cpo", "held BCE x3", held("bce", 3)),
    ("fairpo_cpo", "held BCE x10", held("bce", 10)),
    ("fairpo_simpo", "held BCE x3", held("bce", 3)),
    ("fairpo_cpo", "only positives, held BCE x3", ONLY_POSITIVES | held("bce", 3)),
    ("fairpo_cpo", "only positives, held BCE x10", ONLY_POSITIVES | held("bce", 10)),
    ("fairpo_cpo", "held logit-adjusted x1", held("logit_adjustment", 1)),
    ("fairpo_cpo", "held logit-adjusted x3", held("logit_adjustment", 3)),
    ("fairpo_cpo", "only positives, held logit-adjusted x1", ONLY_POSITIVES | held("logit_adjustment", 1)),
    ("fairpo_cpo", "only positives, held logit-adjusted x3", ONLY_POSITIVES | held("logit_adjustment", 3)),
    ("fairpo_cpo", "P logit-adjusted, held hinge", ADJUSTED),
    ("fairpo_cpo", "P and held logit-adjusted x3", ADJUSTED | held("logit_adjustment", 3)),
]


def candidates() -> list[Row]:
    """Every setting as a row; its name is made of method and change."""
    short = {"fairpo_cpo": "CPO", "fairpo_simpo": "SimPO", "fairpo_dpo": "DPO"}
    rows = []
    for method, change, options in SETTINGS:
        named = change if "privileged_loss" in options else ", ".join(part for part in (short[method], change) if part)
        rows.append(Row("search_" + re.sub(r"\W+", "_", named), named, method, options))
    return rows


def main() -> None:
    """Runs what is missing on the folds, chooses, runs the choice on test, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-search"))
    parser.add_argument("--heads", nargs="*", default=["shared_mlp", "linear_sgd"], choices=list(HEADS))
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4], help="of the run on test")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap over series of the test set")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)

    from .search_tables import choose, rank_on_folds, write_search

    sections = {"curve": CURVE, "controls": CONTROLS, "candidates": candidates()}
    rows, heads = [row for section in sections.values() for row in section], [HEADS[name] for name in args.heads]
    folds = load_folds(args.output_dir, args.epochs, args.folds)
    # The seed of a fold is its number: the spread over folds holds that of runs.
    run_jobs(
        [Job(f"{head.name}-fold{k}", fold, rows, head, k) for head in heads for k, fold in enumerate(folds)],
        args.workers,
    )
    ranking = rank_on_folds(folds, sections, heads)
    test = load_experiment(args.output_dir, args.epochs)
    chosen = [(row, head) for head in heads for row in rows if row.name == choose(ranking, head.name)]
    for row, head in chosen:
        run_jobs([Job(f"{head.name}-test-seed{s}", test, [row, *CURVE], head, s) for s in args.seeds], args.workers)
    command = f'make search ARGS="--heads {" ".join(args.heads)} --folds {args.folds}"'
    print(write_search(ranking, test, chosen, CURVE, args.seeds, args.resamples, command))


if __name__ == "__main__":
    main()

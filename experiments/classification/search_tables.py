"""From the runs of the search to a ranking on the folds, one choice, and its answer on test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from experiments.pages import write_page
from fairpo_trl.classification.metrics.comparison import compare_with_reference
from fairpo_trl.reporting.cells import change_text as delta
from fairpo_trl.reporting.documents import hardware
from fairpo_trl.reporting.numbers import points
from fairpo_trl.reporting.render.markdown import pipe_table

from .compare_tables import deltas
from .runs import REFERENCE, Experiment, Head, Row


def rank_on_folds(
    folds: Sequence[Experiment], sections: Mapping[str, Sequence[Row]], heads: Sequence[Head]
) -> pd.DataFrame:
    """
    Changes of mAP on the held-out folds against each fold's own reference, and what lies above the curve.

    Args:
        folds (`Sequence[Experiment]`):
            With their runs; the seed of a fold is its number.
        sections (`Mapping[str, Sequence[Row]]`):
            `curve`, `candidates`, and others that are shown only.
        heads (`Sequence[Head]`):
            Heads.

    Returns:
        `pandas.DataFrame`: head, section, name, label, options, the mean changes `privileged` and `held` with their
        standard errors over the folds, and those less the changes of the curve's best factor for privileged labels:
        `lead` and `held_lead`.
    """
    records = []
    for head in heads:
        for section, rows in sections.items():
            for row in rows:
                changes = pd.DataFrame([fold.change_of_map(row, head, k, "test") for k, fold in enumerate(folds)])
                records.append(
                    {
                        "head": head.name, "section": section, "name": row.name, "label": row.label,
                        "options": json.dumps({"method": row.method, **row.options}),
                        "privileged": changes["privileged"].mean(), "privileged_se": changes["privileged"].sem(),
                        "held": changes["non_privileged"].mean(), "held_se": changes["non_privileged"].sem(),
                    }
                )  # fmt: skip
    ranking = pd.DataFrame(records)
    curve = ranking[ranking["section"] == "curve"]
    best = curve.loc[curve.groupby("head")["privileged"].idxmax()].set_index("head")
    ranking["lead"] = ranking["privileged"] - ranking["head"].map(best["privileged"])
    ranking["held_lead"] = ranking["held"] - ranking["head"].map(best["held"])
    return ranking


def choose(ranking: pd.DataFrame, head: str) -> str | None:
    """Name of a head's candidate with the highest lead among those that cost the held labels no more, if there are."""
    allowed = ranking[(ranking["head"] == head) & (ranking["section"] == "candidates") & (ranking["held_lead"] >= 0)]
    return None if allowed.empty else str(allowed.loc[allowed["lead"].idxmax(), "name"])


def write_search(
    ranking: pd.DataFrame,
    test: Experiment,
    chosen: Sequence[tuple[Row, Head]],
    curve: Sequence[Row],
    seeds: Sequence[int],
    resamples: int,
    command: str,
) -> str:
    """
    Writes `search.csv`, `test.csv` and `search.md`.

    Args:
        ranking (`pandas.DataFrame`):
            From [`rank_on_folds`].
        test (`Experiment`):
            Of the real split, with the runs of the choices and the curve.
        chosen (`Sequence[tuple[Row, Head]]`):
            What [`choose`] found, head by head.
        curve (`Sequence[Row]`):
            Continued BCE and the factors of re-weighting.
        seeds (`Sequence[int]`):
            Of the runs on test.
        resamples (`int`):
            Of the bootstrap over series.
        command (`str`):
            What was called.

    Returns:
        `str`: the answers, one per head.
    """
    folder = test.folder
    ranking.to_csv(folder / "search.csv", index=False, float_format="%.6g")
    about = {
        "command": f"`{command}`",
        "seeds on test": ", ".join(map(str, seeds)),
        "resamples": str(resamples),
        "hardware": hardware(),
    }
    parts: list[str] = []
    answers, lines = [], []
    for head in dict.fromkeys(ranking["head"]):
        found = next(((row, of) for row, of in chosen if of.name == head), None)
        if found is None:
            answers.append(f"{head}: on the folds no candidate kept the held labels as the curve's best factor does.")
            parts.append(answers[-1])
            continue
        records, answer = _on_test(test, *found, curve, seeds, resamples)
        answers.append(answer)
        rows = [
            [f"{name} against {against}", delta(changes["privileged"]), delta(changes["non_privileged"])]
            for name, against, changes in records
        ]
        parts += [answer, pipe_table(["on test", "change of mAP(P)", "change of mAP(held)"], rows, numbers_from=1)]
        lines += [
            {"head": head, "name": name, "against": against, "group": group, **change}
            for name, against, changes in records
            for group, change in changes.items()
        ]
    if lines:
        pd.DataFrame(lines).to_csv(folder / "test.csv", index=False, float_format="%.6g")
    parts.append(
        "## Folds of the train set\n\nChanges in points, ± standard error over the folds; lead: less those of the "
        "factor of re-weighting that does most for the privileged labels there. A candidate is allowed if its held "
        "lead is not negative."
    )
    for head, part in ranking.groupby("head", sort=False):
        cells = [
            [
                row["section"], row["label"],
                *(delta({"mean": row[group], "seed_sd": row[f"{group}_se"]}) for group in ("privileged", "held")),
                points(row["lead"]), points(row["held_lead"]),
            ]
            for _, row in part.sort_values("lead", ascending=False).iterrows()
        ]  # fmt: skip
        header = ["", "setting", "privileged", "held", "lead", "held lead"]
        parts.append(f"### {head}\n\n" + pipe_table(header, cells, numbers_from=2))
    write_page(folder / "search.md", "openclipart: a setting above the re-weighting curve?", about, parts)
    return "\n".join(answers)


def _on_test(
    test: Experiment, chosen: Row, head: Head, curve: Sequence[Row], seeds: Sequence[int], resamples: int
) -> tuple[list[tuple[str, str, dict[str, Any]]], str]:
    """(method, what it is compared with, group -> change) for every line of the table, and the answer."""

    def against(row: Row, base: Row) -> dict[str, Any]:
        runs, others = (np.stack([test.logits(r, head, seed, "test") for seed in seeds]) for r in (row, base))
        split = test.splits["test"]
        return deltas(
            compare_with_reference(
                split.labels, runs, others, test.partition, series=split.series, resamples=resamples
            )
        )

    gains = {row.name: against(row, REFERENCE) for row in (chosen, *curve)}
    records = [(row.label, "the reference", gains[row.name]) for row in (chosen, *curve)]
    differences = {row.name: against(chosen, row) for row in curve}
    records += [(chosen.label, row.label, differences[row.name]) for row in curve]
    best = max(curve, key=lambda row: gains[row.name]["privileged"]["mean"])
    gap = differences[best.name]
    return records, (
        f"{head.label}: chosen on the folds was {chosen.label!r}. On test {_verdict(gap)}: against {best.label}, the "
        f"curve's best for privileged labels, their mAP changes by {delta(gap['privileged'])} and that of the held "
        f"labels by {delta(gap['non_privileged'])} (points, {len(seeds)} seeds, 95 % intervals over series)."
    )


def _verdict(gap: Mapping[str, Any]) -> str:
    """What the differences from the curve's best factor say."""
    if gap["privileged"]["mean"] <= 0:
        return "it does not lie above the re-weighting curve"
    surely = "surely" if gap["privileged"]["low"] > 0 else "but not surely: the interval holds 0"
    if gap["non_privileged"]["mean"] >= 0:
        return f"it lies above the whole re-weighting curve ({surely})"
    return f"it gains more than every factor of the curve ({surely}), at more cost to the held labels than its best"

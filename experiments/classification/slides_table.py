"""
The table of the FairPO slides from comparisons that were kept, by the true average precision and by the slides' own.

    python -m experiments.classification.slides_table                      (a second; trains nothing)

The slides average an mAP of each batch of 32, which lies far above that of the split and compares with nothing else;
here it stands beside the true one, method by method, so that one can see what it says differently. It reads
`comparison.json` of openclipart and of the COCO photographs and writes `slides.md` and `slides.csv`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.pages import write_page
from fairpo_trl.reporting.cells import change_text
from fairpo_trl.reporting.numbers import percent, points
from fairpo_trl.reporting.render.markdown import pipe_table


RESULTS = Path(__file__).with_name("results")
SOURCES = {
    "photographs/linear": "MS-COCO photographs, 18 labels, 4 privileged",
    "photographs/shared_mlp": "MS-COCO photographs, 18 labels, 4 privileged",
    "comparison": "openclipart, 50 labels, 10 privileged",
}
METHODS = {
    "reference": "BCE-SFT",
    "bce_continued": "BCE-SFT, continued as long as the others",
    "reweighted_3": "BCE-SFT, P re-weighted x3",
    "group_dro": "Group DRO, BCE",
    "fairpo_dpo": "FairPO-DPO",
    "fairpo_simpo": "FairPO-SimPO",
    "fairpo_cpo": "FairPO-CPO",
    "no_preference": "CPO without the preference loss",
    "no_constraint": "CPO without the constraint",
    "no_adaptive_weights": "CPO without adaptive weights",
    "negatives_only_none": "CPO, only confusing negatives",
    "no_fallback": "CPO without the BCE fallback",
}
"""The rows of the slides in their order, by the names of the comparison."""
GROUPS = {"privileged": "P", "non_privileged": "held"}
OTHERS = {"sample_f1": "F1", "accuracy": "acc", "exact_match": "EMR"}


def rows_of(comparison: Mapping[str, Any], head: str) -> pd.DataFrame:
    """
    The rows of the slides that a comparison has for a head.

    Args:
        comparison (`Mapping`):
            `comparison.json`, read.
        head (`str`):
            One of its heads.

    Returns:
        `pandas.DataFrame`: by method; for each group the metrics, `map` and `paper_map` among them, the change of
        both against the reference (`map_change`, `paper_map_change`), and the interval of the true one as `interval`.
    """
    found = {m["name"]: m for m in comparison["methods"] if m["head"] == head}
    reference = found["reference"]["groups"]
    rows = {}
    for name in METHODS:
        if name not in found:
            continue
        row: dict[str, Any] = {}
        for group, short in GROUPS.items():
            metrics = found[name]["groups"][group]
            row |= {f"{short}_{metric}": metrics[metric] for metric in ("map", "paper_map", *OTHERS)}
            row |= {
                f"{short}_{metric}_change": metrics[metric] - reference[group][metric]
                for metric in ("map", "paper_map")
                if name != "reference"
            }
            row[f"{short}_interval"] = found[name].get("delta_reference", {}).get(group)
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def section(rows: pd.DataFrame, trivial: Mapping[str, Mapping[str, float]], title: str) -> str:
    """A heading, the two tables of a head, and what the two metrics say; `trivial` has no label predicted."""
    both, rest = [], [["no label at all", *(percent(trivial[group][metric]) for group in GROUPS for metric in OTHERS)]]
    for name, row in rows.iterrows():
        cells = [METHODS[str(name)]]
        for short in GROUPS.values():
            interval = row[f"{short}_interval"]
            cells += [
                percent(row[f"{short}_map"]),
                change_text(interval) if isinstance(interval, dict) else "–",
                percent(row[f"{short}_paper_map"]),
                "–" if name == "reference" else points(row[f"{short}_paper_map_change"]),
            ]
        both.append(cells)
        rest.append([METHODS[str(name)], *(percent(row[f"{s}_{m}"]) for s in GROUPS.values() for m in OTHERS)])
    header = ["method"]
    for short in GROUPS.values():
        header += [f"{short}: true mAP", "change", f"{short}: slides' mAP", "change"]
    others = ["method", *(f"{short} {metric}" for short in GROUPS.values() for metric in OTHERS.values())]
    gains = rows.drop(index="reference")
    best = {metric: METHODS[str(gains[f"P_{metric}_change"].idxmax())] for metric in ("map", "paper_map")}
    said = (
        f"The slides' mAP lies {percent((rows['P_paper_map'] - rows['P_map']).mean())} points above the true one for "
        f"privileged labels and {percent((rows['held_paper_map'] - rows['held_map']).mean())} for held ones. Largest "
        f"privileged change by the true one: {best['map']}; by the slides': {best['paper_map']}."
    )
    return "\n\n".join(
        [f"## {title}", pipe_table(header, both, numbers_from=1), said, pipe_table(others, rest, numbers_from=1)]
    )


def main() -> None:
    """Reads the comparisons there are, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the kept comparisons")
    parser.add_argument("--output_dir", type=Path, default=RESULTS / "slides")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    parts, frames = [], []
    for place, data in SOURCES.items():
        comparison = json.loads((args.results / place / "comparison.json").read_text(encoding="utf-8"))
        for head, label in comparison["heads"].items():
            rows = rows_of(comparison, head)
            parts.append(section(rows, comparison["trivial"]["all_negative"], f"{data}. Head: {label}"))
            kept = rows.drop(columns=[f"{short}_interval" for short in GROUPS.values()])
            frames.append(kept.assign(data=place, head=head).rename_axis("method").reset_index())
    pd.concat(frames).to_csv(args.output_dir / "slides.csv", index=False, float_format="%.6g")
    about = {
        "command": "`python -m experiments.classification.slides_table`",
        "true mAP": "mean over labels of the average precision on the whole test split",
        "slides' mAP": "mean over batches of 32 of the mAP of the batch, in the order of the split",
        "changes": "points, against BCE-SFT of the same seed: ± standard deviation over seeds, [95 % over series]",
    }
    write_page(
        args.output_dir / "slides.md", "The table of the slides, by the true metric and by theirs", about, parts
    )
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()

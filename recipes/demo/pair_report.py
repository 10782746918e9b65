"""The numbers on the samples and the pairs: ending rate, correlations, length balance, conflict."""

import numpy as np
from rich.console import Console

from fairpo_trl.reporting.blocks import Block
from fairpo_trl.reporting.render.terminal import print_part

from . import scorers


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties shared."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def spearman(one: np.ndarray, two: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(np.corrcoef(ranks(np.asarray(one)), ranks(np.asarray(two)))[0, 1])


def within(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Values less the mean of their group (here: of the completions of the same prompt)."""
    _, inverse = np.unique(groups, return_inverse=True)
    return values - (np.bincount(inverse, values) / np.bincount(inverse))[inverse]


def pair_table(pairs: list[dict]) -> dict[str, dict]:
    """Per attribute: counts by split, length balance, and the conflict with the privileged attribute.

    ``disagree`` is measured on prompts that also have a privileged pair: the share of the attribute's pairs in which
    the privileged scorer prefers the rejected completion. ``exact_reverse`` is the share of the attribute's pairs that
    are a privileged pair turned round.
    """
    privileged = [pair for pair in pairs if pair["attribute"] == scorers.PRIVILEGED]
    shared_prompts = {pair["prompt_id"] for pair in privileged}
    reverse = {(pair["rejected"][0]["content"], pair["chosen"][0]["content"]) for pair in privileged}
    table = {}
    for name in dict.fromkeys(pair["attribute"] for pair in pairs):
        mine = [pair for pair in pairs if pair["attribute"] == name]
        chosen = scorers.word_counts([pair["chosen"][0]["content"] for pair in mine])
        rejected = scorers.word_counts([pair["rejected"][0]["content"] for pair in mine])
        shared = np.array([pair["prompt_id"] in shared_prompts for pair in mine])
        table[name] = {
            **{split: sum(pair["split"] == split for pair in mine) for split in ("train", "validation", "test")},
            "prompts": len({pair["prompt_id"] for pair in mine}),
            "chosen_longer": float((chosen > rejected).mean()),
            "mean_words_chosen": float(chosen.mean()),
            "mean_words_rejected": float(rejected.mean()),
            "shared": int(shared.sum()),
            "disagree": float((chosen > rejected)[shared].mean()) if shared.any() else None,
            "exact_reverse": float(
                np.mean([(p["chosen"][0]["content"], p["rejected"][0]["content"]) in reverse for p in mine])
            ),
        }
    return table


def judge_agreement(pairs: list[dict]) -> dict[str, float]:
    """Per attribute the share of its pairs in which the second judge prefers the chosen one (a tie counts half)."""
    result = {}
    for name, judge in scorers.JUDGES.items():
        mine = [pair for pair in pairs if pair["attribute"] == name]
        asked = [scorers.user_text(pair["prompt"]) for pair in mine]
        gap = judge(asked, [pair["chosen"][0]["content"] for pair in mine]) - judge(
            asked, [pair["rejected"][0]["content"] for pair in mine]
        )
        result[name] = float(np.mean((gap > 0) + 0.5 * (gap == 0)))
    return result


def make_report(prompts: list[dict], samples: dict[str, list[dict]], records: list[dict], pairs: list[dict]) -> dict:
    """Everything that is printed and written to ``build_report.json``."""
    splits = {row["id"]: row["split"] for row in prompts}
    sampled = {}
    for split in ("train", "validation", "test"):
        items = [item for key, group in samples.items() if splits.get(key) == split for item in group]
        sampled[split] = {
            "completions": len(items),
            "ended": float(np.mean([item["ended"] for item in items])),
            "mean_tokens": float(np.mean([item["tokens"] for item in items])),
        }
    asked = [scorers.user_text(record["row"]["prompt"]) for record in records]
    texts = [record["text"] for record in records]
    groups = np.array([record["row"]["id"] for record in records])
    length = scorers.word_counts(texts)
    values = {name: np.array([record[name] for record in records]) for name in scorers.SCORERS}
    correlations = {}
    for name, mine in values.items():
        judged = scorers.JUDGES[name](asked, texts)
        correlations[name] = {
            "sd": float(mine.std()),
            "log_length_slope": float(np.polyfit(np.log(length), mine, 1)[0]),
            "length": spearman(mine, length),
            "length_within_prompt": spearman(within(mine, groups), within(length, groups)),
            "judge": spearman(mine, judged),
            "judge_within_prompt": spearman(within(mine, groups), within(judged, groups)),
            "judge_length": spearman(judged, length),
            "others": {other: spearman(mine, theirs) for other, theirs in values.items()},
        }
    return {
        "samples": sampled,
        "usable_completions": len(records),
        "correlations": correlations,
        "pairs": pair_table(pairs),
        "judge_prefers_chosen": judge_agreement(pairs),
        "total_pairs": len(pairs),
    }


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _print(title: str, rows: dict[str, dict], console: Console) -> None:
    cells = tuple((name, *map(_cell, row.values())) for name, row in rows.items())
    print_part(Block(title, ("", *next(iter(rows.values()))), (("", cells),)), console)


def print_report(report: dict, console: Console) -> None:
    """Print the report as tables."""
    _print("Samples", report["samples"], console)
    flat = {name: {k: v for k, v in row.items() if k != "others"} for name, row in report["correlations"].items()}
    _print("Scorers: Spearman correlations with length and with the second judge", flat, console)
    others = {name: row["others"] for name, row in report["correlations"].items()}
    _print("Scorers: Spearman correlations with each other", others, console)
    rows = {name: {**row, "judge": report["judge_prefers_chosen"][name]} for name, row in report["pairs"].items()}
    _print("Pairs", {name: rows[name] for name in scorers.SCORERS if name in rows}, console)

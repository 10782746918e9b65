"""The points on TruthfulQA as one table: how the ranking of held-out pairs and the multiple choice have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.pages import write_page
from fairpo_trl.evaluation import paired_bootstrap
from fairpo_trl.reporting.documents import hardware
from fairpo_trl.reporting.render.markdown import pipe_table

from .truthfulqa import ATTRIBUTES, ROWS, Row, Setting, Study, per_question


MEASURES = (*ATTRIBUTES, "MC1", "MC2")


def write_tables(study: Study, choice: Mapping[str, Any], directions: Sequence[str], seeds: Sequence[int]) -> None:
    """Writes `comparison.json` and `comparison.md` from the points there are, and prints the table."""
    before = study.points.read(study.path(None, "", None, 0, "test"))
    start = {name: values for name in MEASURES if (values := _values(before, name)) is not None}
    lines: list[dict[str, Any]] = []
    for privileged in directions:
        for row in ROWS:
            line = _line(study, row, privileged, choice[privileged][row.name], start, seeds)
            lines += [line] if line else []
    tried = sum(len(chosen["tried"]) for rows in choice.values() for chosen in rows.values())
    found = {
        "questions": {name: len(asked) for name, asked in study.questions.items()},
        "train_pairs": {name: len(study.train[flag]) for name, flag in (("each", False), ("consistent", True))},
        "settings_tried": tried,
        "reference": {name: float(np.nanmean(values)) for name, values in start.items()},
        "lines": lines,
    }
    study.points.write(study.folder / "comparison.json", found)
    print(_page(study, found))


def _values(point: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """One number a question: rank accuracy of an attribute's pairs, or a multiple-choice measure."""
    if name in ATTRIBUTES:
        return per_question(point, name)
    return np.array(point["mc"], dtype=np.float64)[:, ("MC1", "MC2").index(name)]


def _line(
    study: Study,
    row: Row,
    privileged: str,
    chosen: Mapping[str, Any],
    start: Mapping[str, NDArray[np.float64]],
    seeds: Sequence[int],
) -> dict[str, Any] | None:
    """Changes against the reference, means over seeds with intervals over questions; `None` without a point."""
    setting = Setting(chosen["learning_rate"], chosen["steps"])
    paths = [study.path(row, privileged, setting, seed, "test") for seed in seeds]
    after = [study.points.read(path) for path in paths if path.exists()]
    if not after:
        return None
    changes: dict[str, Any] = {}
    for name in MEASURES:
        known = ~np.isnan(start[name])
        by_seed = np.stack([_values(point, name) - start[name] for point in after])[:, known]  # [seeds, questions]
        spread = float(by_seed.mean(axis=1).std(ddof=1)) if len(after) > 1 else None
        changes[name] = {**paired_bootstrap(by_seed.mean(axis=0)).to_dict(), "seed_sd": spread}
    last = [point["history"][-1] if point["history"] else {} for point in after]  # a step is logged after its end
    return {
        "row": row.name,
        "label": row.label,
        "privileged": privileged,
        **vars(setting),
        "seeds": len(after),
        "change": changes,
        "chosen_change": {
            name: float(np.mean([entry[key] for entry in last]))
            for name in ATTRIBUTES
            if all((key := f"chosen_change/attribute/{name}") in entry for entry in last)
        },
        "cpu_seconds": float(np.median([point["cpu_seconds"] for point in after])),
    }


def _page(study: Study, found: Mapping[str, Any]) -> str:
    """`comparison.md`."""

    def cell(value: Mapping[str, Any]) -> str:
        spread = "" if value["seed_sd"] is None else f" ±{100 * value['seed_sd']:.1f}"
        return f"{100 * value['mean']:+.1f}{spread} [{100 * value['low']:+.1f}, {100 * value['high']:+.1f}]"

    held_of = dict(zip(ATTRIBUTES, reversed(ATTRIBUTES), strict=True))
    rows = []
    for line in found["lines"]:
        privileged = line["privileged"]
        setting = f"{line['learning_rate']:g} x {line['steps']}"
        changes = [cell(line["change"][name]) for name in (privileged, held_of[privileged], "MC1", "MC2")]
        rows.append([privileged, line["label"], setting, str(line["seeds"]), *changes])
    header = ["privileged", "method", "rate x steps", "seeds", "privileged pairs", "held pairs", "MC1", "MC2"]
    about = {
        "command": "`python -m experiments.generation.truthfulqa`",
        "hardware": hardware(),
        "changes": "points against the reference: share of held-out pairs ranked right by log-probability, MC1, MC2; "
        f"mean over seeds ± their standard deviation, [95 % over {found['questions']['test']} test questions]",
        "the reference": ", ".join(f"{name} {100 * value:.1f}" for name, value in found["reference"].items()),
        "settings tried": f"{found['settings_tried']} on {found['questions']['validation']} validation questions",
    }
    table = pipe_table(header, rows, numbers_from=2)
    return write_page(study.folder / "comparison.md", "TruthfulQA: truthful against informative", about, [table])

"""The points on TruthfulQA as one table: how the ranking of held-out pairs and the multiple choice have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.pages import write_page
from fairpo_trl.evaluation import paired_bootstrap
from fairpo_trl.preferences.rules import prompt_key
from fairpo_trl.reporting.documents import hardware
from fairpo_trl.reporting.render.markdown import pipe_table

from .truthfulqa import ATTRIBUTES, ROWS, TEXTS, Row, Setting, Study, as_text, per_question
from .truthfulqa_texts import AnswerJudge


MEASURES = (*ATTRIBUTES, "MC1", "MC2")


def write_tables(study: Study, choice: Mapping[str, Any], directions: Sequence[str], seeds: Sequence[int]) -> None:
    """Writes `comparison.json` and `comparison.md` from the points there are, and prints the table."""
    before = study.points.read(study.path(None, "", None, 0, "test"))
    start = {name: _values(before, name) for name in MEASURES}
    lines: list[dict[str, Any]] = []
    for privileged in directions:
        for row in ROWS:
            line = _line(study, row, privileged, choice[privileged][row.name], start, seeds)
            lines += [line] if line else []
    texts = _texts(study, seeds, lines)
    tried = sum(len(chosen["tried"]) for rows in choice.values() for chosen in rows.values())
    found = {
        "questions": {name: len(asked) for name, asked in study.questions.items()},
        "train_pairs": {name: len(study.train[flag]) for name, flag in (("each", False), ("consistent", True))},
        "settings_tried": tried,
        "reference": {name: float(np.nanmean(values)) for name, values in start.items()},
        "texts": texts,
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
    changes = {name: _change([_values(point, name) for point in after], start[name]) for name in MEASURES}
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


def _change(after: Sequence[NDArray[np.float64]], before: NDArray[np.float64]) -> dict[str, Any]:
    """Mean change over seeds with an interval over questions, and the spread of the seeds."""
    by_seed = np.stack([values - before for values in after])[:, ~np.isnan(before)]  # [seeds, questions]
    spread = float(by_seed.mean(axis=1).std(ddof=1)) if len(after) > 1 else None
    return {**paired_bootstrap(by_seed.mean(axis=0)).to_dict(), "seed_sd": spread}


def _texts(study: Study, seeds: Sequence[int], lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Adds to each line how its fresh answers are judged; returns how good the judges are and what they say before."""
    reference = study.path(None, "", None, 0, TEXTS)
    if not reference.exists():
        return None
    part = {
        name: [row for row in study.judged if study.split.get(prompt_key(as_text(row["prompt"]))) == name]
        for name in ("train", "validation")
    }
    judges = {name: AnswerJudge(part["train"], name) for name in ATTRIBUTES}

    def judged(path: Path, judge: AnswerJudge) -> NDArray[np.float64]:
        """Mean probability of a question's answers, `[questions]`."""
        texts = study.points.read(path)["texts"]
        return judge([text for row in texts for text in row]).reshape(len(texts), -1).mean(axis=1)

    before = {name: judged(reference, judge) for name, judge in judges.items()}
    for line in lines:
        row = next(row for row in ROWS if row.name == line["row"])
        setting = Setting(line["learning_rate"], line["steps"])
        paths = [study.path(row, line["privileged"], setting, seed, TEXTS) for seed in seeds]
        if after := [path for path in paths if path.exists()]:
            line["texts"] = {
                name: _change([judged(path, judge) for path in after], before[name]) for name, judge in judges.items()
            }
    return {
        name: {
            "reference": float(before[name].mean()),
            "training_judgements": len(part["train"]),
            "ranked_right": judge.ranked_right(part["validation"]),
        }
        for name, judge in judges.items()
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
        fresh = line.get("texts")
        changes += [cell(fresh[name]) if fresh else "-" for name in (privileged, held_of[privileged])]
        rows.append([privileged, line["label"], setting, str(line["seeds"]), *changes])
    header = ["privileged", "method", "rate x steps", "seeds", "privileged pairs", "held pairs", "MC1", "MC2"]
    header += ["fresh answers: privileged", "held"]
    about = {
        "command": "`python -m experiments.generation.truthfulqa`",
        "hardware": hardware(),
        "changes": "points against the reference: share of held-out pairs ranked right by log-probability, MC1, MC2; "
        f"mean over seeds ± their standard deviation, [95 % over {found['questions']['test']} test questions]",
        "the reference": ", ".join(f"{name} {100 * value:.1f}" for name, value in found["reference"].items()),
        "settings tried": f"{found['settings_tried']} on {found['questions']['validation']} validation questions",
    }
    if found["texts"]:

        def each(key: str, unit: str) -> str:
            return ", ".join(f"{name} {100 * judge[key]:.1f}{unit}" for name, judge in found["texts"].items())

        about["fresh answers"] = (
            "mean probability in points, by classifiers of the words of judged answers to the training questions; of "
            f"the pairs of judged answers to a validation question they rank right {each('ranked_right', ' %')}; the "
            f"reference: {each('reference', '')}"
        )
    table = pipe_table(header, rows, numbers_from=2)
    return write_page(study.folder / "comparison.md", "TruthfulQA: truthful against informative", about, [table])

"""From texts and judges to the results file of each model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.commands.evaluate_runs import RunFacts
from fairpo_trl.core.partition import Partition
from fairpo_trl.evaluation import Comparison, Completion, ScoreJudge, compare_by_pairs, compare_by_scores
from fairpo_trl.evaluation.comparison import Writing, score_writings
from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.evaluation.judges import JUDGE_NAMES, Judge, JudgeSpec, PairJudge
from fairpo_trl.evaluation.win_rates import Estimate
from fairpo_trl.preferences.rules import completion_text


REFERENCE, AGAIN = "", "again"  # keys of the reference's two writings; no candidate has such a name
SAMPLES, REGRESSIONS = 12, 5
"""Prompts shown with both texts, and worst changes shown of each attribute and judge."""

Comparisons = dict[str, dict[str, Comparison]]
"""Attribute -> name of the judge -> what it says, for one model."""


@dataclass(frozen=True)
class ModelTexts:
    """
    Everything that was written.

    Attributes:
        prompts (`list[Prompt]`): The prompts.
        completions (`dict[str, list[list[Completion]]]`): Candidate, `REFERENCE` or `AGAIN` -> `[prompts][samples]`.
    """

    prompts: list[Prompt]
    completions: dict[str, list[list[Completion]]]

    def writing(self, name: str) -> Writing:
        """The texts of one model."""
        return [[completion.text for completion in row] for row in self.completions[name]]

    @property
    def candidates(self) -> list[str]:
        """Names of the models that are compared with the reference."""
        return [name for name in self.completions if name not in (REFERENCE, AGAIN)]


def judge_texts(
    texts: ModelTexts, assigned: Mapping[str, Sequence[JudgeSpec]], judges: Mapping[str, Judge]
) -> dict[str, Comparisons]:
    """
    Candidate -> its comparisons, for which each judge is asked once per text or pair of texts.

    `assigned` has the judges of each attribute; `judges` are found by the way they are written.
    """
    writings = {name: texts.writing(name) for name in texts.completions}
    scored: dict[str, dict[str, NDArray[np.float64]]] = {}
    found: dict[str, Comparisons] = {name: {} for name in texts.candidates}
    for attribute, specs in assigned.items():
        for judge_name, spec in zip(JUDGE_NAMES, specs, strict=False):
            judge = judges[str(spec)]
            if spec.kind != "llm" and str(spec) not in scored:
                scored[str(spec)] = score_writings(cast(ScoreJudge, judge), texts.prompts, writings)
            for name in texts.candidates:
                three = writings[name], writings[REFERENCE], writings[AGAIN]
                if spec.kind == "llm":
                    comparison = compare_by_pairs(cast(PairJudge, judge), attribute, texts.prompts, *three)
                else:
                    scores = scored[str(spec)]
                    comparison = compare_by_scores(
                        *three,
                        trained_scores=scores[name],
                        reference_scores=scores[REFERENCE],
                        again_scores=scores[AGAIN],
                    )
                found[name].setdefault(attribute, {})[judge_name] = comparison
    return found


def attribute_results(
    comparisons: Comparisons, partition: Partition, run: RunFacts | None, pairs: Counter[str], seed: int
) -> list[dict[str, Any]]:
    """Every attribute's numbers as `AttributeResult` has them, privileged ones first; what is unknown is absent."""
    results = []
    for attribute in (*partition.privileged, *partition.non_privileged):
        role = partition.role_of(attribute)
        entry: dict[str, Any] = {"attribute": attribute, "role": role}
        if run is not None and attribute in run.final_weights:
            entry["pairs"] = pairs[attribute]
            entry["final_weight"] = run.final_weights[attribute]
        for judge, comparison in comparisons[attribute].items():
            if (row := comparison.win_rates(attribute, role, judge, seed)) is not None:
                rates = {name: getattr(row, name) for name in ("trained", "reference_vs_itself", "difference")}
                entry.setdefault("win_rate", {})[judge] = _intervals(rates)
            if (flips := comparison.negative_flips()) is not None:
                entry.setdefault("negative_flips", {})[judge] = {
                    "trained": flips[0],
                    "reference_vs_itself": flips[1],
                    "n": len(comparison.prompts),
                }
            if (controlled := comparison.length_controlled(seed)) is not None:
                entry.setdefault("length_controlled", {})[judge] = controlled.to_dict()
            if (scores := comparison.mean_scores(seed)) is not None:
                entry.setdefault("scores", {})[judge] = _intervals(scores)
        results.append(entry)
    return results


def judge_calls(
    comparisons: Comparisons, assigned: Mapping[str, Sequence[JudgeSpec]], descriptions: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """What each judge was and did, by the attributes that it judged: see `JudgeCalls`."""
    attributes: dict[str, list[str]] = {}
    tallies: dict[str, dict[str, Comparison]] = {}
    for attribute, specs in assigned.items():
        for judge_name, spec in zip(JUDGE_NAMES, specs, strict=False):
            # A judge that scores was asked once for all its attributes, one that compares once for each.
            key = attribute if spec.kind == "llm" else ""
            attributes.setdefault(str(spec), []).append(
                attribute if judge_name == JUDGE_NAMES[0] else f"{attribute} ({judge_name.replace('_judge', '')})"
            )
            tallies.setdefault(str(spec), {})[key] = comparisons[attribute][judge_name]
    return {
        ", ".join(names): {
            "kind": descriptions[written],
            **{
                tally: sum(getattr(comparison, tally) for comparison in tallies[written].values())
                for tally in ("calls", "cached", "failures")
            },
        }
        for written, names in attributes.items()
    }


def samples_of(texts: ModelTexts, name: str, comparisons: Comparisons) -> list[dict[str, Any]]:
    """`Sample`s: prompts evenly spaced over the list, with the first judge's scores where there are some."""
    count = len(texts.prompts)
    shown = sorted({i * count // SAMPLES for i in range(SAMPLES)}) if count > SAMPLES else range(count)
    return [_sample(texts, name, i, 0, comparisons) for i in shown]


def regressions_of(texts: ModelTexts, name: str, comparisons: Comparisons) -> list[dict[str, Any]]:
    """`Regression`s: the worst changes of each attribute and judge, with the texts."""
    return [
        {
            **_sample(texts, name, change.prompt, change.sample, comparisons),
            "attribute": attribute,
            "judge": judge,
            "change": change.change,
        }
        for attribute, judged in comparisons.items()
        for judge, comparison in judged.items()
        for change in comparison.worst_changes(REGRESSIONS)
    ]


def _sample(texts: ModelTexts, name: str, prompt: int, sample: int, comparisons: Comparisons) -> dict[str, Any]:
    asked = texts.prompts[prompt]
    shown: dict[str, Any] = {
        "prompt": completion_text(asked if isinstance(asked, str) else list(asked)),
        "reference": texts.completions[REFERENCE][prompt][sample].text,
        "trained": texts.completions[name][prompt][sample].text,
    }
    for attribute, judged in comparisons.items():
        first = judged[JUDGE_NAMES[0]]
        place = np.flatnonzero(first.prompts == prompt)
        if first.trained is not None and first.reference is not None and len(place):
            shown.setdefault("scores", {})[attribute] = {
                "reference": float(first.reference[place[0], sample]),
                "trained": float(first.trained[place[0], sample]),
            }
    return shown


def _intervals(values: Mapping[str, Estimate | None]) -> dict[str, dict[str, float]]:
    return {name: value.to_dict() for name, value in values.items() if value is not None}

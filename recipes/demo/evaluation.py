"""What the demo measures: fresh completions of both models on held-out prompts, held-out pairs, and text guards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fairpo_trl import Partition
from fairpo_trl.core.losses import LOG_2
from fairpo_trl.evaluation import (
    Completion,
    WinRateRow,
    compare_scores,
    mean_token_log_prob,
    sample_completions,
    text_guards,
)

from . import scorers


PAIRS_FILE = Path(__file__).parent / "data" / "pairs.jsonl"

REFERENCE_SEED, FRESH_SEED = 1, 2
"""Random numbers of the reference's completions, and those shared by its second set and the trained model's."""

GUARDED = 100
"""Completions whose log-prob under the reference is taken."""

JUDGES = {"scorer": scorers.SCORERS, "second_judge": scorers.JUDGES}


@dataclass(frozen=True)
class Writing:
    """
    Completions of one model and their scores.

    Attributes:
        completions (`list[list[Completion]]`): `[prompts][samples]`.
        scores (`dict[str, dict[str, NDArray]]`): judge -> attribute -> `[prompts, samples]`, higher is more.
    """

    completions: list[list[Completion]]
    scores: dict[str, dict[str, NDArray[np.float64]]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form of the completions; the scores follow from them."""
        return {"completions": [[[c.text, list(c.token_ids), c.ended] for c in row] for row in self.completions]}


def judge(prompts: Sequence[Sequence[Mapping[str, str]]], completions: list[list[Completion]]) -> Writing:
    """Scores completions by every attribute's scorer and second judge."""
    asked = [scorers.user_text(list(prompt)) for prompt, row in zip(prompts, completions, strict=True) for _ in row]
    texts = [completion.text for row in completions for completion in row]
    shape = (len(completions), -1)
    scores = {
        judge_name: {
            name: np.asarray(score(asked, texts), dtype=np.float64).reshape(shape) for name, score in judges.items()
        }
        for judge_name, judges in JUDGES.items()
    }
    return Writing(completions, scores)


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[dict[str, str]]],
    *,
    seed: int,
    samples: int,
    desc: str,
) -> Writing:
    """Samples completions in the way the pairs were sampled (temperature 0.7, top 50, 48 tokens) and judges them."""
    completions = sample_completions(
        model, tokenizer, prompts, samples_per_prompt=samples, seed=seed, batch_size=128, desc=desc
    )
    return judge(prompts, completions)


def win_rates(partition: Partition, trained: Writing, reference: Writing, again: Writing) -> list[WinRateRow]:
    """One row per attribute and judge, privileged attributes first; differences are paired by prompt and draws."""
    return [
        compare_scores(
            name,
            partition.role_of(name),
            judge_name,
            trained=trained.scores[judge_name][name],
            reference=reference.scores[judge_name][name],
            reference_again=again.scores[judge_name][name],
        )
        for name in (*partition.privileged, *partition.non_privileged)
        for judge_name in JUDGES
    ]


def guards(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any], writing: Writing
) -> dict[str, float]:
    """Guards against degenerate text; the log-prob per token is the reference's (an adapter is switched off)."""
    first = [row[:1] for row in writing.completions[:GUARDED]]  # enough for a mean
    # A completion that is only the end token still has that token; one cut at once has none and cannot occur.
    with model.disable_adapter() if isinstance(model, PeftModel) else nullcontext():
        log_probs = mean_token_log_prob(model, tokenizer, prompts[:GUARDED], first)
    numbers = text_guards(writing.completions).to_dict()
    return numbers | {"mean_token_log_prob": float(log_probs.mean())}


def first_of_each(rows: Iterable[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The first `count` pairs of each attribute, in their order."""
    kept: list[Mapping[str, Any]] = []
    seen: Counter[str] = Counter()
    for row in rows:
        seen[row["attribute"]] += 1
        if seen[row["attribute"]] <= count:
            kept.append(row)
    return kept


def pair_metrics(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    beta: float,
    epsilon: float,
) -> dict[str, dict[str, float]]:
    """
    Held-out pairs of a PEFT model against its base: attribute -> pairs, accuracy (share with h > 0), margin (mean
    beta * h) and the share inside the hinge (DPO loss at most log 2 + epsilon).
    """
    prompts = [row["prompt"] for row in rows]
    sides = [[_as_completion(tokenizer, row["chosen"]), _as_completion(tokenizer, row["rejected"])] for row in rows]
    lengths = np.array([[len(side.token_ids) + 1 for side in pair] for pair in sides])
    policy = mean_token_log_prob(model, tokenizer, prompts, sides) * lengths  # [pairs, 2]
    with model.disable_adapter():
        reference = mean_token_log_prob(model, tokenizer, prompts, sides) * lengths
    ratio = policy - reference
    margin = beta * (ratio[:, 0] - ratio[:, 1])
    loss = np.logaddexp(0, -margin)
    attributes = np.array([row["attribute"] for row in rows])
    return {
        name: {
            "pairs": int((attributes == name).sum()),
            "accuracy": float((margin[attributes == name] > 0).mean()),
            "margin": float(margin[attributes == name].mean()),
            "inside_hinge": float((loss[attributes == name] <= LOG_2 + epsilon).mean()),
        }
        for name in dict.fromkeys(attributes.tolist())
    }


def _as_completion(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> Completion:
    text = messages[-1]["content"]
    return Completion(text, tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), ended=True)

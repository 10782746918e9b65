"""What rows of the comparison take instead of the shipped pairs, and models that are not trained at all."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from demo import scorers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fairpo_trl.evaluation import Completion, sample_completions
from fairpo_trl.files import write_text


Pair = dict[str, Any]
Prompts = Sequence[Sequence[dict[str, str]]]
Completions = list[list[Completion]]

CONTROL_SEED = 3
"""Random numbers of the controls' completions that no other row has."""

BRIEF = "You give short, clear answers. Be as brief as you can: use as few words as possible."


def privileged_only(rows: Sequence[Pair], privileged: Sequence[str]) -> list[Pair]:
    """The pairs of the privileged attributes."""
    return [row for row in rows if row["attribute"] in privileged]


def consistent(rows: Sequence[Pair], privileged: Sequence[str], conflicts: int = 1) -> list[Pair]:
    """Privileged pairs whose chosen side is worse by at most `conflicts` of the held scorers (2504.11337)."""
    kept = privileged_only(rows, privileged)
    asked = [scorers.user_text(row["prompt"]) for row in kept]
    sides = [[row[side][-1]["content"] for row in kept] for side in ("chosen", "rejected")]
    held = [scorer for name, scorer in scorers.SCORERS.items() if name not in privileged]
    worse = sum(
        (np.asarray(scorer(asked, sides[0])) < np.asarray(scorer(asked, sides[1]))).astype(int) for scorer in held
    )
    return [row for row, count in zip(kept, np.atleast_1d(worse), strict=True) if count <= conflicts]


def random_side(rows: Sequence[Pair], privileged: Sequence[str]) -> list[Pair]:
    """Privileged pairs of which a coin says what is chosen: samples of the model that nobody preferred."""
    coin = random.Random(0)
    swapped = {"chosen": "rejected", "rejected": "chosen", "score_chosen": "score_rejected"}
    swapped["score_rejected"] = "score_chosen"
    return [
        {name: row[swapped.get(name, name)] for name in row} if coin.random() < 0.5 else row
        for row in privileged_only(rows, privileged)
    ]


PAIRS: Mapping[str, Callable[[Sequence[Pair], Sequence[str]], list[Pair]]] = {
    "consistent": consistent,
    "random_side": random_side,
}


def write_pairs(name: str, source: Path, privileged: Sequence[str], target: Path) -> None:
    """Writes the train split of a variant of the pairs; the other splits stay as they are."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    train = PAIRS[name]([row for row in rows if row["split"] == "train"], privileged)
    kept = [*train, *(row for row in rows if row["split"] != "train")]
    write_text(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def prompted(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, samples: int
) -> Completions:
    """The reference, told to be brief in its system prompt."""
    told = [
        [{"role": "system", "content": BRIEF}, *(m for m in prompt if m["role"] != "system")] for prompt in prompts
    ]
    return _sample(model, tokenizer, told, samples)


def cooler(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    samples: int,
    *,
    temperature: float,
) -> Completions:
    """The reference at a lower temperature: sharper, and nothing else."""
    return _sample(model, tokenizer, prompts, samples, temperature=temperature)


def best_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, samples: int, *, n: int
) -> Completions:
    """The shortest of `n` completions of the reference: what a perfect judge of *concise* gets without training."""
    drawn = _sample(model, tokenizer, prompts, n * samples)
    asked = [scorers.user_text(list(prompt)) for prompt in prompts]
    chosen = []
    for prompt, row in zip(asked, drawn, strict=True):
        scores = scorers.SCORERS[scorers.PRIVILEGED]([prompt] * len(row), [completion.text for completion in row])
        best = np.asarray(scores).reshape(samples, n).argmax(axis=1)
        chosen.append([row[sample * n + int(place)] for sample, place in enumerate(best)])
    return chosen


def _sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Prompts,
    samples: int,
    temperature: float = 0.7,
) -> Completions:
    return sample_completions(
        model,
        tokenizer,
        prompts,
        samples_per_prompt=samples,
        temperature=temperature,
        seed=CONTROL_SEED,
        batch_size=128,
    )


CONTROLS: Mapping[str, Callable[..., Completions]] = {
    "prompted": prompted,
    "temperature_0.3": functools.partial(cooler, temperature=0.3),
    "best_of_4": functools.partial(best_of, n=4),
}

"""Fresh answers to TruthfulQA's test questions, judged by classifiers that learnt from the training questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

from fairpo_trl.evaluation import sample_completions
from fairpo_trl.preferences.rules import prompt_key


SAMPLES = 4
"""Answers to a question."""
TOKENS = 32
"""An answer's limit; the answers of the training pairs have at most 16 words."""


def write_answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[list[str]]:
    """
    Fresh answers, `[questions][SAMPLES]`: what is written until the first line break.

    Models share their random numbers, so that differences between them are paired.
    """
    ends = {tokenizer.eos_token_id, *(ids[0] for text in ("\n", "\n\n") if len(ids := tokenizer.encode(text)) == 1)}
    written = sample_completions(
        model, tokenizer, prompts, samples_per_prompt=SAMPLES, max_new_tokens=TOKENS, end_token_ids=sorted(ends),
        progress=False,
    )  # fmt: skip
    return [[(c.text.strip().splitlines() or [""])[0] for c in row] for row in written]


class AnswerJudge:
    """
    How likely people call an answer truthful, or informative, by its words and pairs of words alone.

    A logistic regression whose strength is chosen by 5 folds over questions. It knows neither the question nor any
    fact: it knows the manner of answers that people judged so.

    Args:
        judged (`Sequence[Mapping[str, Any]]`): Judgements: `prompt`, `response`, and the attribute from 0 to 1.
        attribute (`str`): `"truthful"` or `"informative"`.
    """

    def __init__(self, judged: Sequence[Mapping[str, Any]], attribute: str) -> None:
        self.attribute = attribute
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"),
            LogisticRegression(max_iter=2000),
        )
        strengths = {"logisticregression__C": [0.3, 1.0, 3.0, 10.0]}
        self._model = GridSearchCV(model, strengths, scoring="neg_log_loss", cv=GroupKFold(5)).fit(
            [row["response"] for row in judged],
            np.array([row[attribute] > 0.5 for row in judged]),
            groups=[prompt_key(row["prompt"]) for row in judged],
        )

    def __call__(self, answers: Sequence[str]) -> NDArray[np.float64]:
        """Probability of each answer, `[answers]`; one without a word informs nobody."""
        found = np.asarray(self._model.predict_proba(list(answers))[:, 1], dtype=np.float64)
        return found if self.attribute == "truthful" else found * [any(map(str.isalnum, text)) for text in answers]

    def ranked_right(self, judged: Sequence[Mapping[str, Any]]) -> float:
        """Share of the pairs of answers to one question, one of them judged so and one not, that it ranks right."""
        by_question: dict[str, list[tuple[float, bool]]] = {}
        for row, score in zip(judged, self([row["response"] for row in judged]), strict=True):
            by_question.setdefault(prompt_key(row["prompt"]), []).append((score, row[self.attribute] > 0.5))
        right = [
            float(a > b)
            for scored in by_question.values()
            for a in [score for score, yes in scored if yes]
            for b in [score for score, yes in scored if not yes]
        ]
        return float(np.mean(right)) if right else float("nan")

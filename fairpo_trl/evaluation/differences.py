"""A judged attribute as one number per prompt: win rate against the reference, less the reference's against itself.

The second writing of the reference shares its random numbers with the candidates', so that most of what sampling adds
cancels; its mean is what a judge says of two writings of one model.

A text that a judge cannot score must not vanish: a model that writes nothing would pass for lack of evidence. So the
prompts that count are those on which the judge could score *the reference's* texts, the same for every candidate; a
text of a candidate that it cannot score has lost against all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.evaluation.comparison import Writing, compare_writings, score_writings
from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.evaluation.judges import Judge, PairJudge, ScoreJudge
from fairpo_trl.evaluation.win_rates import win_rate


@dataclass(frozen=True)
class Differences:
    """
    One candidate in one attribute as one judge sees it.

    Attributes:
        values (`NDArray[np.float64]`): `[prompts]` differences of win rates within -1 and 1.
        lost (`int`): Texts of the candidate that the judge could not score, which count as lost.
    """

    values: NDArray[np.float64]
    lost: int


class AttributeMeasure:
    """
    An attribute under one judge, on one list of prompts.

    Args:
        attribute (`str`):
            Its name, as pairwise judges are asked.
        judge ([`~fairpo_trl.evaluation.judges.ScoreJudge`] or [`~fairpo_trl.evaluation.judges.PairJudge`]):
            Who judges.
        prompts (`Sequence`):
            `[prompts]`.
        reference (`Sequence[Sequence[str]]`):
            `[prompts][samples]` texts of the reference.
        again (`Sequence[Sequence[str]]`):
            The reference's with the random numbers of the candidates.

    Raises:
        ValueError: If the judge cannot score the reference's texts on at least two prompts.
    """

    def __init__(
        self, attribute: str, judge: Judge, prompts: Sequence[Prompt], reference: Writing, again: Writing
    ) -> None:
        self.attribute, self._judge, self._reference = attribute, judge, reference
        self._scores: NDArray[np.float64] | None = None
        if hasattr(judge, "compare"):
            control = self._outcomes(prompts, again, reference)
            kept = ~np.isnan(control).any(axis=1)
            self.control = control[kept].mean(axis=1)
        else:
            scores = score_writings(judge, prompts, {"reference": reference, "again": again})
            kept = ~np.isnan(np.concatenate(list(scores.values()), axis=1)).any(axis=1)
            self._scores = scores["reference"][kept]
            self.control = win_rate(scores["again"][kept], self._scores) if kept.any() else np.empty(0)
        self.kept = np.flatnonzero(kept)
        if len(self.kept) < 2:
            raise ValueError(
                f"The judge {judge.description} could score the reference's texts on {len(self.kept)} of "
                f"{len(prompts)} prompts only: {attribute!r} cannot be measured by it."
            )
        self._prompts = [prompts[int(i)] for i in self.kept]

    def differences(self, candidate: Writing) -> Differences:
        """
        The candidate's win rate against the reference less that of the reference against itself, per prompt, from its
        `[prompts][samples]` texts on all prompts.
        """
        own = [candidate[int(i)] for i in self.kept]
        if self._scores is None:
            outcomes = self._outcomes(self._prompts, own, [self._reference[int(i)] for i in self.kept])
            lost = int(np.isnan(outcomes).sum())
            return Differences(np.nan_to_num(outcomes, nan=0.0).mean(axis=1) - self.control, lost)
        scores = score_writings(cast(ScoreJudge, self._judge), self._prompts, {"": own})[""]
        lost = int(np.isnan(scores).sum())
        values = win_rate(np.where(np.isnan(scores), -np.inf, scores), self._scores)
        return Differences(values - self.control, lost)

    def _outcomes(self, prompts: Sequence[Prompt], candidate: Writing, reference: Writing) -> NDArray[np.float64]:
        return compare_writings(cast(PairJudge, self._judge), self.attribute, prompts, candidate, reference).outcomes

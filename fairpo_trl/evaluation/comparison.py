"""One model against its reference in one attribute, as one judge sees it: outcomes, scores, the worst changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.evaluation.judges import PairJudge, ScoreJudge, Verdicts
from fairpo_trl.evaluation.length_control import length_controlled_win_rate
from fairpo_trl.evaluation.win_rates import Estimate, WinRateRow, all_pairs, compare_win_values, paired_bootstrap


Writing = Sequence[Sequence[str]]
"""`[prompts][samples]` texts of one model."""


@dataclass(frozen=True)
class PromptChange:
    """A prompt (its index) and sample on which the model's score or outcome changed, by `change` < 0."""

    prompt: int
    sample: int
    change: float


@dataclass(frozen=True)
class Comparison:
    """
    What one judge says. Prompts on which it failed anywhere are left out of every number.

    Attributes:
        prompts: `[kept]` indices of the prompts that were judged.
        outcomes: `[kept, comparisons]` of the model against the reference: 1 won, 0.5 tied, 0 lost.
        control: `[kept, comparisons]` of the reference's second writing against its first.
        length_differences: `[kept, comparisons]` characters of the model's text less those of the reference's.
        changes: `[kept, samples]` score less the reference's, or outcome less 0.5 for a judge without scores.
        trained: `[kept, samples]` scores; `None` for a judge without scores.
        reference: `[kept, samples]` scores of the reference's; `None` likewise.
        calls: Texts scored, or questions asked.
        cached: Answers that were on disk.
        failures: Texts or questions without a score or verdict.
    """

    prompts: NDArray[np.int64]
    outcomes: NDArray[np.float64]
    control: NDArray[np.float64]
    length_differences: NDArray[np.float64]
    changes: NDArray[np.float64]
    trained: NDArray[np.float64] | None
    reference: NDArray[np.float64] | None
    calls: int
    cached: int
    failures: int

    def win_rates(self, attribute: str, role: str, judge: str, seed: int = 0) -> WinRateRow | None:
        """Win rates with intervals over prompts; `None` if no prompt was judged."""
        if not len(self.prompts):
            return None
        values, control = self.outcomes.mean(axis=1), self.control.mean(axis=1)
        return compare_win_values(attribute, role, judge, trained=values, reference_again=control, seed=seed)

    def negative_flips(self) -> tuple[float, float] | None:
        """
        Share of prompts on which every sample of the model loses to all of the reference's, and the same for the
        reference's second writing; `None` if no prompt was judged.
        """
        if not len(self.prompts):
            return None
        trained, again = (float((found.max(axis=1) == 0).mean()) for found in (self.outcomes, self.control))
        return trained, again

    def length_controlled(self, seed: int = 0) -> Estimate | None:
        """Win rate at equal length; `None` where there is none, see `length_controlled_win_rate`."""
        if not len(self.prompts):
            return None
        return length_controlled_win_rate(self.outcomes, self.length_differences, seed=seed)

    def mean_scores(self, seed: int = 0) -> dict[str, Estimate] | None:
        """`trained`, `reference` and their paired `difference`; `None` for a judge without scores."""
        if self.trained is None or self.reference is None or not len(self.prompts):
            return None
        trained, reference = self.trained.mean(axis=1), self.reference.mean(axis=1)
        return {
            "trained": paired_bootstrap(trained, seed=seed),
            "reference": paired_bootstrap(reference, seed=seed),
            "difference": paired_bootstrap(trained, reference, seed=seed),
        }

    def worst_changes(self, count: int) -> list[PromptChange]:
        """The `count` prompts with the greatest loss, worst first, each with its worst sample; gains are left out."""
        if not len(self.prompts):
            return []
        samples = self.changes.argmin(axis=1)
        worst = self.changes.min(axis=1)
        order = [i for i in np.argsort(worst, kind="stable")[:count].tolist() if worst[i] < 0]
        return [PromptChange(int(self.prompts[i]), int(samples[i]), float(worst[i])) for i in order]


def score_writings(
    judge: ScoreJudge, prompts: Sequence[Prompt], writings: Mapping[str, Writing]
) -> dict[str, NDArray[np.float64]]:
    """
    Score the texts of several models; a text that several wrote after the same prompt is scored once.

    Args:
        judge ([`ScoreJudge`]):
            Who scores.
        prompts (`Sequence[Prompt]`):
            `[prompts]`.
        writings (`Mapping[str, Writing]`):
            Model -> its `[prompts][samples]` texts.

    Returns:
        `dict[str, NDArray[np.float64]]`: Model -> `[prompts, samples]` scores, NaN where the judge failed.
    """
    unique = list(dict.fromkeys((p, text) for rows in writings.values() for p, row in enumerate(rows) for text in row))
    scores = judge.score([prompts[p] for p, _ in unique], [text for _, text in unique])
    found = dict(zip(unique, scores.tolist(), strict=True))
    return {
        name: np.array([[found[p, text] for text in row] for p, row in enumerate(rows)])
        for name, rows in writings.items()
    }


def compare_by_scores(
    trained: Writing,
    reference: Writing,
    again: Writing,
    *,
    trained_scores: NDArray[np.float64],
    reference_scores: NDArray[np.float64],
    again_scores: NDArray[np.float64],
) -> Comparison:
    """
    Compare all samples of a prompt with all of the reference's by their scores.

    Args:
        trained, reference, again ([`Writing`]):
            The model's texts, the reference's, and the reference's with another seed.
        trained_scores, reference_scores, again_scores (`NDArray[np.float64]`):
            `[prompts, samples]` of each, NaN where the judge failed.
    """
    every = np.concatenate([trained_scores, reference_scores, again_scores], axis=1)
    kept = np.flatnonzero(~np.isnan(every).any(axis=1))
    texts = {
        (p, text): bool(np.isnan(score))
        for rows, scores in ((trained, trained_scores), (reference, reference_scores), (again, again_scores))
        for p, row in enumerate(rows)
        for text, score in zip(row, scores[p], strict=True)
    }
    lengths = _lengths(trained)[:, :, None] - _lengths(reference)[:, None, :]
    return Comparison(
        prompts=kept,
        outcomes=all_pairs(trained_scores[kept], reference_scores[kept]),
        control=all_pairs(again_scores[kept], reference_scores[kept]),
        length_differences=lengths.reshape(len(lengths), -1)[kept],
        changes=trained_scores[kept] - reference_scores[kept],
        trained=trained_scores[kept],
        reference=reference_scores[kept],
        calls=len(texts),
        cached=0,
        failures=sum(texts.values()),
    )


def compare_by_pairs(
    judge: PairJudge, attribute: str, prompts: Sequence[Prompt], trained: Writing, reference: Writing, again: Writing
) -> Comparison:
    """
    Let a judge compare each sample with the reference's sample of the same number.

    Args:
        judge ([`PairJudge`]):
            Who compares.
        attribute (`str`):
            In which respect.
        prompts (`Sequence[Prompt]`):
            `[prompts]`.
        trained, reference, again:
            As in [`compare_by_scores`].
    """
    verdicts = [compare_writings(judge, attribute, prompts, rows, reference) for rows in (trained, again)]
    outcomes, control = (found.outcomes for found in verdicts)
    kept = np.flatnonzero(~np.isnan(np.concatenate([outcomes, control], axis=1)).any(axis=1))
    return Comparison(
        prompts=kept,
        outcomes=outcomes[kept],
        control=control[kept],
        length_differences=(_lengths(trained) - _lengths(reference))[kept],
        changes=outcomes[kept] - 0.5,
        trained=None,
        reference=None,
        calls=sum(found.calls for found in verdicts),
        cached=sum(found.cached for found in verdicts),
        failures=sum(found.failures for found in verdicts),
    )


def compare_writings(
    judge: PairJudge, attribute: str, prompts: Sequence[Prompt], writing: Writing, reference: Writing
) -> Verdicts:
    """Verdicts on each sample and the reference's of the same number; their outcomes are `[prompts, samples]`."""
    asked = [prompt for prompt, row in zip(prompts, writing, strict=True) for _ in row]
    first, second = ([text for row in rows for text in row] for rows in (writing, reference))
    found = judge.compare(attribute, asked, first, second)
    return replace(found, outcomes=found.outcomes.reshape(len(writing), -1))


def _lengths(rows: Writing) -> NDArray[np.float64]:
    return np.array([[len(text.strip()) for text in row] for row in rows], dtype=np.float64)

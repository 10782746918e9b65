"""Win rates of one model's completions against another's, with bootstrap intervals over prompts; tables of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


_CHUNK = 2_000_000
"""Indices drawn at once by the bootstrap: bounds its memory."""


def format_number(value: float) -> str:
    """Fixed-point number without the leading zero: `0.731` -> `.73`, `-0.05` -> `-.05`, `1.0` -> `1.00`."""
    text = f"{value:z.2f}"  # no -0.00
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


@dataclass(frozen=True)
class Estimate:
    """
    A mean over prompts with a confidence interval.

    Attributes:
        mean (`float`): Mean over prompts.
        low (`float`): Lower end of the interval; `None` if there is one prompt only, from which no interval can be
            had.
        high (`float`): Upper end; `None` likewise.
        n (`int`): Number of prompts.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        """For example `.73 [.68, .78]`, or `.73` without an interval."""
        if self.low is None or self.high is None:
            return format_number(self.mean)
        return f"{format_number(self.mean)} [{format_number(self.low)}, {format_number(self.high)}]"

    def to_dict(self) -> dict[str, float]:
        """`{mean, low, high, n}`, without `low` and `high` if there is no interval."""
        numbers: dict[str, float] = {"mean": self.mean, "n": self.n}
        if self.low is not None and self.high is not None:
            numbers |= {"low": self.low, "high": self.high}
        return numbers


def win_rate(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """
    Per prompt, the probability that a completion of A scores higher than one of B, ties counting one half.

    All pairs of samples of a prompt are compared, so the two models may have different numbers of samples.

    Args:
        a ([`ArrayLike`]):
            `[prompts, samples of A]` scores, higher is better; `[prompts]` is read as one sample each.
        b ([`ArrayLike`]):
            `[prompts, samples of B]` scores on the same prompts.

    Returns:
        `[prompts]` values within 0 and 1; 0.5 means as good as B.

    Raises:
        ValueError: Numbers of prompts differ, a matrix is empty, or a score is NaN (the message names the prompt).

    Example:
        >>> win_rate([[2.0, 0.0]], [[1.0, 0.0]])
        array([0.625])
    """
    first, second = as_matrix(a, "a"), as_matrix(b, "b")
    if first.shape[0] != second.shape[0]:
        raise ValueError(f"a holds scores of {first.shape[0]} prompts, b of {second.shape[0]}: they must be the same.")
    return all_pairs(first, second).mean(axis=1)


def paired_bootstrap(
    per_prompt: ArrayLike,
    baseline: ArrayLike | None = None,
    *,
    n: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """
    Mean over prompts with a percentile bootstrap interval, prompts being resampled.

    Args:
        per_prompt ([`ArrayLike`]):
            `[prompts]` values, for example from [`win_rate`].
        baseline ([`ArrayLike`], *optional*):
            `[prompts]` values of the same prompts, for example the win values of the reference against itself with
            another seed. If given, the estimate is of the mean difference `per_prompt - baseline`, and each resample
            takes the same prompts for both.
        n (`int`, *optional*, defaults to `10000`):
            Number of resamples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling; the result is deterministic.
        level (`float`, *optional*, defaults to `0.95`):
            Level of the two-sided interval.

    Returns:
        `Estimate`: the estimate; without interval if there is only one prompt. With few prompts (below about 20)
        percentile intervals are too narrow.

    Raises:
        ValueError: Shapes differ, there are no prompts, a value is not finite, or `n` or `level` is out of range.
    """
    values = np.asarray(per_prompt, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"per_prompt must be one value per prompt, at least one; its shape is {values.shape}.")
    if baseline is not None:
        other = np.asarray(baseline, dtype=np.float64)
        if other.shape != values.shape:
            raise ValueError(f"per_prompt has shape {values.shape}, baseline {other.shape}: they must be the same.")
        values = values - other
    _refuse_nan(values[:, None], "per_prompt (or baseline)")
    if np.isinf(values).any():
        raise ValueError(f"per_prompt (or baseline) is infinite at prompt {np.flatnonzero(np.isinf(values))[0]}.")
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"n must be at least 1 and level between 0 and 1, got {n} and {level}.")
    prompts = len(values)
    if prompts == 1:
        return Estimate(mean=float(values[0]), low=None, high=None, n=1)
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // prompts)
    means = np.concatenate(
        [
            values[rng.integers(0, prompts, size=(min(rows, n - done), prompts))].mean(axis=1)
            for done in range(0, n, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean=float(values.mean()), low=float(low), high=float(high), n=prompts)


@dataclass(frozen=True)
class WinRateRow:
    """
    One attribute as seen by one judge.

    Attributes:
        attribute (`str`): Name of the attribute.
        role (`str`): `privileged` or `non_privileged`.
        judge (`str`): Who scored, for example `scorer` or `second_judge`.
        trained ([`Estimate`]): Win rate of the trained model against the reference.
        reference_vs_itself ([`Estimate`], *optional*): Win rate of the reference with another seed against the
            reference; its distance from 0.5 is sampling noise. `None` if it was not measured.
        difference ([`Estimate`], *optional*): `trained - reference_vs_itself` with a paired interval; `None` likewise.
    """

    attribute: str
    role: str
    judge: str
    trained: Estimate
    reference_vs_itself: Estimate | None = None
    difference: Estimate | None = None


def compare_scores(
    attribute: str,
    role: str,
    judge: str,
    *,
    trained: ArrayLike,
    reference: ArrayLike,
    reference_again: ArrayLike | None = None,
    seed: int = 0,
) -> WinRateRow:
    """
    Win rates of one attribute from the scores of one judge.

    Args:
        attribute, role, judge (`str`):
            As in [`WinRateRow`].
        trained ([`ArrayLike`]):
            `[prompts, samples]` scores of the trained model's completions, higher is better.
        reference ([`ArrayLike`]):
            `[prompts, samples]` scores of the reference's completions on the same prompts.
        reference_again ([`ArrayLike`], *optional*):
            The same with another sampling seed, if there is one. For the difference to be paired, sample it with the
            seed of `trained`.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the bootstrap.

    Returns:
        `WinRateRow`: what cannot be computed is `None` in it.

    Raises:
        ValueError: Shapes differ or a score is NaN.
    """
    values = win_rate(trained, reference)
    baseline = None if reference_again is None else win_rate(reference_again, reference)
    return compare_win_values(attribute, role, judge, trained=values, reference_again=baseline, seed=seed)


def compare_win_values(
    attribute: str,
    role: str,
    judge: str,
    *,
    trained: ArrayLike,
    reference_again: ArrayLike | None = None,
    seed: int = 0,
) -> WinRateRow:
    """
    Win rates of one attribute from win values, as a judge gives them that compares texts without scoring them.

    Args:
        attribute, role, judge, seed:
            As in [`compare_scores`].
        trained ([`ArrayLike`]):
            `[prompts]` win values of the trained model against the reference (1 won, 0.5 tied, 0 lost).
        reference_again ([`ArrayLike`], *optional*):
            The same of the reference with another sampling seed, if there is one.

    Returns:
        `WinRateRow`: what cannot be computed is `None` in it.

    Raises:
        ValueError: Shapes differ or a value is NaN.
    """
    row = WinRateRow(attribute, role, judge, paired_bootstrap(trained, seed=seed))
    if reference_again is None:
        return row
    again = paired_bootstrap(reference_again, seed=seed)
    return replace(row, reference_vs_itself=again, difference=paired_bootstrap(trained, reference_again, seed=seed))


class WinRateTable:
    """
    Rows of win rates, as a data frame or as nested dictionaries for a results file.

    Args:
        rows (`Sequence[WinRateRow]`):
            At most one per attribute and judge.

    Raises:
        ValueError: Two rows have the same attribute and judge, or an attribute has two roles.
    """

    def __init__(self, rows: Sequence[WinRateRow]) -> None:
        pairs = [(row.attribute, row.judge) for row in rows]
        if len(set(pairs)) < len(pairs):
            raise ValueError("There are two rows with the same attribute and judge.")
        if len({(row.attribute, row.role) for row in rows}) > len({row.attribute for row in rows}):
            raise ValueError("An attribute has two roles.")
        self.rows = sorted(rows, key=lambda row: row.role != "privileged")  # stable: privileged attributes first

    def to_frame(self) -> pd.DataFrame:
        """Indexed by (attribute, role, judge), the columns hold [`Estimate`] objects, `None` where absent."""
        columns = ("reference_vs_itself", "trained", "difference")
        index = pd.MultiIndex.from_tuples(
            [(row.attribute, row.role, row.judge) for row in self.rows], names=["attribute", "role", "judge"]
        )
        cells = [[getattr(row, column) for column in columns] for row in self.rows]
        return pd.DataFrame(cells, index=index, columns=list(columns), dtype=object)

    def _repr_html_(self) -> str:
        from fairpo_trl.reporting.render.notebook import metrics_html

        return metrics_html({"Win rates against the reference": self.to_text().reset_index(["role", "judge"])})

    def to_text(self) -> pd.DataFrame:
        """The same frame with text such as `.73 [.68, .78]`, an en dash where absent."""
        return self.to_frame().map(lambda cell: "–" if cell is None else str(cell))

    def to_records(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """`{attribute: {judge: {quantity: {mean, low, high, n}}}}` with absent quantities left out."""
        records: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
        for (attribute, _, judge), cells in self.to_frame().iterrows():
            present = {name: cell.to_dict() for name, cell in cells.items() if cell is not None}
            records.setdefault(attribute, {})[judge] = present
        return records


def all_pairs(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[prompts, samples of A * samples of B]`: 1 where A scores higher, 0.5 for ties (also of infinities)."""
    first, second = a[:, :, None], b[:, None, :]
    return ((first > second) + 0.5 * (first == second)).reshape(len(a), a.shape[1] * b.shape[1])


def as_matrix(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """`[prompts, samples]` numbers, none of them NaN, of such or of one sample a prompt; errors call them `name`."""
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:  # text, or rows of different lengths
        raise ValueError(f"{name} must be a matrix of numbers [prompts, samples]: {error}.") from error
    if scores.ndim == 1:
        scores = scores[:, None]
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"{name} must have shape [prompts, samples] and not be empty; its shape is {scores.shape}.")
    _refuse_nan(scores, name)
    return scores


def _refuse_nan(values: NDArray[np.float64], name: str) -> None:
    bad = np.flatnonzero(np.isnan(values).any(axis=1))
    if len(bad):
        shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise ValueError(f"{name} is NaN at prompt {shown} (of {len(values)}): score every completion or drop it.")

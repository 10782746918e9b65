"""Win rates of every attribute and judge in one table."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from numpy.typing import ArrayLike

from fairpo_trl.evaluation.win_rates import Estimate, paired_bootstrap, win_rate


@dataclass(frozen=True)
class WinRateRow:
    """
    One attribute as seen by one judge.

    Attributes:
        attribute (`str`):
            Name of the attribute.
        role (`str`):
            `privileged` or `non_privileged`.
        judge (`str`):
            Who scored, for example `scorer` or `second_judge`.
        trained ([`Estimate`]):
            Win rate of the trained model against the reference.
        reference_vs_itself ([`Estimate`], *optional*):
            Win rate of the reference with another seed against the reference; its distance from 0.5 is sampling noise.
            `None` if it was not measured.
        difference ([`Estimate`], *optional*):
            `trained - reference_vs_itself` with a paired interval; `None` likewise.
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
        attribute (`str`):
            Name of the attribute.
        role (`str`):
            `privileged` or `non_privileged`.
        judge (`str`):
            Name of the judge.
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
        `WinRateRow`: the row; what cannot be computed is `None`.

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
        `WinRateRow`: the row; what cannot be computed is `None`.

    Raises:
        ValueError: Shapes differ or a value is NaN.
    """
    if reference_again is None:
        return WinRateRow(attribute, role, judge, trained=paired_bootstrap(trained, seed=seed))
    return WinRateRow(
        attribute,
        role,
        judge,
        trained=paired_bootstrap(trained, seed=seed),
        reference_vs_itself=paired_bootstrap(reference_again, seed=seed),
        difference=paired_bootstrap(trained, reference_again, seed=seed),
    )


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

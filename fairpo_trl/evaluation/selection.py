"""The boldest of several models whose held measures are shown not to be worse: one test with one error level.

Candidates come in an order that was fixed before anything was measured, from the safest to the boldest. One passes if
each of its held measures does (intersection-union test: each at the level itself, since all must pass). Testing stops
at the first that fails (fixed-sequence test: no further correction). Call a candidate a violation if its true mean
difference in some held measure lies at or below minus the margin. The chance that any violation passes is at most the
level, whichever of those that passed is handed over: the first violation would have to pass in that very measure.

See Berger (1982) for the one, Maurer, Hothorn and Lehmacher (1995) for the other, and Angelopoulos et al. (2021),
"Learn then test", for both in the choice of models. Nothing here knows what was measured: numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from numpy.typing import ArrayLike

from fairpo_trl.evaluation.bounds import Bound, Resampled, measured
from fairpo_trl.evaluation.power import prompts_needed


Status: TypeAlias = Literal["passed", "failed", "untested"]

SCALES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Shares of the way from a reference to a trained model, and beyond: the path by default."""


def check_scales(scales: Sequence[float]) -> None:
    """Raises `ValueError` unless there are scales and they are positive and rise."""
    if not scales or any(not 0 < scale < float("inf") for scale in scales) or sorted(set(scales)) != list(scales):
        raise ValueError(f"`scales` must be positive and rise from the safest to the boldest, got {list(scales)}.")


def check_points(margin: float, level: float, aside_share: float, scales: Sequence[float]) -> None:
    """Raises `ValueError`, naming the option, for a test in points (of average precision, of F1) that is none."""
    if not 0 < margin < 100:
        raise ValueError(f"`margin` must be between 0 and 100 points, got {margin}.")
    if not 0 < level < 0.5:
        raise ValueError(f"`level` must be between 0 and 0.5, got {level}.")
    if not 0 <= aside_share < 1:
        raise ValueError(f"`aside_share` must be at least 0 and below 1, got {aside_share}.")
    check_scales(scales)


@dataclass(frozen=True)
class Held:
    """
    One measure of one candidate that must not get worse.

    Attributes:
        differences (`ArrayLike` or [`Resampled`]): `[examples]`: the candidate's value less the reference's on the
            same example, higher is better. An example is what was drawn at random: the prompt (the mean of its
            samples), the document, the question. Or what is no mean over examples.
        margin (`float`, *optional*, defaults to `0.05`): How far the mean may fall, in the unit of the differences;
            positive.
        lowest (`float`, *optional*, defaults to `-1.0`): Smallest difference there can be; `None` if there is none.
            The default is that of win rates.
        highest (`float`, *optional*, defaults to `1.0`): Largest difference there can be; `None` if there is none.
    """

    differences: ArrayLike | Resampled
    margin: float = 0.05
    lowest: float | None = -1.0
    highest: float | None = 1.0


@dataclass(frozen=True)
class Candidate:
    """
    What was measured of one candidate.

    Attributes:
        name (`str`): What it is called.
        gain (`ArrayLike` or [`Resampled`]): `[prompts]` privileged gain over the reference on each prompt, or one that
            is no mean over prompts.
        held (`Mapping[str, Held]`): Measure -> its differences.
        gain_lowest (`float`, *optional*, defaults to `-1.0`): Smallest gain there can be on a prompt; `None` if there
            is none.
        gain_highest (`float`, *optional*, defaults to `1.0`): Largest gain there can be on a prompt; `None` if there
            is none.
    """

    name: str
    gain: ArrayLike | Resampled
    held: Mapping[str, Held]
    gain_lowest: float | None = -1.0
    gain_highest: float | None = 1.0


@dataclass(frozen=True)
class HeldTest:
    """
    The test of one held measure.

    Attributes:
        measure (`str`): Its name.
        margin (`float`): How far it may fall.
        mean (`float`): Mean difference that was seen.
        bound (`float`): One-sided lower bound of the true mean.
        spread (`float`): Standard deviation of the differences.
        examples (`int`): How many there were.
        passed (`bool`): Whether the bound lies above minus the margin.
        normal (`bool`): Whether there are 25 skewness^2 examples (Cochran's rule), or resamples have a skewness of at
            most 0.2, which is the same; bounds that hold at every number of examples do not need it.
        needed (`int`, *optional*): Examples that show this margin with 80 % chance if the truth is what was seen;
            `None` if no number does.
        needed_if_equal (`int`, *optional*): The same if the truth is no difference.
    """

    measure: str
    margin: float
    mean: float
    bound: float
    spread: float
    examples: int
    passed: bool
    normal: bool
    needed: int | None
    needed_if_equal: int | None


@dataclass(frozen=True)
class CandidateTest:
    """
    The test of one candidate.

    Attributes:
        name (`str`): What it is called.
        gain (`float`): Mean privileged gain that was seen.
        gain_bound (`float`): Its one-sided lower bound, at the level divided by the number of candidates that might
            have been chosen: it holds although the highest gain was chosen.
        held (`tuple[HeldTest, ...]`): Every held measure.
        status (`str`): `passed`, `failed`, or `untested` after the first that failed.
    """

    name: str
    gain: float
    gain_bound: float
    held: tuple[HeldTest, ...]
    status: Status

    @property
    def worst(self) -> HeldTest | None:
        """The held measure with the lowest bound, in units of its margin: below -1 it fails."""
        return min(self.held, key=lambda test: test.bound / test.margin, default=None)


@dataclass(frozen=True)
class Selection:
    """
    What the test decided.

    Attributes:
        level (`float`): Chance of a wrong promise, at most.
        bound (`str`): Kind of the bounds.
        candidates (`tuple[CandidateTest, ...]`): In the order in which they were tested.
        chosen (`str`, *optional*): The candidate to hand over; `None` for the reference.
    """

    level: float
    bound: Bound
    candidates: tuple[CandidateTest, ...]
    chosen: str | None

    @property
    def chosen_test(self) -> CandidateTest | None:
        """The test of what is handed over; `None` for the reference."""
        return next((test for test in self.candidates if test.name == self.chosen), None)

    @property
    def stopped_by(self) -> tuple[CandidateTest, HeldTest] | None:
        """The candidate at which testing stopped, and its worst held measure; `None` if all passed."""
        failed = next((test for test in self.candidates if test.status == "failed"), None)
        return None if failed is None or failed.worst is None else (failed, failed.worst)

    def _repr_html_(self) -> str:
        from fairpo_trl.evaluation.statement import statement
        from fairpo_trl.reporting.render.notebook import parts_html
        from fairpo_trl.reporting.selection_report import selection_parts

        return parts_html(selection_parts(self, statement(self)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def select(candidates: Iterable[Candidate], *, level: float = 0.05, bound: Bound = "t", seed: int = 0) -> Selection:
    """
    Chooses the candidate with the highest privileged gain among those that are shown not to be worse.

    Args:
        candidates (`Iterable[Candidate]`):
            All candidates, in an order that was fixed before anything was measured, from the safest.
        level (`float`, *optional*, defaults to `0.05`):
            Chance, at most, that a candidate is handed over although the true mean of one of its held measures lies at
            or below minus the margin.
        bound (`str`, *optional*, defaults to `"t"`):
            Kind of the bounds, see [`~fairpo_trl.evaluation.bounds.lower_bounds`].
        seed (`int`, *optional*, defaults to `0`):
            Of the bounds that draw.

    Returns:
        [`Selection`]

    Raises:
        ValueError: If names repeat, measures differ, nothing is held, a margin is not positive, or a number is not
            finite or out of its range.

    Example:
        >>> gains = {"half": [0.5, 0.0] * 100, "whole": [0.5, 0.5] * 100}
        >>> polite = {"half": [0.25, -0.25] * 100, "whole": [0.0, -0.5] * 100}
        >>> path = [Candidate(name, gains[name], {"polite": Held(polite[name])}) for name in ("half", "whole")]
        >>> select(path).chosen
        'half'
    """
    path = list(candidates)
    tests = [assess(c, candidates=len(path), level=level, bound=bound, seed=seed) for c in path]
    return decide(tests, level=level, bound=bound)


def select_in_order(
    measures: Sequence[Callable[[], Candidate]],
    *,
    level: float = 0.05,
    bound: Bound = "t",
    seed: int = 0,
    measure_all: bool = False,
    report: Callable[[CandidateTest], object] = lambda test: None,
) -> Selection:
    """
    As [`select`], but a candidate is only measured if all before it passed.

    Args:
        measures (`Sequence[Callable]`):
            Measures one candidate each, from the safest.
        level, bound, seed:
            As in [`select`].
        measure_all (`bool`, *optional*, defaults to `False`):
            Whether candidates after the first failure are measured too; they stay untested.
        report (`Callable`, *optional*):
            Called with each test as it is done.

    Raises:
        ValueError: As [`select`].
    """
    tests: list[CandidateTest] = []
    for measure in measures:
        tests.append(assess(measure(), candidates=len(measures), level=level, bound=bound, seed=seed))
        report(tests[-1])
        if tests[-1].status == "failed" and not measure_all:
            break
    return decide(tests, level=level, bound=bound)


def assess(
    candidate: Candidate, *, candidates: int = 1, level: float = 0.05, bound: Bound = "t", seed: int = 0
) -> CandidateTest:
    """
    Tests one candidate by itself: it `passed` or `failed`.

    Args:
        candidate ([`Candidate`]):
            What was measured.
        candidates (`int`, *optional*, defaults to `1`):
            How many there are on the whole path, measured or not; 1 on examples that decide nothing.
        level, bound, seed:
            As in [`select`]; each held measure is tested at the level itself.

    Raises:
        ValueError: As [`select`].
    """
    lowest, highest = candidate.gain_lowest, candidate.gain_highest
    try:
        gain = measured(candidate.gain, lowest, highest, bound, level / candidates, seed)
    except ValueError as error:
        raise ValueError(f"The gain of {candidate.name!r}: {error}") from error
    held = []
    for measure, values in candidate.held.items():
        try:
            held.append(_test_held(measure, values, level, bound, seed))
        except ValueError as error:
            raise ValueError(f"{measure!r} of {candidate.name!r}: {error}") from error
    return CandidateTest(
        name=candidate.name,
        gain=gain.mean,
        gain_bound=gain.bound,
        held=tuple(held),
        status="passed" if all(test.passed for test in held) else "failed",
    )


def decide(tests: Sequence[CandidateTest], *, level: float = 0.05, bound: Bound = "t") -> Selection:
    """
    Stops at the first candidate that failed and chooses among those before it.

    Candidates after it, which may be there or not, are `untested`. The reference is chosen if none passed, or if none
    that passed has a gain above 0.

    Raises:
        ValueError: If two candidates have one name, or hold other measures or margins.
    """
    names = [test.name for test in tests]
    if len(set(names)) < len(names):
        raise ValueError(f"Two candidates have the same name among {names}.")
    if not all(test.held for test in tests):
        raise ValueError("Nothing is held: a promise needs a measure that must not get worse.")
    promises = [{(held.measure, held.margin) for held in test.held} for test in tests]
    for name, promise in zip(names, promises, strict=True):
        if promise != promises[0]:
            raise ValueError(
                f"{name!r} holds other measures or margins than {names[0]!r}: every candidate must be tested alike."
            )
    first_failure = next((i for i, test in enumerate(tests) if test.status == "failed"), len(tests))
    decided = tuple(test if i <= first_failure else replace(test, status="untested") for i, test in enumerate(tests))
    best = max(decided[:first_failure], key=lambda test: test.gain, default=None)
    chosen = best.name if best is not None and best.gain > 0 else None
    return Selection(level=level, bound=bound, candidates=decided, chosen=chosen)


def _test_held(measure: str, held: Held, level: float, bound: Bound, seed: int) -> HeldTest:
    if not held.margin > 0:
        raise ValueError(f"the margin must be positive, got {held.margin}.")
    found = measured(held.differences, held.lowest, held.highest, bound, level, seed)
    options: dict[str, Any] = {"margin": held.margin, "level": level, "lowest": held.lowest}
    return HeldTest(
        measure=measure,
        margin=held.margin,
        mean=found.mean,
        bound=found.bound,
        spread=found.spread,
        examples=found.examples,
        passed=found.bound > -held.margin,
        normal=found.normal,
        needed=prompts_needed(found.spread, difference=found.mean, **options),
        needed_if_equal=prompts_needed(found.spread, **options),
    )

"""A selection from prompts to verdict: candidates write and are judged until one fails, the chosen one once more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.evaluation.bounds import Bound
from fairpo_trl.evaluation.comparison import Writing
from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.evaluation.differences import AttributeMeasure
from fairpo_trl.evaluation.judges import Judge
from fairpo_trl.evaluation.paths import Source, Step
from fairpo_trl.evaluation.selection import Candidate, CandidateTest, Held, Selection, assess, select_in_order


class Write(Protocol):
    """Lets a model write."""

    def __call__(self, source: Source, label: str, prompts: Sequence[Prompt], seed: int) -> Writing:
        """
        `[prompts][samples]` texts; `label` names the model's folder, `seed` the random numbers.

        The reference writes twice, first with an even seed, then with the odd one that candidates write with.
        """
        ...


class ModelMeasure(Protocol):
    """
    Something that is measured of a model itself on fixed examples, not of what it writes: higher is better.

    Attributes:
        name (`str`): What it is called.
        margin (`float`): How far its mean may fall, in its own unit.
        lowest (`float`, *optional*): Smallest difference of two values; `None` if there is none.
        highest (`float`, *optional*): Largest difference of two values; `None` likewise.
        description (`str`): What is measured, in words.
    """

    name: str
    margin: float
    lowest: float | None
    highest: float | None
    description: str

    def values(self, source: Source) -> NDArray[np.float64]:
        """`[examples]` values of one model, in the same order for every model."""
        ...


@dataclass(frozen=True)
class JudgedAttribute:
    """
    An attribute with one of its judges.

    Attributes:
        attribute (`str`): As the judge is asked.
        measure (`str`): What the two together are called.
        judge (`ScoreJudge` or `PairJudge`): Who judges.
        privileged (`bool`): Whether it makes the gain, or is held.
        margin (`float`, *optional*, defaults to `0.05`): How far its win rate may fall if it is held.
    """

    attribute: str
    measure: str
    judge: Judge
    privileged: bool
    margin: float = 0.05


@dataclass(frozen=True)
class SelectionOutcome:
    """
    What a selection found.

    Attributes:
        selection ([`~fairpo_trl.evaluation.selection.Selection`]): The test.
        test ([`~fairpo_trl.evaluation.selection.CandidateTest`], *optional*): What was chosen, on the test prompts.
        lost_texts (`dict[str, dict[str, int]]`): Candidate -> measure -> its texts that could not be scored.
    """

    selection: Selection
    test: CandidateTest | None = None
    lost_texts: dict[str, dict[str, int]] = field(default_factory=dict)


class _PromptMeasures:
    """Every judged attribute on one list of prompts, with the reference's two writings."""

    def __init__(
        self,
        judged: Sequence[JudgedAttribute],
        reference: Source,
        write: Write,
        prompts: Sequence[Prompt],
        seeds: tuple[int, int],
    ) -> None:
        self._judged, self._write, self._prompts, self._seed = judged, write, prompts, seeds[1]
        first, again = (write(reference, "reference", prompts, seed) for seed in seeds)
        self._measures = [AttributeMeasure(j.attribute, j.judge, prompts, first, again) for j in judged]
        gains = [m.kept for j, m in zip(judged, self._measures, strict=True) if j.privileged]
        self._common = functools.reduce(np.intersect1d, gains)

    def candidate(
        self, step: Step, source: Source, extra: Mapping[str, Held], lost: dict[str, dict[str, int]]
    ) -> Candidate:
        """One candidate's differences; texts that count as lost are added to `lost`."""
        writing = self._write(source, step.label, self._prompts, self._seed)
        gains, held = [], {}
        for judged, measure in zip(self._judged, self._measures, strict=True):
            found = measure.differences(writing)
            if found.lost:
                lost.setdefault(step.name, {})[judged.measure] = found.lost
            if judged.privileged:
                gains.append(found.values[np.isin(measure.kept, self._common)])
            else:
                held[judged.measure] = Held(found.values, judged.margin)
        return Candidate(step.name, np.mean(gains, axis=0), {**held, **extra})


def run_selection(
    steps: Sequence[Step],
    reference: Source,
    write: Write,
    judged: Sequence[JudgedAttribute],
    prompts: Sequence[Prompt],
    test_prompts: Sequence[Prompt] = (),
    *,
    measures: Sequence[ModelMeasure] = (),
    level: float = 0.05,
    bound: Bound = "t",
    seed: int = 0,
    measure_all: bool = False,
    report: Callable[[CandidateTest], object] = lambda test: None,
) -> SelectionOutcome:
    """
    Lets candidates write on the selection prompts in their order until one fails, and chooses.

    Args:
        steps (`Sequence[Step]`):
            The path, from the safest.
        reference (`Source`):
            What they are compared with.
        write (`Write`):
            Lets a model write.
        judged (`Sequence[JudgedAttribute]`):
            Attributes and judges; at least one is privileged.
        prompts, test_prompts (`Sequence`):
            Distinct prompts that decide, and distinct others, on which only what is handed over is measured.
        measures (`Sequence[ModelMeasure]`, *optional*):
            Further things that are held.
        level, bound, seed, measure_all, report:
            As in [`~fairpo_trl.evaluation.selection.select_in_order`]; the seed is that of the writing too.

    Raises:
        ValueError: If nothing is privileged or held, or a number is not finite.
    """
    if not any(item.privileged for item in judged):
        raise ValueError("No attribute is privileged: there is no gain to select by.")
    if all(item.privileged for item in judged) and not measures:
        raise ValueError("Nothing is held: a promise needs an attribute or a measure that must not get worse.")
    # The reference's second writing shares its random numbers with the candidates'.
    on_prompts = _PromptMeasures(judged, reference, write, prompts, (2 * seed, 2 * seed + 1))
    start = {measure.name: measure.values(reference) for measure in measures}

    def extra(source: Source) -> dict[str, Held]:
        return {m.name: Held(m.values(source) - start[m.name], m.margin, m.lowest, m.highest) for m in measures}

    lost: dict[str, dict[str, int]] = {}

    def measure(step: Step) -> Candidate:
        source = step.make()
        return on_prompts.candidate(step, source, extra(source), lost)

    selection = select_in_order(
        [functools.partial(measure, step) for step in steps],
        level=level,
        bound=bound,
        seed=seed,
        measure_all=measure_all,
        report=report,
    )
    test = None
    if selection.chosen is not None and test_prompts:
        on_others = _PromptMeasures(judged, reference, write, test_prompts, (-2 * seed - 2, -2 * seed - 1))
        (step,) = (step for step in steps if step.name == selection.chosen)
        again: dict[str, dict[str, int]] = {}
        # Measures of fixed examples have no other examples here: they were reported once.
        candidate = on_others.candidate(step, step.make(), {}, again)
        test = assess(candidate, level=level, bound=bound, seed=seed)
        if again:
            lost[f"{step.name} on test prompts"] = again[step.name]
    return SelectionOutcome(selection, test, lost)

"""What a selection means, in sentences: no more than what was tested, and what to do if nothing passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairpo_trl.evaluation.bounds import ASSUMPTIONS, FINITE
from fairpo_trl.evaluation.selection import CandidateTest, HeldTest, Selection


@dataclass(frozen=True)
class Wording:
    """
    How the sentences speak of what was measured.

    Attributes:
        unit (`str`): What is independent: prompts, or series of images.
        silent (`str`): What the test says nothing of, besides other examples.
        more (`str`, *optional*): What else lowers the spread, as a sentence.
    """

    unit: str
    silent: str
    more: str = ""


TEXTS = Wording("prompts", "other judges or other settings of sampling", " More samples per prompt help too.")
LABEL_SETS = Wording("items", "other sources of items or another training seed")
IMAGES = Wording("series of images", "other sources of images or another training seed")


def statement(
    selection: Selection,
    test: CandidateTest | None = None,
    wording: Wording = TEXTS,
    shared_draws: bool = True,
    untested: Sequence[str] = (),
) -> str:
    """
    The verdict of a selection, the promise it carries and what that rests on, in a few sentences without line breaks.

    Args:
        selection ([`~fairpo_trl.evaluation.selection.Selection`]):
            What the test decided.
        test ([`~fairpo_trl.evaluation.selection.CandidateTest`], *optional*):
            The chosen candidate on other prompts, which decided nothing.
        wording ([`Wording`], *optional*, defaults to `TEXTS`):
            How it speaks of what was measured.
        shared_draws (`bool`, *optional*, defaults to `True`):
            Whether candidates and reference shared their random numbers while they wrote.
        untested (`Sequence[str]`, *optional*):
            What should be held, but has too few examples to be tested.
    """
    sure, unit = f"{100 * (1 - selection.level):g} %", wording.unit
    chosen = selection.chosen_test
    sentences = []
    if chosen is not None:
        assert chosen.worst is not None  # a candidate without a held measure is refused
        held = len(chosen.held)
        sentences.append(
            f"{chosen.name} is handed over: it and every safer candidate passed. In "
            + (f"each of its {held} held measures" if held > 1 else "its held measure")
            + f", the one-sided {sure} lower bound of the mean difference to the reference lies above minus the "
            f"margin; nearest to it is {describe(chosen.worst)}."
        )
        sentences.append(_gain(chosen, test, sure, unit))
    else:
        passed = any(test.status == "passed" for test in selection.candidates)
        why = "that passed has a privileged gain above 0" if passed else "is shown to keep the promise"
        sentences.append(f"The reference is the answer: no candidate {why}.")
    if (stop := selection.stopped_by) is not None:
        failed, measure = stop
        sentences.append(f"Testing stopped at {failed.name}, which failed in {describe(measure)}.")
        if chosen is None:
            sentences.append(_needed(measure, wording))
    if untested:
        sentences.append(
            f"Nothing is promised of {len(untested)} held labels with too few positives to be tested: "
            f"{', '.join(untested)}."
        )
    sentences.append(
        f"A test of this kind hands over a candidate that is truly worse than the reference by a margin or more, in "
        f"any held measure, in at most {100 * selection.level:g} % of cases; it says nothing of another population of "
        f"{unit}, {wording.silent}. It rests on: {ASSUMPTIONS[selection.bound].format(unit=unit)}; an order of "
        "candidates, margins and a level that were fixed before anything was measured."
    )
    if not shared_draws:
        sentences.append(
            "The texts were written elsewhere, with draws that models do not share: differences hold the noise of two "
            "draws, and bounds are wider than they would be here."
        )
    skewed = [measure.measure for measure in (chosen.held if chosen else ()) if not measure.normal]
    if skewed and selection.bound not in FINITE:
        sentences.append(
            f"Caution: losses and gains in {', '.join(skewed)} are rare and large, so that a bound that relies on "
            "normal means is rough there" + ("; the bound `betting` is not." if wording is TEXTS else ".")
        )
    return " ".join(sentences)


def describe(test: HeldTest) -> str:
    """One held measure: name, mean, bound, margin."""
    return f"{test.measure} (mean {test.mean:+.3f}, bound {test.bound:+.3f}, margin {test.margin:g})"


def _gain(chosen: CandidateTest, test: CandidateTest | None, sure: str, unit: str) -> str:
    if test is None:
        return (
            f"Its privileged gain here is {chosen.gain:+.3f}, which is too high on average, since it was chosen for "
            f"it; corrected for the choice it is at least {chosen.gain_bound:+.3f} ({sure} confidence)."
            + ("" if chosen.gain_bound > 0 else " So no gain is shown.")
        )
    return (
        f"On other {unit}, which decided nothing, its privileged gain is {test.gain:+.3f}, at least "
        f"{test.gain_bound:+.3f} ({sure} confidence)."
        + ("" if test.gain_bound > 0 else " So no gain is shown.")
        + (f" The held measure that did worst there is {describe(test.worst)}." if test.worst else "")
    )


def _needed(measure: HeldTest, wording: Wording) -> str:
    """How many examples would do, before anybody lowers the margin."""
    unit = wording.unit
    alike = (
        "" if measure.needed_if_equal is None else f", {measure.needed_if_equal:,} if there were no difference at all"
    )
    if measure.needed is None:
        seen = f"If the truth is the mean that was seen, no number of {unit} shows this margin{alike}"
    else:
        seen = (
            f"If the truth is the mean that was seen, about {measure.needed:,} {unit} would show this margin with "
            f"80 % chance{alike}"
        )
    return (
        f"{seen}; there were {measure.examples:,}.{wording.more} A second test needs {unit} that "
        "this one has not seen, and margins that are not chosen after a look at its numbers."
    )

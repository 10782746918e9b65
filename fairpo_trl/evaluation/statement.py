"""What a selection means, in sentences: no more than what was tested, and what to do if nothing passed."""

from __future__ import annotations

from fairpo_trl.evaluation.bounds import ASSUMPTIONS
from fairpo_trl.evaluation.selection import CandidateTest, HeldTest, Selection


def statement(
    selection: Selection, test: CandidateTest | None = None, unit: str = "prompts", shared_draws: bool = True
) -> str:
    """
    The verdict of a selection, the promise it carries and what that rests on.

    Args:
        selection ([`~fairpo_trl.evaluation.selection.Selection`]):
            What the test decided.
        test ([`~fairpo_trl.evaluation.selection.CandidateTest`], *optional*):
            The chosen candidate on other prompts, which decided nothing.
        unit (`str`, *optional*, defaults to `"prompts"`):
            What an example is.
        shared_draws (`bool`, *optional*, defaults to `True`):
            Whether candidates and reference shared their random numbers while they wrote.

    Returns:
        `str`: a few sentences, without line breaks.
    """
    sure = f"{100 * (1 - selection.level):g} %"
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
        sentences.append(_reference_stays(selection))
    if (stop := selection.stopped_by) is not None:
        failed, measure = stop
        sentences.append(f"Testing stopped at {failed.name}, which failed in {describe(measure)}.")
        if chosen is None:
            sentences.append(_needed(measure, unit))
    sentences.append(
        f"A test of this kind hands over a candidate that is truly worse than the reference by a margin or more, in "
        f"any held measure, in at most {100 * selection.level:g} % of cases; it says nothing of other {unit}, other "
        f"judges or other settings of sampling. It rests on: {ASSUMPTIONS[selection.bound]}; an order of candidates, "
        "margins and a level that were fixed before anything was measured."
    )
    if not shared_draws:
        sentences.append(
            "The texts were written elsewhere, with draws that models do not share: differences hold the noise of two "
            "draws, and bounds are wider than they would be here."
        )
    skewed = [measure.measure for measure in (chosen.held if chosen else ()) if not measure.normal]
    if skewed and selection.bound != "betting":
        sentences.append(
            f"Caution: losses and gains in {', '.join(skewed)} are rare and large, so that a bound that relies on "
            "normal means is rough there; the bound `betting` is not."
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


def _reference_stays(selection: Selection) -> str:
    if any(test.status == "passed" for test in selection.candidates):
        return "The reference is the answer: no candidate that passed has a privileged gain above 0."
    return "The reference is the answer: no candidate is shown to keep the promise."


def _needed(measure: HeldTest, unit: str) -> str:
    """How many examples would do, before anybody lowers the margin."""
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
        f"{seen}; there were {measure.examples:,}. More samples per prompt help too. A second test needs {unit} that "
        "this one has not seen, and margins that are not chosen after a look at its numbers."
    )

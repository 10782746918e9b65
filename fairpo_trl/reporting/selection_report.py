"""The report of a selection: the verdict, every candidate, and the held measures of what was chosen."""

from __future__ import annotations

from fairpo_trl.evaluation.selection import CandidateTest, HeldTest, Selection
from fairpo_trl.reporting.blocks import Block, Figure, Report, Row, Sentences, Shown, known, with_content
from fairpo_trl.reporting.numbers import ABSENT, duration
from fairpo_trl.reporting.render.markdown import escape, part_markdown
from fairpo_trl.reporting.selection_results import Kind, SelectionResults


PICTURE = "selection.png"
TASKS: dict[Kind, str] = {
    "language model": "text-generation",
    "multi-label classifier": "image-classification",
    "label-set writer": "text-generation",
}
ASIDE = "On examples that decided nothing"
DIFFERENCES: dict[Kind, str] = {
    "language model": "Differences to the reference, of win rates where an attribute is judged, paired by prompt.",
    "multi-label classifier": "Differences to the reference in points of average precision, paired by image.",
    "label-set writer": "Differences to the reference in points of F1, paired by item.",
}


def selection_report(results: SelectionResults) -> Report:
    """What every medium shows of a selection; its picture lies in the report's folder."""
    selection = results.selection
    facts = {
        "data": results.data,
        "handed over": selection.chosen or "the reference",
        "level": f"{100 * selection.level:g} %",
        "bounds": selection.bound,
        "time": "" if results.seconds is None else duration(results.seconds),
        "measured by": "; ".join(f"{measure}: {who}" for measure, who in results.judges.items()),
    }
    return Report(
        title=f"Selection: {results.model} against {results.reference}",
        kind=results.kind,
        first=selection_parts(selection, results.statement, results.test, results.kind),
        further=(),
        facts=known(facts),
        settings=results.settings,
        command=results.command,
        name=results.model,
        reference_name=results.reference,
    )


def selection_parts(
    selection: Selection, said: str, test: CandidateTest | None = None, kind: Kind = "language model"
) -> tuple[Shown, ...]:
    """
    The verdict in sentences (`said`), its tables and its picture.

    `test` is that of what is handed over, on examples that decided nothing.
    """
    shown = selection.chosen_test or next((test for test in selection.candidates if test.status == "failed"), None)
    return with_content(
        [
            Sentences((said,)),
            candidates_block(selection, kind),
            Figure("Privileged gain, and lower bounds of held measures in units of their margins", PICTURE),
            held_block(shown, "Held measures") if shown else None,
            held_block(test, ASIDE) if test else None,
        ]
    )


def candidates_block(selection: Selection, kind: Kind = "language model") -> Block:
    """One row per candidate: whether it passed, its gain, and the held measure that came nearest to its margin."""
    rows: list[Row] = []
    for test in selection.candidates:
        worst = test.worst
        name, *numbers = (worst.measure, *_numbers(worst)) if worst else (ABSENT,) * 4
        status = "handed over" if test.name == selection.chosen else test.status
        rows.append((test.name, status, name, f"{test.gain:+.3f}", *numbers))
    return Block(
        "Candidates, from the safest",
        ("candidate", "", "worst held measure", "gain", "its mean", "its lower\nbound", "minus its\nmargin"),
        (("", tuple(rows)),),
        texts=3,
        note=f"{DIFFERENCES[kind]} A candidate passes if the lower bound of every held measure lies above "
        "minus its margin; testing stops at the first that does not. The gain of what is chosen is too high on "
        "average: the choice was made by it.",
    )


def held_block(test: CandidateTest, title: str) -> Block:
    """Every held measure of one candidate, the worst first."""
    rows = tuple(
        (held.measure, "yes" if held.passed else "no", *_numbers(held), str(held.examples))
        for held in sorted(test.held, key=lambda held: held.bound / held.margin)
    )
    header = ("measure", "passed", "mean", "lower\nbound", "minus the\nmargin", "examples")
    return Block(f"{title}: {test.name}", header, (("", rows),), texts=2)


def card_of_chosen(results: SelectionResults, library: str = "transformers") -> str:
    """
    The model card of what was chosen; `fairpo push` keeps its section "What was tested" and adds the rest.

    `library` is what loads it, as the Hub spells it: `peft` for an adapter.
    """
    chosen = results.selection.chosen_test
    assert chosen is not None
    blocks = [candidates_block(results.selection, results.kind), held_block(chosen, "Held measures")]
    if results.test is not None:
        blocks.append(held_block(results.test, ASIDE))
    parts = [
        f"---\nlibrary_name: {library}\npipeline_tag: {TASKS[results.kind]}\n---",
        f"# {escape(results.model)}, {escape(chosen.name)}",
        f"Selected from {escape(results.model)} against {escape(results.reference)}.",
        "## What was tested",
        escape(results.statement),
        *(part_markdown(block, level=3) for block in blocks),
        f"Data: {escape(results.data)}.",
    ]
    return "\n\n".join(parts) + "\n"


def _numbers(held: HeldTest) -> tuple[str, ...]:
    return tuple(f"{value:+.3f}" for value in (held.mean, held.bound, -held.margin))

"""No number is lost in a terminal, however narrow: the tables of every document, token by token."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from builders import (
    bare_generation_fields,
    comparison_fields,
    generation_fields,
    label_fields,
    label_set_fields,
)
from rich.console import Console

from fairpo_trl.evaluation import Candidate, Held, select
from fairpo_trl.reporting import LabelComparison, LabelResults, Results
from fairpo_trl.reporting.blocks import Block, Report
from fairpo_trl.reporting.cells import Change, Value, text_of
from fairpo_trl.reporting.documents import Interval
from fairpo_trl.reporting.render.terminal import print_part
from fairpo_trl.reporting.selection_results import SelectionResults
from fairpo_trl.reporting.writers import report_of


PUBLISHED = Path(__file__).parents[2] / "experiments/classification/results/comparison/comparison.json"


def selection() -> SelectionResults:
    names = ["scale 0.5, checkpoint-1200", "scale 1.0, checkpoint-12000"]
    held = {names[0]: [0.25, -0.25] * 100, names[1]: [0.0, -0.5] * 100}
    measure = "harmlessness_of_the_whole_conversation"
    found = select([Candidate(name, [0.5, 0.25] * 100, {measure: Held(values)}) for name, values in held.items()])
    return SelectionResults(
        model="a", reference="b", data="c", selection=found, statement="One.", test=found.candidates[0]
    )


def long_names() -> Results:
    fields = generation_fields()
    for entry in fields["attributes"]:
        fields["partition"][entry["attribute"] + "_of_the_whole_conversation"] = fields["partition"].pop(
            entry["attribute"]
        )
        entry["attribute"] += "_of_the_whole_conversation"
    del fields["samples"], fields["regressions"], fields["weights_history"], fields["margins_history"]
    return Results(**fields)


DOCUMENTS = {
    "generation": lambda: Results(**generation_fields()),
    "long names": long_names,
    "bare": lambda: Results(**bare_generation_fields()),
    "labels": lambda: LabelResults(**label_fields()),
    "label sets": lambda: LabelResults(**label_set_fields()),
    "comparison": lambda: LabelComparison(**comparison_fields()),
    "published comparison": lambda: LabelComparison.read(PUBLISHED),
    "selection": selection,
}


def shown(block: Block, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_part(block, console)
    return console.file.getvalue()


def assert_whole(block: Block, width: int) -> None:
    text = shown(block, width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text, text
    numbers = Counter(word for row in block.rows() for cell in row[block.texts :] for word in text_of(cell).split())
    assert not numbers - Counter(text.split()), f"{block.title}: {numbers - Counter(text.split())}"
    # Names may be folded, but nothing of them is left out either.
    for row in block.rows():
        for cell in row[: block.texts]:
            assert not Counter(text_of(cell)) - Counter(text)


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_number_of_a_document_is_cut(name: str, width: int) -> None:
    report: Report = report_of(DOCUMENTS[name](), brief=True)
    blocks = [part for part in report.parts() if isinstance(part, Block)]
    assert blocks
    for block in blocks:
        assert_whole(block, width)


def many(columns: int) -> Block:
    change = Change(Interval(mean=-0.1234, low=-0.2345, high=-0.0123))
    rows = tuple((f"row_{n}_of_a_long_name", *[change] * columns, Value(1234567, "count")) for n in range(2))
    return Block("Changes", ("name", *(f"c{n}" for n in range(columns)), ""), (("group", rows),), note="Below.")


def test_what_has_room_stays_on_one_line_and_in_one_table() -> None:
    assert "-12.34 [-23.45, -1.23] ▼   1234567" in shown(many(1), 80)
    lines = shown(many(3), 80).splitlines()
    assert any("-12.34 ▼" in line and "[" not in line for line in lines), "intervals stand below"
    assert sum("Changes" in line for line in lines) == 1


def test_many_columns_go_to_several_tables_with_the_names_in_each() -> None:
    block = many(12)
    assert_whole(block, 80)
    text = shown(block, 80)
    assert text.count("Changes, continued") == text.count("group") - 1 > 0
    assert text.count("Below.") == 1
    headers = [line.split() for line in text.splitlines() if "name" in line and " c" in line]
    assert [name for header in headers for name in header if name != "name"] == [f"c{n}" for n in range(12)]

"""Reports in a terminal of 100 columns; colour helps, but every verdict is also a sign or a word."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fairpo_trl.reporting.blocks import Block, Report, Sentences, Shown, Texts, tabled
from fairpo_trl.reporting.cells import Cell, pieces


WIDTH = 100
_TEXT = 14
"""Least width of a column of text: what is longer is folded."""
_COLOURS = {"better": "green", "worse": "red", "same": "dim", None: ""}


def print_report(report: Report, console: Console | None = None, samples: int = 3) -> None:
    """
    Prints what a report says, by default to the standard output, at most 100 columns wide.

    `samples`: how many prompts or images are shown; regressions are left to the other media.
    """
    console = console or new_console()
    console.print(Text(printable(report.title), style="bold"))
    for part in report.parts():
        print_part(part, console, samples)


def print_part(part: Shown, console: Console, samples: int = 3) -> None:
    """Prints one part of a report; curves cannot be shown."""
    if isinstance(part, Sentences):
        for line in part.lines:
            console.print(Text(printable(line)))
    elif not (isinstance(part, Texts) and part.regressions) and isinstance(block := tabled(part, samples), Block):
        for number, table in enumerate(block_tables(block, console.width)):
            # As a title of the table it would be no wider than that.
            title = Text(printable(block.title) + (", continued" if number else ""), style="bold")
            console.print(Padding(title, (1, 0, 0, 0)))
            console.print(table)
        if block.note:
            console.print(Text(printable(block.note), style="dim"))


def new_console() -> Console:
    """The standard output, at most 100 columns wide."""
    console = Console(highlight=False)
    # A file or a pipe has no width of its own.
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def block_tables(block: Block, width: int) -> list[Table]:
    """
    A block as tables, without its title, in which no number is cut.

    Where its columns need more room, intervals stand below their numbers and headers break at blanks; where that is
    too wide still, the columns of numbers stand in several tables below each other, each with the columns of text.

    Args:
        block ([`Block`]):
            What to show.
        width (`int`):
            Columns of the terminal.
    """
    plans = [_Plan.of(block, *layout) for layout in ((False, 1), (True, 1), (True, 0))[int(block.wide) :]]
    every = range(len(block.header))
    fitting = next((plan for plan in plans if plan.room(every, width) >= 0), None)
    if fitting or block.texts == len(block.header):
        return [_table(block, fitting or plans[0], every, width)]
    texts, groups = every[: block.texts], [list[int]()]
    for column in every[block.texts :]:
        # What has no name of its own belongs to the column before it.
        unnamed = list(takewhile(lambda later: not block.header[later], every[column + 1 :]))
        fits = plans[-1].room([*texts, *groups[-1], column, *unnamed], width) >= 0
        if groups[-1] and block.header[column] and not fits:
            groups.append([])
        groups[-1].append(column)
    return [_table(block, plans[-1], [*texts, *group], width) for group in groups]


@dataclass(frozen=True)
class _Plan:
    """The cells of a block as they are written; the least width of every column, and what it would like to have."""

    header: list[str]
    rows: list[list[list[Text]]]
    least: list[int]
    whole: list[int]
    padding: int

    @classmethod
    def of(cls, block: Block, below: bool, padding: int) -> _Plan:
        """`below`: whether intervals stand below their numbers and headers of numbers break at blanks."""
        rows = [[[_cell(cell, below) for cell in row] for row in section] for _, section in block.sections]
        plan = cls([], rows, [], [], padding)
        for column, name in enumerate(map(printable, block.header)):
            found = [row[column].plain for section in rows for row in section]
            if below and column >= block.texts:
                room = max(_longest(found), _longest(name.split()), 1)
                lines = [textwrap.wrap(line, room, break_on_hyphens=False) for line in name.split("\n")]
                name = "\n".join(part for line in lines for part in line)
            found += [name, *([section for section, _ in block.sections] if column == 0 else [])]
            whole = _longest(found)
            words = _longest(word for text in found for word in text.split())
            plan.header.append(name)
            plan.whole.append(whole)
            plan.least.append(whole if column >= block.texts else min(_TEXT, words if column else whole))
        return plan

    def room(self, columns: Sequence[int], width: int) -> int:
        """What the least widths of some columns leave of the terminal; below 0 they do not fit."""
        between = 1 + 2 * self.padding
        return width - 2 - sum(self.least[column] + between for column in columns) + between


def _table(block: Block, plan: _Plan, columns: Sequence[int], width: int) -> Table:
    all_texts = block.texts == len(block.header)
    table = Table(
        box=box.SIMPLE,
        show_lines=all_texts and len(block.header) > 2,  # long texts side by side
        pad_edge=False,
        padding=(0, plan.padding),
    )
    room = max(0, plan.room(columns, width))
    for column in columns:
        number = column >= block.texts
        more_of_it = 0 if number else min(room, plan.whole[column] - plan.least[column])
        room -= more_of_it
        table.add_column(
            Text(plan.header[column]),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
            width=None if all_texts else plan.least[column] + more_of_it,
        )
    for (name, _), rows in zip(block.sections, plan.rows, strict=True):
        if name:
            table.add_row(Text(printable(name), style="italic"))
        for row in rows:
            table.add_row(*(row[column] for column in columns))
        table.add_section()
    return table


def _longest(texts: Iterable[str]) -> int:
    """Columns of the longest line."""
    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)


def printable(text: str) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text.replace("\r\n", "\n").replace("\t", "  "))


def _cell(cell: Cell, below: bool) -> Text:
    found = pieces(cell)
    text = str(found)
    if below and found.interval:
        text = " ".join(filter(None, (found.text, found.sign))) + f"\n{found.interval}"
    return Text(printable(text), style=_COLOURS[found.kind])

"""Reports in a terminal of 100 columns; colour helps, but every verdict is also a sign or a word."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fairpo_trl.reporting.blocks import (
    Block,
    Pictures,
    Report,
    Sentences,
    Shown,
    Texts,
    pictures_block,
    texts_block,
)
from fairpo_trl.reporting.cells import Cell, pieces


WIDTH = 100
_COLOURS = {"better": "green", "worse": "red", "same": "dim", None: ""}


def print_report(report: Report, console: Console | None = None, samples: int = 3) -> None:
    """
    Prints what a report says.

    Args:
        report ([`Report`]):
            What to print.
        console (`Console`, *optional*):
            Where to print; by default the standard output, at most 100 columns wide.
        samples (`int`, *optional*, defaults to 3):
            Number of prompts or images shown; regressions are left to the other media.
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
        return
    if isinstance(part, Texts):
        if part.regressions:
            return
        part = texts_block(part, samples)
    if isinstance(part, Pictures):
        part = pictures_block(part, samples)
    if isinstance(part, Block):
        console.print(Padding(block_table(part), (1, 0, 0, 0)))
        if part.note:
            console.print(Text(printable(part.note), style="dim"))


def new_console() -> Console:
    """The standard output, at most 100 columns wide."""
    console = Console(highlight=False)
    # A file or a pipe has no width of its own.
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def block_table(block: Block) -> Table:
    """A block as a table; where it is wide, an interval stands below its number."""
    all_texts = block.texts == len(block.header)
    table = Table(
        title=Text(printable(block.title), style="bold"),
        title_justify="left",
        box=box.SIMPLE,
        show_lines=all_texts and len(block.header) > 2,  # long texts side by side
        pad_edge=False,
        padding=(0, 0) if block.wide else (0, 1),
    )
    for column, name in enumerate(block.header):
        title = Text(printable(name))
        if column >= block.texts:
            table.add_column(title, justify="right", no_wrap=not name or "\n" in name)
        elif all_texts:
            table.add_column(title, overflow="fold")
        else:
            table.add_column(title, overflow="fold", min_width=14 if column == 0 else 4)
    for name, rows in block.sections:
        if name:
            table.add_row(Text(printable(name), style="italic"))
        for row in rows:
            table.add_row(*(_cell(cell, block.wide) for cell in row))
        table.add_section()
    return table


def printable(text: str) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text.replace("\r\n", "\n").replace("\t", "  "))


def _cell(cell: Cell, wide: bool) -> Text:
    found = pieces(cell)
    text = str(found)
    if wide and found.interval:
        text = " ".join(filter(None, (found.text, found.sign))) + f"\n{found.interval}"
    return Text(printable(text), style=_COLOURS[found.kind])

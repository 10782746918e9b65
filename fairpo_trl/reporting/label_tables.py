"""The classification half as tables for a terminal of 100 columns; every verdict is a sign, colour only helps."""

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fairpo_trl.reporting.comparison_blocks import confused_block, detail_block, heads, main_block, per_label_block
from fairpo_trl.reporting.label_blocks import (
    Block,
    calibration_block,
    data_rows,
    further_blocks,
    groups_block,
    moved_block,
    promises,
    starred,
    top_text,
)
from fairpo_trl.reporting.label_results import (
    LabelComparison,
    LabelResults,
    check_label_comparison,
    check_label_results,
)
from fairpo_trl.reporting.tables import WIDTH, new_table, printable


_COLOURS = {"▲": "green", "▼": "red", "≈": "dim"}


def block_table(block: Block) -> Table:
    """A block as a table; an interval that finds no room beside its number stands below it."""
    table = new_table(block.title)
    if block.wide:
        table.padding = (0, 0)
    for column, name in enumerate(block.header):
        if column < block.texts:
            table.add_column(Text(printable(name)), overflow="fold", min_width=14 if column == 0 else 4)
        else:
            table.add_column(Text(printable(name)), justify="right", no_wrap="\n" in name)
    for name, rows in block.sections:
        if name:
            table.add_row(Text(printable(name), style="italic"))
        for row in rows:
            table.add_row(*(_cell(text, column < block.texts, block.wide) for column, text in enumerate(row)))
        table.add_section()
    return table


def samples_table(results: LabelResults, count: int = 3) -> Table | None:
    """The first `count` images: true labels, and the best labels of either model; `None` if there are none."""
    samples = results.get("samples", [])[:count]
    if not samples:
        return None
    table = new_table("Best labels per image (✓: a true one), probabilities in per cent", lines=True)
    table.add_column("image", ratio=3, overflow="fold")
    table.add_column("true", ratio=2, overflow="fold")
    table.add_column("reference", ratio=3, overflow="fold")
    table.add_column("trained", ratio=3, overflow="fold")
    for sample in samples:
        tops = (top_text(results, top, sample["true"]) for top in (sample["reference"], sample["trained"]))
        cells = [sample["id"], ", ".join(starred(results, name) for name in sample["true"]) or "none"]
        table.add_row(*(Text(printable(text)) for text in [*cells, *("\n".join(lines) for lines in tops)]))
    table.caption, table.caption_justify = "* privileged", "left"
    return table


def print_label_results(results: LabelResults, console: Console | None = None, samples: int = 3) -> None:
    """Print all tables of a run.

    Args:
        results: The run.
        console: Where to print; by default standard output, at most 100 columns wide.
        samples: Number of images shown with both models' best labels.

    Raises:
        ValueError: See `check_label_results`.
    """
    check_label_results(results)
    console = console or _console()
    console.print(Text(printable(results["title"]), style="bold"))
    _print_block(console, groups_block(results))
    _print_block(console, moved_block(results))
    for further in further_blocks(results):
        _print_block(console, further)
    for sentence in promises(results):
        console.print(Text(printable(sentence)))
    if block := calibration_block(results):
        _print_block(console, block)
    if (table := samples_table(results, samples)) is not None:
        console.print(Padding(table, (1, 0, 0, 0)))
    _print_notes(console, results.get("notes", []))


def print_label_comparison(comparison: LabelComparison, console: Console | None = None, held_labels: int = 10) -> None:
    """Print the tables of a comparison, one pair of tables per head.

    Args:
        comparison: Many methods.
        console: Where to print; by default standard output, at most 100 columns wide.
        held_labels: Number of held labels shown beside the privileged ones, those with the lowest change first.

    Raises:
        ValueError: See `check_label_comparison`.
    """
    check_label_comparison(comparison)
    console = console or _console()
    console.print(Text(printable(comparison["title"]), style="bold"))
    for name, text in data_rows(comparison):
        console.print(Text(printable(f"{name}: {text}"), style="dim"))
    for head in heads(comparison):
        _print_block(console, main_block(comparison, head))
        _print_block(console, detail_block(comparison, head))
    if heads(comparison) and (block := per_label_block(comparison, heads(comparison)[0], held_labels)):
        _print_block(console, block)
    if block := confused_block(comparison):
        _print_block(console, block)
    _print_notes(console, comparison.get("notes", []))


def _console() -> Console:
    console = Console(highlight=False)
    # A file or a pipe has no width of its own.
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def _print_block(console: Console, block: Block) -> None:
    console.print(Padding(block_table(block), (1, 0, 0, 0)))
    if block.note:
        console.print(Text(printable(block.note), style="dim"))


def _print_notes(console: Console, notes: list[str]) -> None:
    for note in notes:
        console.print(Text(printable(f"Note: {note}")))


def _cell(text: str, is_text: bool, wide: bool) -> Text:
    if is_text:
        return Text(printable(text))
    style = _COLOURS.get(text[-1:], "")
    number, bracket, rest = text.partition(" [")
    if wide and bracket:
        interval, _, sign = rest.partition("]")
        text = f"{number}{sign}\n[{interval}]"
    return Text(text, style=style)

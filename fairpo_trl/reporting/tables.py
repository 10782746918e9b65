"""Results as tables for a terminal of 100 columns; colour helps but every verdict is also a word."""

from itertools import groupby

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fairpo_trl.reporting.numbers import (
    GUARD_LABELS,
    guard,
    pair_cells,
    role_text,
    verdict,
    verdict_text,
    win_rate_cells,
)
from fairpo_trl.reporting.results import Results, by_role, has_equal_length, judges


WIDTH = 100
_COLOURS = {"better": "green", "worse": "red", "same": "dim", None: ""}


def win_rate_table(results: Results, judge: str) -> Table:
    """Win rates against the reference of every attribute, one section per role, as one judge sees them.

    Args:
        results: A run.
        judge: One of [`judges`]`(results)`.

    Returns:
        The table; attributes which this judge did not score show dashes.
    """
    table = new_table(f"Win rate against the reference, judged by the {judge.replace('_', ' ')} (95 % intervals)")
    table.add_column("role", no_wrap=True)
    table.add_column("attribute", overflow="fold", min_width=9)
    equal_length = has_equal_length(results, judge)
    for column in ("reference\nvs itself", "trained", *(["at equal\nlength"] if equal_length else []), "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for role, entries in groupby(by_role(results), key=lambda entry: entry["role"]):
        for entry in entries:
            rates = entry.get("win_rate", {}).get(judge)
            difference = rates.get("difference") if rates else None
            style = _COLOURS[verdict(difference)]
            *cells, change = win_rate_cells(entry, judge, equal_length)
            table.add_row(
                role_text(role),
                Text(entry["attribute"], style="bold" if role == "privileged" else ""),
                *cells,
                Text(change, style=style),
                Text(verdict_text(difference), style=style),
            )
        table.add_section()
    return table


def pairs_table(results: Results) -> Table:
    """Held-out pairs of every attribute: count, accuracy, share inside the hinge, final weight of its group."""
    table = new_table("Held-out preference pairs")
    table.add_column("role", no_wrap=True)
    table.add_column("attribute", overflow="fold", min_width=9)
    for column in ("pairs", "accuracy,\nreference", "accuracy,\ntrained", "inside\nhinge", "final\nweight"):
        table.add_column(column, justify="right")
    for role, entries in groupby(by_role(results), key=lambda entry: entry["role"]):
        for entry in entries:
            name = Text(entry["attribute"], style="bold" if role == "privileged" else "")
            table.add_row(role_text(role), name, *pair_cells(entry))
        table.add_section()
    return table


def guards_table(results: Results) -> Table | None:
    """Guards against degenerate text, reference against trained; `None` if they were not computed."""
    if "guards" not in results:
        return None
    reference, trained = results["guards"]["reference"], results["guards"]["trained"]
    table = new_table("Does the text stay sound?")
    table.add_column("")
    table.add_column("reference", justify="right")
    table.add_column("trained", justify="right")
    for name in dict.fromkeys([*GUARD_LABELS, *reference, *trained]):
        if name in reference or name in trained:
            label = GUARD_LABELS.get(name, name.replace("_", " "))
            table.add_row(Text(label), guard(name, reference), guard(name, trained))
    return table


def samples_table(results: Results, count: int = 3) -> Table | None:
    """The first `count` prompts with both texts side by side; `None` if there are no samples."""
    samples = results.get("samples", [])[:count]
    if not samples:
        return None
    table = new_table("What the models write", lines=True)
    table.add_column("prompt", ratio=2, overflow="fold")
    table.add_column("reference", ratio=4, overflow="fold")
    table.add_column("trained", ratio=4, overflow="fold")
    for sample in samples:  # Text, never markup: the models write brackets too
        table.add_row(*(Text(printable(sample[key])) for key in ("prompt", "reference", "trained")))
    return table


def print_results(results: Results, console: Console | None = None, samples: int = 3) -> None:
    """Print all tables of a run.

    Args:
        results: A run.
        console: Where to print; by default standard output, at most 100 columns wide.
        samples: Number of prompts shown with both texts.
    """
    if console is None:
        console = Console(highlight=False)
        # A file or a pipe has no width of its own.
        console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    tables = [win_rate_table(results, judge) for judge in judges(results)]
    tables.append(pairs_table(results))
    tables += [table for table in (guards_table(results), samples_table(results, samples)) if table is not None]
    console.print(Text(results["title"], style="bold"))
    for table in tables:
        console.print(Padding(table, (1, 0, 0, 0)))


def new_table(title: str, lines: bool = False) -> Table:
    """An empty table in the style of all tables."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE, show_lines=lines, pad_edge=False
    )


def printable(text: str) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text.replace("\r\n", "\n").replace("\t", "  "))

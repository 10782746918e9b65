"""`fairpo COMMAND ...`: finds the command, and says what there is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairpo_trl import __version__
from fairpo_trl.commands.errors import exit_clearly
from fairpo_trl.core.messages import unknown_names_message


COMMANDS = {
    "generation": "Train a language model on preference pairs with attributes.",
    "classification": "Train a multi-label image classifier.",
    "check": "Look at preference data before training: counts, conflicts, length bias, leakage. Needs no model.",
    "evaluate": "Let models write on held-out prompts, judge them per attribute, write an HTML report.",
    "select": "Test models from the safest to the boldest, and hand over the boldest shown not to be worse.",
    "push": "Publish an adapter or classifier with its card.",
}
"""Command -> what it does; each is the module of this name in `fairpo_trl.commands`, loaded when it is called."""


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Runs a command; the arguments, without the name of the program, are those of the command line by default.

    Raises:
        SystemExit: With code 2 after bad input, 0 after `--help` or `--version`.
    """
    exit_clearly(_dispatch, sys.argv[1:] if arguments is None else arguments)


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_overview()
    elif arguments[0] == "--version":
        print(f"fairpo_trl {__version__}")
    elif arguments[0] not in COMMANDS:
        raise ValueError(unknown_names_message("command", [arguments[0]], list(COMMANDS)))
    else:
        importlib.import_module(f"fairpo_trl.commands.{arguments[0]}").main(arguments[1:])


def _print_overview() -> None:
    console = Console(highlight=False)
    console.print(Text.assemble(("Usage: ", "bold"), "fairpo COMMAND [--config FILE.yaml] [--option VALUE ...]"))
    console.print("\nMake chosen attributes better while nothing else gets worse than the reference.\n")
    table = Table.grid(padding=(0, 2))
    for name, summary in COMMANDS.items():
        table.add_row(Text(f"  {name}", style="bold"), summary)
    console.print(table)
    console.print(
        "\n`fairpo COMMAND --help` has examples and topics. Several processes: "
        "`accelerate launch -m fairpo_trl COMMAND ...`."
    )

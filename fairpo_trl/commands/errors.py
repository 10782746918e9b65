"""Mistakes of the user end a command with one line and exit code 2; `--debug` shows where they were found."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence

from fairpo_trl.commands.terminal import clean_terminal


MISTAKE = 2
"""Exit code of a command that was called with something it cannot work on, as argparse has it."""

FAILED = 1
"""Exit code of a run that began well and came to a loss or gradient that is not finite."""


def split_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """
    Whether `--debug` was given by itself, and the other arguments.

    transformers has an option of this name which takes a value (`--debug underflow_overflow`); that one stays.
    """
    kept, debug = [], False
    for index, argument in enumerate(arguments):
        following = arguments[index + 1] if index + 1 < len(arguments) else "--"
        if argument == "--debug" and following.startswith("--"):
            debug = True
        else:
            kept.append(argument)
    return debug, kept


def exit_clearly(work: Callable[[list[str]], object], arguments: Sequence[str]) -> None:
    """
    Runs a command; bad input becomes one line on the standard error and exit code 2.

    What is caught is what the package raises for bad input, with the place and the mend in its message: `ValueError`,
    `OSError` (a file, a disk, the Hub) and `ImportError` (an optional package); and `FloatingPointError`, which names
    the step and rows of a loss that is not finite. Everything else is a defect, and keeps its traceback.

    The arguments are without the name of the program; `work` takes them without `--debug`.

    Raises:
        SystemExit: With code 2 after bad input, 1 after a number that is not finite.
    """
    debug, kept = split_debug(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # transformers says again and again that an attribute which TRL reads has a new name.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*is deprecated.*")
    with clean_terminal():
        try:
            work(kept)
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            if debug:
                raise
            rank = os.environ.get("RANK", "0")
            where = "" if rank == "0" else f"[rank {rank}] "
            message = str(error).strip() or type(error).__name__
            print(f"{where}error: {message}\n(`--debug` shows where this was found.)", file=sys.stderr)
            raise SystemExit(FAILED if isinstance(error, FloatingPointError) else MISTAKE) from None

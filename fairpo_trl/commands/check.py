"""`fairpo check DATA`: what is in preference data, and what training would refuse. Loads no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from datasets import IterableDatasetDict
from rich.console import Console

from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.generation.data import DataArguments, load_data, main_console
from fairpo_trl.loading import explained
from fairpo_trl.preferences.check import PreferenceReport, check_preferences
from fairpo_trl.preferences.own import hint_at_source
from fairpo_trl.preferences.read import Rows, columns_of, read_splits
from fairpo_trl.preferences.show import plot_conflicts, print_report


REFUSED = 1
"""Exit code if training would refuse some of the data."""


@dataclass
class CheckArguments(DataArguments):
    """Which data, and what to hold it against."""

    attribute_column: str = field(default="attribute", metadata={"help": "Column of own pairs with the attribute."})
    privileged_attributes: list[str] | None = field(
        default=None, metadata={"help": "Attributes that should get better: the report then counts roles."}
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Hub id or folder of a tokenizer: pairs are then measured in tokens."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "With `tokenizer`: tokens of prompt and completion that training keeps."}
    )
    plot: str | None = field(default=None, metadata={"help": "PNG of the matrix of conflicts to write."})


def make_parser() -> CommandParser:
    """Parser of the command."""
    mine = {entry.name for entry in fields(CheckArguments)} - {entry.name for entry in fields(DataArguments)}
    hidden = ("ignore_bias_buffers", "dataset_streaming", "dataset_train_split", "dataset_test_split")
    return CommandParser(
        (CheckArguments,),
        command="fairpo check",
        summary="Counts, conflicts between attributes, length bias, repeats, leakage, and what training would refuse.",
        examples=(
            "fairpo check pairs.jsonl --privileged_attributes helpful",
            "fairpo check ratings.csv --ratings helpful kind concise --plot conflicts.png",
            "fairpo check ultrafeedback --tokenizer Qwen/Qwen2.5-0.5B-Instruct --max_length 1024",
        ),
        topics={
            "check": [entry.name for entry in fields(CheckArguments) if entry.name in mine],
            "data": [e.name for e in fields(CheckArguments) if e.name not in mine and e.name not in hidden],
        },
        positional="dataset_name",
    )


def run(args: CheckArguments, console: Console | None = None) -> PreferenceReport:
    """
    Prints the report and returns it.

    Raises:
        FileNotFoundError: If nothing is at the path.
        ValueError: If an option is wrong, or the data cannot be read as pairs at all; unusable rows are in the report.
    """
    console = console or main_console()
    if args.max_length is not None and args.tokenizer is None:
        raise ValueError("`max_length` is in tokens: name the `tokenizer`.")
    tokenizer = None
    if args.tokenizer is not None:
        from transformers import AutoTokenizer

        with explained(args.tokenizer, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(args.tokenizer, trust_remote_code=False)
    report = check_preferences(
        _rows(args, console),
        attribute_column=args.attribute_column,
        privileged=args.privileged_attributes,
        tokenizer=tokenizer,
        max_length=args.max_length,
    )
    print_report(report, console)
    if args.plot is not None:
        console.print(f"Plot: {plot_conflicts(report, args.plot)}")
    return report


def main(arguments: list[str]) -> None:
    """Parses and runs; exits with 1 if training would refuse some of the data."""
    (args,) = make_parser().parse(arguments)
    if run(args).refused:
        raise SystemExit(REFUSED)


def _rows(args: CheckArguments, console: Console) -> Mapping[str, Rows]:
    """Own pairs as they are, so that every unusable row is found; everything else as training would load it."""
    as_it_is = ("dataset_source", "ratings", "attributes", "mixture", "test_share", "dataset_streaming")
    path = Path(args.dataset_name or "").expanduser()
    if args.dataset_name and path.exists() and not any(getattr(args, name) for name in as_it_is):
        splits = read_splits(path)
        for rows in splits.values():
            hint_at_source(columns_of(rows), path.name)
        return splits
    data = load_data(args, args.attribute_column, console)
    if isinstance(data, IterableDatasetDict):
        raise ValueError("A stream cannot be checked: leave out `dataset_streaming`.")
    return data

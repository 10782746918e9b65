"""`fairpo check DATA`: what is in preference data, and what training would refuse. Loads no model."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rich.console import Console

from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.core.options import option
from fairpo_trl.generation.data import DataArguments, main_console, read_unchecked
from fairpo_trl.loading import explained
from fairpo_trl.preferences.check import PreferenceReport, check_preferences
from fairpo_trl.preferences.show import plot_conflicts, print_report


REFUSED = 1
"""Exit code if training would refuse some of the data."""


@dataclass
class CheckArguments(DataArguments):
    """Which data, and what to hold it against; options of training have the names and defaults they have there."""

    attribute_column: str = option("attribute", "Column of own pairs with the attribute.")
    privileged_attributes: list[str] | None = option(
        None, "Attributes that should get better: the report then counts roles."
    )
    model_name_or_path: str | None = option(
        None,
        "Hub id or folder of the model, or of its tokenizer: pairs are then checked as tokens too.",
        aliases=["--tokenizer"],
    )
    max_length: int | None = option(
        None, "With a model: tokens of prompt and completion that training keeps; else its default."
    )
    truncation_mode: str = option(
        "keep_start", "With a model: which end of a pair training keeps.", choices=["keep_start", "keep_end"]
    )
    allow_prompt_overlap: bool = option(
        False, "As in training: prompts may be in the test split and in the training split."
    )
    plot: str | None = option(None, "PNG of the matrix of conflicts to write.")


def make_parser() -> CommandParser:
    """Parser of the command."""
    mine = {entry.name for entry in fields(CheckArguments)} - {entry.name for entry in fields(DataArguments)}
    hidden = ("ignore_bias_buffers", "dataset_streaming")
    return CommandParser(
        (CheckArguments,),
        command="fairpo check",
        summary="Counts, conflicts between attributes, length bias, repeats, leakage, and what training would refuse.",
        examples=(
            "fairpo check pairs.jsonl --privileged_attributes helpful",
            "fairpo check ratings.csv --ratings helpful kind concise --plot conflicts.png",
            "fairpo check ultrafeedback --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --max_length 1024",
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
    tokenizer, max_length, limits = None, None, None
    if args.model_name_or_path is not None:
        from transformers import AutoTokenizer

        from fairpo_trl.generation.config import FairPOConfig
        from fairpo_trl.generation.token_check import model_limits

        with explained(args.model_name_or_path, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path, trust_remote_code=False)
        max_length = FairPOConfig.max_length if args.max_length is None else args.max_length
        limits = model_limits(args.model_name_or_path)
    elif args.max_length is not None:
        raise ValueError("`max_length` is in tokens: name the `model_name_or_path`, or its `tokenizer`.")
    report = check_preferences(
        read_unchecked(args, args.attribute_column, console),
        attribute_column=args.attribute_column,
        privileged=args.privileged_attributes,
        tokenizer=tokenizer,
        max_length=max_length,
        truncation_mode=args.truncation_mode,
        limits=limits,
        train_split=args.dataset_train_split,
        evaluation_splits=[args.dataset_test_split],
        allow_prompt_overlap=args.allow_prompt_overlap,
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

"""Where preference pairs come from: the options that training, checking and evaluating share."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetDict, IterableDatasetDict
from rich.console import Console
from trl import ScriptArguments

from fairpo_trl.generation.load_pairs import load_pairs
from fairpo_trl.preferences import SOURCES, load_preferences


SHIPPED = Path(__file__).resolve().parents[2]
"""A clone's root, from which the recipes name the data they ship."""


@dataclass
class DataArguments(ScriptArguments):
    """TRL's options for data sets, and how rows become preference pairs with attributes."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "aliases": ["--dataset"],
            "help": "Preference pairs: a published set by name (" + ", ".join(SOURCES) + "), a Hub id, or a path "
            "(JSONL, JSON, CSV, Parquet, a folder written by save_to_disk).",
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    dataset_streaming: bool = field(default=False, metadata={"help": "Stream the rows instead of loading them."})
    dataset_source: str | None = field(
        default=None,
        metadata={"help": "The published set whose schema the rows at a path have.", "choices": list(SOURCES)},
    )
    source_options: str | None = field(
        default=None,
        metadata={"help": 'More options of a published set\'s converter, as JSON: \'{"subset": "helpful-base"}\'.'},
    )
    ratings: list[str] | None = field(
        default=None,
        metadata={"help": "Rating columns: rows are then `prompt`, `response` and a number per attribute."},
    )
    attributes: list[str] | None = field(default=None, metadata={"help": "Keep only the pairs of these attributes."})
    min_margin: float | None = field(default=None, metadata={"help": "Least difference of two ratings or scores."})
    max_pairs: int | None = field(
        default=None, metadata={"help": "Pairs per prompt and attribute at most, widest margins first."}
    )
    test_share: float = field(
        default=0.0, metadata={"help": "Share of the prompts that becomes `test`, where there is no such split."}
    )
    split_seed: int = field(
        default=0, metadata={"help": "Chooses the test prompts, and pairs where there is a choice."}
    )


def load_data(
    args: DataArguments, attribute_column: str = "attribute", console: Console | None = None
) -> DatasetDict | IterableDatasetDict:
    """
    The preference pairs that the options name, as splits; prints what was kept and dropped.

    Args:
        args (`DataArguments`):
            As parsed.
        attribute_column (`str`, *optional*, defaults to `"attribute"`):
            Column of own pairs that names the attribute.
        console (`Console`, *optional*):
            Where to print; by default the standard output of the main process.

    Returns:
        `DatasetDict` or `IterableDatasetDict`: split -> rows `prompt`, `chosen`, `rejected` and the attribute.

    Raises:
        FileNotFoundError: If nothing is at the path.
        ValueError: If an option, column or row is wrong; the message names it.
    """
    if not args.dataset_name:
        raise ValueError("Name the preference data: `--dataset_name` with a published set, a Hub id or a path.")
    console = console or main_console()
    shipped = SHIPPED / args.dataset_name  # from wherever a recipe of a clone is called
    name = str(shipped) if args.dataset_name.startswith("recipes/") and shipped.exists() else args.dataset_name
    converts = name in SOURCES or any(name == known.hub_id for known in SOURCES.values())
    here = Path(name).expanduser()
    if args.dataset_streaming or not (converts or args.dataset_source or here.exists() or _looks_like_path(name)):
        _refuse_without_conversion(args, "streamed" if args.dataset_streaming else "a Hub data set without converter")
        return load_pairs(name, args.dataset_config, args.dataset_streaming)
    options: dict[str, Any] = _source_options(args)
    if args.min_margin is not None:
        options["min_margin"] = args.min_margin
    if args.max_pairs is not None:
        options["max_pairs" if args.ratings is None else "max_pairs_per_prompt"] = args.max_pairs
    return load_preferences(
        name,
        source=args.dataset_source,
        attributes=args.attributes,
        attribute_column=attribute_column,
        ratings=args.ratings,
        test_share=args.test_share,
        seed=args.split_seed,
        console=console,
        **options,
    )


def main_console() -> Console:
    """A console that is quiet on every process but the main one."""
    return Console(highlight=False, quiet=os.environ.get("RANK", "0") != "0")


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or Path(name).suffix in (".jsonl", ".json", ".csv", ".parquet", ".gz")


def _refuse_without_conversion(args: DataArguments, why: str) -> None:
    names = ("dataset_source", "source_options", "ratings", "attributes", "min_margin", "max_pairs", "test_share")
    given = [f"`{name}`" for name in names if getattr(args, name) not in (None, 0.0)]
    if given:
        raise ValueError(
            f"{', '.join(given)} cannot be used: {args.dataset_name!r} is {why} and is taken as it is. Save it to "
            "disk and name the folder, or leave these options out."
        )


def _source_options(args: DataArguments) -> dict[str, Any]:
    if args.source_options is None:
        return {}
    try:
        options = json.loads(args.source_options) if isinstance(args.source_options, str) else args.source_options
    except json.JSONDecodeError as error:
        raise ValueError(f"`source_options` must be JSON, got {args.source_options!r}: {error}.") from error
    if not isinstance(options, dict):
        raise ValueError(f"`source_options` must be a JSON object, got {args.source_options!r}.")
    return options

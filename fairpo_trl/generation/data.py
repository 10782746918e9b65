"""Where preference pairs come from: the options that training, checking and evaluating share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from datasets import DatasetDict, IterableDatasetDict, load_dataset
from rich.console import Console
from trl import ScriptArguments

from fairpo_trl.core.options import option
from fairpo_trl.data_folder import check_data_folder
from fairpo_trl.files import local_path
from fairpo_trl.preferences.load import load_preferences, select_and_divide
from fairpo_trl.preferences.own import mix, own_pairs, understood
from fairpo_trl.preferences.pairing import Pairing
from fairpo_trl.preferences.read import Rows, as_dataset, read_splits
from fairpo_trl.preferences.sources import SOURCES
from fairpo_trl.tables import type_of


@dataclass
class DataArguments(ScriptArguments):
    """TRL's options for data sets, and how rows become preference pairs with attributes."""

    dataset_name: str | None = option(
        None,
        "Preference pairs: a published set by name (" + ", ".join(SOURCES) + "), a Hub id, or a path "
        "(JSONL, JSON, CSV, Parquet, a folder written by save_to_disk).",
        aliases=["--dataset"],
    )
    dataset_config: str | None = option(None, "Configuration of a Hub data set.")
    dataset_train_split: str = option("train", "Split to train on.")
    dataset_test_split: str = option("test", "Split to evaluate on.")
    dataset_streaming: bool = option(False, "Stream the rows instead of loading them.")
    dataset_source: str | None = option(
        None, "The published set whose schema the rows at a path have.", choices=list(SOURCES)
    )
    source_options: str | None = option(
        None, 'More options of a published set\'s converter, as JSON: \'{"subset": "helpful-base"}\'.'
    )
    attribute_separator: str | None = option(
        None,
        "What joins several attributes in one cell of text; by default |. A mark that does not occur says that commas "
        "and the like belong to the names.",
    )
    ratings: list[str] | None = option(
        None, "Rating columns: rows are then `prompt`, `response` and a number per attribute."
    )
    mixture: list[str] | None = option(
        None, "Instead of `dataset_name`: one source per attribute, as `helpful=a.jsonl kind=b.jsonl`."
    )
    attributes: list[str] | None = option(None, "Keep only the pairs of these attributes.")
    min_margin: float | None = option(None, "Least difference of two ratings or scores.")
    max_pairs: int | None = option(None, "Pairs per prompt and attribute at most, widest margins first.")
    pairing: str = option(
        "each",
        "Pairs of ratings: each attribute by itself, or consistent, where the winner is not worse on any other "
        "attribute.",
        choices=list(get_args(Pairing)),
    )
    pairing_tolerance: float = option(
        0.0, "With `pairing` consistent: how much worse the winner may be on another attribute."
    )
    as_messages: bool = option(False, "Turn plain text into messages, so that a chat model gets its chat template.")
    test_share: float = option(0.0, "Share of the prompts that becomes `test`, where there is no such split.")
    split_seed: int = option(0, "Chooses the test prompts, and pairs where there is a choice.")


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
    console, name = console or main_console(), args.dataset_name
    if args.mixture is not None:
        data: Any = _mixed(args, attribute_column, console)
    elif not name:
        raise ValueError("Name the preference data: `--dataset_name` with a published set, a Hub id or a path.")
    elif args.dataset_streaming:
        _refuse(args, (*_CONVERSION, "attributes", "test_share"), "a stream is taken as it is")
        data = load_pairs(name, args.dataset_config, streaming=True)
    elif not (_published(name) or args.dataset_source) and local_path(name) is None:
        _refuse(args, _CONVERSION, f"{name!r} on the Hub is no published set with a converter")
        pairs = load_pairs(name, args.dataset_config)
        data = own_pairs(pairs, name, console, attribute_column, args.attribute_separator)
    else:
        data = load_preferences(
            name,
            source=args.dataset_source,
            attribute_column=attribute_column,
            attribute_separator=args.attribute_separator,
            ratings=args.ratings,
            seed=args.split_seed,
            console=console,
            **_conversion_options(args),
        )
    if not args.dataset_streaming or args.mixture is not None:
        data = select_and_divide(
            data,
            attributes=args.attributes,
            column=attribute_column,
            test_share=args.test_share,
            seed=args.split_seed,
            console=console,
        )
    return _as_messages(data) if args.as_messages else data


def main_console() -> Console:
    """A console that is quiet on every process but the main one."""
    return Console(highlight=False, quiet=os.environ.get("RANK", "0") != "0")


def read_unchecked(args: DataArguments, attribute_column: str, console: Console) -> Mapping[str, Rows]:
    """
    The pairs as [`load_data`] reads them, but own pairs are not looked at yet, so that a check can name every row.

    Raises:
        FileNotFoundError, ValueError: As [`load_data`].
    """
    converted = "dataset_source ratings attributes mixture test_share dataset_streaming as_messages".split()
    if args.dataset_name and not any(getattr(args, name) for name in converted) and not _published(args.dataset_name):
        path = local_path(args.dataset_name)
        if path is not None:
            return understood(read_splits(path), path.name, console, attribute_column, args.attribute_separator)
    data = load_data(args, attribute_column, console)
    if isinstance(data, IterableDatasetDict):
        raise ValueError("A stream cannot be checked: leave out `dataset_streaming`.")
    return data


def load_pairs(name: str, config: str | None = None, streaming: bool = False) -> DatasetDict | IterableDatasetDict:
    """
    Loads or streams preference pairs (`prompt`, `chosen`, `rejected`, attribute) as splits.

    Args:
        name (`str`):
            Hub id, with a configuration in `config`, or a path: a folder written by `Dataset.save_to_disk` or holding
            data files, or one JSONL, JSON, CSV or Parquet file. A file with a column `split` is divided by it;
            otherwise all rows are `train`.

    Raises:
        FileNotFoundError: If `name` looks like a path and nothing is there.
        ValueError: If the file type is unknown, or a file divided by a column `split` or a folder written by
            `save_to_disk` is to be streamed.
    """
    path = local_path(name)
    if path is None:
        return load_dataset(name, name=config, streaming=streaming)
    if not streaming:
        return DatasetDict({split: as_dataset(rows, path.name) for split, rows in read_splits(path).items()})
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            raise ValueError(f"{path.name} was written by `save_to_disk`: load it without streaming.")
        check_data_folder(path)
        return load_dataset(str(path), name=config, streaming=True)
    builder = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}.get(type_of(path))
    if builder is None:
        raise ValueError(f"{path.name}: files of this type are not streamed; load it without streaming.")
    data = load_dataset(builder, data_files=str(path), streaming=True)
    if "split" in (data["train"].column_names or ()):
        raise ValueError(f"{path.name} is divided by its column 'split': load it without streaming.")
    return data


_CONVERSION = ("dataset_source", "source_options", "ratings", "min_margin", "max_pairs", "pairing_tolerance")


def _published(name: str) -> bool:
    """Whether a name is that of a published set."""
    return name in SOURCES or any(name == known.hub_id for known in SOURCES.values())


def _as_messages(data: DatasetDict | IterableDatasetDict) -> DatasetDict | IterableDatasetDict:
    """Plain text as one turn of the user and one of the assistant."""

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(row["prompt"], str):
            raise ValueError("`as_messages` is for plain text, but these prompts are messages: leave it out.")
        turns = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        return {name: [{"role": role, "content": row[name]}] for name, role in turns.items()}

    return data.map(convert)


def _mixed(args: DataArguments, column: str, console: Console) -> DatasetDict:
    """One source per attribute."""
    if args.dataset_name:
        raise ValueError("Give either `dataset_name` or `mixture`, not both.")
    if column != "attribute":
        raise ValueError(f"A mixture names its attributes in the column 'attribute': leave out `{column=}`.")
    _refuse(args, _CONVERSION, "the sources of a mixture are pairs")
    sources: dict[str, str] = {}
    for entry in args.mixture or ():
        attribute, found, path = entry.partition("=")
        if not (attribute and found and path):
            raise ValueError(f"`mixture` takes entries such as helpful=pairs.jsonl, got {entry!r}.")
        if attribute in sources:
            raise ValueError(f"`mixture` names {attribute!r} twice: put its pairs into one file.")
        sources[attribute] = path
    return mix(sources, console=console)


def _refuse(args: DataArguments, names: Sequence[str], why: str) -> None:
    """Options that would have no effect."""
    given = [f"`{name}`" for name in names if getattr(args, name) not in (None, 0.0)]
    if given:
        raise ValueError(f"{', '.join(given)} cannot be used: {why}. Leave out, or save the data and name the file.")


def _conversion_options(args: DataArguments) -> dict[str, Any]:
    """What goes to the converter, or to `pairs_from_ratings`."""
    options: Any = {} if args.source_options is None else args.source_options
    if isinstance(options, str):
        try:
            options = json.loads(options)
        except json.JSONDecodeError as error:
            raise ValueError(f"`source_options` must be JSON, got {options!r}: {error}.") from error
    if not isinstance(options, dict):
        raise ValueError(f"`source_options` must be a JSON object, got {args.source_options!r}.")
    options = dict(options)
    if args.min_margin is not None:
        options["min_margin"] = args.min_margin
    if args.max_pairs is not None:
        options["max_pairs" if args.ratings is None else "max_pairs_per_prompt"] = args.max_pairs
    if args.pairing != "each":
        options |= {"pairing": args.pairing, "tolerance": args.pairing_tolerance}
    elif args.pairing_tolerance:
        raise ValueError("`pairing_tolerance` has no effect without `--pairing consistent`.")
    return options

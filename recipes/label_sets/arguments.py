"""Options of the label-set recipe: its own, FairPO's, and the model's."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_args

from trl import DPOConfig, ModelConfig, get_quantization_config

from fairpo_trl import FairPOConfig
from fairpo_trl.commands.generation import TRAINING
from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.evaluation.selection import SCALES, check_points
from fairpo_trl.generation.methods import Method
from fairpo_trl.label_sets.select import HeldBy


@dataclass
class LabelSetArguments:
    """Which items, how the reference learns their sets, and how its mistakes become pairs."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "aliases": ["--dataset"],
            "help": "A file of `text` and `labels` (JSONL, JSON, CSV, Parquet); by default Debian's program "
            "descriptions with their debtags, read from the package index.",
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column of the text."})
    labels_column: str = field(
        default="labels", metadata={"help": "Column of the labels: a list, or text with commas between them."}
    )
    labels: list[str] | None = field(default=None, metadata={"help": "Keep only these labels."})
    test_share: float = field(
        default=0.3, metadata={"help": "Share of the items that becomes `test`, where there is no column `split`."}
    )
    split_seed: int = field(default=0, metadata={"help": "Chooses the test items."})
    privileged_share: float = field(
        default=0.2,
        metadata={"help": "The rarest share of the labels is privileged, unless `privileged_attributes` names them."},
    )
    method: str = field(
        default="fairpo",
        metadata={"help": "FairPO or one of its baselines on the same pairs.", "choices": list(get_args(Method))},
    )
    reference: str | None = field(
        default=None, metadata={"help": "A model that was trained on the sets before, instead of SFT now."}
    )
    sft_epochs: float = field(default=3.0, metadata={"help": "Passes of SFT over the items."})
    sft_learning_rate: float = field(default=1e-3, metadata={"help": "Highest learning rate of SFT; falls to 0."})
    sft_batch_size: int = field(default=8, metadata={"help": "Items in a step of SFT."})
    samples_per_item: int = field(default=2, metadata={"help": "Sets the reference draws per item, to find mistakes."})
    sampling_temperature: float = field(default=1.0, metadata={"help": "Temperature of these draws."})
    constrained_sampling: bool = field(
        default=False, metadata={"help": "Hold these draws to the form, for a reference that often breaks it."}
    )
    pairs_per_item: int = field(default=1, metadata={"help": "Own wrong sets of an item that become pairs, at most."})
    constrained_decoding: bool = field(
        default=False, metadata={"help": "Evaluate with decoding held to the form too, and report its effect."}
    )
    select: bool = field(
        default=False,
        metadata={
            "help": "Test the scales of the adapter after training, and hand over the boldest whose held labels are "
            "shown not to be worse, in `output_dir`/selection."
        },
    )
    held: str = field(
        default="mean",
        metadata={
            "help": "What must not be worse: the F1 over all held labels, or that of every one.",
            "choices": list(get_args(HeldBy)),
        },
    )
    margin: float = field(default=5.0, metadata={"help": "Points of F1 that what is held may fall by."})
    level: float = field(default=0.05, metadata={"help": "Largest chance that a margin is broken by what passes."})
    scales: list[float] | None = field(
        default=None, metadata={"help": "Scales of the adapter that are tested, rising. Default: .25 to 1.5."}
    )
    aside_share: float = field(
        default=0.3,
        metadata={"help": "Share of the test items that decides nothing, and reports what is handed over."},
    )
    max_set_tokens: int = field(default=32, metadata={"help": "Length limit of a written set; longer ones are cut."})


def check_options(script_args: LabelSetArguments, args: FairPOConfig, model_args: ModelConfig) -> None:
    """
    What can be said before anything is loaded.

    Raises:
        ValueError: If an earlier run's reference is in the way, the model would be quantised, or what is to be
            selected cannot be tested.
    """
    if script_args.select:
        check_points(
            script_args.margin,
            script_args.level,
            script_args.aside_share,
            SCALES if script_args.scales is None else script_args.scales,
        )
    saved = Path(args.output_dir) / "reference"
    if script_args.reference is None and saved.exists():
        raise ValueError(
            f"{saved} is there from an earlier run: start from it with `--reference`, or name another `--output_dir`."
        )
    if get_quantization_config(model_args) is not None:
        raise ValueError(
            "The reference is merged into its base, which a quantised model does not allow: leave out `load_in_4bit` "
            "and `load_in_8bit`."
        )


def make_parser(command: str) -> CommandParser:
    """Parser of the recipe: YAML with `--config`, every option also on the command line."""
    inherited = {entry.name for entry in fields(DPOConfig)}
    training = {entry.name for base in DPOConfig.__mro__[1:-1] for entry in fields(base)} - {"max_length"}
    return CommandParser(
        (LabelSetArguments, FairPOConfig, ModelConfig),
        command=command,
        summary="Trains a language model to write label sets, with the rare labels privileged.",
        examples=(command, f"{command} --dataset_name items.jsonl --privileged_attributes rare rarer"),
        topics={
            "data": [entry.name for entry in fields(LabelSetArguments)],
            "fairpo": [entry.name for entry in fields(FairPOConfig) if entry.name not in inherited],
            "dpo": [entry.name for entry in fields(DPOConfig) if entry.name not in training],
            "training": TRAINING,
            "model": [entry.name for entry in fields(ModelConfig)],
        },
    )

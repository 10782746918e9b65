"""The chain: SFT on true sets gives the reference, its own mistakes give pairs, FairPO trains on them."""

from __future__ import annotations

import copy
import gc
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from fairpo_trl.core.options import check_number
from fairpo_trl.core.partition import Partition
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.merging import merge_adapter
from fairpo_trl.generation.methods import Method, apply_method
from fairpo_trl.generation.trainer import FairPOTrainer
from fairpo_trl.label_sets.items import LabelledTexts
from fairpo_trl.label_sets.reader import Vocabulary


SHARED = (
    "seed data_seed use_cpu bf16 fp16 gradient_checkpointing max_length report_to disable_tqdm logging_steps "
    "gradient_accumulation_steps weight_decay max_grad_norm optim model_init_kwargs dataset_num_proc"
).split()
"""What SFT takes from the options of the pairs' training."""


@dataclass(frozen=True)
class SFTOptions:
    """
    How label sets are learned by maximum likelihood; the loss is on the set alone.

    Args:
        learning_rate (`float`): Highest; it falls linearly to 0.
        epochs (`float`): Passes over the items, if `max_steps` is not given.
        batch_size (`int`): Items in a step of one device.
        max_steps (`int`, *optional*): Steps, instead of `epochs`.
    """

    learning_rate: float = 1e-3
    epochs: float = 3.0
    batch_size: int = 8
    max_steps: int | None = None

    def __post_init__(self) -> None:
        check_number("sft_learning_rate", self.learning_rate, positive=True)
        check_number("sft_epochs", self.epochs, positive=True)
        check_number("sft_batch_size", self.batch_size, least=1, whole=True)


def train_on_sets(
    model: str,
    items: LabelledTexts,
    vocabulary: Vocabulary,
    args: FairPOConfig,
    options: SFTOptions,
    output: Path,
    *,
    peft_config: PeftConfig | None = None,
    oversampled: Sequence[str] = (),
    factor: int = 1,
) -> SFTTrainer:
    """
    SFT on the true sets of the training split; returns the trainer, with nothing saved.

    Args:
        model (`str`):
            Hub id or folder.
        items, vocabulary:
            The texts, and how their sets are written.
        args ([`~fairpo_trl.FairPOConfig`]), options ([`SFTOptions`]):
            Device, precision, seed and lengths are those of the run; the rest is in `options`.
        output (`Path`):
            Folder of the trainer.
        peft_config (`PeftConfig`, *optional*):
            Trains an adapter.
        oversampled, factor (`Sequence[str]`, `int`, *optional*):
            Items of these labels are seen `factor` times as often.
    """
    sets = items.sets()
    rows = [
        {"prompt": prompt, "completion": vocabulary.write(labels)}
        for prompt, labels in zip(items.prompts, sets, strict=True)
        for _ in range(factor if set(labels) & set(oversampled) else 1)
    ]
    taken = {name: copy.copy(getattr(args, name)) for name in SHARED}
    config = SFTConfig(
        output_dir=str(output),
        learning_rate=options.learning_rate,
        num_train_epochs=options.epochs,
        max_steps=-1 if options.max_steps is None else options.max_steps,
        per_device_train_batch_size=options.batch_size,
        lr_scheduler_type="linear",
        save_strategy="no",
        completion_only_loss=True,
        **taken,
    )
    trainer = SFTTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), peft_config=peft_config)
    trainer.train()
    return trainer


def train_reference_on_sets(
    model: str,
    items: LabelledTexts,
    vocabulary: Vocabulary,
    args: FairPOConfig,
    options: SFTOptions,
    output: Path,
    peft_config: PeftConfig | None = None,
) -> Path:
    """
    The reference as a plain model with its tokenizer: SFT on the true sets, an adapter merged into its base.

    Arguments are those of [`train_on_sets`]; `output`, which is returned, appears whole or not at all.
    """
    scratch = output.with_name(f"{output.name}-sft")
    trainer = train_on_sets(model, items, vocabulary, args, options, scratch, peft_config=peft_config)
    trainer.save_model(str(scratch))
    if peft_config is None:
        shutil.rmtree(output, ignore_errors=True)
        scratch.rename(output)
        return output
    del trainer
    gc.collect()  # the merged model needs the room
    merge_adapter(scratch, output)
    shutil.rmtree(scratch)
    return output


def train_on_pairs(
    reference: str | Path,
    rows: Sequence[dict[str, Any]],
    partition: Partition,
    args: FairPOConfig,
    method: Method = "fairpo",
    peft_config: PeftConfig | None = None,
) -> FairPOTrainer:
    """
    FairPO, or one of its baselines, from the reference on pairs of label sets; returns the trainer, with nothing
    saved.

    Args:
        reference (`str` or `Path`):
            The model to start from.
        rows (`Sequence[dict[str, Any]]`):
            From [`~fairpo_trl.label_sets.pairs.preference_rows`].
        partition ([`~fairpo_trl.Partition`]):
            Labels and roles; labels that no pair is about are left out.
        args, method, peft_config:
            Options of the run, its method as `apply_method` knows it, and perhaps an adapter.

    Raises:
        ValueError: If no pair is about a privileged label.
    """
    args = copy.copy(args)
    seen = {name for row in rows for name in row["attribute"]}
    args.privileged_attributes = [name for name in partition.privileged if name in seen]
    args.non_privileged_attributes = [name for name in partition.non_privileged if name in seen]
    if not args.privileged_attributes:
        raise ValueError(
            f"None of {len(rows)} pairs is about a privileged label {list(partition.privileged)}: sample more sets "
            "per item, or add items that have these labels."
        )
    train, _ = apply_method(method, args, Dataset.from_list(list(rows)))
    trainer = FairPOTrainer(model=str(reference), args=args, train_dataset=train, peft_config=peft_config)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    return trainer


def load_writer(folder: str | Path, args: FairPOConfig) -> tuple[Any, Any]:
    """A model and its tokenizer for writing, on the device of the run."""
    options = {k: v for k, v in (args.model_init_kwargs or {}).items() if k != "revision"}
    model = AutoModelForCausalLM.from_pretrained(str(folder), use_safetensors=True, **options, trust_remote_code=False)
    return model.to(args.device), AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def rarest(items: LabelledTexts, share: float) -> Partition:
    """The partition with the rarest `share` of the labels privileged, by their items in this split."""
    return Partition.by_least_frequent(items.split.label_counts(), share)

"""A run of the generation half: preference pairs in, a trained and saved model with its card out."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field

from datasets import Dataset
from transformers import TrainerCallback
from trl import ModelConfig, get_peft_config, get_quantization_config

from fairpo_trl.core.options import option
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.data import DataArguments, load_data
from fairpo_trl.generation.methods import Method, apply_method
from fairpo_trl.generation.trained_prompts import keep_prompts
from fairpo_trl.generation.trainer import FairPOTrainer
from fairpo_trl.preferences.overlap import prompts_of
from fairpo_trl.training.places import OVERWRITE, check_model, check_output_dir
from fairpo_trl.training.saving import where_saved


@dataclass
class GenerationArguments(DataArguments):
    """Which data, and by which method; the rest is in `FairPOConfig` and TRL's `ModelConfig`."""

    method: Method = option("fairpo", "FairPO or one of its baselines.")
    overwrite_output_dir: bool = field(default=False, metadata=OVERWRITE)


def train(
    script_args: GenerationArguments,
    training_args: FairPOConfig,
    model_args: ModelConfig,
    callbacks: list[TrainerCallback] | None = None,
) -> FairPOTrainer:
    """
    Loads the data, trains and returns the trainer; nothing is saved yet.

    Raises:
        FileNotFoundError, ValueError: If data, options or model do not go together; before anything is trained.
        ImportError: If a model in 4 or 8 bits is asked for without bitsandbytes (the extra `qlora`).
    """
    check_model(model_args.model_name_or_path, "model_name_or_path")
    _check_quantization(model_args)
    data = load_data(script_args, training_args.attribute_column)
    evaluates = training_args.eval_strategy != "no"
    for name, needed in (("dataset_train_split", True), ("dataset_test_split", evaluates)):
        split = getattr(script_args, name)
        if needed and split not in data:
            raise ValueError(
                f"The data has no split {split!r}, only {sorted(data)}: set `{name}`"
                + (", or divide the data with `test_share`." if name == "dataset_test_split" else ".")
            )
    train_data, evaluation = apply_method(
        script_args.method,
        training_args,
        data[script_args.dataset_train_split],
        data[script_args.dataset_test_split] if evaluates else None,
    )
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    trainer = FairPOTrainer(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=train_data,
        eval_dataset=evaluation,
        peft_config=get_peft_config(model_args),
        quantization_config=get_quantization_config(model_args),
        callbacks=callbacks,
    )
    if hint := slow_on_a_cpu(training_args, trainer.accelerator.device.type):
        trainer.accelerator.print(hint)
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    if trainer.args.should_save and isinstance(train_data, Dataset):
        keep_prompts(training_args.output_dir, prompts_of(train_data).values())
    return trainer


def slow_on_a_cpu(args: FairPOConfig, device: str) -> str:
    """A sentence on defaults that are meant for a GPU, where a CPU trains with them; empty otherwise."""
    slow = [f"--{name} false" for name in ("bf16", "gradient_checkpointing") if getattr(args, name)]
    if device != "cpu" or not slow:
        return ""
    return f"This trains on a CPU, which is faster with `{' '.join(slow)} --dtype float32`."


def _check_quantization(model_args: ModelConfig) -> None:
    """Says before the data is read that the package for a model in 4 or 8 bits is not installed."""
    asked = next((name for name in ("load_in_4bit", "load_in_8bit") if getattr(model_args, name)), None)
    if asked is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError(
            f'`{asked}` needs bitsandbytes, which is not installed: `pip install "fairpo_trl[qlora]"`, or '
            f"leave out `{asked}`."
        )


def run(script_args: GenerationArguments, training_args: FairPOConfig, model_args: ModelConfig) -> FairPOTrainer:
    """Trains, saves and, if asked, pushes."""
    if training_args.process_index == 0:
        check_output_dir(
            training_args.output_dir, training_args.resume_from_checkpoint, script_args.overwrite_output_dir
        )
    trainer = train(script_args, training_args, model_args)
    trainer.save_model(training_args.output_dir)
    trainer.create_model_card(dataset_name=script_args.dataset_name)
    trainer.accelerator.print(where_saved(training_args.output_dir))
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
        trainer.accelerator.print(f"Pushed to https://huggingface.co/{trainer.hub_model_id}.")
    return trainer

"""`fairpo generation`: trains a language model on preference pairs; what `recipes/generation_fairpo.py` runs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import get_args

from transformers import TrainerCallback
from trl import DPOConfig, ModelConfig, get_peft_config, get_quantization_config

from fairpo_trl.commands.data import DataArguments, load_data
from fairpo_trl.commands.parsing import CommandParser, in_recipe_or_command
from fairpo_trl.commands.places import OVERWRITE, check_model, check_output_dir
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.methods import Method, apply_method
from fairpo_trl.generation.trainer import FairPOTrainer


@dataclass
class GenerationArguments(DataArguments):
    """Which data, and by which method; the rest is in `FairPOConfig` and TRL's `ModelConfig`."""

    method: str = field(
        default="fairpo",
        metadata={"help": "FairPO or one of its baselines.", "choices": list(get_args(Method))},
    )
    overwrite_output_dir: bool = field(default=False, metadata=OVERWRITE)


TRAINING = (
    "output_dir num_train_epochs max_steps per_device_train_batch_size per_device_eval_batch_size "
    "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm optim seed "
    "bf16 gradient_checkpointing use_cpu logging_steps report_to eval_strategy eval_steps save_strategy save_steps "
    "save_total_limit load_best_model_at_end metric_for_best_model resume_from_checkpoint push_to_hub hub_model_id "
    "hub_private_repo"
).split()
"""What is set most often of transformers' training options."""


def make_parser() -> CommandParser:
    """Parser of the command and the recipe: YAML with `--config`, every option also on the command line."""
    inherited = {entry.name for entry in fields(DPOConfig)}
    training = {entry.name for base in DPOConfig.__mro__[1:-1] for entry in fields(base)} - {"max_length"}
    command = in_recipe_or_command("generation")
    return CommandParser(
        (GenerationArguments, FairPOConfig, ModelConfig),
        command=command,
        summary="Trains a language model: privileged attributes get better, the others do not get worse.",
        examples=(
            f"{command} --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --use_peft \\",
            "    --dataset_name ultrafeedback --test_share 0.02 --privileged_attributes honesty --output_dir out",
            f"{command} --config my.yaml --dataset_name ratings.csv --ratings helpful kind",
        ),
        topics={
            "data": [entry.name for entry in fields(GenerationArguments) if entry.name != "ignore_bias_buffers"],
            "fairpo": [entry.name for entry in fields(FairPOConfig) if entry.name not in inherited],
            "dpo": [entry.name for entry in fields(DPOConfig) if entry.name not in training],
            "training": TRAINING,
            "model": [entry.name for entry in fields(ModelConfig)],
        },
    )


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
    """
    check_model(model_args.model_name_or_path, "model_name_or_path")
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
        script_args.method,  # type: ignore[arg-type]
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
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    return trainer


def run(script_args: GenerationArguments, training_args: FairPOConfig, model_args: ModelConfig) -> FairPOTrainer:
    """Trains, saves and, if asked, pushes."""
    if training_args.process_index == 0:
        check_output_dir(
            training_args.output_dir, training_args.resume_from_checkpoint, script_args.overwrite_output_dir
        )
    trainer = train(script_args, training_args, model_args)
    trainer.save_model(training_args.output_dir)
    trainer.create_model_card(dataset_name=script_args.dataset_name)
    trainer.accelerator.print(f"Model saved to {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
        trainer.accelerator.print(f"Pushed to https://huggingface.co/{trainer.hub_model_id}.")
    return trainer


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    run(*make_parser().parse(arguments))

"""`fairpo generation`: trains a language model on preference pairs."""

from __future__ import annotations

from dataclasses import fields

from trl import DPOConfig, ModelConfig

from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.run import GenerationArguments, run


TRAINING = (
    "output_dir num_train_epochs max_steps per_device_train_batch_size per_device_eval_batch_size "
    "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm optim seed "
    "bf16 gradient_checkpointing use_cpu logging_steps report_to eval_strategy eval_steps save_strategy save_steps "
    "save_total_limit load_best_model_at_end metric_for_best_model resume_from_checkpoint push_to_hub hub_model_id "
    "hub_private_repo"
).split()
"""What is set most often of transformers' training options."""


def make_parser(command: str = "fairpo generation") -> CommandParser:
    """
    Parser of a run: YAML with `--config`, every option also on the command line.

    Args:
        command (`str`, *optional*, defaults to `"fairpo generation"`):
            What is typed to call it, for help and errors.
    """
    inherited = {entry.name for entry in fields(DPOConfig)}
    training = {entry.name for base in DPOConfig.__mro__[1:-1] for entry in fields(base)} - {"max_length"}
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


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    run(*make_parser().parse(arguments))

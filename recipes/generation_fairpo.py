"""
Trains a language model with FairPO: the privileged attributes get better, the others do not get worse.

The demo (a real 135 M model on a CPU, ends with a table, plots and a report):

    python recipes/generation_fairpo.py

Your model and data, on one or several GPUs:

    accelerate launch recipes/generation_fairpo.py --config recipes/generation/qwen2.5-0.5b-instruct/lora.yaml

The baselines share this code path: `--method dpo | dpo_privileged_only | group_robust_dpo | sft_on_chosen`.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from transformers import TrainerCallback
from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config, get_quantization_config

from fairpo_trl import FairPOConfig, FairPOTrainer
from fairpo_trl.generation.load_pairs import load_pairs
from fairpo_trl.generation.methods import Method, apply_method


HERE = Path(__file__).resolve().parent
DEMO_CONFIG = HERE / "generation" / "smollm2-135m-instruct" / "demo.yaml"


@dataclass
class RecipeArguments(ScriptArguments):
    """TRL's script arguments, and the method."""

    method: str = field(
        default="fairpo",
        metadata={"help": "FairPO or one of its baselines.", "choices": list(get_args(Method))},
    )


def make_parser() -> TrlParser:
    """Parser of the recipe: YAML with `--config`, every option also on the command line."""
    return TrlParser((RecipeArguments, FairPOConfig, ModelConfig))


def train(
    script_args: RecipeArguments,
    training_args: FairPOConfig,
    model_args: ModelConfig,
    callbacks: list[TrainerCallback] | None = None,
) -> FairPOTrainer:
    """Loads the data, trains and returns the trainer; nothing is saved yet."""
    if not script_args.dataset_name:
        raise ValueError("Name the preference pairs: `--dataset_name` with a Hub id or a path.")
    path = HERE.parent / script_args.dataset_name  # the shipped data, from wherever the recipe is called
    data = load_pairs(
        str(path) if path.exists() else script_args.dataset_name,
        script_args.dataset_config,
        script_args.dataset_streaming,
    )
    for split in (script_args.dataset_train_split, script_args.dataset_test_split):
        if split not in data and (split == script_args.dataset_train_split or training_args.eval_strategy != "no"):
            raise ValueError(
                f"The data has no split {split!r}, only {sorted(data)}: "
                "set `dataset_train_split` or `dataset_test_split`."
            )
    evaluation = data[script_args.dataset_test_split] if training_args.eval_strategy != "no" else None
    train_data, evaluation = apply_method(
        script_args.method, training_args, data[script_args.dataset_train_split], evaluation
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


def main(script_args: RecipeArguments, training_args: FairPOConfig, model_args: ModelConfig) -> FairPOTrainer:
    """Trains, saves and, if asked, pushes."""
    trainer = train(script_args, training_args, model_args)
    trainer.save_model(training_args.output_dir)
    trainer.create_model_card(dataset_name=script_args.dataset_name)
    trainer.accelerator.print(f"Model saved to {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)
        trainer.accelerator.print(f"Pushed to https://huggingface.co/{trainer.hub_model_id}.")
    return trainer


def demo(arguments: list[str]) -> None:
    """The main job on a real model: train, then compare what both models write on held-out prompts."""
    sys.path.insert(0, str(HERE))
    from demo.report import report_demo
    from demo.smollm2 import demo_model_path

    started = time.time()
    model_path, origin = demo_model_path()
    print(f"Model: {origin}")
    script_args, training_args, model_args = make_parser().parse_args_and_config(
        ["--config", str(DEMO_CONFIG), "--model_name_or_path", str(model_path), *arguments]
    )
    # The roles as the user sees them; a baseline may train with others.
    privileged = list(training_args.privileged_attributes or ())
    trainer = main(script_args, training_args, model_args)
    report_demo(trainer, privileged, script_args.method, origin, started)
    trainer.create_model_card(dataset_name=script_args.dataset_name)  # again, now with the win rates


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # transformers says at every step that an attribute which TRL reads has a new name.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*is deprecated.*")
    given = sys.argv[1:]
    if "--model_name_or_path" in given or "--config" in given or {"-h", "--help"} & set(given):
        main(*make_parser().parse_args_and_config())
    else:
        demo(given)

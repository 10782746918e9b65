"""`fairpo generation`: trains a language model on preference pairs, and tests it if asked to (`--select true`)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from rich.console import Console
from trl import DPOConfig, ModelConfig

from fairpo_trl.commands import select
from fairpo_trl.commands.evaluate_judges import JudgeArguments, check_judges
from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.commands.select_inputs import SelectArguments
from fairpo_trl.core.options import option
from fairpo_trl.evaluation.judges import KINDS, parse_judge
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.data import DataArguments
from fairpo_trl.generation.run import GenerationArguments, run


TRAINING = (
    "output_dir num_train_epochs max_steps per_device_train_batch_size per_device_eval_batch_size "
    "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm optim seed "
    "bf16 gradient_checkpointing use_cpu logging_steps report_to eval_strategy eval_steps save_strategy save_steps "
    "save_total_limit load_best_model_at_end metric_for_best_model resume_from_checkpoint push_to_hub hub_model_id "
    "hub_private_repo"
).split()
"""What is set most often of transformers' training options."""


@dataclass
class SelectAfterwards(JudgeArguments):
    """Whether the model is tested after training, and by whom."""

    select: bool = option(
        False,
        "Test the model after training as `fairpo select` does, and hand over the boldest scale of it "
        "that is shown not to be worse, in `output_dir`/selection. Needs `judges`.",
    )
    margin: float = option(0.05, "How far the win rate of a held attribute may fall.")
    level: float = option(0.05, "Largest chance that a margin is broken by what passes.")
    scales: list[float] | None = option(
        None, "Scales of the model that are tested, rising. Default: those of `fairpo select`."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Says what is wrong with them, before training.
        SelectArguments(margin=self.margin, level=self.level, scales=self.scales)
        if not self.select:
            if self.judges:
                raise ValueError("`judges` has no effect without `select`: set `--select true`, or leave it out.")
            return
        if not self.judges:
            raise ValueError(f"`select` needs `judges`: ATTRIBUTE=KIND:TARGET. Kinds: {'; '.join(KINDS.values())}.")
        check_judges([parse_judge(entry) for entry in self.judges], self)


def make_parser(command: str = "fairpo generation", after: type | None = None) -> CommandParser:
    """
    Parser of a run, called as `command`; `after` is a fourth dataclass, such as [`SelectAfterwards`]: how the model is
    tested afterwards.
    """
    inherited = {entry.name for entry in fields(DPOConfig)}
    training = {entry.name for base in DPOConfig.__mro__[1:-1] for entry in fields(base)} - {"max_length"}
    return CommandParser(
        (GenerationArguments, FairPOConfig, ModelConfig, *((after,) if after else ())),
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
            **({"selection": [entry.name for entry in fields(after)]} if after else {}),
        },
    )


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    script_args, training_args, model_args, after = make_parser(after=SelectAfterwards).parse(arguments)
    if not after.select:
        run(script_args, training_args, model_args)
        return
    if training_args.world_size > 1:
        raise ValueError(
            "`select` tests in one process: leave it out here, and call `fairpo select` without a launcher afterwards."
        )
    args = selection_arguments(script_args, training_args, model_args, after)
    # What cannot be tested is said before an hour of training, not after it; the data print their summary once.
    specs, data = select.read_inputs(args, after, "fairpo generation --select true", Console(quiet=True))
    select.prompts_and_judges(args, specs, data)
    run(script_args, training_args, model_args)
    select.run(args, after)


def selection_arguments(
    script_args: GenerationArguments, training_args: FairPOConfig, model_args: ModelConfig, after: SelectAfterwards
) -> SelectArguments:
    """The test of the scales of the model that is trained against the one it is trained from."""
    output = Path(training_args.output_dir)
    start = model_args.model_name_or_path
    return SelectArguments(
        **{entry.name: getattr(script_args, entry.name) for entry in fields(DataArguments) if entry.init},
        models=[str(output)],
        base_model=start if model_args.use_peft else None,
        reference=start,
        privileged_attributes=training_args.privileged_attributes,
        attribute_column=training_args.attribute_column,
        margin=after.margin,
        level=after.level,
        scales=after.scales,
        seed=training_args.seed,
        output_dir=str(output / "selection"),
    )

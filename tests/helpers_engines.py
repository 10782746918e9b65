"""Both halves on one engine; `test_engines.py` launches them with each shipped configuration, or in one process."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import cpu_engines
import torch
from conftest import make_model, make_tokenizer
from helpers_classification import PRIVILEGED, classifier, rows
from helpers_processes import together
from helpers_trainer import COMMON, data
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback

from fairpo_trl import (
    FairPOConfig,
    FairPOTrainer,
    MultiLabelClassifier,
    MultiLabelFairPOConfig,
    MultiLabelFairPOTrainer,
)
from fairpo_trl.training.saving import where_saved


ADAM = {"optim": "adamw_torch", "learning_rate": 0.01, "max_grad_norm": 0.5}
SHARED = {key: value for key, value in COMMON.items() if key not in ("use_cpu", "beta")}
SHARED |= {"max_steps": 4, "eta_alpha": 0.5, "epsilon": 0.0, "learning_rate": 0.3, "save_steps": 2}
PAIRS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 2},
    "lora": {"lora": True, "learning_rate": 1.0},
    "precomputed": {"precompute_ref_log_probs": True},
    "saved": {**ADAM, "save_strategy": "steps"},
}
LABELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "saved": {**ADAM, "save_strategy": "steps"},
}
ROWS = 32


def make_base(folder: Path) -> None:
    """The models on disk that all processes read."""
    make_model(dtype=torch.float32).save_pretrained(folder / "pairs")
    classifier(seed=0, head="shared_mlp", dtype=torch.float32).save_pretrained(folder / "labels")


def place(world: int) -> dict[str, Any]:
    """Where the processes train; an engine is launched as for GPUs, see `cpu_engines`."""
    return {"ddp_backend": "gloo" if world > 1 else None, "use_cpu": world == 1}


def pair_trainer(folder: Path, name: str, case: dict[str, Any], world: int = 1) -> FairPOTrainer:
    case = dict(case)
    if world > 1:  # as `accelerate launch --mixed_precision no`; the shipped files have bf16
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if case.get("bf16") else "no"
    accumulation = case.setdefault("gradient_accumulation_steps", 1)
    adapter = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    peft = {"peft_config": adapter} if case.pop("lora", False) else {}
    args = FairPOConfig(
        output_dir=str(folder / f"pairs {name}"),
        privileged_attributes=["concise"],
        allow_prompt_overlap=True,
        **{**SHARED, **place(world), "per_device_train_batch_size": 8 // world // accumulation, **case},
    )
    torch.manual_seed(5)
    return FairPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "pairs"),
        args=args,
        train_dataset=data(ROWS),
        processing_class=make_tokenizer(),
        **peft,
    )


def label_trainer(folder: Path, name: str, case: dict[str, Any], world: int = 1) -> MultiLabelFairPOTrainer:
    if world > 1:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"  # as shipped: a classifier keeps to float32 by itself
    args = MultiLabelFairPOConfig(
        output_dir=str(folder / f"labels {name}"),
        privileged_labels=PRIVILEGED,
        **{**SHARED, **place(world), "per_device_train_batch_size": 8 // world, **case},
    )
    return MultiLabelFairPOTrainer(
        model=MultiLabelClassifier.from_pretrained(folder / "labels"),
        args=args,
        train_dataset=rows(ROWS),
        eval_dataset=rows(7, seed=4, name="eval"),
    )


def trained(trainer: Any, resume: bool = False) -> dict[str, Any]:
    """Trains and saves; what one process and an engine are compared by."""
    trainer.train(resume_from_checkpoint=resume or None)
    evaluated = trainer.evaluate() if trainer.eval_dataset is not None else {}
    final = Path(trainer.args.output_dir) / "final"
    trainer.save_model(str(final))
    trainer.accelerator.wait_for_everyone()
    (file,) = final.glob("*model.safetensors")
    return {
        "parameters": load_file(file),
        "weights": trainer.group_weights.state_dict(),
        "logs": trainer.state.log_history,
        "evaluated": evaluated,
        "steps": trainer.state.global_step,
    }


def trained_twice(make: Any, folder: Path, name: str, case: dict[str, Any], world: int, rank: int) -> Any:
    """What `trained` returns of a run, and of one that goes on from its checkpoint 2."""
    whole = trained(trainer := make(folder, name, case, world))
    if rank == 0:
        shutil.rmtree(Path(trainer.args.output_dir, "checkpoint-4"))
    trainer.accelerator.wait_for_everyone()
    return whole, trained(make(folder, name, case, world), resume=True)


def has_labels() -> bool:
    """Whether the engine takes classifiers: ZeRO-3 refuses them."""
    return os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") != "3"


def run_all(folder: Path, world: int = 1, rank: int = 0) -> dict[str, Any]:
    """The cases that must give what one process gives."""
    found: dict[str, Any] = {}
    for half, make, cases in (
        ("pairs", pair_trainer, PAIRS),
        ("labels", label_trainer, LABELS if has_labels() else {}),
    ):
        for name, case in cases.items():
            if "save_strategy" in case:
                runs = trained_twice(make, folder, name, case, world, rank)
                found[f"{half} {name}"], found[f"{half} resumed"] = runs
            else:
                found[f"{half} {name}"] = trained(make(folder, name, case, world))
    return found


# ---- what only several processes can show ----


class Signal(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


class Infinite(TrainerCallback):
    """Makes the gradient of one step infinite, although every loss is finite."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.step = trainer, 0
        original = trainer.compute_loss

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            loss = original(*args, **kwargs)
            if self.step == 2 and trainer.accelerator.process_index == 1:
                loss.register_hook(lambda gradient: gradient * float("inf"))
            return loss

        trainer.compute_loss = compute_loss

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step + 1


def run_only_here(folder: Path, world: int, rank: int) -> dict[str, Any]:
    """A stop, a gradient that is not finite, bf16, and sharded state files."""
    found: dict[str, Any] = {}
    for half, make in (("pairs", pair_trainer), ("labels", label_trainer))[: 1 + has_labels()]:
        trainer = make(folder, "stopped", ADAM, world)
        trainer.add_callback(Signal())
        try:
            trainer.train()
        except SystemExit as stopped:
            found[f"{half} stopped"] = [stopped.code, trainer.state.global_step]
        trainer = make(folder, "infinite", {"max_grad_norm": 1.0}, world)
        trainer.add_callback(Infinite(trainer))
        try:
            trainer.train()
        except FloatingPointError as error:
            found[f"{half} infinite"] = str(error)
    half_precision = {"bf16": True, "max_steps": 2}
    for name, case in {"bf16": {}, "bf16 precomputed": {"precompute_ref_log_probs": True}}.items():
        found[f"pairs {name}"] = trained(pair_trainer(folder, name, {**case, **half_precision}, world))
    if not has_labels():
        try:
            label_trainer(folder, "refused", {}, world)
        except ValueError as error:
            found["labels refused"] = str(error)
        return found
    found["labels bf16"] = trained(label_trainer(folder, "bf16", half_precision, world))
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        os.environ["FSDP_STATE_DICT_TYPE"] = "SHARDED_STATE_DICT"
        for half, make in (("pairs", pair_trainer), ("labels", label_trainer)):
            runs = trained_twice(make, folder, "sharded", {**ADAM, "save_strategy": "steps"}, world, rank)
            found[f"{half} sharded"], found[f"{half} sharded, resumed"] = runs
            found[f"{half} said"] = where_saved(folder / f"{half} sharded" / "final")
    return found


def main(folder: str) -> None:
    """What a process that the launcher starts does."""
    cpu_engines.use()
    world, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    place = Path(folder)
    found = run_all(place, world, rank) | run_only_here(place, world, rank)
    torch.save(found, place / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


def launch(config: str, folder: str) -> None:
    """
    `accelerate launch` with a configuration and two processes, which are copies of this one in place of new programs:
    importing everything anew takes longer than the cases. Ends in a process of its own.
    """
    import torch.distributed.run as torchrun
    from accelerate.commands.launch import launch_command, launch_command_parser

    def run(args: Any) -> None:  # the environment is what the launcher made of the configuration
        log = Path(folder, "log")
        said = together(main, (folder,), int(args.nproc_per_node), log, environment={})
        Path(folder, "output.txt").write_text(said, encoding="utf-8")

    torchrun.run = run
    launch_command(launch_command_parser().parse_args(["--config_file", config, "--num_processes", "2", "main"]))

"""Counts what processes send each other; `test_collectives.py` starts it and reads what it writes.

python -m torch.distributed.run --nproc_per_node 2 tests/helpers_distributed_collectives.py RESULTS.json FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from helpers_classification import COMMON as LABEL_COMMON  # noqa: E402
from helpers_classification import classifier, multilabel, rows  # noqa: E402
from helpers_trainer import data, dpo, fairpo  # noqa: E402
from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402

from fairpo_trl.classification.dataset import SplitDataset, keep_batch  # noqa: E402
from fairpo_trl.training.checkpoints import newest_complete  # noqa: E402


OPERATIONS = (
    "all_reduce", "all_gather", "all_gather_into_tensor", "all_gather_object", "broadcast", "broadcast_object_list",
    "reduce", "gather", "gather_object", "scatter", "reduce_scatter", "reduce_scatter_tensor", "all_to_all", "barrier",
)  # fmt: skip
QUIET = {"logging_strategy": "no", "ddp_backend": "gloo"}


class Log(TrainerCallback):
    """Every collective of Python since the last step, as [operation, bytes]; DDP's own run below and are not seen."""

    def __init__(self) -> None:
        self.now: list[list[Any]] = []
        self.steps: list[list[list[Any]]] = []
        self.depth = 0
        for name in OPERATIONS:
            setattr(dist, name, self.counted(name, getattr(dist, name)))

    def counted(self, name: str, operation: Callable) -> Callable:
        def count(*args: Any, **kwargs: Any) -> Any:
            if self.depth == 0:  # gathering an object gathers tensors
                sent = args[1] if name == "all_gather" else args[0] if args else None
                self.now.append([name, sent.nbytes if isinstance(sent, torch.Tensor) else None])
            self.depth += 1
            try:
                return operation(*args, **kwargs)
            finally:
                self.depth -= 1

        return count

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.now, self.steps = [], []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(self.now)
        self.now = []


class BCE(Trainer):
    """Plain transformers: the mean BCE of known labels."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        logits, labels = model(features=inputs["features"].double()).logits, inputs["labels"]
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.clamp(min=0).double())


def plain(out: str, **options: Any) -> Trainer:
    arguments = TrainingArguments(output_dir=out, remove_unused_columns=False, **{**LABEL_COMMON, **options})
    rows_of = SplitDataset(rows(32), None)
    return BCE(model=classifier(seed=1), args=arguments, train_dataset=rows_of, data_collator=keep_batch)


def main(results: str, folder: str) -> None:
    """Rank 0 writes {run: collectives of each optimizer step}, and what became of a save with unequal weights."""
    torch.set_num_threads(1)
    log = Log()
    two = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    many = [f"a{i:02d}" for i in range(64)]
    runs = {
        "dpo": lambda: dpo(folder, data(32), **QUIET, **two),
        "fairpo": lambda: fairpo(folder, data(32), **QUIET, **two),
        "fairpo current": lambda: fairpo(folder, data(32), timing="current", **QUIET),
        "fairpo 64 groups": lambda: fairpo(
            folder, data(64, attributes=tuple(many)), privileged_attributes=many[:9], grouping="attribute", **QUIET
        ),
        "plain": lambda: plain(folder, **QUIET, **two),
        "labels": lambda: multilabel(folder, rows(32), timing="lagged", **QUIET, **two),
        "labels current": lambda: multilabel(folder, rows(32), **QUIET, **{**two, "gradient_accumulation_steps": 1}),
    }
    found: dict[str, Any] = {}
    for name, make in runs.items():
        trainer = make()
        trainer.add_callback(log)
        trainer.train()
        found[name] = log.steps

    # One process comes to other weights: no checkpoint may say that it is complete.
    trainer = fairpo(Path(folder) / "unequal", data(16), save_strategy="steps", save_steps=2, ddp_backend="gloo")
    rank = int(os.environ["RANK"])

    class Disturb(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if rank == 1 and state.global_step == 2:
                trainer.group_weights._log_weights += torch.tensor([0.0, 1e-15], dtype=torch.float64)

    trainer.add_callback(Disturb())
    try:
        trainer.train()
        found["unequal"] = "saved"
    except RuntimeError as error:
        found["unequal"] = str(error)
    found["complete"] = str(newest_complete(Path(folder) / "unequal")[0])
    if rank == 0:
        Path(results).write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

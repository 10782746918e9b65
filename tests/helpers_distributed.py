"""FairPO runs on 1, 2 or 4 gloo processes; `test_trainer_distributed.py` starts it and compares what it writes.

python tests/helpers_distributed.py CASES.json FOLDER                                       (1 process)
python -m torch.distributed.run --nproc_per_node 2 tests/helpers_distributed.py CASES.json FOLDER

A case with `splits` runs once for every number of micro-batches that its global batch can be cut into. One with
`checkpoints` goes on from a checkpoint that half as many processes wrote.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import torch  # noqa: E402
from datasets import load_from_disk  # noqa: E402
from helpers_distributed_splits import splits_of  # noqa: E402
from helpers_trainer import NAMES, ExactHead, data, fairpo, lora, parameters, turned  # noqa: E402
from trl.trainer import utils as trl_utils  # noqa: E402


OF_THE_DATA = (
    "turned",
    "weights",
    "rows",
    "eval_rows",
    "attributes",
    "sort",
    "stream",
    "lora",
    "splits",
    "checkpoints",
)


def write_data(case: dict[str, Any], folder: Path) -> None:
    """The data of one case on disk: processes share TRL's cache of reference log-probs only beside a file."""
    attributes = tuple(case.get("attributes", NAMES))
    train = data(case["rows"], attributes=attributes)
    if case.get("sort") == "attribute":  # whole steps lack all attributes but one
        train = train.sort("attribute")
    elif case.get("sort"):  # runs of privileged and of held pairs: a process has only one kind in its batch
        half = case["per_device_train_batch_size"] // 2
        kinds = [[i for i, a in enumerate(train["attribute"]) if (a == "concise") == first] for first in (True, False)]
        order = []
        while any(kinds):
            order += [i for kind in kinds for i in kind[:half]]
            kinds = [kind[half:] for kind in kinds]
        train = train.select(order)
    if case.get("turned"):
        train = turned(train)
    if case.get("weights"):
        train = train.add_column("weight", [0.1 + i % 7 / 3 for i in range(len(train))])
    train.save_to_disk(folder / "train")
    data(case.get("eval_rows", 7), seed=9, attributes=attributes).save_to_disk(folder / "eval")


def main(cases: str, folder: str) -> None:
    """Trains each case of the JSON file; rank 0 writes {case: results}."""
    torch.set_num_threads(1)
    trl_utils._ChunkedLogProbFunction = ExactHead
    world = int(os.environ.get("WORLD_SIZE", "1"))
    results = {}
    for name, case in json.loads(Path(cases).read_text()).items():
        for suffix, split in splits_of(case, world).items():
            results[name + suffix] = run(name, {**case, **split}, Path(folder), world)
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(results, Path(folder) / "results.pt")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run(name: str, case: dict[str, Any], folder: Path, world: int) -> dict[str, Any]:
    """Trains one case whose batch sizes are those of this process."""
    options = {key: value for key, value in case.items() if key not in OF_THE_DATA}
    options["per_device_eval_batch_size"] = 4 // world
    train = load_from_disk(folder / name / "train")
    with tempfile.TemporaryDirectory() as scratch:
        out, resume = Path(scratch), None
        if case.get("checkpoints"):
            out = folder / name / "run"
            options |= {"save_strategy": "steps", "save_steps": 2}
            resume = str(folder.parent / str(world // 2) / name / "run" / f"checkpoint-{world}") if world > 1 else None
        trainer = fairpo(
            out,
            train.to_iterable_dataset() if case.get("stream") else train,
            eval_dataset=load_from_disk(folder / name / "eval"),
            eval_strategy="steps",
            eval_steps=2,
            ddp_backend="gloo" if world > 1 else None,
            **({"peft_config": lora()} if case.get("lora") else {}),
            **options,
        )
        assert trainer.accelerator.num_processes == world
        trainer.train(resume_from_checkpoint=resume)
        trainer.evaluate()
    mine = json.dumps([trainer.group_weights.state_dict(), trainer.running_losses.state_dict()])
    if world > 1:
        everyone: list[str | None] = [None] * world
        torch.distributed.all_gather_object(everyone, mine)
        assert len(set(everyone)) == 1, "the weights differ between processes"
    return {
        "parameters": parameters(trainer),
        "weights": trainer.group_weights.state_dict(),
        "logs": trainer.state.log_history,
        "pairs": {mode: metrics.by_role["pairs"].to_dict() for mode, metrics in trainer.group_metrics.items()},
        "steps": trainer.state.global_step,
        "packed": trainer._packs,
        "looked_for_idle": trainer._idle is not None,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])

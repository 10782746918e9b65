"""Multi-label runs on 1, 2 or 4 gloo processes; `test_label_distributed.py` starts it and compares what it writes.

python tests/helpers_distributed_labels.py CASES.json RESULTS.pt                              (1 process)
python -m torch.distributed.run --nproc_per_node 4 tests/helpers_distributed_labels.py CASES.json RESULTS.pt

A case with `splits` runs once for every number of micro-batches that its global batch can be cut into.
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
from helpers_classification import multilabel, parameters, rows  # noqa: E402
from helpers_distributed_splits import splits_of  # noqa: E402


def main(cases: str, results: str) -> None:
    """Trains each case of the JSON file; rank 0 writes {case: results}."""
    torch.set_num_threads(1)
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    found = {}
    for name, case in json.loads(Path(cases).read_text()).items():
        for suffix, split in splits_of(case, world).items():
            found[name + suffix] = run({**case, **split}, world)
    if rank == 0:
        torch.save(found, results)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def run(case: dict[str, Any], world: int) -> dict[str, Any]:
    """Trains one case whose batch sizes are those of this process."""
    options = {key: value for key, value in case.items() if key not in ("rows", "unknown", "eval_rows", "splits")}
    with tempfile.TemporaryDirectory() as out:
        trainer = multilabel(
            out,
            rows(case["rows"], unknown=case.get("unknown", 0.1)),
            eval_dataset=rows(case.get("eval_rows", 13), seed=4, name="eval"),
            eval_strategy="epoch",
            per_device_eval_batch_size=4 // world,
            ddp_backend="gloo" if world > 1 else None,
            **options,
        )
        assert trainer.accelerator.num_processes == world
        trainer.train()
    if world > 1:
        everyone: list[str | None] = [None] * world
        torch.distributed.all_gather_object(everyone, json.dumps(trainer.group_weights.state_dict()))
        assert len(set(everyone)) == 1, "the weights differ between processes"
    return {
        "parameters": parameters(trainer),
        "weights": trainer.group_weights.state_dict(),
        "logs": trainer.state.log_history,
        "counts": {mode: m.by_role["count"].to_dict() for mode, m in trainer.group_metrics.items()},
        "steps": trainer.state.global_step,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])

"""One process and two (gloo, CPU) give the same parameters, weights and metrics."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers_distributed import write_data
from helpers_trainer import assert_same


SEVERAL = ["concise", ["polite", "factual"], ["concise", "polite"], "factual"]
# Batch sizes are those of one process; two processes get half each. 21 rows: 5 batches of 4 and one of 1 for one
# process; the second of two gets padded duplicates at the end.
CASES = {
    "odd": {"rows": 21, "per_device_train_batch_size": 4, "num_train_epochs": 2},
    "accumulation": {
        "rows": 21,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
    },
    "shuffled, attribute groups": {
        "rows": 19,
        "per_device_train_batch_size": 4,
        "grouping": "attribute",
        "attributes": SEVERAL,
        "eta_alpha": 0.5,
        "train_sampling_strategy": "random",
        "num_train_epochs": 2,
    },
    "groups absent on one process": {"rows": 24, "per_device_train_batch_size": 4, "sort": True, "eta_alpha": 0.5},
    "current": {"rows": 21, "per_device_train_batch_size": 2, "timing": "current", "eta_alpha": 0.5},
    "lagrangian, sparse logs": {
        "rows": 21,
        "per_device_train_batch_size": 4,
        "balancer": "lagrangian",
        "grouping": "attribute",
        "eta_alpha": 0.5,
        "logging_steps": 3,
    },
    "attribute hinge": {"rows": 21, "per_device_train_batch_size": 4, "hinge_level": "attribute", "epsilon": 0.0},
    "lora": {"rows": 21, "per_device_train_batch_size": 4, "lora": True},
    "precomputed": {"rows": 21, "per_device_train_batch_size": 4, "precompute_ref_log_probs": True},
    "balanced": {
        "rows": 21,
        "per_device_train_batch_size": 4,
        "balanced_sampling": "attribute",
        "train_sampling_strategy": "random",
    },
    "stream": {
        "rows": 24,
        "per_device_train_batch_size": 4,
        "stream": True,
        "max_steps": 6,
        "non_privileged_attributes": ["polite", "factual"],
    },
    "five eval rows": {"rows": 8, "per_device_train_batch_size": 4, "eval_rows": 5},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict]:
    folder = tmp_path_factory.mktemp("distributed")
    cases = folder / "cases.json"
    cases.write_text(json.dumps(CASES))
    script = str(Path(__file__).with_name("helpers_distributed.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    out: dict[int, dict] = {}
    for processes in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if processes == 2 else []
        results = folder / str(processes)
        for name, case in CASES.items():
            write_data(case, results / name)
        done = subprocess.run(
            [sys.executable, *launcher, script, str(cases), str(results)],
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode == 0, done.stderr[-8000:]
        out[processes] = torch.load(results / "results.pt", weights_only=True)
    return out


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(case, results):
    one, two = results[1][case], results[2][case]
    assert one["steps"] == two["steps"] > 1
    assert_same(one["parameters"], two["parameters"], 1e-6)
    for key in ("log_weights", "multipliers", "moment"):
        assert one["weights"][key] == pytest.approx(two["weights"][key], abs=1e-6)
    assert one["weights"]["seen"] == two["weights"]["seen"]
    assert one["pairs"] == two["pairs"]


@pytest.mark.parametrize("case", CASES)
def test_logged_metrics_are_those_of_one_process(case, results):
    one, two = results[1][case]["logs"], results[2][case]["logs"]
    assert len(one) == len(two) > 2
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        different = {
            k: (a[k], b[k])
            for k in a
            # Speeds and padding differ, of course. Everything else is a mean over the same pairs.
            if not k.endswith(("runtime", "per_second", "total_flos"))
            and not math.isclose(a[k], b[k], rel_tol=1e-6, abs_tol=1e-6)
        }
        assert not different, f"step {a['step']}"


def test_evaluation_counts_no_padded_duplicate(results):
    # 7 pairs on two processes with batches of 2: one duplicate fills the last batch.
    assert sum(results[2]["odd"]["pairs"]["eval"].values()) == 7
    assert sum(results[2]["five eval rows"]["pairs"]["eval"].values()) == 5

"""One process, two and four (gloo, CPU) give the same classifier, weights and metrics."""

from __future__ import annotations

import json
import math

import pytest
import torch
from helpers_classification import rows
from helpers_distributed_labels import main
from helpers_processes import together
from helpers_trainer import assert_same


# In one worker of the suite: what the launched processes found is shared by all tests of the file.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("label-processes")]

# Batch sizes are those of one process; several processes share them. 27 rows: a short last window, padded duplicates.
CASES = {
    "current": {"rows": 27, "per_device_train_batch_size": 4, "eta_alpha": 0.5, "epsilon": 0.0, "num_train_epochs": 2},
    "accumulation": {
        "rows": 27,
        "per_device_train_batch_size": 4,
        "timing": "lagged",
        "gradient_accumulation_steps": 3,
        "num_train_epochs": 2,
        "eta_alpha": 0.5,
    },
    "shuffled, label groups": {
        "rows": 25,
        "per_device_train_batch_size": 8,
        "timing": "lagged",
        "grouping": "label",
        "balancer": "lagrangian",
        "eta_alpha": 0.5,
        "train_sampling_strategy": "random",
        "num_train_epochs": 2,
    },
    "one label an image": {
        "rows": 27,
        "per_device_train_batch_size": 4,
        "label_sampling": "uniform",
        "absent": "zero",
        "eta_alpha": 0.5,
        "num_train_epochs": 2,
    },
    "mostly unknown": {"rows": 27, "per_device_train_batch_size": 4, "unknown": 0.9, "grouping": "label"},
    "label hinge": {"rows": 27, "per_device_train_batch_size": 4, "hinge_level": "label", "epsilon": 0.0},
}
# One global batch of 8 in every way: 1, 2 and 4 processes, each with every number of micro-batches there can be.
# 27 rows are windows of 8, 8, 8 and 3.
SPLITS = {
    "every split": {
        "rows": 27,
        "per_device_train_batch_size": 8,
        "timing": "lagged",
        "num_train_epochs": 2,
        "eta_alpha": 0.5,
        "epsilon": 0.0,
    },
    "every split, groups mostly absent": {
        "rows": 27,
        "per_device_train_batch_size": 8,
        "timing": "lagged",
        "num_train_epochs": 2,
        "unknown": 0.9,
        "grouping": "label",
        "scaling": "relative",
        "floor": 0.05,
        "eta_alpha": 0.5,
        "label_sampling": "uniform",
    },
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict]:
    folder = tmp_path_factory.mktemp("label-distributed")
    cases = folder / "cases.json"
    splits = {name: {**case, "splits": True} for name, case in SPLITS.items()}
    cases.write_text(json.dumps(CASES | splits))
    found: dict[int, dict] = {}
    for processes in (1, 2, 4):
        path = folder / f"{processes}.pt"
        together(main, (str(cases), str(path)), processes, folder / f"log-{processes}")
        found[processes] = torch.load(path, weights_only=True)
    return found


def assert_same_run(one: dict, several: dict, but: tuple[str, ...] = ()) -> None:
    assert one["steps"] == several["steps"] > 1
    assert_same(one["parameters"], several["parameters"], 1e-6)
    for key in ("log_weights", "multipliers", "moment"):
        assert one["weights"][key] == pytest.approx(several["weights"][key], abs=1e-6)
    assert one["weights"]["seen"] == several["weights"]["seen"]
    assert one["counts"] == several["counts"]
    assert len(one["logs"]) == len(several["logs"]) > 2
    for a, b in zip(one["logs"], several["logs"], strict=True):
        assert a.keys() == b.keys()
        different = {
            k: (a[k], b[k])
            for k in a
            if not k.endswith(("runtime", "per_second", "total_flos", "preparation_time", *but))
            and not math.isclose(a[k], b[k], rel_tol=1e-6, abs_tol=1e-6)
        }
        assert not different, f"step {a['step']}"


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_several_processes_are_one(case, processes, results):
    assert_same_run(results[1][case], results[processes][case])


@pytest.mark.parametrize(
    ("processes", "micro_batches"), [(1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2)]
)
@pytest.mark.parametrize("case", SPLITS)
def test_one_global_batch_is_the_same_step_however_it_is_split(case, processes, micro_batches, results):
    # A short window counts as a part of an epoch by its micro-batches.
    assert_same_run(results[1][f"{case} / 1"], results[processes][f"{case} / {micro_batches}"], but=("epoch",))


@pytest.mark.parametrize("processes", [2, 4])
def test_evaluation_counts_no_padded_duplicate(processes, results):
    known = int((rows(13, seed=4).labels >= 0).sum())
    assert sum(results[processes]["current"]["counts"]["eval"].values()) == known

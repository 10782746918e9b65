"""One process, two and four (gloo, CPU) give the same parameters, weights and metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from helpers_distributed import main, write_data
from helpers_processes import together
from helpers_trainer import assert_same


# In one worker of the suite: what the launched processes found is shared by all tests of the file.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("pair-processes")]

SEVERAL = ["concise", ["polite", "factual"], ["concise", "polite"], "factual"]
# Batch sizes are those of one process; several processes share them. 21 rows: 5 batches of 4 and one of 1 for one
# process; the others of several get padded duplicates at the end.
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
    "weights of pairs": {
        "rows": 21,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "weights": True,
        "eta_alpha": 0.5,
    },
    "current": {"rows": 21, "per_device_train_batch_size": 4, "timing": "current", "eta_alpha": 0.5},
    "lagrangian, sparse logs": {
        "rows": 21,
        "per_device_train_batch_size": 4,
        "balancer": "lagrangian",
        "grouping": "attribute",
        "eta_alpha": 0.5,
        "logging_steps": 3,
    },
    "attribute hinge": {"rows": 21, "per_device_train_batch_size": 4, "hinge_level": "attribute", "epsilon": 0.0},
    "held gradients": {
        "rows": 21,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "turned": True,
        "held_gradients": "project",
    },
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
    "clipped": {"rows": 21, "per_device_train_batch_size": 4, "max_grad_norm": 0.1},
}
# One global batch of 8 in every way: 1, 2 and 4 processes, each with every number of micro-batches there can be.
# 21 rows are windows of 8, 8 and 5.
SPLITS = {
    "every split": {"rows": 21, "per_device_train_batch_size": 8, "num_train_epochs": 2, "eta_alpha": 0.5},
    "every split, attribute groups absent from whole steps": {
        "rows": 21,
        "per_device_train_batch_size": 8,
        "num_train_epochs": 2,
        "grouping": "attribute",
        "sort": "attribute",
        "scaling": "relative",
        "floor": 0.05,
        "eta_alpha": 0.5,
    },
}
CHAIN = {"rows": 21, "per_device_train_batch_size": 4, "eta_alpha": 0.5, "logging_steps": 3, "checkpoints": True}


class Runs:
    """What the processes wrote, started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found = folder, {}
        self.cases = CASES | {name: {**case, "splits": True} for name, case in SPLITS.items()} | {"chain": CHAIN}
        (folder / "cases.json").write_text(json.dumps(self.cases))

    def __getitem__(self, processes: int) -> dict[str, dict]:
        if processes not in self.found:
            if processes > 1:
                _ = self[processes // 2]  # whose checkpoint the chain goes on from
            self.found[processes] = self.start(processes)
        return self.found[processes]

    def start(self, processes: int) -> dict[str, dict]:
        folder = self.folder / str(processes)
        for name, case in self.cases.items():
            write_data(case, folder / name)
        said = together(main, (f"{self.folder}/cases.json", str(folder)), processes, folder / "log")
        (folder / "output.txt").write_text(said)
        return torch.load(folder / "results.pt", weights_only=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("distributed"))


def assert_same_run(one: dict, other: dict) -> None:
    assert one["steps"] == other["steps"] > 1
    assert_same(one["parameters"], other["parameters"], 1e-6)
    for key in ("log_weights", "multipliers", "moment"):
        assert one["weights"][key] == pytest.approx(other["weights"][key], abs=1e-6)
    assert one["weights"]["seen"] == other["weights"]["seen"]
    assert one["pairs"] == other["pairs"]


def assert_same_logs(one: list[dict], other: list[dict], but: tuple[str, ...] = ()) -> None:
    assert len(one) == len(other) > 2
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        different = {
            k: (a[k], b[k])
            for k in a
            # Speeds and padding differ, of course. Everything else is a mean over the same pairs.
            if not k.endswith(("runtime", "per_second", "total_flos", *but))
            and not math.isclose(a[k], b[k], rel_tol=1e-6, abs_tol=1e-6)
        }
        assert not different, f"step {a['step']}"


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_several_processes_are_one(case, processes, results):
    assert_same_run(results[1][case], results[processes][case])


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_logged_metrics_are_those_of_one_process(case, processes, results):
    assert_same_logs(results[1][case]["logs"], results[processes][case]["logs"])


@pytest.mark.parametrize(
    ("processes", "micro_batches"), [(1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2)]
)
@pytest.mark.parametrize("case", SPLITS)
def test_one_global_batch_is_the_same_step_however_it_is_split(case, processes, micro_batches, results):
    one, other = results[1][f"{case} / 1"], results[processes][f"{case} / {micro_batches}"]
    assert_same_run(one, other)
    # A short window counts as a part of an epoch by its micro-batches.
    assert_same_logs(one["logs"], other["logs"], but=("epoch",))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_these_runs_are_packed_and_spare_idle_pairs(processes, results):
    for name, run in results[processes].items():
        assert run["packed"], name
        # Un-hinged excess leaves no pair idle; projection needs the gradient of each held attribute.
        assert run["looked_for_idle"] == (not name.startswith(("lagrangian", "held gradients"))), name


@pytest.mark.parametrize("processes", [2, 4])
def test_evaluation_counts_no_padded_duplicate(processes, results):
    # 7 pairs in rounds of 4: one duplicate fills the last.
    assert sum(results[processes]["odd"]["pairs"]["eval"].values()) == 7
    assert sum(results[processes]["five eval rows"]["pairs"]["eval"].values()) == 5


@pytest.mark.parametrize("processes", [2, 4])
def test_a_checkpoint_of_half_as_many_processes_goes_on_to_the_same_end(processes, results):
    # Within an epoch whose last batch is padded: accelerate does not say so of an epoch entered in its middle.
    assert_same_run(results[1]["chain"], results[processes]["chain"])
    said = (results.folder / str(processes) / "output.txt").read_text()
    line = f"checkpoint-{processes} was written by {processes // 2} process(es), now there are {processes}: weights"
    assert said.count(line) == 1

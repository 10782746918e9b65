"""Many simulated ranks come to the group weights of one process; the long form is `benchmarks/simulated_ranks.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fairpo_trl.core.group_weights import GroupWeights
from fairpo_trl.core.partition import Partition
from fairpo_trl.training.group_robust import GroupRobustTrainer
from fairpo_trl.training.window import StepWindow


sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import simulated_ranks


@pytest.mark.parametrize("setting", simulated_ranks.SETTINGS)
def test_64_ranks_with_skewed_and_absent_groups_come_to_the_weights_of_one_process(setting):
    found = simulated_ranks.simulate(64, 8, 64, 50, simulated_ranks.SETTINGS[setting])
    assert found["weights"] <= 1e-12
    assert 0 < found["sums"] <= 1e-12  # they are added up in another order
    assert found["naive"] > 1e4 * found["weights"] + 1e-7  # averaging the means of the ranks is something else
    assert found["absent"] > 0.3 and found["absent_on_a_rank"] > 0.8
    assert found["bytes"] == 8 * (5 * 64 + 1)


def test_a_ring_adds_up_every_column_once_from_its_own_rank():
    vectors = np.array([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0], [4.0, 40.0, 400.0]])
    np.testing.assert_array_equal(simulated_ranks.ring(vectors), [7.0, 70.0, 700.0])
    # 1 + 1e16 - 1e16 is 0 from the first rank on, and 1 from the second: the last column begins there.
    vectors = np.array([[1.0, 1.0], [1e16, 1e16], [-1e16, -1e16]])
    np.testing.assert_array_equal(simulated_ranks.ring(vectors), [0.0, 1.0])


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_shares_of_the_objective_add_up_although_gradients_are_averaged_over_processes(processes):
    groups = Partition.by_name(["a", "b"], ["a"]).groups("role")
    window = StepWindow(2, 2, torch.float64, torch.device("cpu"), lambda vector: vector)
    window.counts = torch.tensor([4.0, 2.0], dtype=torch.float64)  # of the whole step
    trainer = SimpleNamespace(
        _window=window,
        args=SimpleNamespace(timing="lagged"),
        group_weights=GroupWeights(groups),
        accelerator=SimpleNamespace(num_processes=processes),
    )
    losses = torch.tensor([[1.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    none = torch.zeros(2)
    share = GroupRobustTrainer.group_objective(trainer, losses, none, none, none, training=True)
    assert float(share) == pytest.approx(processes * 0.5 * (1 / 4 + 3 / 2), abs=1e-12)

"""What FairPO sends between processes: one small all-reduce per optimizer step, and a digest of weights per save."""

from __future__ import annotations

import json

import pytest
from helpers_distributed_collectives import main
from helpers_processes import together


pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("collectives")]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("collectives")
    together(main, (str(folder / "results.json"), str(folder / "out")), 2, folder / "log")
    return json.loads((folder / "results.json").read_text())


# Of K groups and A attributes or labels: loss sums and counts of the last step (2 K + 2 A), the group sizes of this
# one (K), and whether a process was asked to stop (1); float64.
@pytest.mark.parametrize(
    ("run", "groups", "items"),
    [
        ("fairpo", 2, 3),
        ("fairpo current", 2, 3),
        ("fairpo 64 groups", 64, 64),
        ("labels", 2, 6),
        ("labels current", 2, 6),
    ],
)
def test_an_optimizer_step_sends_one_small_all_reduce(run, groups, items, sent):
    size = 8 * (3 * groups + 2 * items + 1)
    first, *others = sent[run]
    if run.startswith("fairpo"):  # once a run: whether the model of every process can be packed
        first.remove(["all_reduce", 4])
    assert [first, *others] == [[["all_reduce", size]]] * len(sent[run])
    assert len(sent[run]) >= 4


def test_that_is_exactly_one_more_than_plain_training_and_far_less_than_dpo_trainer(sent):
    # Below these DDP sums the gradients, in all alike. The two steps have two micro-batches each.
    assert sent["plain"] == [[]] * len(sent["labels"])
    per_step = {len(step) for step in sent["dpo"]}
    assert min(per_step) > 1, "DPOTrainer gathers its metrics in every micro-batch"


def test_weights_that_differ_in_the_last_bit_are_found_at_the_next_save(sent):
    assert sent["unequal"].startswith("the group weights of process [1] differ from those of process 0 after step 2")
    assert sent["complete"] == "None"

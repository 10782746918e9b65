"""Group weights on 1,024 simulated ranks against one process that sees the whole batch.

    python benchmarks/simulated_ranks.py
    python benchmarks/simulated_ranks.py --ranks 64 --steps 50 --json simulated_ranks.json

README line: "1,024 ranks, 64 groups, 2,000 steps: the group weights of one process to 1e-9 (simulated:
benchmarks/simulated_ranks.py)."

No model is trained: losses are drawn, and answer to the weights as a model would (a group with more weight falls
faster), in each world to its own weights, so that a difference could grow. Groups are skewed (Zipf), rare ones are
absent from most steps and some from hundreds in a row. Sums, exchange and weights are the trainers' own code
([`StepWindow`], [`GroupWeights`]). The sum over ranks is a ring's: every part of the vector is added up in an order of
its own, and every rank gets the same bits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from fairpo_trl.core import GroupWeights
from fairpo_trl.core.partition import Group
from fairpo_trl.training.window import StepWindow


SETTINGS: dict[str, dict[str, Any]] = {
    "mirror ascent": {"eta": 0.05},
    "mirror ascent, absent counts as 0": {"eta": 0.05, "absent": "zero"},
    "relative, floor": {"eta": 0.05, "scaling": "relative", "floor": 0.002},
    "multipliers": {"eta": 0.05, "balancer": "lagrangian"},
}


@dataclass(frozen=True)
class Step:
    """
    The examples of one global batch, rank after rank.

    Attributes:
        groups (`NDArray[np.int64]`): Group of each example, `[ranks * per_rank]`.
        noise (`NDArray[np.float64]`): Factor of each example's loss, `[ranks * per_rank]`.
    """

    groups: NDArray[np.int64]
    noise: NDArray[np.float64]


class Batches:
    """
    Draws global batches with skewed groups, of which the rare ones come in seasons.

    Args:
        ranks, per_rank, groups (`int`): Sizes.
        seed (`int`): Of everything that is drawn.
    """

    def __init__(self, ranks: int, per_rank: int, groups: int, seed: int = 0) -> None:
        self.size, self.groups = ranks * per_rank, groups
        self.random = np.random.default_rng(seed)
        # The last groups have about one example in a dozen global batches.
        exponent = np.log(12 * self.size) / np.log(groups)
        self.share = np.arange(1, groups + 1) ** -exponent

    def draw(self, step: int) -> Step:
        """The batch of a step."""
        in_season = (step // 250 + np.arange(self.groups)) % 3 > 0  # every third group is away for 250 steps
        in_season[:2] = True
        share = self.share * in_season
        groups = self.random.choice(self.groups, self.size, p=share / share.sum())
        return Step(groups, self.random.lognormal(0.0, 0.8, self.size))


class World:
    """
    Group weights with the losses that answer to them.

    Args:
        groups (`list[Group]`): The groups.
        options (`dict`): Of [`GroupWeights`].
        reduce (`Callable`): Sums a vector over the ranks; what the trainers' all-reduce does.
    """

    def __init__(
        self, groups: list[Group], options: dict[str, Any], reduce: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        self.weights = GroupWeights(groups, **options)
        self.window = StepWindow(len(groups), len(groups), torch.float64, torch.device("cpu"), reduce)
        self.level = np.linspace(0.3, 1.5, len(groups))  # mean loss of each group, as training goes on
        self.held = np.array([group.role == "non_privileged" for group in groups])
        self.least = -np.inf if self.weights.balancer == "lagrangian" else 0.0  # multipliers see no hinge

    def losses(self, step: Step) -> NDArray[np.float64]:
        """Loss of each example; of held groups the excess over a promise, whose hinge is often 0."""
        raw = self.level[step.groups] * step.noise
        return np.where(self.held[step.groups], np.maximum(raw - 0.5, self.least), raw)

    def take(self, sums: NDArray[np.float64], counts: NDArray[np.int64]) -> torch.Tensor:
        """A step as a trainer takes it: own sums into the window, exchanged, the weights moved by the totals."""
        own = torch.from_numpy(sums), torch.from_numpy(counts)
        self.window.add(*own, *own)  # each group has one attribute
        totals = self.window.exchange(own[1])
        assert totals is not None
        self.weights.update(totals.loss_sums, totals.counts)
        learned = self.weights.weights.numpy() * (totals.counts.numpy() > 0)
        self.level = np.clip(self.level * (1.001 - 0.05 * np.minimum(learned, 1.0)), 0.05, 3.0)
        return totals.loss_sums


def ring(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    The sum over ranks as a ring all-reduce makes it.

    Args:
        vectors (`NDArray[np.float64]`):
            `[ranks, n]`. Part p of the vector begins at rank p and is added up round the ring from there.

    Returns:
        `NDArray[np.float64]`: `[n]`, the same bits on every rank.
    """
    ranks, n = vectors.shape
    first = (np.arange(n) * ranks) // n  # rank at which each column begins
    order = (first[None, :] + np.arange(ranks)[:, None]) % ranks  # [ranks, n]
    return np.add.accumulate(np.take_along_axis(vectors, order, axis=0), axis=0)[-1]


def simulate(ranks: int, per_rank: int, groups: int, steps: int, options: dict[str, Any], seed: int = 0) -> dict:
    """
    Both worlds through the same batches.

    Args:
        ranks, per_rank, groups, steps (`int`):
            Sizes of the run.
        options (`dict`):
            Of [`GroupWeights`].
        seed (`int`, *optional*, defaults to `0`):
            Of the batches.

    Returns:
        `dict`: the largest difference between the worlds over all steps, of loss sums (`sums`, relative) and of
        weights (`weights`); of weights to a third world that averages the means of the ranks (`naive`); shares of
        (step, group) without an example (`absent`) and of (step, rank, group) (`absent_on_a_rank`); the `bytes` of the
        exchange; the range of the last weights.
    """
    names = [f"g{i:02d}" for i in range(groups)]
    members = [Group(name, "non_privileged" if i % 4 else "privileged", (name,)) for i, name in enumerate(names)]
    others: NDArray[np.float64] = np.zeros((0, 0))

    def over_ranks(vector: torch.Tensor) -> torch.Tensor:
        # Rank 0 runs the trainers' code; the others' vectors are those their windows would hand over.
        return torch.from_numpy(ring(np.concatenate([vector.numpy()[None], others])))

    one = World(members, options, lambda vector: vector)
    many = World(members, options, over_ranks)
    naive = World(members, options, lambda vector: vector)
    batches = Batches(ranks, per_rank, groups, seed)
    rank_of = np.repeat(np.arange(ranks), per_rank)
    found = {"sums": 0.0, "weights": 0.0, "naive": 0.0, "absent": 0.0, "absent_on_a_rank": 0.0}
    for number in range(steps):
        step = batches.draw(number)
        counts = np.bincount(step.groups, minlength=groups)
        whole = one.take(np.bincount(step.groups, one.losses(step), groups), counts)

        cell = rank_of * groups + step.groups
        rank_counts = np.bincount(cell, minlength=ranks * groups).reshape(ranks, groups)
        rank_sums = np.bincount(cell, many.losses(step), ranks * groups).reshape(ranks, groups)
        both = np.concatenate([rank_sums[1:], rank_counts[1:]], axis=1)
        others = np.concatenate([both, both, np.zeros((ranks - 1, 1)), rank_counts[1:]], axis=1)
        summed = many.take(rank_sums[0], rank_counts[0])
        found["sums"] = max(found["sums"], float(((summed - whole).abs() / whole.abs().clamp(min=1e-9)).max()))

        present = rank_counts > 0
        naive_sums = np.bincount(cell, naive.losses(step), ranks * groups).reshape(ranks, groups)
        means = (naive_sums / np.maximum(rank_counts, 1)).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
        naive.take(means, (counts > 0).astype(np.int64))

        for name, world in (("weights", many), ("naive", naive)):
            worst = float((world.weights.weights - one.weights.weights).abs().max())
            found[name] = max(found[name], worst)
        found["absent"] += float((counts == 0).mean()) / steps
        found["absent_on_a_rank"] += float((~present).mean()) / steps
    weights = one.weights.weights
    size = 8 * others.shape[1]
    return found | {"bytes": size, "least": float(weights.min()), "greatest": float(weights.max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--per-rank", type=int, default=8, help="Examples of a rank in a step.")
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="Where to write the numbers.")
    arguments = parser.parse_args()

    sizes = arguments.ranks, arguments.per_rank, arguments.groups, arguments.steps
    results = {name: simulate(*sizes, options) for name, options in SETTINGS.items()}
    table = Table(
        title="{:,} ranks x {} examples, {} groups, {:,} steps: largest difference to one process".format(*sizes)
    )
    for column in ("", "loss sums, relative", "weights", "weights, means averaged", "weights at the end"):
        table.add_column(column, justify="right" if column else "left")
    for name, r in results.items():
        row = [f"{r[key]:.1e}" for key in ("sums", "weights", "naive")]
        table.add_row(name, *row, f"{r['least']:.2g} to {r['greatest']:.2g}")
    console = Console()
    console.print(table)
    r = results["mirror ascent"]
    console.print(
        f"Without an example: {r['absent']:.0%} of the groups of a step, {r['absent_on_a_rank']:.1%} of those of a "
        f"rank. One all-reduce of {r['bytes']:,} bytes a step."
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

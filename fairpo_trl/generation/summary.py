"""What the user sees before the first step: the data and who is privileged."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from fairpo_trl.core.partition import Partition
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.hub.privacy import one_line
from fairpo_trl.reporting.blocks import Block
from fairpo_trl.reporting.render.terminal import print_part


def print_summary(partition: Partition, counts: Mapping[str, Mapping[str, int]], args: FairPOConfig) -> None:
    """
    Prints one table of attributes, roles, pairs (`counts`: split -> attribute -> pairs) and the losses of `args`.
    """
    if not args.hinge:
        held = "DPO"
    elif args.balancer == "lagrangian" and args.lagrangian_term == "excess":
        held = "multiplier x (DPO - log 2 - epsilon)"
    else:
        held = "max(0, DPO - log 2 - epsilon)"
    rule = {"privileged": args.privileged_loss.upper(), "non_privileged": held}
    rows = tuple(
        (
            one_line(name),
            partition.role_of(name),
            rule[partition.role_of(name)],
            *(f"{split.get(name, 0):,}" for split in counts.values()),
        )
        for name in (*partition.privileged, *partition.non_privileged)
    )
    header = ("attribute", "role", "loss of its pairs", *(one_line(f"{split} pairs") for split in counts))
    title = "FairPO: who should get better, and what is held"
    print_part(Block(title, header, (("", rows),), texts=3), Console())

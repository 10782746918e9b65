"""What the user sees before the first step: the data and who is privileged."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairpo_trl.core.partition import Partition
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.hub.privacy import one_line


def print_summary(partition: Partition, counts: Mapping[str, Mapping[str, int]], args: FairPOConfig) -> None:
    """
    Prints one table of attributes, roles, pairs and losses.

    Args:
        partition (`Partition`):
            Attributes and roles.
        counts (`Mapping[str, Mapping[str, int]]`):
            Split -> attribute -> pairs.
        args (`FairPOConfig`):
            What the pairs of each role are trained with.
    """
    if not args.hinge:
        held = "DPO"
    elif args.balancer == "lagrangian" and args.lagrangian_term == "excess":
        held = "multiplier x (DPO - log 2 - epsilon)"
    else:
        held = "max(0, DPO - log 2 - epsilon)"
    rule = {"privileged": args.privileged_loss.upper(), "non_privileged": held}
    table = Table(title="FairPO: who should get better, and what is held", title_justify="left")
    table.add_column("attribute")
    table.add_column("role")
    for split in counts:
        table.add_column(Text(one_line(f"{split} pairs")), justify="right")
    table.add_column("loss of its pairs")
    for name in (*partition.privileged, *partition.non_privileged):
        role = partition.role_of(name)
        style = "bold green" if role == "privileged" else ""
        table.add_row(
            Text(one_line(name)),
            role,
            *(f"{split.get(name, 0):,}" for split in counts.values()),
            rule[role],
            style=style,
        )
    Console().print(table)

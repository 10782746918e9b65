"""Who is privileged in a run, from config and data, and the table that says so."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from fairpo_trl.core.messages import require_known, unknown_names_message
from fairpo_trl.core.partition import Partition
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.hub.privacy import one_line
from fairpo_trl.reporting.blocks import Block
from fairpo_trl.reporting.render.terminal import print_part


def resolve_partition(
    partition: Partition | None, args: FairPOConfig, counts: Mapping[str, int], streaming: bool
) -> Partition:
    """
    The partition of a run, from the trainer's argument or `args`, which exclude each other.

    Args:
        partition (`Partition`, *optional*):
            Given by the user.
        args (`FairPOConfig`):
            `privileged_attributes`, `non_privileged_attributes`.
        counts (`Mapping[str, int]`):
            Attribute -> training pairs (of the first rows only, if streaming).
        streaming (`bool`):
            Whether the training data cannot be scanned; attributes without pairs are then accepted.

    Raises:
        ValueError: If nothing is privileged, a name is unknown, or a declared attribute has no training pair.
    """
    if partition is None:
        if not args.privileged_attributes:
            raise ValueError(
                "Nothing is privileged: set `privileged_attributes` to the attributes that should get better. "
                f"The training data has {sorted(counts)}."
            )
        held = args.non_privileged_attributes
        if streaming and held is None:
            raise ValueError(
                "A streaming dataset cannot be scanned for its attributes: name the held ones in "
                "`non_privileged_attributes` (an empty list if there is none)."
            )
        if not streaming:
            require_known("privileged attribute", args.privileged_attributes, sorted(counts))
        names = sorted(counts) if held is None else [*args.privileged_attributes, *held]
        partition = Partition.by_name(names, args.privileged_attributes)
    elif args.privileged_attributes or args.non_privileged_attributes:
        raise ValueError(
            "Both `partition` and `privileged_attributes` / `non_privileged_attributes` are given: pass one of them."
        )
    undeclared = [name for name in counts if name not in partition.names]
    if undeclared:
        raise ValueError(
            unknown_names_message("attribute in the training data", undeclared, partition.names)
            + " Give each a role, or remove its pairs."
        )
    without_data = [name for name in partition.names if name not in counts and not streaming]
    if without_data:
        raise ValueError(
            unknown_names_message("attribute, declared but without a training pair", without_data, sorted(counts))
            + " Remove it from the partition, or add data."
        )
    return partition


def print_summary(partition: Partition, counts: Mapping[str, Mapping[str, int]], args: FairPOConfig) -> None:
    """Prints one table of attributes, roles, pairs (of each split and attribute) and the losses of `args`."""
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

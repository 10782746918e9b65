"""What a training run left beside its model: the partition, and how weights and margins moved."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.core.partition import Partition
from fairpo_trl.training.checkpoints import list_checkpoints
from fairpo_trl.training.logs import history_of
from fairpo_trl.training.state import STATE_NAME


@dataclass(frozen=True)
class RunFacts:
    """
    From the state of a checkpoint.

    Attributes:
        partition (`Partition`): Who was privileged.
        weights_history (`list[dict[str, float]]`): Step and weight of each group, as logged.
        margins_history (`list[dict[str, float]]`): Step and margin of each attribute.
        final_weights (`dict[str, float]`): Attribute -> last weight of its group.
    """

    partition: Partition
    weights_history: list[dict[str, float]] = field(default_factory=list)
    margins_history: list[dict[str, float]] = field(default_factory=list)
    final_weights: dict[str, float] = field(default_factory=dict)


def read_run(folder: Path) -> RunFacts | None:
    """
    The facts of the run whose output folder, or checkpoint, this is; `None` if no state of FairPO is in the folder or
    in a checkpoint in it.

    Raises:
        ValueError: If the state is damaged.
    """
    places = [path for path in (folder, *reversed(list_checkpoints(folder))) if (path / STATE_NAME).is_file()]
    if not places:
        return None
    path = places[0] / STATE_NAME
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        partition = Partition.from_dict(state["partition"])
        group_of = {name: group for group, _, members in state["group_weights"]["groups"] for name in members}
        trainer = places[0] / "trainer_state.json"
        logs = json.loads(trainer.read_text(encoding="utf-8"))["log_history"] if trainer.is_file() else []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The state of the run, {path}, is damaged ({error}): name `privileged_attributes`."
        ) from error
    weights = history_of(logs, "weight/")
    last = weights[-1] if weights else {}
    final = {name: last[group] for name, group in group_of.items() if group in last}
    return RunFacts(partition, weights, history_of(logs, "margin/attribute/"), final)


def choose_partition(
    attributes: Sequence[str], privileged: Sequence[str] | None, runs: Mapping[str, RunFacts | None]
) -> Partition:
    """
    Who is privileged: as the user says, else as the models were trained.

    `attributes` are those of the data, `privileged` is the option, `runs` says what is known of each model's training.

    Raises:
        ValueError: If a name is unknown, nothing is known of any run, or runs disagree.
    """
    if privileged is not None:
        unknown = [name for name in privileged if name not in attributes]
        if unknown:
            raise ValueError(f"`privileged_attributes`: {unknown_names_message('attribute', unknown, attributes)}")
        return Partition.by_name(attributes, privileged)
    known = {name: run.partition.privileged for name, run in runs.items() if run is not None}
    if not known:
        raise ValueError(
            "Which attributes should have got better is not saved beside "
            f"{' or '.join(map(repr, runs))}: name them with `privileged_attributes`. The data have "
            f"{list(attributes)}."
        )
    if len(set(known.values())) > 1:
        raise ValueError(
            f"The models were trained for different attributes, {known}: name `privileged_attributes` for the report."
        )
    found = next(iter(known.values()))
    absent = [name for name in found if name not in attributes]
    if absent:
        raise ValueError(
            f"{next(iter(known))!r} was trained for {absent}, which the data lack: they have {list(attributes)}. Name "
            "the data of the training, or `privileged_attributes`."
        )
    return Partition.by_name(attributes, found)

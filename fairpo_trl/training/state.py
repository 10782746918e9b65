"""The FairPO part of a checkpoint: one JSON file beside the optimizer's state."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fairpo_trl.core.partition import Partition
from fairpo_trl.files import write_json
from fairpo_trl.training.run_folder import RUN_NAME, RunIdentity, current_run


STATE_NAME = "fairpo_state.json"
_VERSION = 2


def save_state(folder: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes the state atomically: a file of this name is always whole."""
    write_json(Path(folder) / STATE_NAME, {"version": _VERSION, **state}, indent=1)


def load_state(folder: str | os.PathLike[str], partition: Partition) -> dict[str, Any]:
    """
    Reads the state of a checkpoint, for a run of this partition.

    Raises:
        FileNotFoundError: If the checkpoint has no FairPO state: another trainer wrote it, or it holds a model alone.
        ValueError: If it is unreadable, of another version, or belongs to another partition.
    """
    path = Path(folder) / STATE_NAME
    if not path.is_file():
        why = (
            "`save_only_model=True` kept its model alone, without the state of the optimizer and the groups"
            if (Path(folder) / RUN_NAME).is_file()
            else "it was not written by FairPOTrainer, so group weights cannot be restored"
        )
        raise FileNotFoundError(
            f"{Path(folder).name} has no {STATE_NAME}: {why}. Load its model as the starting point instead of "
            "resuming."
        )
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{Path(folder).name}/{STATE_NAME} is damaged ({error}): resume from another checkpoint."
        ) from error
    if state.get("version") != _VERSION:
        raise ValueError(
            f"{Path(folder).name}/{STATE_NAME} has version {state.get('version')}; this is version {_VERSION}. Load "
            "its model as the starting point instead of resuming."
        )
    saved = Partition.from_dict(state["partition"])
    if saved != partition:
        raise ValueError(
            "The checkpoint belongs to another partition. Saved: privileged "
            f"{list(saved.privileged)}, non_privileged {list(saved.non_privileged)}; now: privileged "
            f"{list(partition.privileged)}, non_privileged {list(partition.non_privileged)}. Resume with the saved "
            "one, or start anew in another output folder."
        )
    return state


def save_run(folder: str | os.PathLike[str], run: RunIdentity) -> None:
    """Says which run wrote a checkpoint that keeps a model alone."""
    write_json(Path(folder) / RUN_NAME, {"run": run.to_dict()}, indent=1)


def run_of(folder: str | os.PathLike[str]) -> RunIdentity | None:
    """The run that wrote a checkpoint; `None` if nothing in it says so."""
    path = Path(folder) / STATE_NAME
    try:
        if not path.is_file():
            return current_run(folder)
        return RunIdentity.from_dict(json.loads(path.read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

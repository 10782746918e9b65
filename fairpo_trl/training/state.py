"""The FairPO part of a checkpoint: one JSON file beside the optimizer's state."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairpo_trl.core.partition import Partition
from fairpo_trl.files import write_json


STATE_NAME = "fairpo_state.json"
_VERSION = 1


def save_state(folder: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes the state atomically: a file of this name is always whole."""
    write_json(Path(folder) / STATE_NAME, {"version": _VERSION, **state}, indent=1)


def load_state(folder: str | os.PathLike[str], partition: Partition) -> dict[str, Any]:
    """
    Reads the state of a checkpoint.

    Args:
        folder (`str` or `os.PathLike`):
            The checkpoint.
        partition (`Partition`):
            The partition of the run that resumes.

    Raises:
        FileNotFoundError: If the checkpoint has no FairPO state (it was written by another trainer).
        ValueError: If it is unreadable, of another version, or belongs to another partition.
    """
    path = Path(folder) / STATE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{Path(folder).name} has no {STATE_NAME}: it was not written by FairPOTrainer, so group weights cannot "
            "be restored. Load its model as the starting point instead of resuming."
        )
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{Path(folder).name}/{STATE_NAME} is damaged ({error}): resume from another checkpoint."
        ) from error
    if state.get("version") != _VERSION:
        raise ValueError(
            f"{Path(folder).name}/{STATE_NAME} has version {state.get('version')}; this is version {_VERSION}."
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


def check_same_run(folder: str | os.PathLike[str], state: Mapping[str, Any], data_hash: str | None) -> None:
    """
    Refuses a checkpoint of a run on other training data.

    Args:
        folder (`str` or `os.PathLike`):
            The checkpoint, for the message.
        state (`Mapping[str, Any]`):
            What [`load_state`] read.
        data_hash (`str`, *optional*):
            Hash of the training rows now; `None` for a stream, of which only that it is one can be compared.

    Raises:
        ValueError: If the data are others.
    """
    if state["data_hash"] != data_hash:
        then, now = (value[:12] if value else "a stream" for value in (state["data_hash"], data_hash))
        raise ValueError(
            f"{Path(folder).name} was trained on other data (hash of the training rows then {then}, now {now}): its "
            "place in the data means nothing here. Resume with the rows it was trained on, in their order, or start "
            "anew in another output folder."
        )

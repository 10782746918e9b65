"""Whose folder it is: one run at a time writes into an output folder, and every checkpoint says which run wrote it."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from fairpo_trl.files import write_json


RUN_NAME = "fairpo_run.json"
LOCK_NAME = "fairpo_run.lock"

# Workers of a data loader keep the lock of a run that was killed until they notice: about five seconds.
_WAIT_SECONDS = 10.0
# Locks of this process, which may train one model after the other into a folder.
_HELD: dict[Path, FileLock] = {}


@dataclass(frozen=True)
class RunIdentity:
    """
    One course of training, however often it was stopped and resumed.

    A run that goes on from an older checkpoint than the newest of its folder takes another course from there, and so
    another id; what it went on from are its ancestors.

    Attributes:
        run_id (`str`): 32 hexadecimal digits, drawn when the run began.
        ancestors (`tuple`): Pairs of an id and the last step that this run shares with it.
    """

    run_id: str
    ancestors: tuple[tuple[str, int], ...] = ()

    @classmethod
    def new(cls) -> Self:
        """The identity of a run that begins."""
        return cls(uuid.uuid4().hex)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of [`to_dict`]; raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(str(value["id"]), tuple((str(run), int(step)) for run, step in value["ancestors"]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"id": self.run_id, "ancestors": [list(ancestor) for ancestor in self.ancestors]}

    def branched(self, step: int) -> RunIdentity:
        """The identity of a run that shares this one's steps up to `step`."""
        return RunIdentity(uuid.uuid4().hex, (*self.ancestors, (self.run_id, step)))

    def owns(self, other: RunIdentity | None, step: int) -> bool:
        """Whether a checkpoint that `other` wrote after `step` lies on the course of this run."""
        if other is None:
            return False
        return other.run_id == self.run_id or any(other.run_id == run and step <= last for run, last in self.ancestors)


def current_run(folder: str | os.PathLike[str]) -> RunIdentity | None:
    """
    The run that last began or went on in a folder; `None` where none did.

    Raises:
        ValueError: If the file that says so is damaged.
    """
    path = Path(folder) / RUN_NAME
    try:
        return RunIdentity.from_dict(json.loads(path.read_text(encoding="utf-8"))["run"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error}), so it is not known which run is the last one of this folder. Name "
            "the checkpoint to go on from: `--resume_from_checkpoint FOLDER`."
        ) from error


def claim(folder: str | os.PathLike[str], run: RunIdentity) -> None:
    """Notes that `run` is the one that goes on in a folder, and who runs it."""
    write_json(
        Path(folder) / RUN_NAME, {"run": run.to_dict(), "process": os.getpid(), "host": socket.gethostname()}, indent=1
    )


def hold(folder: str | os.PathLike[str]) -> Callable[[], None]:
    """
    Takes the lock of a folder, which is made if it is not there; the system lets go of it when the process ends.

    Returns:
        `Callable`: lets go of it; a second call does nothing.

    Raises:
        ValueError: If another run, on this machine or on one that shares the file system, writes into it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    place = Path(folder).resolve()
    lock = _HELD.setdefault(place, FileLock(place / LOCK_NAME, thread_local=False))
    try:
        lock.acquire(timeout=_WAIT_SECONDS)
    except Timeout:
        raise ValueError(
            f"Another run is writing into {str(folder)!r}{_holder(place)}: two runs in one folder would mix their "
            "checkpoints. Wait until it has ended, or name another `output_dir`."
        ) from None
    left = [lock]

    def let_go() -> None:
        if left:
            left.pop().release()

    return let_go


def _holder(folder: Path) -> str:
    try:
        facts = json.loads((folder / RUN_NAME).read_text(encoding="utf-8"))
        return f" (process {int(facts['process'])} on {facts['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""

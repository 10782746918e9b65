"""Checkpoint folders: complete only with a marker that holds the hash of every file and was written last."""

from __future__ import annotations

import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fairpo_trl.files import sync_folder, write_json
from fairpo_trl.hashing import sha256_of_file
from fairpo_trl.training.run_folder import RunIdentity
from fairpo_trl.training.state import run_of


MARKER_NAME = "fairpo_complete.json"
_VERSION = 1
_FOLDER = re.compile(r"^checkpoint-(\d+)$")


class DamagedCheckpoint(ValueError):
    """A checkpoint that is not whole: its save was interrupted, or a file was lost, cut or changed since."""


def checkpoint_step(folder: str | os.PathLike[str]) -> int | None:
    """The optimizer step in the name of a checkpoint folder; `None` for any other name."""
    match = _FOLDER.match(Path(folder).name)
    return int(match.group(1)) if match else None


def list_checkpoints(output_dir: str | os.PathLike[str]) -> list[Path]:
    """The folders `checkpoint-<step>` of a run, complete or not, by step."""
    root = Path(output_dir)
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    found = [(step, path) for path in folders if (step := checkpoint_step(path)) is not None]
    return [path for _, path in sorted(found)]


def mark_complete(folder: str | os.PathLike[str]) -> None:
    """
    Declares a checkpoint complete: makes its files durable, hashes them, and writes the marker atomically.

    Called once, by one process, after every process has written its files.
    """
    folder = Path(folder)
    names = _files(folder)
    for inner in {(folder / name).parent for name in names}:
        sync_folder(inner)
    hashes = _hash_all(folder, names, sync=True)
    files = {name: {"size": (folder / name).stat().st_size, "sha256": hashes[name]} for name in names}
    write_json(folder / MARKER_NAME, {"version": _VERSION, "files": files}, indent=1)
    sync_folder(folder.parent)


def verify(folder: str | os.PathLike[str]) -> None:
    """
    Checks a checkpoint against its marker: every file is there, with its size and hash. Further files do not matter.

    Raises:
        FileNotFoundError: If there is no such folder.
        DamagedCheckpoint: Names the file and what is wrong with it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no checkpoint folder {str(folder)!r}.")
    files = _read_marker(folder)
    for name, facts in files.items():  # sizes first: they cost nothing
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpoint(f"{name} is missing")
        size = path.stat().st_size
        if size != facts["size"]:
            verb = "truncated" if size < facts["size"] else "longer than it was"
            raise DamagedCheckpoint(f"{name} is {verb} ({size} bytes, {facts['size']} when it was saved)")
    hashes = _hash_all(folder, list(files))
    altered = [name for name, facts in files.items() if hashes[name] != facts["sha256"]]
    if altered:
        raise DamagedCheckpoint(f"{', '.join(altered)} was altered after it was saved (another SHA-256)")


def is_marked(folder: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint has its marker; no file is read."""
    return (Path(folder) / MARKER_NAME).is_file()


def newest_complete(
    output_dir: str | os.PathLike[str], run: RunIdentity | None = None
) -> tuple[Path | None, list[tuple[Path, str]]]:
    """
    The last checkpoint in the folder of a run that is whole; only those of `run` count, if it is given.

    Returns:
        `tuple[Path | None, list[tuple[Path, str]]]`: the folder (`None` if no checkpoint is whole), and the newer
        ones that were passed over, each with the reason.
    """
    passed_over = []
    for folder in reversed(list_checkpoints(output_dir)):
        try:
            if run is not None and is_marked(folder) and not _is_of(run, folder):
                raise DamagedCheckpoint("it belongs to another run, which wrote into this folder before")
            verify(folder)
        except DamagedCheckpoint as error:
            passed_over.append((folder, str(error)))
        else:
            return folder, passed_over
    return None, passed_over


def require_complete(folder: str | os.PathLike[str]) -> None:
    """
    Like [`verify`], with an error that tells the user what to do.

    Raises:
        FileNotFoundError: If there is no such folder; names the checkpoints beside it.
        ValueError: If it is not whole; names the file, and offers the last good checkpoint beside it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        others = [path.name for path in list_checkpoints(folder.parent)]
        there = f" There: {', '.join(others)}." if others else ""
        raise FileNotFoundError(f"There is no checkpoint folder {str(folder)!r} to resume from.{there}")
    try:
        verify(folder)
    except DamagedCheckpoint as error:
        good, _ = newest_complete(folder.parent)
        mend = f"The last good one is {str(good)!r}." if good else "There is no good one beside it."
        raise DamagedCheckpoint(f"The checkpoint {str(folder)!r} cannot be resumed from: {error}. {mend}") from error


def clear_unfinished(folder: str | os.PathLike[str]) -> None:
    """
    Makes room for a checkpoint: nothing of an older folder of the same name may mix with it.

    Of a link only the link goes: what it leads to was put elsewhere to be kept.
    """
    folder = Path(folder)
    if folder.is_symlink():
        folder.unlink()
        return
    (folder / MARKER_NAME).unlink(missing_ok=True)  # first, so that a half-deleted folder never looks complete
    if folder.exists():
        shutil.rmtree(folder)


def rotate(
    output_dir: str | os.PathLike[str],
    limit: int | None,
    newest: str | os.PathLike[str],
    best: str | None = None,
    run: RunIdentity | None = None,
) -> list[Path]:
    """
    Deletes checkpoints of an output folder until at most `limit` are left (`None` or 0 keeps all): unfinished ones
    first, then those of other runs than `run`, then the oldest. Returns what was deleted.

    The `newest`, which was just written, and the `best` are never deleted, nor is a link or what a link in the folder
    leads to; links do not count towards the limit. transformers does the same, but goes by the time of the last change
    and counts unfinished checkpoints as if they could be resumed from.
    """
    if not limit or limit < 0:
        return []
    linked = {path.resolve() for path in Path(output_dir).iterdir() if path.is_symlink()}
    folders = [folder for folder in list_checkpoints(output_dir) if folder.resolve() not in linked]
    kept = {Path(newest).resolve(), *([Path(best).resolve()] if best else [])}
    candidates = [folder for folder in folders if folder.resolve() not in kept]
    candidates.sort(
        key=lambda folder: (is_marked(folder), run is None or _is_of(run, folder), checkpoint_step(folder))
    )
    surplus = candidates[: max(len(folders) - max(limit, len(kept)), 0)]
    for folder in surplus:
        clear_unfinished(folder)
    return surplus


def only_run(run_dir: Path) -> RunIdentity | None:
    """
    The run of all complete checkpoints of a folder that does not say which run was its last; `None` if there are none.

    Raises:
        ValueError: If they are of several runs; names them.
    """
    found = [(folder, run) for folder in list_checkpoints(run_dir) if is_marked(folder) and (run := run_of(folder))]
    if not found:
        return None
    newest = found[-1][1]
    foreign = [folder.name for folder, run in found if not newest.owns(run, checkpoint_step(folder) or 0)]
    if foreign:
        raise ValueError(
            f"{str(run_dir)!r} holds checkpoints of several runs ({found[-1][0].name} and {', '.join(foreign)}), and "
            "nothing says which was the last. Name the checkpoint to go on from: `--resume_from_checkpoint FOLDER`."
        )
    return newest


def best_of(folder: Path, wanted: bool) -> str | None:
    """
    Where the best checkpoint of a run lies, from the state of one of its checkpoints; `None` if none is known.

    If it is `wanted`, because it is to be loaded at the end, one that is gone is a `FileNotFoundError` and one that is
    not whole a [`DamagedCheckpoint`].
    """
    facts = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    step, noted, run = facts.get("best_global_step"), facts.get("best_model_checkpoint"), run_of(folder)
    if step is None or run is None:
        return None
    for place in (folder.parent / f"checkpoint-{step}", Path(noted or "")):  # the folder may have moved since
        if place.is_dir() and run.owns(run_of(place), step):
            if wanted and place.resolve() != folder.resolve():
                require_complete(place)
            return str(place)
    if wanted:
        raise FileNotFoundError(
            f"The best checkpoint of the run that {folder.name} belongs to, checkpoint-{step}, is gone from "
            f"{str(folder.parent)!r}: the model to be loaded at the end could be lost. Put it back, or go on without "
            "`load_best_model_at_end`."
        )
    return None


def _is_of(run: RunIdentity, folder: Path) -> bool:
    return run.owns(run_of(folder), checkpoint_step(folder) or 0)


def _files(folder: Path) -> list[str]:
    """Relative posix paths of all files but the marker and drafts of atomic writes."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != MARKER_NAME and not name.endswith(".tmp"))


def _hash_all(folder: Path, names: list[str], sync: bool = False) -> dict[str, str]:
    # Hashing releases the GIL; a checkpoint has a few large files, which are read side by side.
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(names, pool.map(lambda name: sha256_of_file(folder / name, sync), names), strict=True))


def _read_marker(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / MARKER_NAME
    if not path.is_file():
        raise DamagedCheckpoint(f"it has no {MARKER_NAME}, so its save was interrupted, or another trainer wrote it")
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        version, files = marker["version"], marker["files"]
        facts = {name: {"size": int(f["size"]), "sha256": str(f["sha256"])} for name, f in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{MARKER_NAME} is damaged ({error})") from error
    if version != _VERSION:
        raise DamagedCheckpoint(f"{MARKER_NAME} has version {version}, this is version {_VERSION}")
    if not facts:
        raise DamagedCheckpoint(f"{MARKER_NAME} lists no file")
    return facts

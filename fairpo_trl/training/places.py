"""Where a run reads its model from and writes to, looked at before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from fairpo_trl.files import looks_like_path
from fairpo_trl.loading import check_model_folder


OVERWRITE = {"help": "Write into an output folder that holds files already, over those of the same name."}
"""Metadata of the option `overwrite_output_dir`."""


def check_output_dir(output_dir: str | os.PathLike[str], resume: str | bool | None, overwrite: bool) -> None:
    """
    Refuses an output folder that cannot be written, or that holds something which a new run would mix with its own:
    unless the run goes on from there (`resume`, as `resume_from_checkpoint`), or files may be there (`overwrite`).

    Raises:
        FileExistsError: If the folder holds files, or is a file.
        PermissionError: If it cannot be written.
    """
    path = Path(output_dir).expanduser()
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"`output_dir` {str(path)!r} is a file: name a folder.")
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"`output_dir` {str(path)!r} cannot be written: name another folder.")
    if not path.is_dir() or overwrite or _resumes(resume):
        return
    held = sorted(entry.name for entry in path.iterdir())
    if held:
        shown = ", ".join(held[:4]) + (f" and {len(held) - 4} more" if len(held) > 4 else "")
        raise FileExistsError(
            f"`output_dir` {str(path)!r} holds files already ({shown}). Go on with the run that is there "
            "(`--resume_from_checkpoint true`), write over it (`--overwrite_output_dir true`), or name another folder."
        )


def check_model(name: str | None, option: str) -> None:
    """
    Says that a local model is not there, or is no saved model, before the data is read; a Hub id passes.

    Raises:
        FileNotFoundError: If the name looks like a path and there is no folder.
        ValueError: If no name is given, or the folder holds no model, a damaged one, or one that needs its own code.
    """
    if not name:
        raise ValueError(f"Name the model: `--{option}` with a Hub id or a folder.")
    path = Path(name).expanduser()
    if not path.is_dir():
        if looks_like_path(name) or path.is_file():
            raise FileNotFoundError(f"`{option}`: there is no folder {name!r} with a saved model.")
        return
    if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
        raise ValueError(
            f"`{option}`: the folder {name!r} holds no saved model (neither config.json nor adapter_config.json)."
        )
    check_model_folder(path)


def _resumes(resume: str | bool | None) -> bool:
    return str(resume).lower() not in ("none", "false", "")

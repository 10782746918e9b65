"""Published folder layouts: what has to be there, and one error for all that is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


_NAMED = 12  # missing paths listed in a message


def find_layout(
    root: Path, wanted: Sequence[tuple[str, ...]], *, dataset: str, tree: str, remark: str = ""
) -> list[Path]:
    """
    Finds each wanted path in a data folder.

    Args:
        root (`Path`):
            The data folder.
        wanted (`Sequence[tuple[str, ...]]`):
            For each wanted file or folder, the places where it may lie relative to `root`; the first that exists
            counts.
        dataset, tree, remark (`str`):
            For the message: name of the data set, the expected layout, and a sentence.

    Returns:
        `list[Path]`: one for each wanted path.

    Raises:
        FileNotFoundError: One error that names everything missing and shows the layout.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(root)!r}. {dataset} is read from a folder like this:\n{tree}"
        )
    found, missing = [], []
    for places in wanted:
        path = next((root / place for place in places if (root / place).exists()), None)
        if path is None:
            missing.append(" or ".join(places))
        else:
            found.append(path)
    if missing:
        more = [f"and {len(missing) - _NAMED} more"] if len(missing) > _NAMED else []
        listed = "\n".join(f"  {line}" for line in (*missing[:_NAMED], *more))
        raise FileNotFoundError(
            f"{str(root)!r} is not a complete {dataset} folder. Missing:\n{listed}\n"
            + (f"{remark}\n" if remark else "")
            + f"Expected layout:\n{tree}"
        )
    return found

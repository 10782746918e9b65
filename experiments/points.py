"""What a comparison has measured: one file a point, whose name holds a hash of everything it depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairpo_trl.files import write_json


@dataclass(frozen=True)
class Row:
    """
    One method of a comparison.

    Attributes:
        name (`str`): In file names.
        label (`str`): In tables.
        method (`str`): `--method` of the recipe.
        options (`dict[str, Any]`): Options that differ from what all rows share.
    """

    name: str
    label: str
    method: str = "fairpo"
    options: dict[str, Any] = field(default_factory=dict)


def key_of(settings: Any) -> str:
    """Ten digits of a hash of settings, whatever the order of their names."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Points:
    """
    The files of a comparison. A point that is there is never computed again, and a file under its name is whole.

    Args:
        folder (`Path`): Where they are.
    """

    folder: Path

    def path(self, name: str, settings: Any, suffix: str = ".json") -> Path:
        """The file of a point: its name, and a hash of `settings`, which hold everything else it depends on."""
        return self.folder / f"{name}-{key_of(settings)}{suffix}"

    @staticmethod
    def read(path: Path) -> Any:
        """
        One point of JSON.

        Raises:
            ValueError: If it is missing or damaged.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path.name} is damaged or missing ({error}): delete it and run again.") from error

    @staticmethod
    def write(path: Path, point: Any) -> None:
        """Keeps a point of JSON."""
        write_json(path, point)

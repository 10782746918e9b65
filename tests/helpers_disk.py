"""What is made durable, and when."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


def journal(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A list that fills with ("fsync" | "replace", name of the file or folder), in the order in which they happen."""
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        events.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def noted_replace(source: Any, target: Any, **options: Any) -> None:
        events.append(("replace", Path(target).name))
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    return events

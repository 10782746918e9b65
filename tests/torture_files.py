"""
Kills work whose results are files (SIGKILL) at random moments, starts it again, and compares the end with an unbroken
run: features of images, and the table of all multi-label methods (`make table`).

`tests/torture.py --half features` and `--half table` run the long forms.
"""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from PIL import Image
from safetensors.numpy import load_file

from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.features import shards
from fairpo_trl.classification.features.backbones import load_backbone
from fairpo_trl.classification.features.cache import extract_features


ROOT = Path(__file__).resolve().parents[1]
# As in the Makefile: the root (which `-m` adds) and recipes/ are on the path.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "recipes")])}
FORK = multiprocessing.get_context("fork")
FORK_OR_COMMAND = Callable[[], None] | list[str]


class Life:
    """
    One life of a piece of work, in a process of its own.

    Args:
        work (`list[str]` or `Callable`): A command, or a function for a forked process.
        log (`Path`): Gets the output of a command.
    """

    def __init__(self, work: FORK_OR_COMMAND, log: Path) -> None:
        if isinstance(work, list):
            with log.open("w", encoding="utf-8") as output:
                self.process: Any = subprocess.Popen(
                    work, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT
                )
        else:
            self.process = FORK.Process(target=work)
            self.process.start()

    def code(self) -> int | None:
        """Exit code; `None` while it lives."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def kill(self) -> None:
        """Ends it and everything it has started."""
        kill_tree(self.process.pid)
        self.wait()

    def wait(self) -> int:
        """Waits for the end."""
        while self.code() is None:
            time.sleep(0.005)
        code = self.code()
        assert code is not None
        return code


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and all it has started: a launcher's workers are in sessions of their own."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


def wait_for_the_kill() -> None:
    """Does nothing until this process is killed."""
    while True:
        time.sleep(1)


class Work(Protocol):
    """What the harness has to know about a piece of work."""

    holds: bool  # whether a life that is to be killed waits for its kill before its last result

    def start(self, folder: Path, life: int, killed: bool) -> Life:
        """Begins, or goes on, in a folder; `killed` for a life that is to be killed."""

    def begun(self, folder: Path, life: int) -> bool:
        """Whether this life has come to the work itself."""

    def complete(self, folder: Path) -> dict[str, Any]:
        """Results that are complete -> something that changes if they are computed again."""

    def computed(self, folder: Path, life: int) -> set[str]:
        """Names of the results that this life has worked on, as far as it says so."""

    def result(self, folder: Path) -> dict[str, Any]:
        """What must be equal at the end, by name."""


@dataclass
class FileOutcome:
    """What happened: kills, drafts they left behind, results that were computed twice, and what differs at the end."""

    kills: int = 0
    drafts: int = 0
    differences: list[str] = field(default_factory=list)


def torture_files(
    work: Work, folder: Path, kills: int, seed: int = 0, say: Callable[[str], None] = print
) -> FileOutcome:
    """
    Runs a piece of work in peace and with kills.

    Args:
        work (`Work`):
            The work.
        folder (`Path`):
            Gets the folders of both runs.
        kills (`int`):
            How many.
        seed (`int`, *optional*, defaults to `0`):
            Of the moments.
        say (`Callable`, *optional*):
            Gets a line for each kill.
    """
    peace, killed, moments = folder / "in-peace", folder / "with-kills", random.Random(seed)
    for place in (peace, killed):
        place.mkdir(parents=True)
    began = time.monotonic()
    _expect_success(work.start(peace, 0, killed=False), 0)
    total = len(work.complete(peace)) or 1
    piece_seconds = (time.monotonic() - began) / total

    outcome, before = FileOutcome(), work.complete(killed)
    for number in range(1, kills + 1):
        left = total - len(before)
        wanted = len(before) + moments.randint(0, max(2 * left // (kills - number + 2), 0))
        wanted = min(wanted, total - work.holds)
        life = work.start(killed, number, killed=True)
        try:
            while life.code() is None and not (work.begun(killed, number) and len(work.complete(killed)) >= wanted):
                time.sleep(0.0005)
            time.sleep(moments.uniform(0, 2 * piece_seconds))
        finally:
            if life.code() is None:
                life.kill()
        if life.wait() == -signal.SIGKILL:  # or the work has killed itself
            outcome.kills += 1
        else:  # it ended first
            _expect_success(life, number)
        outcome.drafts = max(outcome.drafts, len(list(killed.rglob("*.tmp"))))
        after = work.complete(killed)
        outcome.differences += _twice(before, after, work.computed(killed, number), number)
        before = after
        say(f"kill {outcome.kills:3d}: {len(before)} of {total} results complete")
    last = kills + 1
    _expect_success(work.start(killed, last, killed=False), last)
    outcome.differences += _twice(before, work.complete(killed), work.computed(killed, last), last)
    expected, found = work.result(peace), work.result(killed)
    outcome.differences += [
        f"{name} is not that of the run in peace"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    return outcome


def _twice(before: dict[str, Any], after: dict[str, Any], computed: set[str], life: int) -> list[str]:
    again = [name for name, mark in before.items() if name in computed or after.get(name, mark) != mark]
    return [f"life {life} computed {name} again, which was complete" for name in again]


def _expect_success(life: Life, number: int) -> None:
    if life.wait() != 0:
        raise RuntimeError(f"Life {number} ended with exit code {life.code()}.")


# ---- features ----


class Features:
    """
    Features of small random images, in shards of eight.

    Args:
        folder (`Path`): Gets the backbone.
        images (`int`): How many.
    """

    holds = True

    def __init__(self, folder: Path, images: int = 480) -> None:
        from test_feature_cache import save_tiny_dinov2

        self.spec = save_tiny_dinov2(folder / "backbone", seed=0)
        pixels = np.random.default_rng(0).integers(0, 256, (images, 24, 20, 3), dtype=np.uint8)
        self.split = MultiLabelSplit(
            name="train",
            label_names=("cat", "dog"),
            labels=np.zeros((images, 2), np.int8),
            ids=tuple(f"{row:04d}.png" for row in range(images)),
            images=[Image.fromarray(array) for array in pixels],
            features=None,
            series=None,
            notes={},
        )
        self.row_of = {array.tobytes(): row for row, array in enumerate(pixels)}

    def start(self, folder: Path, life: int, killed: bool) -> Life:
        def extract() -> None:
            torch.set_num_threads(1)
            shards._SHARD_ROWS = 8
            backbone = load_backbone(self.spec, pooling="cls_mean")
            transform, log = (
                backbone.transform,
                os.open(folder / f"{life}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY),
            )

            def noted(image: Image.Image) -> torch.Tensor:
                row = self.row_of[image.tobytes()]
                os.write(log, f"{row}\n".encode())
                if killed and row == len(self.split) - 1:
                    wait_for_the_kill()
                return transform(image)

            backbone.transform = noted
            extract_features(self.split, backbone, folder / "cache", batch_size=4, progress=False)

        return Life(extract, folder / f"{life}.txt")

    def begun(self, folder: Path, life: int) -> bool:
        return (folder / f"{life}.log").exists()

    def complete(self, folder: Path) -> dict[str, Any]:
        (cache,) = list(folder.glob("cache/*")) or [folder / "cache"]
        if (cache / "rows.npy").exists():  # joined: every shard is complete
            return {str(shard): None for shard in range(-(-len(self.split) // 8))}
        return {str(int(path.stem.removeprefix("shard-"))): None for path in cache.glob("shard-*.json")}

    def computed(self, folder: Path, life: int) -> set[str]:
        log = folder / f"{life}.log"
        return {str(int(row) // 8) for row in log.read_text().split()} if log.exists() else set()

    def result(self, folder: Path) -> dict[str, Any]:
        (path,) = folder.glob("cache/*/rows.npy")
        return {"the array of features": _digest(path.read_bytes())}


# ---- the table ----


class MethodTable:
    """
    `make table` with one head, one seed and two further epochs: every method and the re-weighting curve.

    The run with kills begins with the reference of the run in peace, whose training takes longer than all else; the
    training of a reference is killed in the classification half.
    """

    holds = False
    options = ("--heads", "linear", "--seeds", "0", "--epochs", "2", "--workers", "1", "--resamples", "50")

    def start(self, folder: Path, life: int, killed: bool) -> Life:
        for path in sorted((folder.parent / "in-peace" / "runs").glob("reference-*")):  # the folder, then its logits
            copy = folder / "runs" / path.name
            if not copy.exists():
                shutil.copytree(path, copy) if path.is_dir() else shutil.copy2(path, copy)
        command = [sys.executable, "-m", "experiments.classification.compare", *self.options]
        return Life([*command, "--output_dir", str(folder / "runs")], folder / f"{life}.txt")

    def begun(self, folder: Path, life: int) -> bool:
        said = (folder / f"{life}.txt").read_text(encoding="utf-8")
        return "jobs (a head and a seed each)" in said or "Bootstrap over series" in said

    def complete(self, folder: Path) -> dict[str, Any]:
        files = [(path, path.stat()) for path in folder.glob("runs/*.safetensors")]
        return {path.name: (stat.st_ino, stat.st_mtime_ns) for path, stat in files}

    def computed(self, folder: Path, life: int) -> set[str]:
        return set()  # the files themselves say whether they were written again

    def result(self, folder: Path) -> dict[str, Any]:
        return table_result(folder / "runs")


def table_result(folder: Path) -> dict[str, Any]:
    """The logits of all runs, and the lines of the CSV without the seconds they took."""
    found: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)  # the metadata hold the seconds
        found[path.name] = _digest(*(part for name in sorted(tensors) for part in (name.encode(), tensors[name])))
    with (folder / "comparison.csv").open(encoding="utf-8", newline="") as file:
        lines = [{name: value for name, value in line.items() if name != "seconds"} for line in csv.DictReader(file)]
    return found | {"comparison.csv": lines}


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()

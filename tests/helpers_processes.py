"""Copies of the test's own process instead of new programs: what is imported already is not imported again."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch


# A copy of a process that has used a GPU cannot use it; there, each process imports everything anew.
CONTEXT = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")


class Copy:
    """
    One copy at work, with what `subprocess.Popen` has of it.

    Args:
        work (`Callable`): A function of a module; a `SystemExit` from it is the exit code.
        arguments (`tuple`): What it takes.
        log (`Path`): Gets all output.
        environment (`Mapping[str, str]`, *optional*): Variables that are set before.
        folder (`Path`, *optional*): Where it works.
    """

    def __init__(
        self,
        work: Callable[..., object],
        arguments: tuple[Any, ...],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        log.touch()
        self.process = CONTEXT.Process(target=_work, args=(work, arguments, log, dict(environment or {}), folder))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        """The exit code; `None` while it works."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end and returns the exit code."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"Still at work after {timeout} seconds.")
        return self.process.exitcode


def free_port() -> int:
    """
    A port for processes that will find each other. It lies below those that the system gives out by itself, so that no
    connection of another test takes it before they listen, and begins at the number of this process.
    """
    first, count = 10_000, 20_000
    for number in range(count):
        port = first + (os.getpid() + number) % count
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("No port is free.")


def together(
    work: Callable[..., object],
    arguments: tuple[Any, ...],
    processes: int,
    log: Path,
    environment: Mapping[str, str] = MappingProxyType({"ACCELERATE_USE_CPU": "true"}),
) -> str:
    """
    Runs a function in several processes that find each other, as a launcher starts them, and returns their output.

    Args:
        work (`Callable`): A function of a module.
        arguments (`tuple`): What it takes.
        processes (`int`): How many.
        log (`Path`): Each process writes into a file of this name and its rank.
        environment (`Mapping[str, str]`, *optional*): Variables that are set besides those of a launcher.

    Raises:
        AssertionError: If one of them fails; with its output.
    """
    shared = {"OMP_NUM_THREADS": "1", **environment}
    if processes > 1:
        shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    copies = [
        Copy(
            work,
            arguments,
            log.with_name(f"{log.name}-{rank}"),
            shared | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
        )
        for rank in range(processes)
    ]
    codes = [copy.wait(timeout=1200) for copy in copies]
    said = "".join(log.with_name(f"{log.name}-{rank}").read_text(encoding="utf-8") for rank in range(processes))
    assert codes == [0] * processes, said[-8000:]
    return said


def _work(
    work: Callable[..., object],
    arguments: tuple[Any, ...],
    log: Path,
    environment: dict[str, str],
    folder: Path | None,
) -> None:
    from accelerate.state import AcceleratorState, GradientState, PartialState

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    torch.set_num_threads(1)
    for state in (AcceleratorState, PartialState, GradientState):
        state._shared_state.clear()  # earlier tests of this process have found out how many processes there are
    try:
        work(*arguments)
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None

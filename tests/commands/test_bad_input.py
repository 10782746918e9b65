"""Bad input is one clear error before any work: it names the place and the mend, and nothing on disk has changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import transformers
from bad_inputs import COMMANDS, LIBRARY, BadCommand, BadInput


LIMIT = 2000
"""Characters of the longest message: the expected layout of a data folder."""


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder with the hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Loading a model or tokenizer, or training, fails the test; what `datasets` caches lies elsewhere."""

    def fail(*_: Any, **__: Any) -> NoReturn:
        pytest.fail("A model was loaded, or training began, before the mistake was found.")

    for kind in (
        transformers.PreTrainedModel,
        transformers.AutoModelForCausalLM,
        transformers.AutoTokenizer,
        transformers.AutoConfig,
    ):
        monkeypatch.setattr(kind, "from_pretrained", fail)
    monkeypatch.setattr(transformers.Trainer, "train", fail)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def assert_clear(message: str, names: tuple[str, ...]) -> None:
    assert len(message) < LIMIT, f"{len(message)} characters: {message[:300]}"
    assert not [name for name in names if name not in message], message
    assert "Traceback" not in message and " object at 0x" not in message


def test_there_are_enough_bad_inputs() -> None:
    every = [bad.what for bad in (*LIBRARY, *COMMANDS)]
    assert len(every) >= 60 and len(set(every)) == len(every)
    assert all(bad.names for bad in (*LIBRARY, *COMMANDS))


@pytest.mark.parametrize("bad", LIBRARY, ids=lambda bad: bad.what)
def test_the_library_refuses(bad: BadInput, tmp_path: Path) -> None:
    call = bad.make(tmp_path)
    before = tree(tmp_path)
    with pytest.raises((ValueError, OSError)) as error:
        call()
    assert_clear(str(error.value), bad.names)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("bad", COMMANDS, ids=lambda bad: bad.what)
def test_the_command_line_refuses(bad: BadCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad.prepare(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as end:
        bad.run(tmp_path)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.count("error: ") == 1 and "(`--debug` shows where this was found.)" in said
    assert_clear(said[said.index("error: ") :], bad.names)
    assert tree(tmp_path) == before


SUBPROCESS = ("an unusable row",)  # as a program; above all of them are called in this process


def called(bad: BadCommand, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairpo_trl", *bad.words(folder), *more],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_DATASETS_CACHE": str(folder.parent / "cache"), "HF_HUB_OFFLINE": "1"},
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.parametrize("bad", [bad for bad in COMMANDS if bad.what in SUBPROCESS], ids=lambda bad: bad.what)
def test_the_program_ends_with_2_and_one_line(bad: BadCommand, tmp_path: Path) -> None:
    bad.prepare(tmp_path)
    before = tree(tmp_path)
    done = called(bad, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert_clear(done.stderr[done.stderr.index("error: ") :], bad.names)
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_the_program_shows_a_traceback_on_demand(tmp_path: Path) -> None:
    done = called(COMMANDS[0], tmp_path, "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and COMMANDS[0].names[0] in done.stderr

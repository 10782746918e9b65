"""Kills a training run (SIGKILL) at random moments, resumes it each time, and compares its end with an unbroken run.

    python tests/torture.py --kills 20                      (or: make torture)
    python tests/torture.py --kills 3 --half generation --seed 1
    python tests/torture.py --kills 3 --launcher "accelerate launch --config_file accelerate_configs/ddp_cpu.yaml"
    python tests/torture.py --half features          (or table: work without checkpoints, see torture_files.py)

Every second kill waits for a checkpoint that is being written. Copies of this process wait for their kill too, so that
no kill comes too late on a busy machine. Each life of the run is the same command, from the second on with
`--resume_from_checkpoint true`. At the end parameters, optimizer, scheduler, generators, group state,
metric sums and logs must be bit-equal to those of the run that was never stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from helpers_processes import Copy  # noqa: E402
from torture_files import Features, MethodTable, kill_tree, torture_files  # noqa: E402
from transformers.trainer_pt_utils import safe_globals  # noqa: E402

from fairpo_trl.training.checkpoints import (  # noqa: E402
    checkpoint_step,
    is_marked,
    list_checkpoints,
    newest_complete,
)


ENVIRONMENT = {
    **os.environ,
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "ACCELERATE_USE_CPU": "true",
}
# What a clock or the place on disk decides; everything else in the logs and the state must be equal.
OF_THE_CLOCK = ("_runtime", "_per_second", "runtime")
OF_THE_PLACE = ("best_model_checkpoint",)


@dataclass(frozen=True)
class Half:
    """
    One recipe under torture.

    Attributes:
        script: The recipe; it takes `--output_dir`, `--resume_from_checkpoint`, `--max_steps` and `--save_steps`.
        prepare: Writes the inputs into a folder and returns the other options.
    """

    script: str
    prepare: Callable[[Path], list[str]]


@dataclass
class Outcome:
    """What happened: kills, those that hit a save, checkpoints passed over on resume, and what differs at the end."""

    kills: int = 0
    in_a_save: int = 0
    passed_over: int = 0
    differences: list[str] = field(default_factory=list)


def prepare_generation(folder: Path) -> list[str]:
    """A tiny model with dropout (so that the generators matter), random pairs in random order, an evaluation."""
    from conftest import make_model, make_rows, make_tokenizer

    model = make_model(dtype=torch.float32)
    model.config.attention_dropout = 0.1
    model.save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    rows = [{**row, "split": "train" if i < 61 else "test"} for i, row in enumerate(make_rows(68))]
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    options: dict[str, Any] = {
        "model_name_or_path": folder / "model",
        "dtype": "float32",
        "dataset_name": folder / "pairs.jsonl",
        "privileged_attributes": "concise",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "eta_alpha": 0.5,
        "floor": 0.1,
        "epsilon": 0.0,
        "disable_dropout": False,
        "eval_strategy": "steps",
        "eval_steps": 15,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def prepare_classification(folder: Path) -> list[str]:
    """A small COCO tree and a random backbone: features, the reference and the method can all be interrupted."""
    from helpers_trees import write_coco
    from PIL import Image
    from test_classifier_model import save_tiny_dinov2

    colours = {"dog": "red", "cat": "blue", "toaster": "lime"}
    names = list(colours)
    images = {part: {i: [names[i % 3]] for i in range(n)} for part, n in (("train", 36), ("val", 9))}
    write_coco(folder / "coco", images["train"], images["val"])
    for part, labels in images.items():
        for number, (name,) in labels.items():
            path = folder / "coco" / f"{part}2014" / f"COCO_{part}2014_{number:012d}.jpg"
            Image.new("RGB", (40, 40), colours[name]).save(path)
    options: dict[str, Any] = {
        "data_dir": folder / "coco",
        "backbone": save_tiny_dinov2(folder / "backbone"),
        "cache_dir": folder / "cache",
        "privileged_labels": "toaster",
        "validation_share": 0.25,
        "head": "shared_mlp",
        "hidden_size": 8,
        "dropout": 0.3,
        "reference_epochs": 60,
        "patience": 2,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "eta_alpha": 0.5,
        "epsilon": 0.0,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


HALVES = {
    "generation": Half("recipes/generation_fairpo.py", prepare_generation),
    "classification": Half("recipes/coco_fairpo.py", prepare_classification),
}
WORKS = {"features": Features, "table": lambda folder: MethodTable()}


class Torture:
    """
    One recipe, run once in peace and once with kills.

    Args:
        half (`Half`): The recipe.
        folder (`Path`): Where everything is written.
        steps, save_steps (`int`): Length of the run, and the distance between its checkpoints.
        launcher (`list[str]`): What stands before the script; the interpreter by default. Empty: each life is a
            copy of this process, which has imported everything already.
        seed (`int`): Of the moments.
    """

    def __init__(
        self, half: Half, folder: Path, steps: int, save_steps: int, launcher: list[str] | None = None, seed: int = 0
    ) -> None:
        self.folder, self.steps, self.random = folder, steps, random.Random(seed)
        self.copies = launcher == []
        folder.mkdir(parents=True, exist_ok=True)
        self.command = [
            *([sys.executable] if launcher is None else launcher),
            str(ROOT / half.script),
            *half.prepare(folder),
            *("--max_steps", str(steps), "--save_steps", str(save_steps)),
        ]

    def start(self, name: str, resume: bool, hold_at: int | None = None) -> tuple[subprocess.Popen | Copy, Path]:
        """
        Starts one life of a run; it writes into the folder `name`, and its output into a log beside it.

        Args:
            name (`str`): The folder.
            resume (`bool`): Whether it goes on from a checkpoint.
            hold_at (`int`, *optional*): From this step on a copy waits for its kill before it completes a checkpoint.
        """
        log = self.folder / f"{name}.log"
        command = [*self.command, "--output_dir", str(self.folder / name)]
        command += ["--resume_from_checkpoint", "true"] if resume else []
        if self.copies:
            log.unlink(missing_ok=True)
            return Copy(run_script, (command, hold_at), log, ENVIRONMENT, ROOT), log
        with open(log, "w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT, process_group=0
            )
        return process, log

    def in_peace(self, name: str) -> float:
        """A run that nobody disturbs; returns the seconds of one step."""
        process, log = self.start(name, resume=False)
        first = None
        while process.poll() is None:
            if first is None and _lines(log) > 0:
                first = time.monotonic()
            time.sleep(0.005)
        _expect_success(process, log)
        return (time.monotonic() - (first or time.monotonic())) / self.steps

    def with_kills(self, name: str, kills: int, step_seconds: float, say: Callable[[str], None] = print) -> Outcome:
        """The same run, killed at random moments and resumed until it ends."""
        outcome, run = Outcome(), self.folder / name
        complete = 0
        while outcome.kills < kills:
            in_save = outcome.kills % 2 == 0
            # Enough steps are left for the kills to come.
            steps = self.random.randint(0, max((self.steps - complete) // (kills - outcome.kills + 1) - 1, 0))
            delay = self.random.uniform(0, _SAVE_SECONDS if in_save else 2 * step_seconds)
            before = _states(run)
            hold_at = complete + steps + 1 if in_save else self.steps
            process, log = self.start(name, resume=outcome.kills > 0, hold_at=hold_at)
            try:
                while process.poll() is None:
                    if _lines(log) > steps and (not in_save or _in_a_save(run, before)):
                        break
                    time.sleep(0.0005)
                time.sleep(delay)
            finally:
                if not (ended := process.poll() is not None):
                    kill_tree(process.pid)
                    process.wait()
            if ended:
                _expect_success(process, log)
                break  # it ended before the kill; the harness says how many kills there were
            outcome.kills += 1
            outcome.passed_over += log.read_text(encoding="utf-8").count("is passed over")
            good, broken = newest_complete(run) if run.is_dir() else (None, [])
            now = checkpoint_step(good) or 0 if good else 0
            outcome.in_a_save += _in_a_save(run, before)
            say(
                f"kill {outcome.kills:3d}: complete {good.name if good else 'none yet'}"
                + "".join(f"; {path.name}: {reason}" for path, reason in broken)
            )
            if now < complete:
                outcome.differences.append(f"kill {outcome.kills} took checkpoint-{complete}, which was complete")
            complete = now
        process, log = self.start(name, resume=True)
        process.wait()
        _expect_success(process, log)
        outcome.passed_over += log.read_text(encoding="utf-8").count("is passed over")
        return outcome


_SAVE_SECONDS = 0.05  # about what the tiny model takes


def torture(half: Half, folder: Path, kills: int, steps: int, save_steps: int, **options: Any) -> Outcome:
    """Both runs, and the comparison of their last checkpoints and saved models."""
    say = options.pop("say", print)
    work = Torture(half, folder, steps, save_steps, **options)
    step_seconds = work.in_peace("in-peace")
    outcome = work.with_kills("with-kills", kills, step_seconds, say)
    outcome.differences += differences(folder / "in-peace", folder / "with-kills", steps)
    return outcome


def differences(one: Path, other: Path, step: int) -> list[str]:
    """What is not bit-equal between two runs: the checkpoints of the last step, and the models saved at the end."""
    found = []
    a, b = one / f"checkpoint-{step}", other / f"checkpoint-{step}"
    names = [{path.relative_to(x).as_posix() for path in x.rglob("*") if path.is_file()} for x in (a, b)]
    if names[0] != names[1] or not names[0]:
        return [f"files only in one of the two: {sorted(names[0] ^ names[1]) or 'none at all'}"]
    for name in sorted(names[0]):
        if name in ("fairpo_complete.json", "training_args.bin", "README.md"):  # hold the output folder's name
            continue
        if name.endswith((".pt", ".pth")):
            with safe_globals():  # the generators' states hold numpy arrays
                same = _equal(*(torch.load(x / name, weights_only=True) for x in (a, b)))
        elif name == "trainer_state.json":
            same = _trainer_state(a / name) == _trainer_state(b / name)
        elif name == "fairpo_state.json":
            same = _group_state(a / name) == _group_state(b / name)
        else:
            same = (a / name).read_bytes() == (b / name).read_bytes()
        if not same:
            found.append(f"{name} of checkpoint-{step}")
    for path in sorted(one.glob("*.safetensors")):
        if path.read_bytes() != (other / path.name).read_bytes():
            found.append(f"{path.name} of the saved model")
    return found


def _trainer_state(path: Path) -> dict[str, Any]:
    state = json.loads(path.read_text(encoding="utf-8"))
    history = [{k: v for k, v in entry.items() if not k.endswith(OF_THE_CLOCK)} for entry in state["log_history"]]
    return {k: v for k, v in state.items() if k not in OF_THE_PLACE} | {"log_history": history}


def _group_state(path: Path) -> dict[str, Any]:
    state = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in state.items() if key != "run"}  # each run draws its id


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    return bool((a == b).all()) if hasattr(a, "all") else a == b


def _lines(log: Path) -> int:
    """Steps logged so far in this life."""
    return log.read_text(encoding="utf-8", errors="replace").count("\n{'loss'")


def _states(run: Path) -> dict[str, int | None]:
    """Checkpoints -> when an unfinished one last changed; `None` for a complete one."""
    found: dict[str, int | None] = {}
    for path in list_checkpoints(run):
        with suppress(FileNotFoundError):  # an unfinished one is deleted when its step is saved again
            changed = path.stat().st_ctime_ns
            found[path.name] = None if is_marked(path) else changed
    return found


def _in_a_save(run: Path, before: dict[str, int | None]) -> bool:
    """Whether a checkpoint is unfinished which was not, or not in this state, there before."""
    now = {name: changed for name, changed in _states(run).items() if changed is not None}
    return any(before.get(name, 0) not in (None, changed) for name, changed in now.items())


def run_script(command: list[str], hold_at: int | None = None) -> None:
    """
    Runs a script as a program of its own, in this process.

    Args:
        command (`list[str]`): The script and its options.
        hold_at (`int`, *optional*): From this step on no checkpoint is completed: the process waits for its kill.
    """
    if hold_at is not None:
        from fairpo_trl.training import saving

        mark = saving.mark_complete

        def mark_or_wait(folder: str | os.PathLike[str]) -> None:
            while (checkpoint_step(Path(folder)) or 0) >= hold_at:
                time.sleep(1)
            mark(folder)

        saving.mark_complete = mark_or_wait
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


def _expect_success(process: subprocess.Popen | Copy, log: Path) -> None:
    if process.returncode != 0:
        raise RuntimeError(f"Exit code {process.returncode}:\n{log.read_text(encoding='utf-8')[-4000:]}")


def _verdict(differences: list[str]) -> str:
    return f"DIFFERENT: {differences}" if differences else "bit-equal to the run in peace"


def main() -> int:
    """The command line; the exit code is 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--half", choices=[*HALVES, *WORKS, "all"], default="all")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save_steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launcher", default=None, help="What stands before the script, instead of the interpreter.")
    parser.add_argument("--folder", type=Path, default=None, help="Kept afterwards; a temporary one by default.")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    failed = False
    for name in [*HALVES, *WORKS] if args.half == "all" else [args.half]:
        started = time.monotonic()
        if name in WORKS:
            print(f"{name}: {args.kills} kills")
            (folder / name).mkdir(parents=True)
            files = torture_files(WORKS[name](folder / name), folder / name, args.kills, args.seed)
            seconds = time.monotonic() - started
            print(
                f"{name}: {files.kills} kills survived in {seconds:.0f} s, up to {files.drafts} drafts of files left "
                f"behind; {_verdict(files.differences)}"
            )
            failed |= bool(files.differences) or files.kills < args.kills
            continue
        print(f"{name}: {args.kills} kills in {args.steps} steps, a checkpoint every {args.save_steps}")
        launcher = args.launcher.split() if args.launcher else None
        options = {"launcher": launcher, "seed": args.seed}
        outcome = torture(HALVES[name], folder / name, args.kills, args.steps, args.save_steps, **options)
        print(
            f"{name}: {outcome.kills} kills survived in {time.monotonic() - started:.0f} s, {outcome.in_a_save} of "
            f"them in the middle of a save; {outcome.passed_over} unfinished checkpoints passed over on resume; "
            f"{_verdict(outcome.differences)}"
        )
        failed |= bool(outcome.differences) or outcome.kills < args.kills
    if args.folder is None:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

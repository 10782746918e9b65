"""Whose checkpoint is it: one run at a time in a folder, and none goes on from what another run left there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers_trainer import assert_same, data, fairpo, parameters
from test_interruption import SignalIn
from transformers import EarlyStoppingCallback

from fairpo_trl.training import run_folder
from fairpo_trl.training.checkpoints import MARKER_NAME, list_checkpoints, mark_complete, newest_complete, rotate
from fairpo_trl.training.interruption import TrainingInterrupted
from fairpo_trl.training.run_folder import LOCK_NAME, RUN_NAME, RunIdentity, claim, current_run, hold
from fairpo_trl.training.state import run_of, save_state


RUN = {
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "save_strategy": "steps",
    "save_steps": 3,
    "train_sampling_strategy": "random",
}


def make_checkpoint(folder: Path, step: int, run: RunIdentity) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_state(path, {"run": run.to_dict()})
    mark_complete(path)
    return path


# ---- identity ----


def test_a_branch_owns_what_it_shares_and_nothing_later():
    first = RunIdentity.new()
    second = first.branched(4)
    third = second.branched(7)
    assert second.owns(first, 4) and not second.owns(first, 5)
    assert third.owns(first, 3) and third.owns(second, 7) and not third.owns(second, 8)
    assert third.owns(third, 99) and not third.owns(RunIdentity.new(), 1) and not third.owns(None, 1)
    assert RunIdentity.from_dict(json.loads(json.dumps(third.to_dict()))) == third


def test_the_newest_of_a_run_is_taken_and_rotation_deletes_those_of_others_first(tmp_path):
    mine, other = RunIdentity.new(), RunIdentity.new()
    make_checkpoint(tmp_path, 2, mine)
    make_checkpoint(tmp_path, 3, mine)
    make_checkpoint(tmp_path, 6, other)
    folder, passed_over = newest_complete(tmp_path, mine)
    assert folder == tmp_path / "checkpoint-3"
    assert passed_over == [
        (tmp_path / "checkpoint-6", "it belongs to another run, which wrote into this folder before")
    ]
    assert rotate(tmp_path, 2, tmp_path / "checkpoint-3", run=mine) == [tmp_path / "checkpoint-6"]


def test_a_damaged_file_of_the_run_is_named(tmp_path):
    assert current_run(tmp_path) is None
    (tmp_path / RUN_NAME).write_text("{")
    with pytest.raises(ValueError, match=r"fairpo_run.json' is damaged .*--resume_from_checkpoint FOLDER"):
        current_run(tmp_path)


def run(folder: Path, learning_rate: float = 1e-3, resume: object = None, **options):
    trainer = fairpo(folder, data(24), **{**RUN, "learning_rate": learning_rate, **options})
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_a_run_never_goes_on_from_an_older_runs_higher_checkpoint(tmp_path, capsys):
    run(tmp_path / "a")  # leaves checkpoint-3 and 6
    older = (tmp_path / "a" / "checkpoint-6" / "model.safetensors").read_bytes()
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "a", 1e-2, callbacks=[SignalIn(2, signal.SIGTERM)])
    said = capsys.readouterr().out
    assert "holds checkpoints of another run (checkpoint-3, checkpoint-6); this run begins anew" in said
    resumed = run(tmp_path / "a", 1e-2, resume=True)
    said = capsys.readouterr().out
    assert "checkpoint-6 is passed over: it belongs to another run" in said
    assert "Training goes on from checkpoint-2." in said
    assert_same(parameters(resumed), parameters(run(tmp_path / "b", 1e-2)), 0.0)
    assert (tmp_path / "a" / "checkpoint-6" / "model.safetensors").read_bytes() != older


def test_a_run_killed_before_its_first_checkpoint_starts_again_not_from_the_older_run(tmp_path, capsys):
    make_checkpoint(tmp_path, 6, RunIdentity.new())
    claim(tmp_path, mine := RunIdentity.new())  # and then it was killed
    trainer = run(tmp_path, resume=True, max_steps=1)
    assert trainer.state.global_step == 1
    assert "has no complete checkpoint: training starts from the beginning" in capsys.readouterr().out
    assert run_of(tmp_path / "checkpoint-1") == mine


def test_going_on_from_an_earlier_checkpoint_leaves_the_later_ones_behind(tmp_path, capsys):
    run(tmp_path)
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, resume=str(tmp_path / "checkpoint-3"), max_steps=8, callbacks=[SignalIn(4, signal.SIGTERM)])
    capsys.readouterr()
    again = run(tmp_path, resume=True, max_steps=8)
    assert "checkpoint-6 is passed over" in (said := capsys.readouterr().out)
    assert "Training goes on from checkpoint-4." in said
    assert again.state.global_step == 8
    assert run_of(tmp_path / "checkpoint-8") == run_of(tmp_path / "checkpoint-4") != run_of(tmp_path / "checkpoint-3")


def test_checkpoints_of_two_runs_without_a_word_which_is_the_last_are_refused(tmp_path):
    make_checkpoint(tmp_path, 3, RunIdentity.new())
    make_checkpoint(tmp_path, 6, RunIdentity.new())
    with pytest.raises(ValueError, match=r"several runs \(checkpoint-6 and checkpoint-3\).*Name the checkpoint"):
        run(tmp_path, resume=True)


# ---- the lock ----

HOLDER = """
import sys
from fairpo_trl.training.run_folder import RunIdentity, claim, hold
let_go = hold(sys.argv[1])
claim(sys.argv[1], RunIdentity.new())
print("held", flush=True)
sys.stdin.read()  # until it is killed, or this test has ended
"""


def test_a_second_live_run_is_refused_and_the_lock_of_a_dead_one_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_WAIT_SECONDS", 0.1)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    root = str(Path(run_folder.__file__).parents[2])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONPATH": root})
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(
        ValueError, match=rf"Another run is writing into .*out' \(process {other.pid} on .*another `out"
    ):
        run(tmp_path / "out", max_steps=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (tmp_path / "out" / LOCK_NAME).exists()
    assert run(tmp_path / "out", max_steps=1).state.global_step == 1


def test_a_process_lets_go_of_its_folder_when_a_run_fails_or_its_model_is_saved(tmp_path):
    def free() -> bool:
        probe = "import sys; from filelock import FileLock; FileLock(sys.argv[1], timeout=0).acquire()"
        done = subprocess.run([sys.executable, "-c", probe, str(tmp_path / LOCK_NAME)], capture_output=True)
        return done.returncode == 0

    trainer = run(tmp_path, max_steps=1)
    assert not free()  # the final model is still to be written
    trainer.save_model()
    assert free()
    with pytest.raises(TrainingInterrupted):
        run(tmp_path, max_steps=2, callbacks=[SignalIn(1, signal.SIGTERM)])
    assert free()
    one, two = hold(tmp_path), hold(tmp_path)  # one after the other in a process, as in a notebook
    one()
    one()
    assert not free()
    two()
    assert free()


# ---- the best checkpoint ----

BEST = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_steps": 1,
    "max_steps": 3,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_score",
    "greater_is_better": True,
}


def with_scores(folder: Path, scores: list[float], harm=None, **options):
    """A run whose evaluations give `scores`; `harm` is done before its end."""
    trainer = fairpo(folder, data(24), eval_dataset=data(4, seed=9), **{**RUN, **BEST, **options})
    loop, end = trainer.evaluation_loop, trainer._finalize_training

    def scored(*args, **kwargs):
        output = loop(*args, **kwargs)
        output.metrics["eval_score"] = scores[trainer.state.global_step - 1]
        return output

    def finalize(*args, **kwargs):
        if harm is not None:
            harm()
        return end(*args, **kwargs)

    trainer.evaluation_loop, trainer._finalize_training = scored, finalize
    return trainer


@pytest.mark.parametrize("damage", ["lost", "cut", "unmarked"])
def test_a_best_checkpoint_that_is_lost_or_broken_is_named_and_not_replaced_by_the_last(damage, tmp_path):
    best = tmp_path / "checkpoint-1"

    def harm() -> None:
        if damage == "lost":
            shutil.rmtree(best)
        elif damage == "cut":
            content = (best / "model.safetensors").read_bytes()
            (best / "model.safetensors").write_bytes(content[:-1])
        else:
            (best / MARKER_NAME).unlink()

    with pytest.raises(
        ValueError,
        match=r"The best checkpoint .*checkpoint-1' cannot be loaded: .*complete checkpoint is checkpoint-3",
    ):
        with_scores(tmp_path, [3.0, 2.0, 1.0], harm).train()


def test_the_best_checkpoint_is_found_where_the_folder_moved_and_missed_before_training(tmp_path):
    first = with_scores(tmp_path / "old", [3.0, 2.0, 1.0], save_total_limit=2)
    with pytest.raises(TrainingInterrupted):
        first.add_callback(SignalIn(2, signal.SIGTERM))
        first.train()
    shutil.move(tmp_path / "old", tmp_path / "new")
    again = with_scores(tmp_path / "new", [3.0, 2.0, 1.0], save_total_limit=1)
    again.train(resume_from_checkpoint=True)
    assert again.state.best_model_checkpoint == str(tmp_path / "new" / "checkpoint-1")
    assert [path.name for path in list_checkpoints(tmp_path / "new")] == ["checkpoint-1"]  # limit 1: only the best

    second = with_scores(tmp_path / "c", [3.0, 2.0, 1.0])
    second.train()
    shutil.rmtree(tmp_path / "c" / "checkpoint-1")
    with pytest.raises(
        FileNotFoundError, match=r"The best checkpoint of the run .*checkpoint-1, is gone .*Put it back"
    ):
        with_scores(tmp_path / "c", [3.0, 2.0, 1.0]).train(resume_from_checkpoint=str(tmp_path / "c" / "checkpoint-2"))


# ---- the end ----


@pytest.mark.parametrize("options", [{"max_steps": 4}, {"num_train_epochs": 1}, {"max_steps": 2}])
def test_a_resume_after_the_last_step_trains_no_more(options, tmp_path, capsys):
    whole = fairpo(tmp_path, data(24), **{**RUN, "save_steps": 2, **options})
    whole.train()
    end = whole.state.global_step
    again = fairpo(tmp_path, data(24), **{**RUN, "save_steps": 2, **options})
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == end
    assert_same(parameters(whole), parameters(again), 0.0)
    assert list_checkpoints(tmp_path)[-1].name == f"checkpoint-{end}"
    if "max_steps" in options:
        said = capsys.readouterr().out
        assert f"Nothing is left to train after step {end}: it ends after {end} steps." in said


def test_a_resume_after_early_stopping_trains_no_more_and_patience_carries_over(tmp_path, capsys):
    def early(folder: Path, scores: list[float], **options):
        patience = EarlyStoppingCallback(early_stopping_patience=2)
        return with_scores(folder, scores, max_steps=6, callbacks=[patience], **options)

    scores = [3.0, 2.0, 1.0, 0.5, 0.4, 0.3]
    whole = early(tmp_path / "a", scores, load_best_model_at_end=True)
    whole.train()
    assert whole.state.global_step == 3
    again = early(tmp_path / "a", scores)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 3
    assert "after step 3: early stopping ended the training there." in capsys.readouterr().out

    stopped = early(tmp_path / "b", scores)
    stopped.add_callback(SignalIn(2, signal.SIGTERM))
    with pytest.raises(TrainingInterrupted):
        stopped.train()
    resumed = early(tmp_path / "b", scores)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3  # one evaluation without a gain before the stop, one after it

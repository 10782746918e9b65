"""A checkpoint is complete with its marker or not used; nothing else of it can be lost, cut or changed unnoticed."""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from datasets import Dataset, concatenate_datasets
from helpers_classification import multilabel, rows
from helpers_classification import parameters as label_parameters
from helpers_disk import journal
from helpers_trainer import assert_same, data, fairpo, parameters
from safetensors import SafetensorError
from transformers import TrainerCallback

from fairpo_trl import files
from fairpo_trl.hashing import sha256_of_file, sha256_of_rows
from fairpo_trl.training.checkpoints import (
    MARKER_NAME,
    DamagedCheckpoint,
    clear_unfinished,
    list_checkpoints,
    mark_complete,
    newest_complete,
    require_complete,
    rotate,
    verify,
)
from fairpo_trl.training.saving import holds_model


pytestmark = pytest.mark.xdist_group("checkpoints")  # its fixtures are costly: once for the file


RUN = {
    "optim": "adamw_torch",
    "learning_rate": 1e-3,
    "train_sampling_strategy": "random",
    "save_strategy": "steps",
    "save_steps": 1,
    "max_steps": 3,
    "logging_steps": 1,
}


def make_checkpoint(run: Path, step: int, complete: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4)
    (folder / "inner" / "shard.json").write_text(json.dumps({"step": step}))
    if complete:
        mark_complete(folder)
    return folder


# ---- files ----


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    files.write_json(path, {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_follows(tmp_path, monkeypatch):
    events = journal(monkeypatch)
    files.write_text(tmp_path / "a.txt", "text")
    draft = f"a.txt.{os.getpid()}.tmp"
    assert events == [("fsync", draft), ("replace", "a.txt"), ("fsync", tmp_path.name)]


def test_every_file_and_folder_of_a_checkpoint_is_on_the_disk_before_its_marker(tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path, 1)
    (folder / MARKER_NAME).unlink()
    events = journal(monkeypatch)
    mark_complete(folder)
    marked = events.index(("replace", MARKER_NAME))
    assert {("fsync", n) for n in ("model.safetensors", "shard.json", "inner", "checkpoint-1")} <= set(events[:marked])
    assert events[marked + 1 :] == [("fsync", "checkpoint-1"), ("fsync", tmp_path.name)]


def test_not_a_number_is_not_written_as_json(tmp_path):
    with pytest.raises(ValueError, match="Out of range float values"):
        files.write_json(tmp_path / "state.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_sha256_is_that_of_the_content(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert sha256_of_file(path) == sha256_of_file(path, sync=True) == known


# ---- marker ----


def test_the_marker_holds_size_and_hash_of_every_file(tmp_path):
    folder = make_checkpoint(tmp_path, 1)
    marker = json.loads((folder / MARKER_NAME).read_text())
    assert set(marker["files"]) == {"model.safetensors", "inner/shard.json"}
    assert marker["files"]["model.safetensors"] == {
        "size": 1024,
        "sha256": sha256_of_file(folder / "model.safetensors"),
    }
    verify(folder)
    (folder / "notes.txt").write_text("a file that came later is not read by anyone")
    verify(folder)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


def grow(folder: Path) -> None:
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"x")


DAMAGES = {
    "no marker": (lambda f: (f / MARKER_NAME).unlink(), "has no fairpo_complete.json, so its save was interrupted"),
    "cut": (cut, r"model.safetensors is truncated \(1023 bytes, 1024 when it was saved\)"),
    "one bit": (flip, "model.safetensors was altered after it was saved"),
    "longer": (grow, "model.safetensors is longer than it was"),
    "lost": (lambda f: (f / "inner" / "shard.json").unlink(), "inner/shard.json is missing"),
    "half a marker": (lambda f: (f / MARKER_NAME).write_text('{"version": 1, "fil'), "complete.json is damaged"),
    "empty marker": (lambda f: (f / MARKER_NAME).write_text(""), "complete.json is damaged"),
    "another shape": (lambda f: (f / MARKER_NAME).write_text('{"version": 1, "files": [1]}'), "is damaged"),
    "a list": (lambda f: (f / MARKER_NAME).write_text("[]"), "is damaged"),
    "nothing listed": (lambda f: (f / MARKER_NAME).write_text('{"version": 1, "files": {}}'), "lists no file"),
    "another version": (lambda f: (f / MARKER_NAME).write_text('{"version": 7, "files": {}}'), "has version 7"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_found_and_the_last_good_checkpoint_taken(damage, tmp_path):
    harm, message = DAMAGES[damage]
    good, bad = make_checkpoint(tmp_path, 9), make_checkpoint(tmp_path, 10)
    harm(bad)
    with pytest.raises(DamagedCheckpoint, match=message):
        verify(bad)
    folder, passed_over = newest_complete(tmp_path)
    assert folder == good
    assert [path for path, _ in passed_over] == [bad]
    with pytest.raises(
        ValueError, match=rf"checkpoint-10' cannot be resumed from: .*{message}.*The last good one is .*-9'"
    ):
        require_complete(bad)


def test_newest_is_by_step_not_by_name_or_time(tmp_path):
    ten, nine = make_checkpoint(tmp_path, 10), make_checkpoint(tmp_path, 9)
    (tmp_path / "checkpoint-11").write_text("a file")
    (tmp_path / "checkpoint-best").mkdir()
    assert list_checkpoints(tmp_path) == [nine, ten]
    assert newest_complete(tmp_path) == (ten, [])
    assert newest_complete(tmp_path / "nothing") == (None, [])


def test_a_folder_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    make_checkpoint(tmp_path, 3)
    with pytest.raises(FileNotFoundError, match=r"checkpoint-4' to resume from. There: checkpoint-3\."):
        require_complete(tmp_path / "checkpoint-4")


def test_making_room_takes_everything_of_the_old_folder(tmp_path):
    folder = make_checkpoint(tmp_path, 5)
    clear_unfinished(folder)
    assert not folder.exists()
    clear_unfinished(folder)


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [2, 4, 6, 8, 10]),
        (4, None, [4, 6, 8, 10]),  # 2 is unfinished and goes first
        (3, None, [6, 8, 10]),
        (1, None, [8]),  # 8 was just written: 10 is from an earlier try
        (1, 4, [4, 8]),
        (2, 4, [4, 8]),
        (9, None, [2, 4, 6, 8, 10]),
    ],
)
def test_rotation_deletes_unfinished_then_oldest_and_never_the_newest_or_the_best(limit, best, left, tmp_path):
    for step in (4, 6, 8, 10):
        make_checkpoint(tmp_path, step)
    make_checkpoint(tmp_path, 2, complete=False)
    rotate(tmp_path, limit, tmp_path / "checkpoint-8", best and str(tmp_path / f"checkpoint-{best}"))
    assert [int(path.name.split("-")[1]) for path in list_checkpoints(tmp_path)] == left


# ---- hash of the rows ----


def test_equal_rows_have_one_hash_however_they_are_stored(tmp_path):
    rows = [{"ids": list(range(i % 5)), "name": f"n{i}", "attribute": ["a"] * (i % 2)} for i in range(2500)]
    whole = Dataset.from_list(rows)
    columns = ["ids", "attribute"]
    known = sha256_of_rows(whole, columns)
    whole.save_to_disk(tmp_path / "disk")
    backwards = Dataset.from_list(rows[::-1]).select(range(2499, -1, -1))
    pieces = concatenate_datasets([Dataset.from_list(rows[:7]), Dataset.from_list(rows[7:])])
    for same in (Dataset.load_from_disk(tmp_path / "disk"), backwards, pieces, whole.add_column("x", [0.5] * 2500)):
        assert sha256_of_rows(same, columns) == known


@pytest.mark.parametrize("change", ["value", "order", "fewer", "column"])
def test_other_rows_have_another_hash(change):
    rows = [{"ids": [i, i + 1], "attribute": "a"} for i in range(10)]
    known, columns = sha256_of_rows(Dataset.from_list(rows), ["ids", "attribute"]), ["ids", "attribute"]
    if change == "value":
        rows[9] = {"ids": [9, 11], "attribute": "a"}
    elif change == "order":
        rows[0], rows[1] = rows[1], rows[0]
    elif change == "fewer":
        rows.pop()
    else:
        columns = ["ids"]
    assert sha256_of_rows(Dataset.from_list(rows), columns) != known


# ---- the trainer ----


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("run")
    fairpo(folder, data(12), **RUN).train()
    return folder


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_every_checkpoint_of_a_run_is_marked_with_all_its_files(run):
    for folder in list_checkpoints(run):
        verify(folder)
        listed = set(json.loads((folder / MARKER_NAME).read_text())["files"])
        assert listed >= {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "fairpo_state.json"}
        assert listed == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MARKER_NAME}


@pytest.mark.parametrize("option", [True, "true", "True"])
def test_resume_takes_the_newest_complete_and_names_those_passed_over(option, copied, run, capsys):
    flip(copied / "checkpoint-3")
    (copied / "checkpoint-4").mkdir()
    trainer = fairpo(copied, data(12), **RUN)
    trainer.train(resume_from_checkpoint=option)
    lines = capsys.readouterr().out.splitlines()
    assert "checkpoint-4 is passed over: it has no fairpo_complete.json, so its save was interrupted, or " in str(
        lines
    )
    assert "checkpoint-3 is passed over: model.safetensors was altered" in str(lines)
    assert "Training goes on from checkpoint-2." in lines
    verify(copied / "checkpoint-3")  # written again
    for name in ("model.safetensors", "fairpo_state.json"):  # the run is the same one too
        assert (copied / "checkpoint-3" / name).read_bytes() == (run / "checkpoint-3" / name).read_bytes()


def test_without_a_complete_checkpoint_training_starts_anew_and_says_so(tmp_path, run, capsys):
    make_checkpoint(tmp_path, 2, complete=False)
    trainer = fairpo(tmp_path, data(12), **RUN)
    trainer.train(resume_from_checkpoint=True)
    assert "has no complete checkpoint: training starts from the beginning." in capsys.readouterr().out
    ours, theirs = (folder / "checkpoint-3" / "model.safetensors" for folder in (tmp_path, run))
    assert ours.read_bytes() == theirs.read_bytes()
    assert not (tmp_path / "checkpoint-2" / "inner").exists()  # nothing of the unfinished one is mixed in


@pytest.mark.parametrize("damage", ["cut", "one bit", "lost"])
def test_a_damaged_checkpoint_is_refused_before_anything_is_loaded(damage, copied):
    bad = copied / "checkpoint-3"
    {"cut": cut, "one bit": flip, "lost": lambda f: (f / "optimizer.pt").unlink()}[damage](bad)
    trainer = fairpo(copied, data(12), **RUN)
    before = parameters(trainer)
    with pytest.raises(
        ValueError, match=r"checkpoint-3' cannot be resumed from.*The last good one is .*checkpoint-2'"
    ):
        trainer.train(resume_from_checkpoint=str(bad))
    assert_same(before, parameters(trainer), 0.0)


def test_a_checkpoint_that_does_not_exist_is_refused(run):
    with pytest.raises(FileNotFoundError, match="checkpoint-77' to resume from. There: checkpoint-1, checkpoint-2"):
        fairpo(run, data(12), **RUN).train(resume_from_checkpoint=str(run / "checkpoint-77"))


def test_other_training_rows_are_refused_before_anything_is_loaded(run):
    rows = data(12).to_list()
    rows[5]["chosen"] += " moon"
    trainer = fairpo(run, Dataset.from_list(rows), **RUN)
    before = parameters(trainer)
    with pytest.raises(
        ValueError, match=r"checkpoint-3 was trained on other data \(hash of the training rows then \w+"
    ):
        trainer.train(resume_from_checkpoint=True)
    assert_same(before, parameters(trainer), 0.0)


def test_a_stream_and_rows_are_not_taken_for_one_another(run):
    stream = data(12).to_iterable_dataset()
    trainer = fairpo(run, stream, **{**RUN, "non_privileged_attributes": ["factual", "polite"]})
    with pytest.raises(ValueError, match="now a stream"):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("options", [{"grouping": "attribute"}, {"balancer": "fixed"}])
def test_other_groups_or_balancer_are_refused_before_anything_is_loaded(options, run):
    trainer = fairpo(run, data(12), **{**RUN, **options})
    before = parameters(trainer)
    with pytest.raises(ValueError, match="The saved group weights"):
        trainer.train(resume_from_checkpoint=True)
    assert_same(before, parameters(trainer), 0.0)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"privileged_labels": ["drum"]}, None, "another partition. Saved: privileged .*'candle'.*now: privileged"),
        ({"grouping": "label"}, None, "belong to other groups"),
        ({"balancer": "lagrangian"}, None, "come from balancer='mirror_ascent', now it is 'lagrangian'"),
        ({}, "labels", "checkpoint-2 was trained on other data"),
        ({}, "features", "checkpoint-2 was trained on other data"),
    ],
)
def test_a_classifier_refuses_a_checkpoint_of_another_run(options, change, message, tmp_path):
    multilabel(tmp_path, rows(24), save_strategy="steps", save_steps=2).train()
    split = rows(24)
    if change == "labels":
        split.labels[3, 0] ^= 1
    elif change == "features":
        split.features[3, 0] += 1e-6
    other = multilabel(tmp_path, split, **options)
    before = label_parameters(other)
    with pytest.raises(ValueError, match=message):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same(before, label_parameters(other), 0.0)


def test_another_number_of_processes_is_allowed_and_said(copied, capsys):
    folder = copied / "checkpoint-2"
    state = json.loads((folder / "fairpo_state.json").read_text())
    (folder / "fairpo_state.json").write_text(json.dumps({**state, "processes": 4}))
    mark_complete(folder)
    trainer = fairpo(copied, data(12), **RUN)
    trainer.train(resume_from_checkpoint=str(folder))
    assert "checkpoint-2 was written by 4 process(es), now there is 1: weights" in capsys.readouterr().out
    assert trainer.state.global_step == 3


def test_the_marker_comes_before_rotation_and_push(tmp_path, monkeypatch):
    order = []
    trainer = fairpo(tmp_path, data(12), **{**RUN, "save_total_limit": 1})
    trainer.args.push_to_hub = True
    monkeypatch.setattr(
        "fairpo_trl.training.publishing.PublishingTrainer._push_from_checkpoint",
        lambda self, folder: order.append(("push", folder)),
    )
    monkeypatch.setattr(
        "fairpo_trl.training.saving.mark_complete",
        lambda folder: (order.append(("mark", str(folder))), mark_complete(folder)),
    )
    monkeypatch.setattr(
        "fairpo_trl.training.saving.rotate",
        lambda *args: order.extend(("delete", str(folder)) for folder in rotate(*args)),
    )
    monkeypatch.setattr(type(trainer), "push_to_hub", lambda self, **kwargs: None)
    trainer.train()
    one, two, three = (str(tmp_path / f"checkpoint-{step}") for step in (1, 2, 3))
    assert order == [
        *[("mark", one), ("push", one)],
        *[("mark", two), ("push", two), ("delete", one)],
        *[("mark", three), ("push", three), ("delete", two)],
    ]
    assert trainer.args.save_total_limit == 1


@pytest.mark.parametrize(("column", "what"), [(0, "group weights"), (1, "parameters")])
def test_weights_or_parameters_that_differ_between_processes_leave_the_checkpoint_unmarked(
    column, what, tmp_path, monkeypatch
):
    trainer = fairpo(tmp_path, data(12), **{**RUN, "max_steps": 1})
    gathered = []

    def gather(mine: torch.Tensor) -> torch.Tensor:
        gathered.append(mine)
        other = mine.clone()
        other[0, column] += 1
        return torch.cat([mine, other])

    monkeypatch.setattr(trainer.accelerator.state, "num_processes", 2)
    monkeypatch.setattr(trainer.accelerator, "gather", gather)
    with pytest.raises(
        RuntimeError, match=rf"the {what} of process \[1\] differ from those of process 0 after step 0"
    ):
        trainer._assert_equal_processes()
    monkeypatch.setattr(trainer.accelerator, "gather", lambda mine: torch.cat([mine, mine]))
    trainer._assert_equal_processes()
    assert gathered[0].dtype == torch.int64 and gathered[0].shape == (1, 2)  # two numbers per process


def test_the_end_of_another_process_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    trainer = fairpo(tmp_path, data(12), **{**RUN, "max_steps": 1})

    def lost(*args: object, **kwargs: object) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:15247")

    monkeypatch.setattr(trainer.accelerator, "wait_for_everyone", lost)
    with pytest.raises(ConnectionError, match="checkpoint-1 is not complete: another process ended; its own error"):
        trainer.train()
    assert newest_complete(tmp_path)[0] is None


# ---- what a mutant of one line would take away ----


def test_rotation_deletes_an_unfinished_checkpoint_before_older_complete_ones(tmp_path):
    for step in (2, 4, 8):
        make_checkpoint(tmp_path, step)
    make_checkpoint(tmp_path, 6, complete=False)
    assert rotate(tmp_path, 3, tmp_path / "checkpoint-8") == [tmp_path / "checkpoint-6"]


def test_the_marker_goes_before_the_files_of_a_checkpoint_that_is_deleted(tmp_path, monkeypatch):
    old, _ = make_checkpoint(tmp_path, 2), make_checkpoint(tmp_path, 4)
    seen = []
    original = shutil.rmtree
    monkeypatch.setattr(
        shutil, "rmtree", lambda path: (seen.append((path, (old / MARKER_NAME).exists())), original(path))
    )
    rotate(tmp_path, 1, tmp_path / "checkpoint-4")
    assert seen == [(old, False)]


def test_rotation_leaves_links_and_what_they_lead_to(tmp_path):
    elsewhere = make_checkpoint(tmp_path / "elsewhere", 1)
    run = tmp_path / "run"
    for step in (2, 3, 4, 5):
        make_checkpoint(run, step)
    (run / "checkpoint-1").symlink_to(elsewhere)
    (run / "keep").symlink_to(run / "checkpoint-2")
    assert rotate(run, 1, run / "checkpoint-5") == [run / "checkpoint-3", run / "checkpoint-4"]
    verify(run / "checkpoint-1")
    verify(run / "keep")
    clear_unfinished(run / "checkpoint-1")  # a new checkpoint takes the name
    assert not (run / "checkpoint-1").exists()
    verify(elsewhere)


def test_other_attributes_of_the_same_tokens_are_other_data(run):
    rows = data(12).to_list()
    row = next(row for row in rows if row["attribute"] == "polite")
    row["attribute"] = "factual"  # the partition stays
    with pytest.raises(ValueError, match="checkpoint-3 was trained on other data"):
        fairpo(run, Dataset.from_list(rows), **RUN).train(resume_from_checkpoint=True)


# ---- a full disk ----


@pytest.fixture
def small_disk(tmp_path: Path, run: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint and a half."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = sum(path.stat().st_size + 4096 for path in (run / "checkpoint-1").rglob("*"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 2}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs the rights to do so")
    yield folder
    gc.collect()  # the trainers hold the lock of the folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_still_loads(small_disk, run):
    with pytest.raises(
        OSError, match=r"checkpoint-2 could not be written to .* MB free\).*complete checkpoint is checkpoint-1"
    ):
        fairpo(small_disk, data(12), **RUN).train()
    shutil.rmtree(small_disk / "checkpoint-2")  # the user makes room
    trainer = fairpo(small_disk, data(12), **{**RUN, "save_strategy": "no"})
    trainer.train(resume_from_checkpoint=True)
    whole = torch.load(run / "checkpoint-3" / "optimizer.pt", weights_only=True)
    ours = trainer.optimizer.state_dict()
    assert all(torch.equal(value["exp_avg"], ours["state"][key]["exp_avg"]) for key, value in whole["state"].items())


@pytest.mark.parametrize("largest", ["model.safetensors", "optimizer.pt"])
def test_a_file_that_the_system_refuses_in_its_middle_is_the_same_error(largest, tmp_path, run, monkeypatch):
    # Without the rights to mount a small disk: the kernel cuts the write off at a limit, as a full disk does.
    sizes = {path.name: path.stat().st_size for path in (run / "checkpoint-2").iterdir()}
    limit = sizes[largest] - 100
    trainer = fairpo(tmp_path, data(12), **RUN)
    original, before = trainer._save_checkpoint, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save(model: object, trial: object) -> None:
        if trainer.state.global_step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            original(model, trial)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(trainer, "_save_checkpoint", save)
    with pytest.raises(OSError, match=r"checkpoint-2 could not be written to .*complete checkpoint is checkpoint-1"):
        trainer.train()
    again = fairpo(tmp_path, data(12), **RUN)
    again.train(resume_from_checkpoint=True)
    ours, theirs = (folder / "checkpoint-3" / "model.safetensors" for folder in (tmp_path, run))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    "where", ["torch.save", "safetensors.torch.save_file", "fairpo_trl.training.state.write_json"]
)
def test_a_disk_that_fills_up_in_any_file_is_the_same_error(where, tmp_path, monkeypatch):
    trainer = fairpo(tmp_path, data(12), **RUN)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    original = trainer._save_checkpoint

    def save(model: object, trial: object) -> None:
        if trainer.state.global_step == 2:
            monkeypatch.setattr(where, full)
            if where.startswith("safetensors"):
                monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
        original(model, trial)

    monkeypatch.setattr(trainer, "_save_checkpoint", save)
    with pytest.raises(OSError, match=r"checkpoint-2 could not be written.*No space left.*checkpoint is checkpoint-1"):
        trainer.train()
    assert newest_complete(tmp_path)[0] == tmp_path / "checkpoint-1"


def test_a_disk_that_fills_up_in_a_log_says_what_is_left(tmp_path):
    class Log(TrainerCallback):
        def on_log(self, args, state, control, **kwargs) -> None:
            if state.global_step == 3:
                raise OSError(errno.ENOSPC, "No space left on device", "events.out")

    with pytest.raises(
        OSError, match=r"The disk became full after step 3 .*events.out.*complete checkpoint is .*-2\."
    ):
        fairpo(tmp_path, data(12), **RUN, callbacks=[Log()]).train()


@pytest.mark.parametrize("where", ["model", "tokenizer", "training_args"])
def test_a_final_model_that_cannot_be_written_leaves_what_was_there(where, tmp_path, monkeypatch):
    trainer = fairpo(tmp_path, data(12), **{**RUN, "max_steps": 1})
    trainer.train()
    trainer.save_model()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert holds_model(tmp_path) and "tokenizer.json" in before
    with torch.no_grad():
        next(trainer.model.parameters()).add_(1.0)

    def full(*args: object, **kwargs: object) -> None:
        # What each library makes of it.
        raise {"model": SafetensorError, "tokenizer": Exception, "training_args": RuntimeError}[where]("os error 28")

    target = {"model": (trainer.model, "save_pretrained"), "training_args": (torch, "save")}
    monkeypatch.setattr(*target.get(where, (trainer.processing_class, "save_pretrained")), full)
    with pytest.raises(
        OSError, match=r"The model could not be written to .* MB free\): os error 28. .*complete checkpoint is .*-1\."
    ):
        trainer.save_model()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert not (tmp_path / ".saving").exists()


def test_a_new_model_takes_the_place_of_one_in_other_files(tmp_path):
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"old")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    fairpo(tmp_path, data(12), **RUN).save_model()
    assert {path.name for path in tmp_path.glob("*model*")} == {"model.safetensors"}
    assert (tmp_path / "notes.txt").read_text() == "mine"


# ---- numbers that are not finite ----


@pytest.mark.parametrize("where", ["a parameter", "the optimizer"])
def test_what_is_not_finite_is_never_marked_and_the_last_good_one_stays(where, tmp_path):
    class Spoil(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
            if state.global_step == 2 and where == "a parameter":
                next(model.parameters()).data[3, 0] = float("inf")
            elif state.global_step == 2:
                next(iter(optimizer.state.values()))["exp_avg_sq"][3, 0] = float("nan")

    trainer = fairpo(tmp_path, data(12), **{**RUN, "save_total_limit": 1}, callbacks=[Spoil()])
    name = "model.embed_tokens.weight" if where == "a parameter" else "exp_avg_sq of model.embed_tokens.weight"
    message = (
        rf"checkpoint-2 is not written: after optimizer step 2 {name} is not finite. .*complete .* is checkpoint-1"
    )
    with pytest.raises(FloatingPointError, match=message):
        trainer.train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1"]
    verify(tmp_path / "checkpoint-1")
    if where == "a parameter":
        with pytest.raises(FloatingPointError, match="The model is not saved"):
            trainer.save_model()
        assert not holds_model(tmp_path)


def test_a_classifier_that_is_not_finite_is_not_written_either(tmp_path):
    trainer = multilabel(tmp_path, optim="adamw_torch", save_strategy="steps", save_steps=1)
    trainer.add_callback(Overflow(trainer.model.head))
    with pytest.raises(FloatingPointError, match="checkpoint-2 is not written: after optimizer step 2 head"):
        trainer.train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-1"]


class Overflow(TrainerCallback):
    def __init__(self, head: torch.nn.Module) -> None:
        self.head = head

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == 2:
            next(self.head.parameters()).data.fill_(float("inf"))

"""What is written is whole: checkpoints with their marker, the final model through a draft folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fairpo_trl.core.group_weights import GroupWeights
from fairpo_trl.core.running_means import RunningMeans
from fairpo_trl.hashing import sha256, sha256_of_tensors
from fairpo_trl.training.checkpoints import clear_unfinished, mark_complete, newest_complete, rotate
from fairpo_trl.training.engines import any_process, first_not_finite, shards_parameters
from fairpo_trl.training.mixin_base import TrainerBase
from fairpo_trl.training.run_folder import RunIdentity
from fairpo_trl.training.state import save_run


FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a full disk comes as, depending on which library was writing; tokenizers raises a plain `Exception`.
_WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)

_DRAFT = ".saving"
_WEIGHTS = ("model*.safetensors", "adapter_model*.safetensors", "pytorch_model*.bin", "adapter_model*.bin")


def holds_model(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the weights of a model or an adapter that `from_pretrained` reads."""
    return any(any(Path(folder).glob(pattern)) for pattern in _WEIGHTS)


def where_saved(folder: str | os.PathLike[str]) -> str:
    """A line that says whether a model was written to a folder."""
    if holds_model(folder):
        return f"Model saved to {folder}."
    return (
        f"No model was written to {folder}: DeepSpeed keeps it there in parts. Put them together with `python "
        f"{folder}/zero_to_fp32.py {folder} {folder}`, or launch with `zero3_save_16bit_model: true`."
    )


class SafeSaving(TrainerBase):
    r"""
    Mixin before [`GroupRobustTrainer`]: a file is either whole or not used, and nothing complete is lost to a failure.

    - A checkpoint is complete once its marker lists the hash of every file. Older checkpoints are deleted and
      checkpoints are pushed only after that. Before it the group weights and parameters of all processes are compared,
      and before anything is written all parameters and the optimizer's state must be finite.
    - The final model is written into a draft folder and moved when all of it is there.
    - A full disk is one error that says what was not written and which checkpoint is the last good one.
    """

    group_weights: GroupWeights
    running_losses: RunningMeans
    is_fsdp_enabled: bool
    _run: RunIdentity | None = None
    _push_waits: str | None = None
    _lock: weakref.finalize | None = None

    def _let_go(self) -> None:
        """Lets go of the lock of the run's folder, where this process holds it."""
        if self._lock is not None:
            self._lock()

    # ---- checkpoints ----

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As upstream, and then the marker; rotation and push wait for it."""
        args, run_dir = self.args, Path(self._get_output_dir(trial))
        folder = run_dir / f"checkpoint-{self.state.global_step}"
        self._require_finite(run_dir, f"{folder.name} is not written")
        limit, self._push_waits = args.save_total_limit, None
        with self._explained(run_dir, folder.name):
            if args.should_save:
                clear_unfinished(folder)
            self.accelerator.wait_for_everyone()
            args.save_total_limit = None  # upstream rotates before the checkpoint is known to be complete
            try:
                super()._save_checkpoint(model, trial)
            finally:
                args.save_total_limit = limit
        self._assert_equal_processes()  # also waits until every process has written its files
        if args.should_save:
            with self._explained(run_dir, folder.name):
                if args.save_only_model and self._run is not None:
                    save_run(folder, self._run)
                mark_complete(folder)
        self.accelerator.wait_for_everyone()
        if self._push_waits is not None:
            super()._push_from_checkpoint(self._push_waits)
        if args.should_save:
            rotate(run_dir, limit, folder, self.state.best_model_checkpoint, self._run)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        self._push_waits = checkpoint_folder  # `_save_checkpoint` pushes once the marker is there

    # ---- the model ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        As upstream, but all or nothing: what was there before stays whole until the new model is.

        Raises:
            FloatingPointError: If a parameter is not finite.
            OSError: If it could not be written.
        """
        if _internal_call and output_dir is not None:  # a part of a checkpoint, which has its marker
            super().save_model(output_dir, _internal_call=True)
            return
        folder = Path(output_dir or self.args.output_dir)
        draft = folder / _DRAFT
        self._require_finite(folder, "The model is not saved", optimizer=False)
        with self._explained(folder, "The model"):
            try:
                if self.args.should_save:
                    shutil.rmtree(draft, ignore_errors=True)
                    draft.mkdir(parents=True)
                    if (folder / "README.md").is_file():  # PEFT adds to a card that is there
                        shutil.copy2(folder / "README.md", draft)
                self.accelerator.wait_for_everyone()
                self._write_model(str(draft))
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    _move_all(draft, folder)
            finally:
                if self.args.should_save:
                    shutil.rmtree(draft, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if folder.resolve() == Path(self.args.output_dir).resolve():
            self._let_go()
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _write_model(self, folder: str) -> None:
        super().save_model(folder, _internal_call=True)
        if self.is_fsdp_enabled and "FULL" not in str(self.accelerator.state.fsdp_plugin.state_dict_type):
            # With a sharded state upstream writes no model at all.
            self._save(folder, state_dict=self.accelerator.get_state_dict(self.model))

    # ---- what must hold before anything is written ----

    def _require_finite(self, run_dir: Path, what: str, optimizer: bool = True) -> None:
        """Raises on every process if a parameter, or the optimizer's state, of any of them is not finite."""
        mine = first_not_finite(self.model, self.optimizer if optimizer else None)
        if not any_process(self.accelerator, mine is not None):
            return
        raise FloatingPointError(
            f"{what}: after optimizer step {self.state.global_step} {mine or 'the state of another process'} is not "
            f"finite. {self._last_good(run_dir)} A lower learning rate, or float32 instead of a half precision, may "
            "keep it finite."
        )

    def _assert_equal_processes(self) -> None:
        """Compares digests of group state and parameters over all processes: they never talk about them otherwise."""
        if self.accelerator.num_processes == 1:
            return
        state = json.dumps([self.group_weights.state_dict(), self.running_losses.state_dict()], sort_keys=True)
        digests = {"group weights": sha256([state.encode()])}
        if not shards_parameters(self.accelerator):
            trained = ((name, p) for name, p in self.model.named_parameters() if p.requires_grad)
            digests["parameters"] = sha256_of_tensors(trained)
        mine = [int(digest[:14], 16) for digest in digests.values()]  # fit an int64
        everyone = self.accelerator.gather(torch.tensor([mine], device=self.accelerator.device)).tolist()
        for column, what in enumerate(digests):
            other = [rank for rank, row in enumerate(everyone) if row[column] != everyone[0][column]]
            if other:
                raise RuntimeError(
                    f"the {what} of process{'es' if len(other) > 1 else ''} {other} differ from those of process 0 "
                    f"after step {self.state.global_step}; they must be equal by construction"
                )

    # ---- errors while writing ----

    @contextlib.contextmanager
    def _explained(self, folder: Path, what: str) -> Iterator[None]:
        """Says of an error while writing what is lost, which checkpoint is left, and how much room there is."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, _WRITE_ERRORS) and type(error) is not Exception:
                raise
            if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
                raise ConnectionError(
                    f"{what} is not complete: another process ended; its own error says why."
                ) from error
            raise self._write_error(folder, f"{what} could not be written to {str(folder)!r}", error) from error

    def _write_error(self, folder: Path, what: str, error: Exception) -> OSError:
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(place).free
        return OSError(
            f"{what} ({free / 1e6:,.1f} MB free): {error}. {self._last_good(Path(self.args.output_dir))} Free space, "
            "or keep fewer checkpoints (`save_total_limit`), and go on with --resume_from_checkpoint true."
        )

    def _last_good(self, run_dir: Path) -> str:
        good, _ = newest_complete(run_dir, self._run)
        return f"The last complete checkpoint is {good.name}." if good else "There is no complete checkpoint yet."


def _move_all(draft: Path, folder: Path) -> None:
    """Moves what was written over what was there; older weights in files of other names would be loaded instead."""
    new = {path.name for path in draft.iterdir()}
    for path in sorted(draft.iterdir()):
        target = folder / path.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        os.replace(path, target)
    if any(Path(name).match(pattern) for name in new for pattern in _WEIGHTS):
        for pattern in (*_WEIGHTS, "*.safetensors.index.json"):
            for path in folder.glob(pattern):
                if path.name not in new:
                    path.unlink()

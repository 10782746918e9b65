"""Checkpoints that are complete or not used, and a run that can be stopped: what both trainers promise about it."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

from fairpo_trl.core.group_weights import GroupWeights
from fairpo_trl.core.partition import Partition
from fairpo_trl.hashing import sha256
from fairpo_trl.training.checkpoints import clear_unfinished, mark_complete, newest_complete, require_complete, rotate
from fairpo_trl.training.interruption import StopAtSignal, TrainingInterrupted
from fairpo_trl.training.state import check_same_run, load_state
from fairpo_trl.training.window import StepWindow


class SafeCheckpoints:
    r"""
    Mixin before [`GroupRobustTrainer`]: nothing half-written is resumed from, and a stop loses nothing.

    - A checkpoint is complete once its marker lists the hash of every file. Older checkpoints are deleted and
      checkpoints are pushed only after that, and the group weights of all processes are compared before.
    - `train(resume_from_checkpoint=True)` takes the newest complete checkpoint and names those it passes over; with
      none it starts from the beginning and says so. A path that is given is checked. Another partition, balancer or
      other training data are refused. All of this comes before anything is loaded.
    - SIGTERM or Ctrl-C let the current optimizer step end; then a checkpoint is written and `train` raises
      [`TrainingInterrupted`], which ends the process with 143 or 130. A second Ctrl-C stops at once.

    The trainer says what its training rows are ([`data_hash`]).
    """

    partition: Partition
    group_weights: GroupWeights
    running_losses: GroupWeights
    accelerator: Any
    args: Any
    state: Any
    control: Any
    callback_handler: Any
    _window: StepWindow
    _signals: StopAtSignal | None = None
    _data_hash: str | None = None
    _push_waits: str | None = None

    def data_hash(self) -> str | None:
        """Hash of the content of the training rows, in their order; `None` for a stream, which has none."""
        raise NotImplementedError

    # ---- train, resume, stop ----

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> Any:
        """
        As [`~transformers.Trainer.train`], from checkpoints that are whole, and with an orderly stop.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                `True` (or `"true"`, as it comes from a command line): the newest complete checkpoint in `output_dir`,
                or the beginning if there is none. A path: that checkpoint.
            trial, ignore_keys_for_eval:
                As upstream.

        Raises:
            TrainingInterrupted: After SIGTERM or Ctrl-C, once the checkpoint is complete.
            FileNotFoundError: If the checkpoint is not there.
            ValueError: If the checkpoint is damaged, or belongs to another run.
        """
        self._data_hash = self.data_hash() if self.args.should_save else None
        folder = self._resume_folder(resume_from_checkpoint)
        self._window.stop_agreed = False
        signals = self._signals = StopAtSignal(self.accelerator.num_processes, lambda: self._window.stop_agreed)
        self.add_callback(signals)  # type: ignore[attr-defined]
        try:
            return super().train(folder, trial, ignore_keys_for_eval)  # type: ignore[misc]
        except KeyboardInterrupt:
            if not signals.at_once:
                raise
            self._say("Stopped at once: the current step, and a checkpoint that was being written, are lost.")
            raise TrainingInterrupted(signals.code) from None
        finally:
            signals.restore_handlers()
            self.remove_callback(signals)  # type: ignore[attr-defined]
            self._signals = None

    def stop_wanted(self) -> bool:
        """Whether this process was asked to stop."""
        return self._signals is not None and self._signals.received is not None

    def _resume_folder(self, asked: str | bool | None) -> str | None:
        """The checkpoint to start from, checked by the main process for all of them."""
        if isinstance(asked, str) and asked.lower() in ("true", "false"):
            asked = asked.lower() == "true"
        if asked is None or asked is False:
            return None
        answer: list[Any] = [None, None]
        if self.accelerator.is_main_process:
            try:
                answer[0] = self._find_checkpoint(asked)
            except (OSError, ValueError) as error:
                answer[1] = error
        if self.accelerator.num_processes > 1:
            broadcast_object_list(answer, from_process=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def _find_checkpoint(self, asked: str | bool) -> str | None:
        if isinstance(asked, bool):
            folder, passed_over = newest_complete(self.args.output_dir)
            for other, reason in passed_over:
                self._say(f"{other.name} is passed over: {reason}.")
            if folder is None:
                self._say(f"{self.args.output_dir} has no complete checkpoint: training starts from the beginning.")
                return None
        else:
            folder = Path(asked)
            require_complete(folder)
        state = load_state(folder, self.partition)
        check_same_run(folder, state, self._data_hash)
        copy.deepcopy(self.group_weights).load_state_dict(state["group_weights"])  # raises for other groups
        then, now = state["processes"], self.accelerator.num_processes
        if then != now:
            self._say(
                f"{folder.name} was written by {then} process(es), now there {'is' if now == 1 else 'are'} {now}: "
                "weights, estimates and metrics are global and carry over; the order of the data and random draws "
                "differ from those of an uninterrupted run."
            )
        self._say(f"Training goes on from {folder.name}.")
        return str(folder)

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        # Upstream would load the best model and, with `save_total_limit=1`, delete the checkpoint of the interruption.
        if self._signals is None or not self._signals.stopping:
            return super()._finalize_training(trial, num_train_samples, start_time)  # type: ignore[misc]
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        self._finish_current_push()  # type: ignore[attr-defined]
        self.is_in_train = False
        self.accelerator.wait_for_everyone()  # a launcher ends the others as soon as one process is gone
        how = (
            "save_only_model=True keeps no state to resume from"
            if self.args.save_only_model
            else "go on with the same command and --resume_from_checkpoint true"
        )
        self._say(
            f"Stopped after step {self.state.global_step}, checkpoint-{self.state.global_step} is written; {how}."
        )
        raise TrainingInterrupted(self._signals.code)

    def _say(self, line: str) -> None:
        self.accelerator.print(line, flush=True)

    # ---- saving ----

    def group_state(self) -> dict[str, Any]:
        """Adds what a resumed run is compared with."""
        return {
            **super().group_state(),  # type: ignore[misc]
            "data_hash": self._data_hash,
            "processes": self.accelerator.num_processes,
        }

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As upstream, and then the marker; rotation and push wait for it."""
        args, run_dir = self.args, Path(self._get_output_dir(trial))  # type: ignore[attr-defined]
        folder = run_dir / f"checkpoint-{self.state.global_step}"
        limit, self._push_waits = args.save_total_limit, None
        with self._explained(folder):
            if args.should_save:
                clear_unfinished(folder)
            self.accelerator.wait_for_everyone()
            args.save_total_limit = None  # upstream rotates before the checkpoint is known to be complete
            try:
                super()._save_checkpoint(model, trial)  # type: ignore[misc]
            finally:
                args.save_total_limit = limit
        self._assert_equal_weights()  # also waits until every process has written its files
        if args.should_save:
            with self._explained(folder):
                mark_complete(folder)
        self.accelerator.wait_for_everyone()
        if self._push_waits is not None:
            super()._push_from_checkpoint(self._push_waits)  # type: ignore[misc]
        if args.should_save:
            rotate(run_dir, limit, folder, self.state.best_model_checkpoint)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        self._push_waits = checkpoint_folder  # `_save_checkpoint` pushes once the marker is there

    @contextlib.contextmanager
    def _explained(self, folder: Path) -> Iterator[None]:
        """Says of an error while writing which checkpoint is lost, which one is left, and how much room there is."""
        try:
            yield
        # A full disk comes as any of the three, depending on which library was writing.
        except (OSError, RuntimeError, SafetensorError) as error:
            free = shutil.disk_usage(folder.parent).free
            good, _ = newest_complete(folder.parent)
            last = f"The last complete checkpoint is {good.name}." if good else "There is no complete checkpoint yet."
            raise OSError(
                f"{folder.name} could not be written to {str(folder.parent)!r} ({free / 1e6:,.1f} MB free): {error}. "
                f"{last} Free space, or keep fewer checkpoints (`save_total_limit`), and go on with "
                "--resume_from_checkpoint true."
            ) from error

    def _assert_equal_weights(self) -> None:
        """Compares a digest of the group state over all processes: they never talk about weights otherwise."""
        if self.accelerator.num_processes == 1:
            return
        state = json.dumps([self.group_weights.state_dict(), self.running_losses.state_dict()], sort_keys=True)
        digest = int.from_bytes(bytes.fromhex(sha256([state.encode()])[:14]))  # fits an int64
        mine = torch.tensor([digest], dtype=torch.int64, device=self.accelerator.device)
        everyone = self.accelerator.gather(mine).tolist()
        other = [rank for rank, value in enumerate(everyone) if value != everyone[0]]
        if other:
            raise RuntimeError(
                f"the group weights of process{'es' if len(other) > 1 else ''} {other} differ from those of process 0 "
                f"after step {self.state.global_step}; they must be equal by construction"
            )

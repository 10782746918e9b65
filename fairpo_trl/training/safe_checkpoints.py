"""A run that can be stopped and goes on from what is whole and its own: what both trainers promise about it."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from fairpo_trl.core.partition import Partition
from fairpo_trl.training.checkpoints import (
    DamagedCheckpoint,
    best_of,
    checkpoint_step,
    is_marked,
    list_checkpoints,
    newest_complete,
    only_run,
    require_complete,
    rotate,
    verify,
)
from fairpo_trl.training.engines import any_process, check_agreement, engine_of, shards_parameters
from fairpo_trl.training.interruption import StopAtSignal, TrainingInterrupted, restore_callbacks, stopped_early
from fairpo_trl.training.run_folder import RunIdentity, claim, current_run, hold
from fairpo_trl.training.saving import FULL_DISK, SafeSaving
from fairpo_trl.training.settings import (
    ADAPTER,
    ENGINE,
    EXAMPLES,
    REFERENCE,
    RunSettings,
    compare_settings,
    settings_of,
)
from fairpo_trl.training.state import load_state
from fairpo_trl.training.window import StepWindow


class SafeCheckpoints(SafeSaving):
    r"""
    Mixin before [`GroupRobustTrainer`]: nothing half-written or foreign is resumed from, and a stop loses nothing.

    - One run at a time writes into an output folder; checkpoints say which run wrote them.
    - `train(resume_from_checkpoint=True)` takes the newest complete checkpoint of the folder's last run and names
      those it passes over; with none it starts from the beginning and says so. A path that is given is checked. Other
      rows, roles, losses, references, orders of the data or engines are refused, other settings are said. All of this
      comes before anything is loaded.
    - SIGTERM or Ctrl-C let the current optimizer step end; then a checkpoint is written and `train` raises
      [`TrainingInterrupted`], which ends the process with 143 or 130. A second Ctrl-C stops at once.
    - Processes that were given other data or options are refused on all of them.

    The trainer says what its rows are ([`rows_hash`]) and its reference ([`reference_hash`]).
    """

    partition: Partition
    _window: StepWindow
    _signals: StopAtSignal | None = None
    _data_hash: str | None = None
    _reference_hash: str | None = None
    _settings: RunSettings
    _best_is_at: str | None = None

    def rows_hash(self, dataset: Any) -> str | None:
        """Hash of the content of rows, in their order; `None` for a stream, which has none."""
        raise NotImplementedError

    def reference_hash(self) -> str | None:
        """Hash of what "not worse than" is measured against; called on all processes, before the first step."""
        raise NotImplementedError

    # ---- train, resume, stop ----

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> Any:
        """
        As [`~transformers.Trainer.train`], from checkpoints that are whole, and with an orderly stop.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                `True` (or `"true"`, as it comes from a command line): the newest complete checkpoint of the last run
                in `output_dir`, or the beginning if there is none. A path: that checkpoint.
            trial, ignore_keys_for_eval:
                As upstream.

        Raises:
            TrainingInterrupted: After SIGTERM or Ctrl-C, once the checkpoint is complete.
            FileNotFoundError: If the checkpoint is not there.
            ValueError: If the checkpoint is damaged or belongs to another run, another run writes into the folder, or
                the processes do not agree.
            OSError: If something cannot be written.
        """
        run_dir = Path(self._get_output_dir(trial))
        self._let_go()

        def take_lock() -> None:  # the main process for all of them, until the final model is there too
            self._lock = weakref.finalize(self, hold(run_dir))

        self._on_main(take_lock)
        signals: StopAtSignal | None = None
        try:
            self._look_at_run()
            folder = self._resume_folder(resume_from_checkpoint, run_dir)
            self._window.stop_agreed = False
            signals = self._signals = StopAtSignal(self.accelerator.num_processes, lambda: self._window.stop_agreed)
            if folder is not None and Path(folder).parent.resolve() == run_dir.resolve():
                signals.saved_step = checkpoint_step(folder)
            self.add_callback(signals)
            return super().train(folder, trial, ignore_keys_for_eval)
        except BaseException as error:
            self._let_go()
            if isinstance(error, KeyboardInterrupt) and signals is not None and signals.at_once:
                self._say("Stopped at once: the current step, and a checkpoint that was being written, are lost.")
                raise TrainingInterrupted(signals.code) from None
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                what = f"The disk became full after step {self.state.global_step}"
                raise self._write_error(run_dir, what, error) from error
            raise
        finally:
            if signals is not None:
                signals.restore_handlers()
                self.remove_callback(signals)
            self._signals = None

    def _on_main(self, work: Callable[[], Any]) -> Any:
        """What the main process finds, on all of them; its error too."""
        answer: list[Any] = [None, None]
        if self.accelerator.is_main_process:
            try:
                answer[0] = work()
            except (OSError, ValueError) as error:
                answer[1] = error
        if self.accelerator.num_processes > 1:
            broadcast_object_list(answer, from_process=0)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]

    def stop_wanted(self) -> bool:
        """Whether this process was asked to stop."""
        return self._signals is not None and self._signals.received is not None

    def _look_at_run(self) -> None:
        """Takes down what this run depends on, and compares it over the processes."""
        model = self.accelerator.unwrap_model(self.model)
        self._data_hash = self.rows_hash(self.train_dataset)
        if self._reference_hash is None:  # later the model has moved
            self._reference_hash = self.reference_hash()
        adapters = getattr(model, "peft_config", None) or {}
        trained = [(n, list(getattr(p, "ds_shape", p.shape))) for n, p in model.named_parameters() if p.requires_grad]
        self._settings = settings_of(
            self.args,
            {
                EXAMPLES: self.get_total_train_batch_size(self.args),
                REFERENCE: self._reference_hash,
                ADAPTER: {name: _facts_of_adapter(config) for name, config in adapters.items()} or None,
                "trained parameters": f"{len(trained)} of {sum(math.prod(shape) for _, shape in trained):,} values",
                ENGINE: engine_of(self.accelerator),
            },
        )
        if self.accelerator.num_processes == 1:
            return
        splits = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"evaluation": self.eval_dataset}
        facts = {
            "the partition": self.partition.to_dict(),
            "the training data": self._data_hash,
            **{f"the {name} data": None if split is None else self.rows_hash(split) for name, split in splits.items()},
        }
        settings = {f"`{name}`": value for name, value in self._settings.meaning.items()}
        if shards_parameters(self.accelerator):  # there only the main process may have read the weights
            settings.pop(f"`{REFERENCE}`")
        others = {f"`{name}`": value for name, value in self._settings.others.items()}
        check_agreement(self.accelerator, facts | settings | others)

    def _resume_folder(self, asked: str | bool | None, run_dir: Path) -> str | None:
        """The checkpoint to start from, checked by the main process for all of them, and the run that goes on."""
        if isinstance(asked, str) and asked.lower() in ("true", "false"):
            asked = asked.lower() == "true"

        def find() -> tuple[str | None, RunIdentity, str | None]:
            folder, run, best = self._find_checkpoint(asked, run_dir) if asked else (None, RunIdentity.new(), None)
            others = [other.name for other in list_checkpoints(run_dir) if is_marked(other)]
            if not asked and others:
                self._say(
                    f"{str(run_dir)!r} holds checkpoints of another run ({', '.join(others)}); this run begins anew, "
                    "and will not go on from them."
                )
            if self.args.should_save:
                claim(run_dir, run)
            return folder, run, best

        folder, self._run, self._best_is_at = self._on_main(find)
        return folder

    def _find_checkpoint(self, asked: str | bool, run_dir: Path) -> tuple[str | None, RunIdentity, str | None]:
        """The checkpoint, the run that goes on from it, and where its best checkpoint is."""
        if isinstance(asked, bool):
            run = current_run(run_dir) or only_run(run_dir)
            folder, passed_over = newest_complete(run_dir, run)
            for other, reason in passed_over:
                self._say(f"{other.name} is passed over: {reason}.")
            if folder is None:
                self._say(f"{run_dir} has no complete checkpoint: training starts from the beginning.")
                return None, run or RunIdentity.new(), None
        else:
            folder = Path(asked)
            require_complete(folder)
        state = load_state(folder, self.partition)
        self._check_same_run(folder, state)
        best = best_of(folder, self.args.load_best_model_at_end)
        run, step = RunIdentity.from_dict(state["run"]), checkpoint_step(folder) or 0
        if not isinstance(asked, bool) and newest_complete(run_dir, run)[0] not in (None, folder):
            run = run.branched(step)  # what this run wrote later is not what comes next
        self._say(f"Training goes on from {folder.name}.")
        return str(folder), run, best

    def _check_same_run(self, folder: Path, state: dict[str, Any]) -> None:
        """Refuses a checkpoint of a run that means something else; says what else differs."""
        if self.args.ignore_data_skip:
            raise ValueError(
                f"`ignore_data_skip=True` would begin the data anew at {folder.name}: some rows would be seen twice "
                "in the epoch and others never. Leave it at False, the default."
            )
        if state["data_hash"] != self._data_hash:
            then, now = (value[:12] if value else "a stream" for value in (state["data_hash"], self._data_hash))
            raise ValueError(
                f"{folder.name} was trained on other data (hash of the training rows then {then}, now {now}): its "
                "place in the data means nothing here. Resume with the rows it was trained on, in their order, or "
                "start anew in another output folder."
            )
        copy.deepcopy(self.group_weights).load_state_dict(state["group_weights"])  # raises for other groups
        engine, then, now = engine_of(self.accelerator), state["processes"], self.accelerator.num_processes
        there = f"now there {'is' if now == 1 else 'are'} {now}"
        line = compare_settings(folder.name, RunSettings(**state["settings"]), self._settings, "ZeRO" not in engine)
        if then != now and "ZeRO" in engine:
            raise ValueError(
                f"{folder.name} was written by {then} process(es) under {engine}, {there}: DeepSpeed keeps the "
                f"optimizer's state in one part for each. Resume with {then}, or start anew from its model in another "
                "output folder."
            )
        if then != now:
            self._say(
                f"{folder.name} was written by {then} process(es), {there}: "
                "weights, estimates and metrics are global and carry over; the order of the data and random draws "
                "differ from those of an uninterrupted run."
            )
        if line is not None:
            self._say(line)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        places = super()._init_training_state(*args, **kwargs)
        if self._best_is_at is not None:  # upstream forgets it where the folder has moved since
            self.state.best_model_checkpoint = self._best_is_at
        if not self.args.restore_callback_states_from_checkpoint:
            restore_callbacks(self.callback_handler.callbacks, self.state.stateful_callbacks)
        return places

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        early = kwargs.get("resume_from_checkpoint") is not None and stopped_early(self.callback_handler.callbacks)
        if self.state.global_step < self.state.max_steps and not early:
            super()._run_epoch(*args, **kwargs)
            return
        # Upstream would train one step more before it looks.
        why = "early stopping ended the training there" if early else f"it ends after {self.state.max_steps} steps"
        self._say(f"Nothing is left to train after step {self.state.global_step}: {why}.")
        self.control.should_training_stop = True

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        run_dir, args = Path(self._get_output_dir(trial)), self.args
        if self._stop_agreed():  # also in the last evaluation or save
            self._save_where_it_stops(trial)
            self.control = self.callback_handler.on_train_end(args, self.state, self.control)
            self._finish_current_push()
            self.is_in_train = False
            self._exit_stopped(run_dir)
        best = self._require_best(run_dir) if args.load_best_model_at_end else None
        limit, args.save_total_limit = args.save_total_limit, None  # upstream deletes without a look at the marker
        try:
            result = super()._finalize_training(trial, num_train_samples, start_time)
        finally:
            args.save_total_limit = limit
        if args.should_save and best is not None and limit == 1:
            rotate(run_dir, 1, best, best, self._run)
        if self._stop_agreed():
            if best is None:  # else the model is not that of the last step any more
                self._save_where_it_stops(trial)
            self._exit_stopped(run_dir)
        return result

    def _stop_agreed(self) -> bool:
        signals = self._signals
        return signals is not None and any_process(self.accelerator, signals.stopping or self.stop_wanted())

    def _save_where_it_stops(self, trial: Any) -> None:
        assert self._signals is not None
        if self._signals.saved_step != self.state.global_step:
            self._save_checkpoint(self.model_wrapped, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _exit_stopped(self, run_dir: Path) -> None:
        """Says what is on the disk, and ends the run with the code of the signal."""
        assert self._signals is not None
        self.accelerator.wait_for_everyone()  # a launcher ends the others as soon as one process is gone
        if self.accelerator.is_main_process:
            good, _ = newest_complete(run_dir, self._run)
            there = f"{good.name} is written" if good is not None else "no checkpoint is complete"
            how = (
                "save_only_model=True keeps no state to resume from"
                if self.args.save_only_model
                else "go on with the same command and --resume_from_checkpoint true"
            )
            self._say(f"Stopped after step {self.state.global_step}, {there}; {how}.")
        self.accelerator.wait_for_everyone()
        raise TrainingInterrupted(self._signals.code)

    def _require_best(self, run_dir: Path) -> str | None:
        """The best checkpoint, which must be whole: the last model would stand for it otherwise."""
        step = self.state.best_global_step
        if step is None:
            return None  # no evaluation was better than none
        folder = self.state.best_model_checkpoint or str(run_dir / f"checkpoint-{step}")

        def check() -> None:
            try:
                verify(folder)
            except (FileNotFoundError, DamagedCheckpoint) as error:
                raise DamagedCheckpoint(
                    f"The best checkpoint {folder!r} cannot be loaded: {error}. The last model is not taken for it. "
                    f"{self._last_good(run_dir)} Load the model of a checkpoint that is there, or go on without "
                    "`load_best_model_at_end`."
                ) from error

        self._on_main(check)
        self.state.best_model_checkpoint = folder
        return folder

    def _say(self, line: str) -> None:
        self.accelerator.print(line, flush=True)

    def group_state(self) -> dict[str, Any]:
        """Adds what a resumed run is compared with."""
        assert self._run is not None
        return {
            **super().group_state(),
            "run": self._run.to_dict(),
            "settings": self._settings._asdict(),
            "data_hash": self._data_hash,
            "processes": self.accelerator.num_processes,
        }


def _facts_of_adapter(config: Any) -> dict[str, Any]:
    """What of an adapter's configuration its weights do not show, or must fit."""
    left_out = ("base_model_name_or_path", "revision", "inference_mode", "init_lora_weights", "auto_mapping")
    return {k: v for k, v in config.to_dict().items() if k not in left_out and "version" not in k and v is not None}

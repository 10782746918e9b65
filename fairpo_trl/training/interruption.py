"""SIGTERM and Ctrl-C: the current optimizer step ends, a checkpoint is written, and the run stops with 143 or 130."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

from transformers.trainer_callback import EarlyStoppingCallback, ExportableState, TrainerCallback


# A launcher hands the terminal's Ctrl-C on to processes that already got it: within this time it is the same one.
_SAME_CTRL_C_SECONDS = 2.0


class TrainingInterrupted(SystemExit):
    """
    Training stopped because the process was asked to; uncaught, it ends the process without a traceback.

    Attributes:
        code (`int`): 143 after SIGTERM, 130 after Ctrl-C, as a shell reports them.
    """


class StopAtSignal(TrainerCallback):
    """
    Turns the first SIGTERM or Ctrl-C into a stop after the current optimizer step.

    A second Ctrl-C raises `KeyboardInterrupt` at once. The handlers are there only while training; they replace those
    of before and put them back. Outside the main thread Python cannot receive signals, and nothing changes.

    Args:
        processes (`int`):
            Processes of the run.
        agreed (`Callable[[], bool]`):
            Whether any process was asked to stop, the same on every process.

    Attributes:
        received (`int` or `None`): The signal this process got.
        stopping (`bool`): Whether training ends because of a signal.
        at_once (`bool`): Whether Ctrl-C came a second time.
        saved_step (`int` or `None`): The last step whose checkpoint is on the disk.
    """

    def __init__(self, processes: int, agreed: Callable[[], bool]) -> None:
        self._processes, self._agreed = processes, agreed
        self._previous: dict[int, Any] = {}
        self._process_id, self._first_at = os.getpid(), 0.0
        self.saved_step: int | None = None
        self.received: int | None = None
        self.stopping, self.at_once = False, False

    @property
    def code(self) -> int:
        """Exit code of the process; one that got no signal itself follows another, which a scheduler stopped."""
        return 128 + (self.received or signal.SIGTERM)

    # ---- handlers ----

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Installs the handlers: before the first step there is nothing to save."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)

    def restore_handlers(self) -> None:
        """Puts the handlers of before back."""
        while self._previous:
            number, handler = self._previous.popitem()
            # A handler that was not installed from Python reads as None.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process_id:  # a forked dataloader worker, which has inherited the handler
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return  # Ctrl-C reaches the workers too, but the step still needs their batches
        now = time.monotonic()
        if self.received is None:
            self.received, self._first_at = number, now
            return
        echo = self._processes > 1 and now - self._first_at < _SAME_CTRL_C_SECONDS
        if number == signal.SIGINT and not echo:
            self.at_once = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt

    # ---- events of the Trainer ----

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends training if a stop was agreed on; the trainer writes the checkpoint, after what else is due."""
        if self._agreed() if self._processes > 1 else self.received is not None:
            self.stopping = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The Trainer says this also when it stops within an epoch: then nothing of an epoch's end is due."""
        # At the end of an epoch its evaluation comes first, so that the resumed run need not make up for it.
        if self.stopping and not float(state.epoch).is_integer():
            control.should_log = control.should_evaluate = control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remembers the step that was saved."""
        self.saved_step = state.global_step


def restore_callbacks(callbacks: Iterable[Any], saved: Mapping[str, Any]) -> None:
    """
    Gives callbacks that keep a state (early stopping: its patience) what a checkpoint holds of it, in place.

    `saved` is `stateful_callbacks` of the checkpoint: by class name, a state or a list of them.
    """
    left = {name: list(states) if isinstance(states, list) else [states] for name, states in saved.items()}
    for callback in callbacks:
        states = left.get(type(callback).__name__) if isinstance(callback, ExportableState) else None
        if states:
            for attribute, value in states.pop(0).get("attributes", {}).items():
                setattr(callback, attribute, value)


def stopped_early(callbacks: Iterable[Any]) -> bool:
    """Whether early stopping has run out of patience."""
    found = [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]
    return any(one.early_stopping_patience_counter >= one.early_stopping_patience for one in found)

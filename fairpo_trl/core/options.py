"""Values of options: numbers in their range, choices among the known ones. The errors name option, value and range."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fairpo_trl.core.messages import shortened, unknown_names_message


def option(default: Any, told: str, **more: Any) -> Any:
    """A field of a dataclass of options, with the `help` that a command line shows; `more`: `choices`, `aliases`."""
    return dataclasses.field(default=default, metadata={"help": told, **more})


def is_number(value: Any) -> bool:
    """Whether a value is a finite `int` or `float`; truth values are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def check_number(name: str, value: Any, *, least: float = 0, positive: bool = False, whole: bool = False) -> None:
    """
    Raises `ValueError` unless the value of an option is a finite number in its range: `least` or greater, or
    `positive`, and perhaps a `whole` one.
    """
    in_range = is_number(value) and value >= least and (not positive or value > 0)
    if not in_range or (whole and value != int(value)):
        limit = "positive" if positive else f">= {least}"
        kind = "an integer" if whole else "a finite number"
        raise ValueError(f"`{name}` must be {limit} and {kind}, got {shortened(value)}.")


def check_choices(options: Any) -> None:
    """
    Raises `ValueError`, with near matches, for an option of a filled dataclass that is none of its choices: those of
    its `Literal` type, or the `choices` that its metadata gives the command line. Python itself checks neither.
    """
    hints = get_type_hints(type(options))
    for field in fields(options):
        hint = hints[field.name]
        choices = get_args(hint) if get_origin(hint) is Literal else field.metadata.get("choices")
        value = getattr(options, field.name)
        if choices and value not in choices and not (value is None and field.default is None):
            raise ValueError(unknown_names_message(f"value of `{field.name}`", [value], list(map(str, choices))))


def check_training_numbers(args: Any) -> None:
    """
    Raises `ValueError` for options of [`~transformers.TrainingArguments`] out of their range. transformers takes most
    of them as they come, and fails, or trains nothing, once the model is loaded.
    """
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        check_number(name, getattr(args, name), least=1, whole=True)
    for name in ("learning_rate", "weight_decay", "max_grad_norm", "warmup_steps"):
        check_number(name, getattr(args, name))
    for name in ("logging_steps", "save_steps", "eval_steps"):
        if getattr(args, name) is not None:
            check_number(name, getattr(args, name), positive=True)
    if args.max_steps != -1:  # which stands for none
        check_number("max_steps", args.max_steps, least=1, whole=True)
    else:
        check_number("num_train_epochs", args.num_train_epochs, positive=True)

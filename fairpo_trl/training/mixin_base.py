"""What the trainers' mixins stand on: for the type checker, the trainer whose methods they call; else nothing.

At run time a mixin has no base of its own: the trainer that it is mixed into brings TRL's or transformers' trainer.
"""

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object


class TrainerBase(Trainer):
    """The attributes of a trainer that the mixins read."""

    accelerator: Any
    args: Any
    state: Any
    control: Any
    model: Any
    train_dataset: Any
    eval_dataset: Any
    callback_handler: Any
    push_in_progress: Any
    hub_model_id: str | None

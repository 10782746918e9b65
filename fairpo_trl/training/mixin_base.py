"""What the trainers' mixins stand on: for the type checker, the trainer whose methods they call; else nothing.

At run time a mixin has no base of its own: the trainer that it is mixed into brings TRL's or transformers' trainer.
"""

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from transformers import Trainer as TrainerBase
else:
    TrainerBase = object


__all__ = ["TrainerBase"]

"""A trainer's pushes to the Hub, all of them: only what may leave is sent, whatever else lies in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import PushInProgress

from fairpo_trl.hub.push import push_from_trainer
from fairpo_trl.training.mixin_base import TrainerBase


class PublishingTrainer(TrainerBase):
    """
    Mixin before a [`~transformers.Trainer`] in place of its uploads, which send whole folders.

    At every save (`hub_strategy="every_save"`) and at the end the model goes out with its card: weights,
    configuration, tokenizer. With `"checkpoint"` and `"all_checkpoints"` a folder to go on from goes too: optimizer,
    scheduler, generators and the state of the groups. Pickled arguments, logs and other files of the folder stay.
    """

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Saves the model, writes its card and uploads both, as [`~transformers.Trainer.push_to_hub`].

        Args:
            commit_message, blocking, token, revision, private, kwargs:
                As upstream; `kwargs` go to `create_model_card`.

        Returns:
            The commit, or a future of it; `None` on other processes than the first.

        Raises:
            ValueError: If something private would be published; names the file and the mend.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        model_name = kwargs.pop("model_name", None)
        if model_name is None and self.args.should_save:
            model_name = (self.args.hub_model_id or "").rpartition("/")[2] or Path(self.args.output_dir).name
        if self.hub_model_id is None:  # `push_to_hub=False`, and called all the same
            if private is not None:  # `init_hf_repo` takes it by itself only in newer transformers
                self.args.hub_private_repo = private
            self.init_hf_repo(token=token or self.args.hub_token)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        tags = getattr(self.model, "model_tags", None)
        if tags:
            asked = kwargs.get("tags") or []
            kwargs["tags"] = list(dict.fromkeys([*([asked] if isinstance(asked, str) else asked), *tags]))
        self._finish_current_push()  # an upload in the background reads files that change now
        self.create_model_card(model_name=model_name, **kwargs)
        return push_from_trainer(
            self,
            self.args.output_dir,
            commit_message or "End of training",
            blocking=blocking,
            token=token,
            revision=revision,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """At a save: starts the upload of what may leave of the checkpoint, in the background."""
        strategy = self.args.hub_strategy
        if not self.is_world_process_zero() or strategy == HubStrategy.END:
            return
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if busy and not self.args.hub_always_push:
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        steps = self.args.save_strategy == SaveStrategy.STEPS
        at = f"step {self.state.global_step}" if steps else f"epoch {int(self.state.epoch)}"
        places: list[str | None] = [None]
        if strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            last = strategy == HubStrategy.CHECKPOINT
            places.append("last-checkpoint" if last else Path(checkpoint_folder).name)
        jobs = []
        for place in places:
            message = f"Training in progress, {at}" + (", checkpoint" if place else "")
            try:
                jobs.append(push_from_trainer(self, checkpoint_folder, message, blocking=False, checkpoint_as=place))
            except (FileNotFoundError, ValueError) as error:  # training goes on; the last push says it again
                self.accelerator.print(f"Not pushed at {at}: {error}", flush=True)
        if busy:
            self.push_in_progress.jobs.extend(jobs)
        else:
            self.push_in_progress = PushInProgress(jobs)

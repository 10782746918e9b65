"""Evaluation and prediction of preference pairs: what `DPOTrainer` says of a data set, for rows of every kind."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import DPOTrainer


class PredictsRewards(DPOTrainer):
    """A [`~trl.DPOTrainer`] whose predictions are rewards; its `compute_loss` leaves them in `outputs.rewards`."""

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """As [`~trl.DPOTrainer`], also for the trainer's own `train_dataset` and `eval_dataset` themselves."""
        parts = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
        if all(self._is_prepared(part) for part in parts):  # DPOTrainer would tokenise and precompute them again
            return super(DPOTrainer, self).evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def predict(self, test_dataset: Any, ignore_keys: Any = None, metric_key_prefix: str = "test") -> Any:
        """
        As [`~transformers.Trainer.predict`], on preference pairs; logits are never built, so predictions are rewards.

        Returns:
            `PredictionOutput`: `predictions`, `[N, 2]`: beta * (log-prob - log-prob under the reference) of the chosen
            and of the rejected completion, in nats; `metrics` as those of [`evaluate`].
        """
        if not self._is_prepared(test_dataset):
            is_reference = self.ref_model is None and not is_peft_model(self.model)
            if self.precompute_ref_logps and is_reference and self.state.global_step > 0:
                raise ValueError(
                    "With precompute_ref_log_probs=True and full fine-tuning the reference is not kept in memory: "
                    "pass these rows as `eval_dataset` at the start, or pass a `ref_model`."
                )
            test_dataset = self._prepare_dataset(test_dataset, self.processing_class, self.args, metric_key_prefix)
            if self.precompute_ref_logps:
                size = self.args.precompute_ref_batch_size or self.args.per_device_eval_batch_size
                test_dataset = self._precompute_ref_logps(test_dataset, metric_key_prefix, size)
        return super().predict(test_dataset, ignore_keys, metric_key_prefix)

    def _is_prepared(self, dataset: Any) -> bool:
        """Whether these are rows that this trainer has tokenised, or the name of such; `None` stands for its own."""
        own = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        return (
            dataset is None or isinstance(dataset, str) or any(dataset is part for part in (*own, self.train_dataset))
        )

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """Loss and rewards of one batch."""
        if prediction_loss_only:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        return loss.detach(), outputs.rewards, None

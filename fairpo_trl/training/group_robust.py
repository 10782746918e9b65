"""The group objective in a `transformers` training loop: what `FairPOTrainer` and `MultiLabelFairPOTrainer` share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers.trainer_utils import has_length

from fairpo_trl.core.group_weights import GroupWeights
from fairpo_trl.core.messages import shortened
from fairpo_trl.core.partition import Partition
from fairpo_trl.core.reduction import group_sums, grouped_objective, sum_dtype
from fairpo_trl.core.running_means import RunningMeans
from fairpo_trl.training.engines import check_agreement, check_processes, scales_loss
from fairpo_trl.training.logs import Hints, weight_logs
from fairpo_trl.training.metric_sums import MetricSums
from fairpo_trl.training.publishing import PublishingTrainer
from fairpo_trl.training.state import load_state, save_state
from fairpo_trl.training.watched import Watched
from fairpo_trl.training.window import StepWindow


class GroupRobustTrainer(PublishingTrainer):
    r"""
    Mixin before a [`~transformers.Trainer`]: the objective sum_g alpha_g * mean_g over whole optimizer steps.

    It counts the groups of a step before its first backward pass, moves the weights once a step, keeps metrics per
    group from sums and counts, and carries all of it through checkpoints. The trainer gives it the losses
    ([`group_objective`]), says which groups a batch holds ([`count_groups`]) and how a row that only fills the last
    batch is taken out of every group ([`mask_duplicate_rows`]).

    Attributes:
        partition ([`~fairpo_trl.Partition`]): Names and roles.
        group_weights ([`~fairpo_trl.GroupWeights`]): Current weights; equal on every process.
        running_losses ([`~fairpo_trl.core.running_means.RunningMeans`]): Of each attribute or label, for hinges of a
            mean.
        group_metrics (`dict[str, Any]`): `"train"` (last logged), `"eval"` (last [`evaluate`], whatever its prefix)
            and `"predict"` (last [`predict`]) -> the metrics.
    """

    loss_is_scaled_for_ga = True  # N_g already counts the whole optimizer step

    partition: Partition
    group_weights: GroupWeights
    running_losses: RunningMeans
    group_metrics: dict[str, Any]

    # ---- what the trainer says about its batches ----

    def count_groups(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Members of each group in one micro-batch of this process, `[K]`."""
        raise NotImplementedError

    def mask_duplicate_rows(self, batch: dict[str, Any]) -> None:
        """Takes the rows that accelerate repeats to fill the last batch out of every group, in place."""
        raise NotImplementedError

    def describe_rows(self, batch: Mapping[str, Any], bad: torch.Tensor | None = None) -> str:
        """Rows of a batch and what they count for, in the words of an error; `bad`: bool `[B]` on the CPU, or all."""
        raise NotImplementedError

    def stop_wanted(self) -> bool:
        """Whether this process was asked to stop; it travels with the group sizes."""
        return False

    # ---- setting up ----

    def start_groups(self, sums: Mapping[str, MetricSums], mean_hinge: float | None = None) -> None:
        """
        Makes the window of optimizer steps; called once partition, weights and accelerator are there.

        Args:
            sums (`Mapping[str, MetricSums]`):
                `"train"` and `"eval"` -> the sums of their metrics.
            mean_hinge (`float`, *optional*):
                If the hinge is that of the mean of an attribute or label: the bound above which a mean counts.

        Raises:
            ValueError: If processes do not know of each other, or would wait for each other for ever.
        """
        check_processes(self.accelerator, self.args.accelerator_config.even_batches)
        device, k = self.accelerator.device, len(self.group_weights.groups)
        dtype = sum_dtype(device)
        self._sums = dict(sums)
        self._window = StepWindow(k, len(self.partition.names), dtype, device, self.sum_over_processes)
        self._window_batches = 1
        self._mean_hinge = mean_hinge
        # Of an evaluation: loss sums and counts of the K groups, then those of the A attributes or labels.
        self._eval_sums = torch.zeros(2 * (k + len(self.partition.names)), dtype=dtype, device=device)
        self._evaluating = "eval"
        self._evaluated: dict[str, float] | None = None
        self._scaled_losses: torch.Tensor | None = None
        self._hints = Hints()
        self._watched: Watched | None = None
        self._step_batches: list[Mapping[str, Any]] = []
        self.group_metrics = {}

    def sum_over_processes(self, vector: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes."""
        return self.accelerator.reduce(vector, reduction="sum") if self.accelerator.num_processes > 1 else vector

    def _get_dataloader(self, dataset: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        if has_length(dataset):  # with fewer rows a process would leave the others waiting for ever
            check_agreement(self.accelerator, {f"the number of {description.lower()} rows": len(dataset)})
        return super()._get_dataloader(dataset, description, *args, **kwargs)

    def _prepare_input(self, data: Any) -> Any:
        # Upstream rounds every number to DeepSpeed's half precision: log-probs of the reference, features, logits.
        return data.to(self.args.device) if torch.is_tensor(data) else super()._prepare_input(data)

    # ---- one optimizer step ----

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """All micro-batches of one optimizer step, as upstream; the place to count the groups of the step."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            self.mask_duplicate_rows(batches[-1])
        self._window_batches, self._step_batches = len(batches), batches
        if self.args.timing == "lagged":
            counts = torch.zeros_like(self._window.counts)
            for batch in batches:
                counts += self.count_groups(batch).to(counts.device)
            self._exchange(counts)
        return batches, num_items

    def _exchange(self, counts: torch.Tensor | None = None) -> None:
        """The one small all-reduce of an optimizer step; the weights then move with the last step's losses."""
        totals = self._window.exchange(counts, stop=self.stop_wanted())
        if totals is None:
            return
        try:
            self._scaled_losses = self.group_weights.update(totals.loss_sums, totals.counts)
            self.running_losses.update(totals.item_sums, totals.item_counts)
        except FloatingPointError as error:
            self._raise_for_watched(f"Optimizer step {self.state.global_step + 1}")  # timing="current": knows the rows
            raise FloatingPointError(
                f"Optimizer step {self.state.global_step}: {error} Lower the learning rate or `beta`, or look at the "
                "examples of this group."
            ) from error

    def group_objective(
        self,
        losses: torch.Tensor,
        counts: torch.Tensor,
        item_sums: torch.Tensor,
        item_counts: torch.Tensor,
        training: bool,
    ) -> torch.Tensor:
        """
        This batch's share of sum_g alpha_g * mean_g: scaled for accumulation and processes while training.

        Args:
            losses (`torch.Tensor`):
                `[B, K]`: the loss of each example as a member of each group (for several members of an example in a
                group: their sum), 0 where it is none, with gradient.
            counts (`torch.Tensor`):
                Members of each group in this batch, `[K]`.
            item_sums, item_counts (`torch.Tensor`):
                Losses and examples by attribute or label, `[A]`, without gradient.
            training (`bool`):
                Evaluation has no optimizer step: its sums run over the whole split and move no weight.
        """
        sums = group_sums(losses)
        if training:
            self._window.add(sums, counts, item_sums, item_counts)
            if self.args.timing == "current":  # the step is this batch: its losses move the weights first
                self._exchange(counts)
            counts = self._window.counts
        else:
            parts = (sums, counts, item_sums, item_counts)
            self._eval_sums += torch.cat([part.to(self._eval_sums) for part in parts])
        weights = self.group_weights.weights.to(losses.device, losses.dtype)
        loss = grouped_objective(losses, weights, counts)
        # DDP averages gradients over processes; the objective is a sum.
        return loss * self.accelerator.num_processes if training else loss

    # ---- numbers that are not finite ----

    def watch(self, batch: Mapping[str, Any], *values: torch.Tensor) -> None:
        """
        Takes note of the rows of a batch with a value that is not finite; they are named before anything is updated.

        Args:
            batch (`Mapping[str, Any]`):
                As [`describe_rows`] takes it.
            *values (`torch.Tensor`):
                Losses or log-probabilities, `[B]`, or logits and losses of labels, `[B, A]`: then the labels are
                named too.
        """
        self._watched = Watched(batch, tuple(value.detach() for value in values))
        if not self.model.training:  # while training, the device is waited for after the backward pass
            self._raise_for_watched("Evaluation")

    def _raise_for_watched(self, where: str) -> None:
        watched, self._watched = self._watched, None
        if watched is None or watched.is_finite():
            return
        batch, bad = watched.batch, ~watched.finite_rows().cpu()
        labels = watched.finite_labels()
        # The first value that is not finite: logits before the losses that they spoil.
        columns: list[bool] = next((label.tolist() for label in labels if not bool(label.all())), [])
        names = [name for name, fine in zip(self.partition.names, columns, strict=False) if not fine]
        whose_labels = f" (labels {shortened(names)})" if 0 < len(names) < len(self.partition.names) else ""
        whose = (
            "All rows of the batch are affected, so look at the model first."
            if bool(bad.all()) and len(bad) > 1
            else "Look at these rows."
        )
        raise FloatingPointError(
            f"{where}: the log-probability or loss of {self.describe_rows(batch, bad)}{whose_labels} is not finite. "
            f"{whose} A lower learning rate or `beta`, or float32 instead of a half precision, may keep it finite."
        )

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """As upstream; raises `FloatingPointError` for a loss that is not finite, before the optimizer's step."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        # `logging_nan_inf_filter` would only hide it from the log: the parameters would be lost all the same.
        self._raise_for_watched(f"Optimizer step {self.state.global_step + 1}")
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # Between the backward passes and the optimizer's step (under DeepSpeed after it: it skips such a step and says
        # nothing). A loss scaler (float16) meets them all the time, and lowers its scale.
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is None or scales_loss(self.accelerator) or math.isfinite(norm):
            return norm
        rows = "; ".join(map(self.describe_rows, self._step_batches[:3]))
        more = f" and {len(self._step_batches) - 3} more batches" if len(self._step_batches) > 3 else ""
        raise FloatingPointError(
            f"Optimizer step {self.state.global_step + 1}: the gradient is not finite ({float(norm)}) although every "
            f"loss of this process is. Its share of the step: {rows}{more}. A lower learning rate, or float32 instead "
            "of a half precision, may keep it finite."
        )

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """As upstream, without counting the rows that fill the last batch."""
        self.mask_duplicate_rows(inputs)
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    # ---- evaluation ----

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """
        As upstream, for [`evaluate`] and [`predict`], with the metrics per group of exactly these rows.

        The sums begin at zero and are put back as they were, so that no evaluation sees the rows of another: one that
        was broken off, a prediction, one that a callback starts within, whatever the prefix.
        """
        sums = self._sums["eval"]
        outer = sums.vector.clone(), self._eval_sums.clone(), self._evaluating
        self._evaluating = "predict" if description == "Prediction" else "eval"
        sums.reset()
        self._eval_sums.zero_()
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            metrics = self.read_metrics("eval")
        finally:
            sums.vector.copy_(outer[0])
            self._eval_sums.copy_(outer[1])
            self._evaluating = outer[2]
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in metrics.items()})
        self._evaluated = output.metrics
        return output

    # ---- logs ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the metrics per group, and the weights, to the `logs` of training; an evaluation's have theirs."""
        if self._window.has_pending:
            self._exchange()
        if logs is not self._evaluated:  # not by the prefix: an evaluation may be called "train"
            logs.update(self.read_metrics("train"))
        super().log(logs, start_time)

    def read_metrics(self, mode: str) -> dict[str, float]:
        """The metrics since the last reading, reduced over processes; empties the sums of `mode` ("train", "eval")."""
        sums = self._sums[mode]
        vector = torch.cat([sums.vector, self._eval_sums]) if mode == "eval" else sums.vector
        vector = self.sum_over_processes(vector)
        read = sums.read(vector[: len(sums.vector)])
        if read is None:
            return {}
        self.group_metrics[mode if mode == "train" else self._evaluating], metrics = read
        weights = self.group_weights
        if mode == "eval":
            # Exact over the whole split, in place of the mean of batch values. With the weights that training began
            # with, so that two evaluations can be compared: under those of the moment it rises as a weight moves.
            means = self._group_means(vector[len(sums.vector) :].cpu().double())
            metrics["loss"] = float((weights.initial_weights * means).sum())
            metrics["weighted_loss"] = float((weights.weights * means).sum())
            self._eval_sums.zero_()
        else:
            metrics |= weight_logs(weights, self._scaled_losses)
            last = self.state.global_step == self.state.max_steps
            self._hints.look(weights, self.args, self.state.global_step, last, metrics)
        sums.reset()
        return metrics

    def _group_means(self, sums: torch.Tensor) -> torch.Tensor:
        """Mean loss of each group over a whole evaluation, `[K]`, from its global sums; 0 for an absent group."""
        k, items = len(self.group_weights.groups), len(self.partition.names)
        loss_sums, counts, item_sums, item_counts = sums.split([k, k, items, items])
        means = loss_sums / torch.where(counts > 0, counts, 1)
        if self._mean_hinge is None:
            return means
        # A hinge of means: of the means over these rows, since the gates of training move with its running means.
        above = (item_sums - self._mean_hinge * item_counts).clamp(min=0)  # [A]: members * max(0, mean - bound)
        for g, group in enumerate(self.group_weights.groups):
            if group.role == "non_privileged":
                members = [self.partition.names.index(name) for name in group.members]
                total = item_counts[members].sum()
                means[g] = above[members].sum() / torch.where(total > 0, total, 1)
        return means

    # ---- checkpoints ----

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._window.has_pending:
            self._exchange()
        sums = self._sums["train"].vector
        # The global sums go on as those of the main process, so that saving changes no metric.
        total = self.sum_over_processes(sums)
        sums.copy_(total if self.accelerator.is_main_process else torch.zeros_like(total))
        if self.args.should_save:
            save_state(output_dir, self.group_state())

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # Every backend comes through here on resume; `_load_from_checkpoint` is skipped under DeepSpeed.
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.load_group_state(load_state(checkpoint, self.partition))

    def group_state(self) -> dict[str, Any]:
        """Everything of the groups that a checkpoint keeps, JSON-ready."""
        return {
            "partition": self.partition.to_dict(),
            "group_weights": self.group_weights.state_dict(),
            "running_losses": self.running_losses.state_dict(),
            "metric_sums": self._sums["train"].vector.tolist(),
        }

    def load_group_state(self, state: Mapping[str, Any]) -> None:
        """Restores [`group_state`]; raises `ValueError` for other groups or another balancer."""
        self.group_weights.load_state_dict(state["group_weights"])
        self.running_losses.load_state_dict(state["running_losses"])
        if self.accelerator.is_main_process:
            sums = self._sums["train"].vector
            kept = torch.tensor(state["metric_sums"], dtype=sums.dtype)
            if kept.shape == sums.shape:  # an earlier version had other metrics: what it had not logged is left out
                sums.copy_(kept)

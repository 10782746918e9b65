"""`MultiLabelFairPOTrainer`: a transformers `Trainer` with one loss per role of a label, and weights that adapt."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from transformers import EvalPrediction, Trainer

from fairpo_trl.classification.config import PREFERENCES, MultiLabelFairPOConfig
from fairpo_trl.classification.data.split import MultiLabelSplit, first_difference
from fairpo_trl.classification.data_check import check_data, check_roles
from fairpo_trl.classification.dataset import SplitDataset, compute_logits, keep_batch, model_inputs
from fairpo_trl.classification.features.cache import rows_hash
from fairpo_trl.classification.keyed_random import keyed_uniform
from fairpo_trl.classification.losses import LabelCounts
from fairpo_trl.classification.metrics.group_report import GroupEvaluation, evaluate_groups
from fairpo_trl.classification.model import MultiLabelClassifier
from fairpo_trl.classification.model_card import write_model_card
from fairpo_trl.classification.objective import LabelLosses, label_losses
from fairpo_trl.classification.sharding import prepare_for_fsdp
from fairpo_trl.classification.train_metrics import WHOLE_SPLIT, LabelMetricSums, evaluation_metrics
from fairpo_trl.core.partition import Grouping, Partition
from fairpo_trl.core.running_means import RunningMeans
from fairpo_trl.hashing import sha256_of_tensors
from fairpo_trl.training.arguments import make_group_weights
from fairpo_trl.training.best_metric import check_best_metric
from fairpo_trl.training.engines import whole_parameters
from fairpo_trl.training.group_robust import GroupRobustTrainer
from fairpo_trl.training.progress import BarCallback, show_little
from fairpo_trl.training.safe_checkpoints import SafeCheckpoints
from fairpo_trl.training.sampler import GroupBalancedSampler
from fairpo_trl.training.window import padded_duplicates


logger = get_logger(__name__)

_GROUPING: dict[str, Grouping] = {"role": "role", "label": "attribute"}  # the core's names


class MultiLabelFairPOTrainer(SafeCheckpoints, GroupRobustTrainer, Trainer):
    r"""
    Trainer for multi-label classifiers: privileged labels get better, the others do not get worse than the reference.

    Privileged labels are trained against the labels they are confused with (DPO, SimPO or CPO on label scores, BCE
    where nothing confuses them), all others with a hinge on their BCE against the reference, and the group means are
    combined with weights learned by mirror ascent (FairPO, Algorithm 2).

    Example:

    ```python
    >>> from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer

    >>> trainer = MultiLabelFairPOTrainer(
    ...     model=MultiLabelClassifier.from_pretrained("reference"),  # trained with BCE; FairPO starts from it
    ...     args=MultiLabelFairPOConfig(output_dir="out", privileged_labels=["toaster"], privileged_loss="cpo"),
    ...     train_dataset=splits["train"],
    ...     eval_dataset=splits["validation"],
    ... )
    >>> trainer.train()
    ```

    Args:
        model ([`MultiLabelClassifier`]):
            The model that is trained.
        ref_model ([`MultiLabelClassifier`], *optional*):
            The reference of DPO and of the hinge; `None` takes the model as it is at the start. Its logits are
            computed once: features, images and reference do not change.
        args ([`MultiLabelFairPOConfig`]):
            Options.
        train_dataset ([`MultiLabelSplit`]):
            Training rows, with features (a frozen backbone) or images (a backbone attached to the model).
        eval_dataset ([`MultiLabelSplit`] or `dict`, *optional*):
            Evaluation rows; metrics are those of [`evaluate_groups`] over the whole split.
        partition ([`~fairpo_trl.Partition`], *optional*):
            Labels and roles, instead of `args.privileged_labels`.
        **kwargs:
            As in [`~transformers.Trainer`].

    Attributes:
        evaluations (`dict[str, GroupEvaluation]`): `"eval"` (last `evaluate`) and `"predict"` (last `predict`) -> the
            metrics of the whole split, as DataFrames.

    Raises:
        ValueError: For data or options that cannot work; names the labels or the option, and the mend.
    """

    def __init__(
        self,
        model: MultiLabelClassifier,
        ref_model: MultiLabelClassifier | None = None,
        args: MultiLabelFairPOConfig | None = None,
        train_dataset: MultiLabelSplit | None = None,
        eval_dataset: MultiLabelSplit | dict[str, MultiLabelSplit] | None = None,
        *,
        partition: Partition | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, MultiLabelFairPOConfig):
            raise ValueError(
                "`args` must be a `MultiLabelFairPOConfig`, for example "
                "MultiLabelFairPOConfig(output_dir='out', privileged_labels=['toaster']); got "
                f"{type(args).__name__}."
            )
        args.refuse_unused()
        if not isinstance(model, MultiLabelClassifier):
            raise ValueError(f"`model` must be a `MultiLabelClassifier`, got {type(model).__name__}.")
        check_data(model.config, train_dataset, eval_dataset)
        assert train_dataset is not None
        names = tuple(model.config.label_names)
        self.partition = _resolve_partition(partition, args, names)
        check_roles(train_dataset, self.partition)
        if eval_dataset is not None and kwargs.get("compute_metrics") is None:
            several = tuple(eval_dataset) if isinstance(eval_dataset, dict) else ()
            check_best_metric(args.metric_for_best_model, evaluation_metrics(self.partition), several)
        self.group_weights = make_group_weights(args, self.partition.groups(_GROUPING[args.grouping]))
        self.running_losses = RunningMeans(names, args.estimate_decay)  # BCE above the reference, by label
        self._prepared: dict[int, SplitDataset] = {}
        self._transform = model.transform if model.has_backbone else None
        self.evaluations: dict[str, GroupEvaluation] = {}

        super().__init__(
            model=model,
            args=args,
            train_dataset=self._rows_of(train_dataset),
            eval_dataset=self._rows_of(eval_dataset),
            data_collator=kwargs.pop("data_collator", keep_batch),
            compute_metrics=kwargs.pop("compute_metrics", self._whole_split_metrics),
            **kwargs,
        )
        self.model_accepts_loss_kwargs = False
        model.config.partition = self.partition.to_dict()
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError("The model has no trainable parameter, so training would do nothing.")
        show_little(self, BarCallback)

        device = self.accelerator.device
        self._privileged = torch.tensor([names.index(name) for name in self.partition.privileged], device=device)
        self._membership = self.partition.group_membership(_GROUPING[args.grouping]).float().to(device)  # [T, K]
        self._counts = LabelCounts.of(torch.from_numpy(train_dataset.labels).to(device))
        self._label_sums = {
            mode: LabelMetricSums(
                self.partition,
                has_reference=args.needs_reference,
                has_confusers=args.privileged_loss in PREFERENCES,
                device=device,
            )
            for mode in ("train", "eval")
        }
        by_mean = args.hinge and args.hinge_level == "label"
        prepare_for_fsdp(self.accelerator, self.model, ref_model)
        self.start_groups(self._label_sums, mean_hinge=args.epsilon if by_mean else None)
        self._reference: MultiLabelClassifier | None = None
        if args.needs_reference:
            reference = copy.deepcopy(self.accelerator.unwrap_model(self.model)) if ref_model is None else ref_model
            if tuple(reference.config.label_names) != names:
                raise ValueError(
                    "The reference model has other labels, or another order: "
                    f"{first_difference(reference.config.label_names, names)}."
                )
            self._reference = reference.to(device)
            for rows in self._prepared.values():
                self._attach_reference(rows)

    # ---- data ----

    def _rows_of(self, split: Any) -> Any:
        """The rows of a split, made once, or of several by name; anything else (`None`, prepared rows) as it is."""
        if isinstance(split, dict):
            return {name: self._rows_of(part) for name, part in split.items()}
        if not isinstance(split, MultiLabelSplit):
            return split
        if id(split) not in self._prepared:
            self._prepared[id(split)] = SplitDataset(split, self._transform)
        return self._prepared[id(split)]

    def _attach_reference(self, rows: SplitDataset) -> None:
        """Computes the reference's logits of all rows, once."""
        if self._reference is not None and rows.reference_logits is None:
            rows.reference_logits = compute_logits(
                self._reference,
                rows,
                self.args.per_device_eval_batch_size,
                self.accelerator.device,
                progress=not self.args.disable_tqdm,
            )

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        if self.args.balanced_sampling == "none":
            return super()._get_train_sampler(train_dataset)
        labels = self.train_dataset.labels == 1  # [N, T]
        if self.args.balanced_sampling == "role":
            labels = labels[:, self._privileged.cpu()].any(dim=1, keepdim=True)
        membership = torch.cat([labels, ~labels.any(dim=1, keepdim=True)], dim=1)
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        return GroupBalancedSampler(membership[:, membership.any(dim=0)], seed)

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As [`~transformers.Trainer.evaluate`], for a [`MultiLabelSplit`] too."""
        return super().evaluate(self._ready(eval_dataset), *args, **kwargs)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """As [`~transformers.Trainer.predict`], for a [`MultiLabelSplit`] too; predictions are logits, `[N, T]`."""
        return super().predict(self._ready(test_dataset), *args, **kwargs)

    def _ready(self, split: Any) -> Any:
        found = self._rows_of(split)
        for rows in found.values() if isinstance(found, dict) else [found]:
            if isinstance(rows, SplitDataset):
                self._attach_reference(rows)
        return found

    def rows_hash(self, dataset: Any) -> str:
        """Hash of rows: ids, labels, and features or else the content of the images."""
        return rows_hash(dataset.split)

    def reference_hash(self) -> str | None:
        """Hash of the reference's weights and those of its backbone; `None` where the losses know no reference."""
        return None if self._reference is None else sha256_of_tensors(whole_parameters(self._reference))

    def describe_rows(self, batch: Mapping[str, Any], bad: torch.Tensor | None = None) -> str:
        """Names the rows of a batch by their ids; all, or those in `bad`."""
        rows = batch["row"].cpu() if bad is None else batch["row"].cpu()[bad]
        split = self.train_dataset.split if self.model.training else None
        shown = [f"row {row}" + (f" ({split.ids[row]})" if split is not None else "") for row in rows.tolist()[:4]]
        return ", ".join(shown) + (f" and {len(rows) - 4} more" if len(rows) > 4 else "")

    # ---- one optimizer step ----

    def count_groups(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Known labels of each group in one micro-batch, `[K]`; where one label of each image is drawn, its images."""
        if self._draws_labels("train" if self.model.training else "eval"):
            # An image whose label is of another group contributes 0 (line 42).
            return (batch["row"] >= 0).sum().double().repeat(self._membership.size(1))
        known = (batch["labels"] >= 0).sum(dim=0).to(self._membership.device, torch.float64)
        return known @ self._membership.double()

    def mask_duplicate_rows(self, batch: dict[str, Any]) -> None:
        """Rows that only fill the last batch become unknown in all labels, and so count nowhere."""
        duplicates = padded_duplicates(self.accelerator, len(batch["labels"]))
        if duplicates is not None:
            batch["labels"][duplicates.to(batch["labels"].device)] = -1
            batch["row"][duplicates.to(batch["row"].device)] = -1

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This batch's share of sum_g alpha_g * mean_g over the labels of each group."""
        outputs = model(**model_inputs(inputs, self.model, self.accelerator.device))
        with torch.autocast(outputs.logits.device.type, enabled=False):  # sums over labels stay in float32
            loss = self._objective(outputs.logits, inputs, "train" if self.model.training else "eval")
        return (loss, outputs) if return_outputs else loss

    def _objective(self, logits: torch.Tensor, inputs: dict[str, Any], mode: str) -> torch.Tensor:
        labels = inputs["labels"]  # [B, T]
        found = self._label_losses(logits, labels, inputs, mode)
        self.watch(inputs, logits, found.losses)
        losses, known = found.losses, labels >= 0
        if self._draws_labels(mode):
            drawn = self._drawn_labels(inputs["row"], labels.size(1))
            losses, known = torch.where(drawn, losses, 0.0), known & drawn

        inside = (found.above_reference <= self.args.epsilon) & known
        self._label_sums[mode].add(known, found.bce * known, losses, inside, found.confused & known)
        return self.group_objective(
            losses @ self._membership.to(losses.dtype),  # [B, K]: summed over the labels of a group
            self.count_groups(inputs),
            (found.above_reference.detach() * known).sum(dim=0),
            known.sum(dim=0),
            training=mode == "train",
        )

    def _draws_labels(self, mode: str) -> bool:
        """Whether one label of each image is drawn; an evaluation looks at all of them."""
        return mode == "train" and self.args.label_sampling == "uniform"

    def _label_losses(
        self, logits: torch.Tensor, labels: torch.Tensor, inputs: Mapping[str, Any], mode: str
    ) -> LabelLosses:
        args, gates, uniform = self.args, None, None
        if args.privileged_loss in PREFERENCES and args.confuser == "sample":
            rows, step = inputs["row"], self.state.global_step

            def uniform(image: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
                return keyed_uniform(args.seed, step, rows[image], self._privileged[column])

        if self._mean_hinge is not None:
            # From the running means before this step, so that every micro-batch and process sees the same gates.
            gates = (self.running_losses.estimates > self._mean_hinge).to(logits.device)
        return label_losses(
            logits,
            labels,
            args,
            self._privileged,
            reference_logits=inputs.get("reference_logits"),
            uniform=uniform,
            gates=gates,
            counts=self._counts,
            # An evaluation draws nothing: it takes the exact mean, so that it does not depend on the order of rows.
            confuser="mean" if mode == "eval" and args.confuser == "sample" else args.confuser,
        )

    def _drawn_labels(self, rows: torch.Tensor, labels: int) -> torch.Tensor:
        """r ~ Uniform(T) for each image (Algorithm 2, line 5), bool `[B, T]`."""
        stream = torch.full_like(rows, labels)  # the streams below are those of the labels themselves
        draw = (keyed_uniform(self.args.seed, self.state.global_step, rows, stream) * labels).long()  # [B]
        return torch.arange(labels, device=rows.device) == draw.unsqueeze(1)

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """Loss, logits and labels of one evaluation batch; rows that fill the last batch count nowhere."""
        self.mask_duplicate_rows(inputs)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        return loss.detach(), outputs.logits.detach().float(), inputs["labels"]

    # ---- card ----

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """
        Writes the card; arguments as upstream (`dataset` and `license` are read), and what the card reports:
        `evaluation`, a [`GroupEvaluation`] (else the last one of the trainer), and `comparison`, a
        [`ReferenceComparison`].
        """
        if self.is_world_process_zero():
            evaluation, comparison = kwargs.get("evaluation"), kwargs.get("comparison")
            write_model_card(self, evaluation, comparison, data=kwargs.get("dataset"), licence=kwargs.get("license"))

    # ---- metrics of whole splits ----

    def _whole_split_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """mAP, sample-F1, accuracy and exact match per group, over the whole split."""
        scores = np.asarray(prediction.predictions)
        evaluation = evaluate_groups(np.asarray(prediction.label_ids), scores, self.partition)
        self.evaluations[self._evaluating] = evaluation
        # "map/privileged", "ap/label/<name>" and so on; absent means absent.
        groups = {
            f"{metric}/{group}": value
            for metric in WHOLE_SPLIT
            for group, value in evaluation.by_group[metric].items()
        }
        labels = {f"ap/label/{name}": value for name, value in evaluation.by_label["ap"].items()}
        return {name: float(value) for name, value in {**groups, **labels}.items() if value == value}


def _resolve_partition(partition: Partition | None, args: MultiLabelFairPOConfig, names: tuple[str, ...]) -> Partition:
    """The partition of a run, with the labels in the order of the model's columns."""
    if partition is not None and args.privileged_labels:
        raise ValueError("Both `partition` and `privileged_labels` are given: pass one of them.")
    if partition is None:
        if not args.privileged_labels:
            raise ValueError(
                "Nothing is privileged: set `privileged_labels`, or pass a `Partition` "
                "(`Partition.by_least_frequent(split.label_counts(), 0.2)` takes the rarest fifth, as in the paper)."
            )
        return Partition.by_name(names, args.privileged_labels)
    if set(partition.names) != set(names):
        only = sorted(set(partition.names) ^ set(names))
        raise ValueError(f"The partition and the model have other labels; in one of them only: {only[:10]}.")
    return Partition.by_name(names, partition.privileged)

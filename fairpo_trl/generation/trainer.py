"""`FairPOTrainer`: TRL's `DPOTrainer` with one loss per role and group weights that adapt."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from accelerate.logging import get_logger
from accelerate.utils import is_peft_model
from datasets import Dataset, IterableDataset
from transformers import PreTrainedTokenizerBase

from fairpo_trl.core.losses import LOG_2
from fairpo_trl.core.partition import Partition
from fairpo_trl.core.reduction import group_sums, losses_of_members
from fairpo_trl.core.running_means import RunningMeans
from fairpo_trl.generation.collator import PAIR_WEIGHTS, ROW_COLUMN, AttributeCollator, describe_pairs
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.data_check import check_overlap, prepare_rows
from fairpo_trl.generation.held_gradients import HeldGradients
from fairpo_trl.generation.log_probs import PairLogProbs
from fairpo_trl.generation.metrics import PairMetricSums, evaluation_metrics
from fairpo_trl.generation.model_card import add_fairpo_facts
from fairpo_trl.generation.pair_forward import PairForward
from fairpo_trl.generation.pair_losses import losses_per_group, pair_losses
from fairpo_trl.generation.predictions import PredictsRewards
from fairpo_trl.generation.reference import check_adapter, choose_reference, silence
from fairpo_trl.generation.reference_cache import CachedReference
from fairpo_trl.generation.reference_check import StartCheck
from fairpo_trl.generation.roles import print_summary, resolve_partition
from fairpo_trl.generation.token_check import model_limits, prepare_tokens
from fairpo_trl.generation.trained_prompts import ForgetPrompts
from fairpo_trl.hashing import sha256_of_rows, sha256_of_tensors
from fairpo_trl.hub.card import PAPER
from fairpo_trl.loading import explained_within
from fairpo_trl.preferences.rules import WEIGHT_COLUMN, attribute_names
from fairpo_trl.preferences.tokens import TOKENS
from fairpo_trl.training.arguments import make_group_weights
from fairpo_trl.training.best_metric import check_best_metric
from fairpo_trl.training.engines import whole_parameters
from fairpo_trl.training.group_robust import GroupRobustTrainer
from fairpo_trl.training.progress import CompactProgressCallback, show_little
from fairpo_trl.training.safe_checkpoints import SafeCheckpoints
from fairpo_trl.training.sampler import GroupBalancedSampler
from fairpo_trl.training.window import padded_duplicates


logger = get_logger(__name__)


class FairPOTrainer(SafeCheckpoints, PairForward, CachedReference, HeldGradients, GroupRobustTrainer, PredictsRewards):
    r"""
    Trainer for FairPO: privileged attributes get better, the others do not get worse than the reference.

    It is a [`~trl.DPOTrainer`] whose pairs name the attribute that drove them. Pairs of privileged attributes get the
    DPO loss (Eq. 18), pairs of all others max(0, DPO loss - log 2 - epsilon) (Eq. 19), and the group means are
    combined with weights learned by mirror ascent (Eq. 3, Algorithm 2):

    $$\sum_g \alpha_g \frac{1}{N_g} \sum_{i \in g} \ell_i$$

    N_g counts group g over the whole optimizer step, all micro-batches and processes. If the data have a column
    `weight` (a number of 0 or more per pair), the means are weighted: sum w_i l_i over sum w_i. Only the ratios of
    weights within a group count, and metrics other than losses count every pair alike. Everything DPOTrainer does
    (LoRA, QLoRA, precomputed reference, several processes, ...) works as there.

    Example:

    ```python
    >>> from fairpo_trl import FairPOConfig, FairPOTrainer

    >>> trainer = FairPOTrainer(
    ...     model="HuggingFaceTB/SmolLM2-135M-Instruct",
    ...     args=FairPOConfig(output_dir="out", privileged_attributes=["concise"]),
    ...     train_dataset=dataset,  # prompt, chosen, rejected, attribute
    ... )
    >>> trainer.train()
    ```

    Args:
        model, ref_model, args, data_collator, train_dataset, eval_dataset, processing_class, **kwargs:
            As in [`~trl.DPOTrainer`]; `args` is a [`FairPOConfig`], and the datasets have the attribute column.
            `compute_metrics` is refused: it would see logits that DPOTrainer no longer builds.
        partition ([`~fairpo_trl.Partition`], *optional*):
            Attributes and roles, instead of `args.privileged_attributes`: for partitions chosen by frequency, by
            reference score or at random.

    Attributes:
        partition ([`~fairpo_trl.Partition`]): Attributes and roles.
        group_weights ([`~fairpo_trl.GroupWeights`]): Current weights; equal on every process.
        group_metrics (`dict[str, GroupMetrics]`): `"train"` (last logged), `"eval"` (last `evaluate`) and `"predict"`
            (last `predict`) -> the metrics, as DataFrames.

    Raises:
        ValueError: For data or options that cannot work; names the rows or the option, and the mend.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "dpo", "fairpo", "group-robust"]
    _name = "FairPO"
    _paper: ClassVar[dict[str, str]] = PAPER

    def __init__(
        self,
        model: Any,
        ref_model: Any = None,
        args: FairPOConfig | None = None,
        data_collator: Any = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        *,
        partition: Partition | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(args, FairPOConfig):
            raise ValueError(
                "`args` must be a `FairPOConfig` that names the privileged attributes, for example "
                f"FairPOConfig(output_dir='out', privileged_attributes=['concise']); got {type(args).__name__}."
            )
        if kwargs.get("compute_metrics") is not None:
            raise ValueError(
                "`compute_metrics` does not work with FairPO: DPOTrainer no longer builds the logits it would see. "
                "Read `trainer.group_metrics`, or the metrics of `trainer.evaluate()`."
            )
        if train_dataset is None:
            raise ValueError("`train_dataset` is required")
        if args.balanced_sampling != "none" and isinstance(train_dataset, IterableDataset):
            raise ValueError("`balanced_sampling` needs a dataset of known length, not a streaming one.")

        # Data and roles are checked before a model is loaded.
        train_dataset, counts = prepare_rows(train_dataset, "train", args.attribute_column)
        self.partition = resolve_partition(partition, args, counts, isinstance(train_dataset, IterableDataset))
        self._pair_counts = {"train": counts}
        several = isinstance(eval_dataset, dict)
        evaluation = dict(eval_dataset) if several else {} if eval_dataset is None else {"eval": eval_dataset}
        for name, rows in evaluation.items():
            evaluation[name], counts = prepare_rows(rows, name, args.attribute_column, self.partition.names)
            self._pair_counts["train (evaluation)" if name == "train" else name] = counts
        eval_dataset = evaluation if several else evaluation.get("eval")
        if not args.allow_prompt_overlap:
            check_overlap(train_dataset, evaluation)
        if evaluation:
            check_best_metric(
                args.metric_for_best_model, evaluation_metrics(self.partition), tuple(evaluation) if several else ()
            )
        self._checked = {id(train_dataset), *map(id, evaluation.values())}  # not again when they are tokenised
        self.group_weights = make_group_weights(args, self.partition.groups(args.grouping))
        self.running_losses = RunningMeans(self.partition.names, args.estimate_decay)  # DPO loss per attribute

        self._limits = model_limits(model, (args.model_init_kwargs or {}).get("revision"))
        reference = choose_reference(model, ref_model, kwargs.get("peft_config"), args)
        if args.disable_dropout:
            silence(model)  # before the reference's log-probs may be computed
        with explained_within(model) if isinstance(model, str) else contextlib.nullcontext():
            super().__init__(
                model=model,
                ref_model=reference.model,
                args=args,
                data_collator=data_collator,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                **kwargs,
            )
        self._checked = set()  # whatever comes later is another dataset
        if self._is_vlm:
            raise ValueError(
                "FairPOTrainer does not train vision-language models: pass a text model and its tokenizer."
            )
        if self.accelerator.parallelism_config is not None:
            raise ValueError(
                "FairPO counts groups over data-parallel processes; tensor, context and sequence parallelism would "
                "count pairs twice. Remove `parallelism_config`."
            )
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError(
                "The model has no trainable parameter, so training would do nothing. Load the adapter with "
                "`is_trainable=True`, or pass a `peft_config`."
            )
        self.check_held_gradients(self._is_sharded())
        if is_peft_model(self.model):
            check_adapter(self.accelerator.unwrap_model(self.model), is_reference=self.ref_model is None)
        if args.disable_dropout:
            silence(self.model, self.ref_model)
        else:
            logger.warning(
                "Dropout is on (`disable_dropout=False`): policy and reference then differ by noise at the very "
                "start, and the hinge is not 0 there."
            )
        self.data_collator: Any = AttributeCollator(self.data_collator, self.partition.names, args.attribute_column)

        show_little(self, CompactProgressCallback)  # a line would hold several metrics of every attribute
        self.add_callback(ForgetPrompts)

        device = self.accelerator.device
        self._membership = self.partition.group_membership(args.grouping).float().to(device)  # [A, K]
        self._is_non_privileged = torch.tensor(
            [g.role == "non_privileged" for g in self.group_weights.groups], device=device
        )
        self._pair_sums = {mode: PairMetricSums(self.partition, args, device) for mode in ("train", "eval")}
        by_mean = args.hinge_level == "attribute"
        self.start_groups(self._pair_sums, mean_hinge=LOG_2 + args.epsilon if by_mean else None)
        self._start_check = StartCheck(reference, args)

        if self.is_world_process_zero() and not args.disable_tqdm:
            print_summary(self.partition, self._pair_counts, args)

    # ---- data ----

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        if id(dataset) not in self._checked:  # passed to `evaluate` or `predict`
            dataset, _ = prepare_rows(dataset, dataset_name, args.attribute_column, self.partition.names)
        if not isinstance(processing_class, PreTrainedTokenizerBase):  # refused once the model is there
            return super()._prepare_dataset(dataset, processing_class, args, dataset_name)
        return prepare_tokens(dataset, processing_class, dataset_name, args, self._limits)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        for column in (self.args.attribute_column, ROW_COLUMN, WEIGHT_COLUMN, self.args.length_column_name):
            if column not in self._signature_columns:
                self._signature_columns.append(column)

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        if self.args.balanced_sampling == "none":
            return super()._get_train_sampler(train_dataset)
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        rows = [attribute_names(value) for value in dataset[self.args.attribute_column]]
        return GroupBalancedSampler(self.partition.memberships(rows, self.args.balanced_sampling), seed)

    def rows_hash(self, dataset: Any) -> str | None:
        """Hash of the tokens and attributes of pairs, in their order; `None` for a stream."""
        if not isinstance(dataset, Dataset):
            return None
        columns = [*TOKENS, self.args.attribute_column]
        return sha256_of_rows(dataset, [*columns, *({WEIGHT_COLUMN} & set(dataset.column_names))])

    def reference_hash(self) -> str:
        """Hash of the reference: a model, or what lies under the adapter; the model itself before it is trained."""
        if self.ref_model is not None:
            return sha256_of_tensors(whole_parameters(self.ref_model))
        model = self.accelerator.unwrap_model(self.model)
        return sha256_of_tensors(whole_parameters(model, frozen_only=is_peft_model(model)))

    def reference_digest(self) -> str:
        """[`reference_hash`], or that of log-probs computed before training: equal afterwards, or it has moved."""
        if self.precompute_ref_logps and self.ref_model is None and not is_peft_model(self.model):
            return sha256_of_rows(self.train_dataset, ["ref_chosen_logps", "ref_rejected_logps"])
        return self.reference_hash()

    # ---- one optimizer step ----

    def count_groups(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Members of each group in one micro-batch, or the sum of their weights, `[K]`."""
        return self._counts(self._members(batch["attribute_mask"].to(self._membership.device)), batch)

    def mask_duplicate_rows(self, batch: dict[str, Any]) -> None:
        """Pairs that only fill the last batch lose their attributes, and so count nowhere."""
        mask = batch["attribute_mask"]
        duplicates = padded_duplicates(self.accelerator, len(mask))
        if duplicates is not None:
            mask &= ~duplicates.to(mask.device).unsqueeze(1)

    def describe_rows(self, batch: Mapping[str, Any], bad: torch.Tensor | None = None) -> str:
        """Names the pairs of a batch: attribute, row of the data and how the prompt begins; all, or those in `bad`."""
        return describe_pairs(batch, self.partition.names, self.processing_class.decode, bad)

    def _members(self, attribute_mask: torch.Tensor) -> torch.Tensor:
        """Membership in groups, bool `[B, K]`, from attributes, bool `[B, A]`."""
        return (attribute_mask.float() @ self._membership) > 0

    def _counts(self, mask: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
        """How many pairs of a mask, `[B, n]`, each column has, or the sum of their weights: `[n]`."""
        weights = batch.get(PAIR_WEIGHTS)
        if weights is None:
            return mask.sum(dim=0)
        return (mask * weights.to(mask.device, self._window.counts.dtype).unsqueeze(1)).sum(dim=0)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This batch's share of sum_g alpha_g * mean_g: scaled for accumulation and processes while training."""
        attribute_mask = inputs["attribute_mask"].to(self._membership.device)  # [B, A]
        members = self._members(attribute_mask)  # [B, K]
        gates = self._open_gates(attribute_mask)
        ref_chosen, ref_rejected = self.reference_of(inputs)

        def losses_of(policy: PairLogProbs) -> torch.Tensor:
            pairs = pair_losses(policy, ref_chosen, ref_rejected, self.args)
            return losses_per_group(pairs, self._is_non_privileged, gates)

        policy, outputs = self.policy_log_probs(model, inputs, members, self._is_non_privileged, losses_of)
        pairs = pair_losses(policy, ref_chosen, ref_rejected, self.args)
        self.watch(inputs, policy.chosen, policy.rejected, ref_chosen, ref_rejected, pairs.privileged)
        line = self._start_check.look(self.state.global_step, model, inputs, policy, ref_chosen, ref_rejected)
        if line is not None:
            self.accelerator.print(line, flush=True)
        losses = losses_of_members(losses_per_group(pairs, self._is_non_privileged, gates), members)  # [B, K]

        mode = "train" if self.model.training else "eval"
        self._pair_sums[mode].add(pairs, policy, ref_chosen, ref_rejected, attribute_mask, inputs, outputs)
        dpo = losses_of_members(pairs.dpo.unsqueeze(1).expand(attribute_mask.shape), attribute_mask)  # [B, A]
        if PAIR_WEIGHTS in inputs:  # sums of w * loss over sums of w: weighted means, of a group over the whole step
            weights = inputs[PAIR_WEIGHTS].to(losses.device, losses.dtype).unsqueeze(1)
            losses, dpo = losses * weights, dpo * weights
        counts, item_counts = self._counts(members, inputs), self._counts(attribute_mask, inputs)
        loss = self.group_objective(losses, counts, group_sums(dpo), item_counts, training=mode == "train")
        self.collect_gradients(losses, members, dpo, item_counts)
        if self.aux_loss_enabled:  # a mean over tokens of each micro-batch, so it is averaged over them
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / (
                self._window_batches if mode == "train" else 1
            )
        if return_outputs:
            rewards = (policy.chosen - ref_chosen, policy.rejected - ref_rejected)
            outputs.rewards = self.beta * torch.stack(rewards, dim=1).detach()  # [B, 2]
        return (loss, outputs) if return_outputs else loss

    def _open_gates(self, attribute_mask: torch.Tensor) -> torch.Tensor | None:
        """For `hinge_level="attribute"`: whether a pair's attribute in the group is above its bound, `[B, K]`."""
        if self._mean_hinge is None:
            return None
        # From the running means before this window, so that every micro-batch and process sees the same gates.
        above = self.running_losses.estimates > self._mean_hinge  # [A]
        return self._members(attribute_mask & above.to(attribute_mask.device))

    # ---- logs, checkpoints, card ----

    def read_metrics(self, mode: str) -> dict[str, float]:
        """The metrics since the last reading, with TRL's running count of training tokens."""
        metrics = super().read_metrics(mode)
        if metrics:
            if mode == "train":
                self._total_train_tokens += int(metrics["num_tokens"])
            metrics["num_tokens"] = float(self._total_train_tokens)
        return metrics

    def group_state(self) -> dict[str, Any]:
        """Everything of the groups that a checkpoint keeps, and the count of training tokens."""
        return {**super().group_state(), "num_tokens": self._total_train_tokens}

    def load_group_state(self, state: Mapping[str, Any]) -> None:
        """Restores [`group_state`]."""
        super().load_group_state(state)
        self._total_train_tokens = state["num_tokens"]

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
        *,
        win_rates: Mapping[str, float] | None = None,
    ) -> None:
        """
        Writes TRL's model card, then adds what FairPO knows: partition, results per attribute, the adapter's facts.

        Args:
            model_name, dataset_name, tags:
                As upstream.
            win_rates (`Mapping[str, float]`, *optional*):
                Attribute -> win rate against the reference.
        """
        super().create_model_card(model_name, dataset_name, tags)
        if self.is_world_process_zero():
            add_fairpo_facts(self, win_rates)

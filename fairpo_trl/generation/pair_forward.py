"""How `FairPOTrainer` computes log-probabilities: packed where the model allows it, and only as often as needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from accelerate.logging import get_logger
from accelerate.utils import DistributedType, is_peft_model
from transformers.modeling_outputs import ModelOutput
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import use_adapter

from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.log_probs import PairLogProbs, pair_log_probs, sum_tokens, token_outputs
from fairpo_trl.generation.packed_forward import disagreement, why_not_packed
from fairpo_trl.generation.packing import PackedPairs, pack_pairs, pair_spans
from fairpo_trl.training.mixin_base import TrainerBase
from fairpo_trl.training.watched import Watched


logger = get_logger(__name__)

_DECAY = 0.95  # of the running share, per micro-batch: a look back of about 20
_MARGIN = 0.95  # what a first pass has to save at least: it costs a second, smaller forward


class IdleShare:
    """
    The running share of held pairs outside their hinge, and whether a first pass without gradients pays.

    With f the cost of a forward, a held pair costs f + active * (f + backward) with a first pass, and f + backward
    without one. The backward costs as much as the forward where the weights are frozen (LoRA), twice as much where
    they are not, and one forward more where activations are recomputed (gradient checkpointing).

    Args:
        backward (`float`):
            Cost of a backward pass, in forward passes.
    """

    def __init__(self, backward: float) -> None:
        self._full = 1.0 + backward
        self._sums = torch.zeros(2, dtype=torch.float64)  # pairs that needed a gradient, held pairs; decayed

    def pays(self) -> bool:
        """Whether to look for idle pairs; at the start, where policy and reference are equal, all of them are."""
        active, held = self._sums.tolist()
        share = active / held if held > 0 else 0.0
        return 1.0 + share * self._full < _MARGIN * self._full

    def update(self, active: int, held: int) -> None:
        """Takes one micro-batch: how many of its `held` pairs needed a gradient."""
        if held:
            self._sums = _DECAY * self._sums + torch.tensor([active, held], dtype=torch.float64)

    def state_dict(self) -> list[float]:
        """JSON-ready, and bit-equal when read back."""
        return self._sums.tolist()

    def load_state_dict(self, state: list[float]) -> None:
        """Restores [`state_dict`]."""
        self._sums = torch.tensor(state, dtype=torch.float64)


def needs_gradient(losses: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """
    Which pairs can have a gradient, bool `[B]`: those whose loss in a group is not exactly 0.

    Args:
        losses (`torch.Tensor`):
            `[B, K]`, the loss of each pair as a member of each group: max(0, .) inside the hinge, or a loss times a
            closed gate. Both have the gradient 0 exactly where they are 0.
        members (`torch.Tensor`):
            `[B, K]`, bool. A pair of no group (a row that fills the last batch) has no gradient either.
    """
    return ((losses != 0) & members).any(dim=1)  # NaN is not 0: it goes on to where it is reported


def join_outputs(first: ModelOutput, second: ModelOutput | None, idle: torch.Tensor) -> ModelOutput:
    """
    The per-token statistics `[2B, T - 1]` of all pairs: of those in `idle`, bool `[B]`, from the first pass, of all
    others from the second, which carries the gradients. Either has 0 for pairs that it did not compute.
    """
    if second is None:
        return first
    rows = idle.repeat(2).unsqueeze(1)  # [2B, 1]
    for name, values in first.items():
        if values is not None and values.shape[:1] == rows.shape[:1]:
            second[name] = torch.where(rows, values, second[name])
    return second


def without_gradient(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """
    A 0 that depends on every trainable parameter: a micro-batch of idle pairs alone still gives each a gradient of 0.

    (Without one, an optimizer would pass over the parameter, momentum and weight decay included.)
    """
    terms = [p.flatten()[0].float() * 0.0 for p in parameters if p.requires_grad]
    return torch.stack([term.to(terms[0].device) for term in terms]).sum()


class PairForward(TrainerBase):
    """
    Mixin before [`~trl.DPOTrainer`]: the forward passes of policy and reference.

    Pairs are packed (`prompt | chosen | rejected`, several in a row) once the first batch has shown that the packed
    log-probabilities are those of the plain layout, and held pairs inside their hinge get no backward pass. Both are
    exact.
    """

    args: FairPOConfig
    ref_model: Any
    ld_alpha: float | None
    aux_loss_enabled: bool
    precompute_ref_logps: bool
    sum_over_processes: Callable[[torch.Tensor], torch.Tensor]

    _watched: Watched | None
    _packs: bool | None = None  # None: not decided yet
    _idle: IdleShare | None = None

    # ---- the layout ----

    def packed_pairs(
        self, model: torch.nn.Module, inputs: dict[str, Any], pairs: list[int] | None = None
    ) -> PackedPairs | None:
        """
        Where the tokens of a batch, or of some of its pairs, go in the forward of a model, or `None` for the plain
        layout; the first call decides for the whole run.
        """
        if self._packs is None:
            reason = self._why_plain(model, inputs)
            disagree = torch.tensor([float(reason is not None)], device=self.accelerator.device)
            self._packs = float(self.sum_over_processes(disagree)) == 0
            if reason is not None:
                if self.args.packing == "always":
                    raise ValueError(
                        f"`packing='always'` cannot be kept for this model: {reason}. Use packing='auto', which takes "
                        "the plain layout then."
                    )
                if self.args.packing == "auto":
                    logger.warning(f"Pairs are computed in the plain layout, prompt twice and padded: {reason}.")
        spans = inputs["pair_spans"] if "pair_spans" in inputs else pair_spans(inputs)
        if not self._packs or spans is None:
            return None
        ids = inputs["input_ids"]
        return pack_pairs(spans, ids.size(1), range(len(spans)) if pairs is None else pairs).to(ids.device)

    def _why_plain(self, model: torch.nn.Module, inputs: dict[str, Any]) -> str | None:
        """Why the pairs of this run cannot be packed; `None` if they can: a first batch is computed both ways."""
        if self.args.packing == "never":
            return "packing='never'"
        if self.aux_loss_enabled:
            return "the load-balancing loss of its router is a mean over the tokens of a batch, prompts counted twice"
        if self.args.torch_compile:
            return "torch_compile=True would compile anew for every batch of another length"
        if not self.args.disable_dropout:
            return "with dropout (disable_dropout=False) no two passes are equal, so a layout cannot be checked"
        models = [model, *([self.ref_model] if self.ref_model not in (None, model) else [])]
        reason = next(filter(None, map(why_not_packed, models)), None)
        spans = pair_spans(inputs)
        if reason is not None or spans is None:
            return reason or "the data collator pads elsewhere than at the end of a row"
        packed = pack_pairs(spans, inputs["input_ids"].size(1), range(len(spans))).to(inputs["input_ids"].device)
        for checked in models:
            parameter = next(checked.parameters())
            half = parameter.dtype in (torch.bfloat16, torch.float16) or self.args.bf16 or self.args.fp16
            with self._no_gradients():
                plain = token_outputs(checked, inputs)
                try:
                    other = token_outputs(checked, inputs, packed)
                except Exception as error:  # whatever a model's own code says to a mask of its own
                    first_line = (str(error).splitlines() or [""])[0]
                    return f"it does not take packed rows ({type(error).__name__}: {first_line[:120]})"
            reason = disagreement(plain.log_probs, other.log_probs, inputs["completion_mask"], half)
            if reason is not None:
                return reason
        return None

    @contextlib.contextmanager
    def _no_gradients(self) -> Iterator[None]:
        """For passes without a graph: no recomputing of activations either, and the precision of training."""
        checkpointing: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if (
            self.model.is_activation_checkpointing
        ):  # only then: TRL reads it by its old name, which warns at every step
            checkpointing = disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
        with torch.no_grad(), checkpointing, self.accelerator.autocast():
            yield

    # ---- reference ----

    def compute_ref_log_probs(
        self, model: torch.nn.Module, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Log-probabilities of both completions under the reference: a separate model, the adapter switched off, or the
        frozen "ref" copy of an adapter that was trained before. Each `[B]`, without gradient.
        """
        packed = self.packed_pairs(model, inputs)
        adapter: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self.ref_model is None and is_peft_model(self.model):
            unwrapped = self.accelerator.unwrap_model(self.model)
            adapter = use_adapter(unwrapped, adapter_name="ref" if "ref" in unwrapped.peft_config else None)
        with self._no_gradients(), adapter:
            reference, _ = pair_log_probs(model, inputs, self.ld_alpha, packed)
        return reference.chosen, reference.rejected

    def reference_of(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of a batch under the reference, computed before or now; each `[B]`."""
        if self.precompute_ref_logps:
            return inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        # Not `or`: a compiled model asked for its truth looks for a length.
        return self.compute_ref_log_probs(self.model if self.ref_model is None else self.ref_model, inputs)

    # ---- policy ----

    def policy_log_probs(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        members: torch.Tensor,
        is_non_privileged: torch.Tensor,
        losses_of: Callable[[PairLogProbs], torch.Tensor],
    ) -> tuple[PairLogProbs, ModelOutput]:
        """
        Log-probabilities of a batch under the policy, with gradient where a pair can have one.

        Args:
            model (`torch.nn.Module`):
                The policy, wrapped for several processes or not.
            inputs (`dict[str, Any]`):
                The batch of `B` pairs.
            members (`torch.Tensor`):
                Membership in groups, bool `[B, K]`.
            is_non_privileged (`torch.Tensor`):
                Which groups are non-privileged, bool `[K]`.
            losses_of (`Callable`):
                The losses `[B, K]` of log-probabilities.
        """
        idle = self._idle_share()
        packed_all = None
        if idle is not None and torch.is_grad_enabled() and self.model.training:
            held = ~(members & ~is_non_privileged).any(dim=1)  # [B]
            # The layout is decided with the reference's pass, or here.
            if self._packs is None:
                packed_all = self.packed_pairs(model, inputs)
            if self._packs and idle.pays():
                return self._policy_in_two_passes(model, inputs, members, held, losses_of, idle)
            policy, outputs = self._policy_in_one_pass(model, inputs, packed_all)
            active = held & needs_gradient(losses_of(policy).detach(), members)
            counts = torch.stack([active.sum(), held.sum()]).tolist()
            idle.update(*counts)
            return policy, outputs
        return self._policy_in_one_pass(model, inputs, packed_all)

    def _policy_in_one_pass(
        self, model: torch.nn.Module, inputs: dict[str, Any], packed: PackedPairs | None
    ) -> tuple[PairLogProbs, ModelOutput]:
        kwargs = {"output_router_logits": True} if self.aux_loss_enabled else {}
        return pair_log_probs(model, inputs, self.ld_alpha, packed or self.packed_pairs(model, inputs), **kwargs)

    def _policy_in_two_passes(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        members: torch.Tensor,
        held: torch.Tensor,
        losses_of: Callable[[PairLogProbs], torch.Tensor],
        idle: IdleShare,
    ) -> tuple[PairLogProbs, ModelOutput]:
        """First the held pairs without a graph, then the others and those outside their hinge with one."""
        held_pairs = held.nonzero().flatten().tolist()
        if not held_pairs:
            return self._policy_in_one_pass(model, inputs, None)
        completions = inputs["completion_mask"]
        with self._no_gradients():
            # Not the wrapped model: DDP sends its buffers around at each forward.
            first = token_outputs(self.model, inputs, self.packed_pairs(model, inputs, held_pairs))
            losses = losses_of(sum_tokens(first.log_probs, completions, self.ld_alpha))
        active = ~held | (held & needs_gradient(losses, members))  # [B]
        if self.accelerator.num_processes > 1 and not bool(active.any()):
            active = torch.arange(len(held), device=held.device) == 0  # every process takes part in the backward pass
        needed = active.nonzero().flatten().tolist()
        idle.update(len(set(needed) & set(held_pairs)), len(held_pairs))
        second = None
        if needed:
            second = token_outputs(model, inputs, self.packed_pairs(model, inputs, needed))
        else:
            first.log_probs = first.log_probs + without_gradient(self.model.parameters())
        outputs = join_outputs(first, second, ~active)
        return sum_tokens(outputs.log_probs, completions, self.ld_alpha), outputs

    def _idle_share(self) -> IdleShare | None:
        """The running share of pairs outside their hinge; `None` where no pair can be idle, or none can be skipped."""
        if self._idle is None and self._can_skip():
            trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
            total = sum(p.numel() for p in self.model.parameters())
            backward = (2.0 if trained > total / 2 else 1.0) + float(self.args.gradient_checkpointing)
            self._idle = IdleShare(backward)
        return self._idle

    def _can_skip(self) -> bool:
        args = self.args
        excess = args.balancer == "lagrangian" and args.lagrangian_term == "excess"  # un-hinged: always a gradient
        needed = excess or args.held_gradients != "sum"  # of pairs inside their hinge too
        return args.skip_idle_pairs and args.hinge and not needed and not self._is_sharded()

    def _is_sharded(self) -> bool:
        """Whether weights are gathered in each forward, so that all processes have to make the same passes."""
        return self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)

    # ---- numbers that are not finite, checkpoints ----

    def _raise_for_watched(self, where: str) -> None:
        # In a packed row what is not finite reaches the neighbours too (0 * nan is nan): the plain layout tells them
        # apart. Sharded models are left out: their passes need every process.
        watched = self._watched
        if self._packs and watched is not None and not self._is_sharded() and not watched.is_finite():
            batch = watched.batch
            with self._no_gradients():
                outputs = token_outputs(self.model, batch)
                alone = sum_tokens(outputs.log_probs, batch["completion_mask"], self.ld_alpha)
            alone_watched = Watched(batch, (alone.chosen, alone.rejected))
            if not alone_watched.is_finite():
                self._watched = alone_watched
        super()._raise_for_watched(where)

    def group_state(self) -> dict[str, Any]:
        """Adds the running share of idle pairs to what a checkpoint keeps."""
        return {**super().group_state(), "idle_pairs": None if self._idle is None else self._idle.state_dict()}

    def load_group_state(self, state: Mapping[str, Any]) -> None:
        """Restores [`group_state`]; a checkpoint of an earlier version has no share."""
        super().load_group_state(state)
        idle, kept = self._idle_share(), state.get("idle_pairs")
        if idle is not None and kept is not None:
            idle.load_state_dict(kept)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        # A resume gives every process the state of the main one: all go on with that of the whole.
        if self._idle is not None and self.accelerator.num_processes > 1:
            sums = torch.tensor(self._idle.state_dict(), device=self.accelerator.device)
            self._idle.load_state_dict((self.sum_over_processes(sums) / self.accelerator.num_processes).tolist())
        super()._save_optimizer_and_scheduler(output_dir)

"""At the start policy and reference agree: the promise on which log 2 and the hinge stand, looked at once a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from fairpo_trl.core.losses import LOG_2, dpo_loss, log_ratio_margin
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.log_probs import PairLogProbs, pair_log_probs
from fairpo_trl.generation.reference import Reference


# Mean difference per token, in nats, that the rounding of a precision can make where the two are computed in batches
# of another shape; where they are computed alike it is 0.
_TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 1e-2}
_TOLERANCE_FULL = 1e-3


class Start(NamedTuple):
    """
    What the first batch said.

    Attributes:
        difference (`float`): Mean over the completions of |log-prob - that of the reference| per token, in nats.
        dpo (`float`): Mean DPO loss; log 2 where the two agree.
        inside_hinge (`float`): Share of pairs whose DPO loss is at most log 2 + epsilon.
    """

    difference: float
    dpo: float
    inside_hinge: float


class StartCheck:
    """
    Compares policy and reference on the first batch before any step: of an evaluation, and of training, where noise
    would show.

    Args:
        reference (`Reference`):
            What the reference is, and why the policy may differ from it.
        args (`FairPOConfig`):
            `beta`, `epsilon`, `ld_alpha`, `disable_dropout`.

    Attributes:
        start (`Start`, *optional*): What the first batch said; `None` before, and in a run that was resumed.
    """

    def __init__(self, reference: Reference, args: FairPOConfig) -> None:
        self.reference, self.args = reference, args
        self.start: Start | None = None
        self._seen: set[bool] = set()

    def look(
        self,
        step: int,
        model: torch.nn.Module,
        inputs: Mapping[str, Any],
        policy: PairLogProbs,
        ref_chosen_logps: torch.Tensor,
        ref_rejected_logps: torch.Tensor,
    ) -> str | None:
        """
        Looks at a batch of `B` pairs, if it is the first of its kind and no step has been made.

        Args:
            step (`int`):
                Optimizer steps done; a resumed run begins above 0 and is not looked at.
            model (`torch.nn.Module`):
                The policy, as it was called for `policy`.
            inputs, policy, ref_chosen_logps, ref_rejected_logps:
                The batch, and its log-probabilities under the policy and the reference.

        Returns:
            `str` or `None`: a line to be said, once a run.

        Raises:
            ValueError: If the policy should start from the reference but does not, or is random although dropout is
                off; says what the reference is, and the mend.
        """
        if model.training in self._seen:
            return None
        self._seen.add(model.training)
        if step > 0:
            return None
        looked_at = (policy.chosen, policy.rejected, ref_chosen_logps, ref_rejected_logps)
        if not all(bool(torch.isfinite(values).all()) for values in looked_at):
            return None  # that has an error of its own, which names the rows
        start = _compare(policy, ref_chosen_logps, ref_rejected_logps, inputs, self.args)
        agree = start.difference <= self._tolerance(model)
        expected = self.reference.differs_because is None
        # A reference of its own is never random, and a difference may be meant: only a second look tells.
        if self.args.disable_dropout and model.training and (not expected or not agree):
            self._refuse_noise(model, inputs, policy)
        if expected and not agree:
            raise ValueError(self._disagreement(start))
        said, self.start = self.start is not None, self.start or start
        return None if said else self._line(start, agree)

    def _tolerance(self, model: torch.nn.Module) -> float:
        dtypes = {parameter.dtype for parameter in model.parameters()}
        if self.args.bf16:
            dtypes.add(torch.bfloat16)
        elif self.args.fp16 or self.args.tf32:  # TF32 rounds as float16 does
            dtypes.add(torch.float16)
        return max((_TOLERANCE.get(dtype, _TOLERANCE_FULL) for dtype in dtypes), default=_TOLERANCE_FULL)

    def _refuse_noise(self, model: torch.nn.Module, inputs: Mapping[str, Any], policy: PairLogProbs) -> None:
        devices = [policy.chosen.device] if policy.chosen.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            again, _ = pair_log_probs(model, inputs, self.args.ld_alpha)
        noise = _compare(policy, again.chosen, again.rejected, inputs, self.args).difference
        if noise > self._tolerance(model):
            raise ValueError(
                f"The model is random although `disable_dropout=True`: two passes over the first batch differ by "
                f"{noise:.2g} nats per token, so the policy is not its reference and the hinge is never 0. Switch the "
                "noise off in the model's configuration (dropout, layer drop, router noise), remove hooks that add "
                "noise, or set disable_dropout=False to train with it."
            )

    def _disagreement(self, start: Start) -> str:
        outside = 1 - start.inside_hinge
        hinge = f", and {outside:.0%} of the pairs are outside the hinge before any step" if outside else ""
        mend = "If another reference is meant, pass it as `ref_model`."
        return (
            f"The policy is not its reference at the start: on the first batch their log-probs differ by "
            f"{start.difference:.2g} nats per token, so the DPO loss is {start.dpo:.4f} instead of log 2 = "
            f"{LOG_2:.4f}{hinge}. The reference is {self.reference.what}. {mend} An adapter needs an initialisation "
            "that starts from the model."
        )

    def _line(self, start: Start, agree: bool) -> str:
        what = self.reference.what
        if self.reference.differs_because is None:
            return (
                f"Policy and reference agree at the start (DPO loss {start.dpo:.4f} = log 2, hinge 0): the reference "
                f"is {what}."
            )
        return (
            f"The reference is {what} ({self.reference.differs_because}). At the start the policy "
            + ("equals it" if agree else f"differs from it by {start.difference:.2g} nats per token")
            + f" (DPO loss {start.dpo:.4f}, {start.inside_hinge:.0%} of the pairs inside the hinge)."
        )


@torch.no_grad()
def _compare(
    policy: PairLogProbs,
    ref_chosen_logps: torch.Tensor,
    ref_rejected_logps: torch.Tensor,
    inputs: Mapping[str, Any],
    args: FairPOConfig,
) -> Start:
    lengths = inputs["completion_mask"][:, 1:].sum(dim=1).clamp(min=1)  # [2B]
    differences = torch.cat([policy.chosen - ref_chosen_logps, policy.rejected - ref_rejected_logps]).abs()
    margin = log_ratio_margin(policy.chosen, policy.rejected, ref_chosen_logps, ref_rejected_logps)
    dpo = dpo_loss(margin, args.beta)
    inside = (dpo <= LOG_2 + args.epsilon).double().mean()
    return Start(float((differences / lengths).mean()), float(dpo.mean()), float(inside))

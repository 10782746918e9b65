"""Sample completions from a causal language model, fast on CPU and with common random numbers.

Why not `model.generate`: it computes every row until the last one ends, and it draws from one random stream for the
whole batch. The loop here drops a row from the batch (and from the key-value cache) as soon as it ends, computes the
tokens that all prompts of a batch begin with only once, and keys every draw by prompt, sample, position and token.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from fairpo_trl.core.messages import shortened
from fairpo_trl.core.options import check_number
from fairpo_trl.evaluation.common_random import gumbel_noise, row_keys
from fairpo_trl.loading import rendered
from fairpo_trl.preferences.rules import text_problem


if TYPE_CHECKING:
    from peft import PeftModel

Model: TypeAlias = "PreTrainedModel | PeftModel"

Prompt: TypeAlias = str | Sequence[dict[str, Any]]
"""Plain text, or a conversation as a list of `{"role": ..., "content": ...}` messages."""


@dataclass(frozen=True)
class Completion:
    """
    What a model wrote after one prompt.

    Attributes:
        text (`str`): Decoded tokens, special tokens left out.
        token_ids (`tuple[int, ...]`): The tokens, without the end token.
        ended (`bool`): Whether the model ended by itself; `False` if it was cut at the length limit.
    """

    text: str
    token_ids: tuple[int, ...]
    ended: bool


def tokenize_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """
    Token ids of one prompt, at least one, ready to be continued.

    Text is tokenized as it is (with the tokenizer's special tokens); a conversation goes through the chat template,
    followed by the header of the assistant's turn, or left open if it ends with an assistant turn.

    Raises:
        ValueError: If the prompt has no tokens, or is neither text nor messages.
    """
    problem = text_problem(list(prompt) if isinstance(prompt, tuple) else prompt, "prompt")
    if prompt is None or problem:
        raise ValueError(f"A prompt must be text or messages, but {problem or 'it is None'}.")
    if isinstance(prompt, str):
        ids = tokenizer(prompt)["input_ids"]
    else:
        opened = bool(prompt) and prompt[-1]["role"] == "assistant"
        with rendered(tokenizer):
            ids = tokenizer.apply_chat_template(
                list(prompt), add_generation_prompt=not opened, continue_final_message=opened, return_dict=False
            )
    if not ids:
        raise ValueError(
            f"The prompt {shortened(prompt)} has no tokens; give at least one character or a beginning token."
        )
    return list(ids)


@contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Put every module in evaluation mode without gradients, and give each its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def left_pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, padded on the left with token 0, and the attention mask that hides it, both `[rows, longest]`."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def end_tokens(model: Model, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """
    The tokens that end a completion: the tokenizer's, and those of the model's generation configuration.

    A chat model may end a turn with another token than a text.

    Raises:
        ValueError: If there is none.
    """
    own = model.generation_config.eos_token_id
    found = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}
    if not found:
        raise ValueError("Neither the tokenizer nor the model has an end-of-sequence token: completions never end.")
    return sorted(found)


def context_length(model: Model) -> float:
    """Most tokens that the model can read and write together; infinite if its configuration sets no limit."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or math.inf  # recurrent models have none


def sample_completions(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    samples_per_prompt: int = 1,
    max_new_tokens: int = 48,
    temperature: float = 0.7,
    top_k: int = 50,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    end_token_ids: Sequence[int] | None = None,
    first_prompt: int = 0,
    progress: bool = True,
    desc: str = "Writing completions",
) -> list[list[Completion]]:
    """
    Sample completions; two models called with the same seed share their random numbers.

    The result depends on the model, the prompts and the settings, and (up to floating-point rounding) neither on
    `batch_size` nor on the global random state, which stays untouched. Nothing is taken from the model's
    `generation_config`. For the base model of an adapter, call it inside `with model.disable_adapter():`.

    Args:
        model ([`Model`]):
            A causal language model or a `PeftModel`; it is run on its own device.
        tokenizer ([`PreTrainedTokenizerBase`]):
            Its tokenizer.
        prompts (`Sequence[Prompt]`):
            Conversations or plain strings.
        samples_per_prompt (`int`, *optional*, defaults to `1`):
            Completions drawn per prompt, independent of each other.
        max_new_tokens (`int`, *optional*, defaults to `48`):
            Length limit in tokens, the end token included.
        temperature (`float`, *optional*, defaults to `0.7`):
            Divides the logits; 0 takes the most probable token.
        top_k (`int`, *optional*, defaults to `50`):
            Draw among this many most probable tokens; 0 for all.
        top_p (`float`, *optional*, defaults to `1.0`):
            Draw among the most probable tokens that together reach this probability.
        seed (`int`, *optional*, defaults to `0`):
            Any integer. Two seeds give independent samples.
        batch_size (`int`, *optional*, defaults to `64`):
            Rows computed at once.
        end_token_ids (`Sequence[int]`, *optional*):
            Tokens that end a completion, by default the tokenizer's end-of-sequence token.
        first_prompt (`int`, *optional*, defaults to `0`):
            Index of the first prompt in a longer list, of which `prompts` is a part: the completions are then those
            that a call with the whole list gives.
        progress (`bool`, *optional*, defaults to `True`):
            Show a progress bar (counting completions) on stderr.
        desc (`str`, *optional*, defaults to `"Writing completions"`):
            Its label.

    Returns:
        `[prompts][samples_per_prompt]` completions, in the order of `prompts`.

    Raises:
        ValueError: If a setting is out of its range, or there is no end token.
        FloatingPointError: If the model's logits are not finite (it has diverged).
    """
    counts = {"samples_per_prompt": samples_per_prompt, "max_new_tokens": max_new_tokens, "batch_size": batch_size}
    check_sampling(temperature, top_k, top_p, **counts)
    if isinstance(prompts, str):
        raise ValueError(f"`prompts` must be a list of prompts, got the text {shortened(prompts)}: pass it in a list.")
    if end_token_ids is None:
        if tokenizer.eos_token_id is None:
            raise ValueError("The tokenizer has no end-of-sequence token: pass end_token_ids.")
        end_token_ids = [tokenizer.eos_token_id]
    draw = _Draw(temperature, top_k, top_p)
    prompt_ids = [tokenize_prompt(tokenizer, prompt) for prompt in prompts]
    rows = [(p, s) for p in range(len(prompts)) for s in range(samples_per_prompt)]
    rows.sort(key=lambda row: len(prompt_ids[row[0]]))  # stable: less padding, and samples of a prompt stay together
    written: dict[tuple[int, int], Completion] = {}
    with evaluation_mode(model), tqdm(total=len(rows), desc=desc, unit="text", disable=not progress) as bar:
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            keys = row_keys(seed, np.array([first_prompt + p for p, _ in batch]), np.array([s for _, s in batch]))
            token_rows = [prompt_ids[p] for p, _ in batch]
            for row, ids, ended in _continue(model, token_rows, keys, draw, max_new_tokens, set(end_token_ids)):
                text = str(tokenizer.decode(ids, skip_special_tokens=True))
                written[batch[row]] = Completion(text=text, token_ids=tuple(ids), ended=ended)
                bar.update()
    return [[written[p, s] for s in range(samples_per_prompt)] for p in range(len(prompts))]


def check_sampling(temperature: float, top_k: int, top_p: float, **counts: int) -> None:
    """Raises `ValueError`, naming the option, unless these and the counts, all at least 1, are in their range."""
    for option, value in counts.items():
        check_number(option, value, least=1, whole=True)
    check_number("temperature", temperature)
    check_number("top_k", top_k, whole=True)
    if not 0 < top_p <= 1:
        raise ValueError(f"`top_p` must be within (0, 1], got {top_p}.")


@dataclass(frozen=True)
class _Draw:
    temperature: float
    top_k: int
    top_p: float

    def __call__(self, logits: torch.Tensor, keys: NDArray[np.uint64], position: int) -> NDArray[np.int64]:
        """Next token of each row: logits `[rows, vocabulary]`, keys `[rows]` -> `[rows]`."""
        candidates = 1 if self.temperature == 0 else min(self.top_k or logits.shape[-1], logits.shape[-1])
        top_logits, top_ids = logits.float().topk(candidates, dim=-1)  # NaN sorts as the largest: it is seen below
        scores = top_logits.cpu().numpy().astype(np.float64)
        token_ids = top_ids.cpu().numpy()
        if not np.isfinite(scores[:, 0]).all():
            raise FloatingPointError("The model's logits are not finite: the model has diverged.")
        if self.temperature == 0:
            return token_ids[:, 0]
        scores /= self.temperature
        if self.top_p < 1:
            probabilities = np.exp(scores - scores[:, :1])
            probabilities /= probabilities.sum(axis=-1, keepdims=True)
            before = probabilities.cumsum(axis=-1) - probabilities  # probability of all better candidates
            before[:, 0] = 0.0  # rounding must never exclude the best one
            scores[before >= self.top_p] = -np.inf
        best = (scores + gumbel_noise(keys, position, token_ids)).argmax(axis=-1)
        return np.take_along_axis(token_ids, best[:, None], axis=-1)[:, 0]


def _shared_prefix(rows: Sequence[list[int]]) -> int:
    """Number of leading tokens common to all rows, leaving each row at least one token of its own."""
    first, last = min(rows), max(rows)  # all rows lie between these two in lexicographic order
    limit = min(len(row) for row in rows) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)


def _continue(
    model: Model,
    prompt_ids: Sequence[list[int]],
    keys: NDArray[np.uint64],
    draw: _Draw,
    max_new_tokens: int,
    end_token_ids: set[int],
) -> Iterator[tuple[int, list[int], bool]]:
    """Continue one batch, yielding (row, token ids without the end token, ended) for each row when it is done."""
    # Samples of one prompt read it once; the rows part where the first token is drawn.
    prompts = {ids: place for place, ids in enumerate(dict.fromkeys(map(tuple, prompt_ids)))}
    rows = torch.tensor([prompts[tuple(ids)] for ids in prompt_ids], device=model.device)
    prefix = _shared_prefix(prompt_ids)
    cache = None
    if prefix:
        first = torch.tensor([prompt_ids[0][:prefix]], device=model.device)
        cache = model(input_ids=first, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(len(prompts))
    # Columns: shared prefix, padding, the rest of the prompt. Positions skip the padding.
    inputs, mask = left_pad([list(ids[prefix:]) for ids in prompts], model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0) + prefix
    mask = torch.cat([mask.new_ones(len(prompts), prefix), mask], dim=1)
    active = list(range(len(prompt_ids)))
    tokens: list[list[int]] = [[] for _ in prompt_ids]
    for position in range(max_new_tokens):
        output = model(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache, logits = output.past_key_values, output.logits[:, -1]
        if position == 0:
            cache.batch_select_indices(rows)
            logits, mask, positions = logits[rows], mask[rows], positions[rows]
        chosen = draw(logits, keys[active], position).tolist()
        going = []  # places in the batch of the rows that go on
        for place, (row, token) in enumerate(zip(active, chosen, strict=True)):
            if token in end_token_ids:
                yield row, tokens[row], True
                continue
            tokens[row].append(token)
            if position + 1 == max_new_tokens:
                yield row, tokens[row], False
            else:
                going.append(place)
        if not going:
            return
        if len(going) < len(active):
            index = torch.tensor(going, device=model.device)
            cache.batch_select_indices(index)
            mask, positions = mask[index], positions[index]
            active = [active[place] for place in going]
        inputs = torch.tensor([[chosen[place]] for place in going], device=model.device)
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)

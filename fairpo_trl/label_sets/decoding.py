"""Models write label sets: freely, or held to the form by a `LogitsProcessor`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from fairpo_trl.core.options import check_number
from fairpo_trl.evaluation.completions import (
    Model,
    end_tokens,
    evaluation_mode,
    left_pad,
    sample_completions,
    tokenize_prompt,
)
from fairpo_trl.label_sets.reader import SEPARATOR, SetReading, Vocabulary


TOP_K = 50
"""Free texts are drawn among this many most probable tokens: the rest is noise that no label begins with."""


class LabelSetLogitsProcessor(LogitsProcessor):
    """
    Lets a model write known labels only, each at most once, with the separator between them and the end after one.

    It does not choose the order of the labels, nor how many there are.

    Args:
        vocabulary ([`Vocabulary`]), tokenizer (`PreTrainedTokenizerBase`):
            The labels, and the model's tokenizer.
        end_token_ids (`Sequence[int]`):
            Tokens that end a text.
        prompt_length (`int`):
            Tokens before the text, the same for every row of a batch (padded on the left).

    Raises:
        ValueError: If the tokenizer joins a label with the comma before or after it: then a set is not made of the
            tokens of its labels.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        tokenizer: PreTrainedTokenizerBase,
        end_token_ids: Sequence[int],
        prompt_length: int,
    ) -> None:
        def tokens(text: str) -> tuple[int, ...]:
            return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

        self.labels = tuple(tokens(f" {label}") for label in vocabulary.labels)
        self.separator = tokens(SEPARATOR.rstrip())
        for label, ids in zip(vocabulary.labels, self.labels, strict=True):
            if len(self.separator) != 1 or tokens(f" {label}{SEPARATOR}{label}") != (*ids, *self.separator, *ids):
                raise ValueError(
                    f"The tokenizer does not write the label {label!r} with the same tokens in every place of a list, "
                    "so decoding cannot be held to the labels: rename the label, or decode without constraint."
                )
        self.end_token_ids, self.prompt_length = tuple(end_token_ids), prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores `[B, V]` with minus infinity at every token that would break the form; input_ids `[B, L]`."""
        allowed = torch.full_like(scores, float("-inf"))
        for row, ids in enumerate(input_ids[:, self.prompt_length :].tolist()):
            allowed[row, self.allowed(ids)] = 0.0
        return scores + allowed

    def allowed(self, ids: Sequence[int]) -> list[int]:
        """The tokens that may follow `ids`, what has been written so far."""
        if set(ids) & set(self.end_token_ids):
            return list(self.end_token_ids)  # the row has ended and is only padded on
        parts: list[tuple[int, ...]] = [()]
        for token in ids:
            if (token,) == self.separator:
                parts.append(())
            else:
                parts[-1] += (token,)
        *used, current = parts
        unused = [label for label in self.labels if label not in used]
        following = {label[len(current)] for label in unused if label[: len(current)] == current and label != current}
        if current in unused:
            following |= set(self.end_token_ids)
            if len(unused) > 1:
                following |= set(self.separator)
        return sorted(following)


def write_sets(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    vocabulary: Vocabulary,
    *,
    samples: int = 1,
    temperature: float = 0.0,
    max_new_tokens: int = 32,
    seed: int = 0,
    constrained: bool = False,
    batch_size: int = 64,
    progress: bool = True,
    desc: str = "Writing label sets",
) -> list[list[SetReading]]:
    """
    What a model, on its own device, writes after each of N prompts, read strictly.

    Args:
        model, tokenizer, prompts, vocabulary:
            Who writes after what, and the labels.
        samples (`int`, *optional*, defaults to `1`):
            Texts per prompt.
        temperature (`float`, *optional*, defaults to `0.0`):
            0 takes the most probable token; otherwise texts are drawn, free ones among [`TOP_K`] tokens.
        max_new_tokens (`int`, *optional*, defaults to `32`):
            Length limit. A set that reaches it is cut, which counts as malformed.
        seed (`int`, *optional*, defaults to `0`):
            Of the draws.
        constrained (`bool`, *optional*, defaults to `False`):
            Whether decoding is held to the form, see [`LabelSetLogitsProcessor`].
        batch_size (`int`, *optional*, defaults to `64`):
            Rows computed at once.
        progress, desc (`bool`, `str`, *optional*):
            Whether there is a progress bar, and its label.

    Returns:
        `list[list[SetReading]]`: `[N][samples]`.

    Raises:
        ValueError: If an option is out of its range, or the tokenizer cannot be held to the labels.
    """
    ends = end_tokens(model, tokenizer)
    if not constrained:
        written = sample_completions(
            model,
            tokenizer,
            prompts,
            samples_per_prompt=samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=TOP_K,
            seed=seed,
            batch_size=batch_size,
            end_token_ids=ends,
            progress=progress,
            desc=desc,
        )
        return [[vocabulary.read(c.text, c.ended) for c in row] for row in written]
    for option, value in (("samples", samples), ("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        check_number(option, value, least=1, whole=True)
    check_number("temperature", temperature)
    token_rows = [tokenize_prompt(tokenizer, prompt) for prompt in prompts]
    # By length: less padding. Every sample of a prompt is a row of its own.
    rows = sorted((p for p in range(len(prompts)) for _ in range(samples)), key=lambda p: len(token_rows[p]))
    readings: list[list[SetReading]] = [[] for _ in prompts]
    drawing = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    devices = [model.device] if model.device.type == "cuda" else []
    with evaluation_mode(model), torch.random.fork_rng(devices), tqdm(
        total=len(rows), desc=desc, unit="text", disable=not progress
    ) as bar:  # fmt: skip
        torch.manual_seed(seed)
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            ids, mask = left_pad([token_rows[p] for p in batch], model.device)
            processor = LabelSetLogitsProcessor(vocabulary, tokenizer, ends, ids.shape[1])
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                eos_token_id=ends,
                pad_token_id=ends[0],
                logits_processor=LogitsProcessorList([processor]),
                **drawing,
            )
            for p, row in zip(batch, output[:, ids.shape[1] :].tolist(), strict=True):
                stop = next((place for place, token in enumerate(row) if token in ends), None)
                text = str(tokenizer.decode(row[:stop], skip_special_tokens=True))
                readings[p].append(vocabulary.read(text, ended=stop is not None))
                bar.update()
    return readings

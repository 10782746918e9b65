"""Sampling of completions on a CPU: finished rows leave the batch, results are cached by prompt."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


TEMPERATURE = 0.7
TOP_K = 50
MAX_NEW_TOKENS = 48


@torch.inference_mode()
def sample_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[dict]],
    generator: torch.Generator,
    temperature: float = TEMPERATURE,
    top_k: int = TOP_K,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[dict]:
    """One completion per conversation in `prompts`.

    The same distribution as ``model.generate(do_sample=True, temperature=..., top_k=...)``, with two differences that
    matter on a CPU: a row that has ended is taken out of the batch (and of the key-value cache), and the draws come
    from `generator`.

    Returns:
        `list[dict]`: per row `text` (stripped), `tokens` (the number of new tokens, without the end token) and `ended`
        (whether the model ended by itself).
    """
    texts = tokenizer.apply_chat_template(prompts, tokenize=False, add_generation_prompt=True)
    tokenizer.padding_side = "left"
    batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    tokens, mask = batch["input_ids"], batch["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    alive = torch.arange(len(prompts), device=model.device)
    new_tokens: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    cache = None
    for _ in range(max_new_tokens):
        output = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        top = (output.logits[:, -1].float() / temperature).topk(top_k, dim=-1)
        draw = torch.multinomial(top.values.softmax(-1), 1, generator=generator)
        chosen = top.indices.gather(-1, draw)
        going = chosen[:, 0] != tokenizer.eos_token_id
        for row, token, goes_on in zip(alive.tolist(), chosen[:, 0].tolist(), going.tolist(), strict=True):
            if goes_on:
                new_tokens[row].append(token)
            else:
                ended[row] = True
        if not going.any():
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
        tokens = chosen
        # Cutting the cache copies it: only worth it when a good part of the rows is done.
        if not going.all():
            keep = going.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            tokens, mask, positions, alive = tokens[keep], mask[keep], positions[keep], alive[keep]
    return [
        {"text": tokenizer.decode(ids, skip_special_tokens=True).strip(), "tokens": len(ids), "ended": end}
        for ids, end in zip(new_tokens, ended, strict=True)
    ]


def read_cache(path: Path) -> dict[str, list[dict]]:
    """The samples on disk by prompt id; a half-written last line (the run was stopped) is dropped."""
    samples: dict[str, list[dict]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            samples.setdefault(row["prompt_id"], []).append(row)
    return samples


def sample_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    samples_per_split: dict[str, int],
    cache_path: Path,
    seed: int,
    batch_size: int = 128,
) -> Iterator[int]:
    """Sample what `cache_path` lacks and append it batch by batch; yields the number of completions each batch added.

    The seed of a batch depends on the seed and on the jobs already done, so a resumed run gives the same samples as an
    uninterrupted one when the batch size is the same.
    """
    done = read_cache(cache_path)
    # One sample of every prompt first, then the second, ...: a run that is stopped early still covers all prompts.
    jobs = [
        (number, row)
        for number in range(max(samples_per_split.values()))
        for row in rows
        if number < samples_per_split[row["split"]]
    ]
    have = {(prompt_id, sample["sample"]) for prompt_id, items in done.items() for sample in items}
    cache_path.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(jobs), batch_size):
        block = [job for job in jobs[start : start + batch_size] if (job[1]["id"], job[0]) not in have]
        if not block:
            continue
        generator = torch.Generator(device=model.device).manual_seed(seed * 100_003 + start)
        results = sample_batch(model, tokenizer, [row["prompt"] for _, row in block], generator)
        with open(cache_path, "a", encoding="utf-8") as file:
            for (number, row), result in zip(block, results, strict=True):
                file.write(json.dumps({"prompt_id": row["id"], "sample": number, **result}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        yield len(block)

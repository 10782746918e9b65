"""Packed pairs give the log-probabilities and gradients of the plain layout, or the model is told apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from helpers_trainer import ExactHead
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from fairpo_trl.generation.log_probs import pair_log_probs, token_outputs
from fairpo_trl.generation.packed_forward import _block_mask, disagreement, why_not_packed
from fairpo_trl.generation.packing import may_attend, pack_pairs, pair_spans


SMALL = {
    "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1,
}  # fmt: skip
GPT = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "eos_token_id": 1}
PACKS = {
    "llama": ("Llama", SMALL),
    "llama, eager": ("Llama", {**SMALL, "attn_implementation": "eager"}),
    "qwen2": ("Qwen2", SMALL),
    "qwen2, some layers with a window": (
        "Qwen2",
        {**SMALL, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {**SMALL, "head_dim": 8}),
    "mistral, a window shorter than the texts": ("Mistral", {**SMALL, "sliding_window": 4}),
    "gemma": ("Gemma", {**SMALL, "head_dim": 8}),
    "gemma2, soft caps and windows": (
        "Gemma2",
        {**SMALL, "head_dim": 8, "sliding_window": 10, "query_pre_attn_scalar": 8},
    ),
    "gemma3, two rotary bases": (
        "Gemma3",
        {**SMALL, "head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gpt2, learned positions": ("GPT2", GPT),
    "gpt neox": ("GPTNeoX", {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}),
    "opt, learned positions with an offset": (
        "OPT",
        {"vocab_size": 32, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "max_position_embeddings": 64, "word_embed_proj_dim": 16, "pad_token_id": 0},
    ),
    "mixtral without its auxiliary loss": (
        "Mixtral",
        {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None,
         "experts_implementation": "eager"},
    ),
}  # fmt: skip
PLAIN = {
    "bloom": ("Bloom", {"vocab_size": 32, "hidden_size": 16, "n_layer": 2, "n_head": 2}, "no position ids"),
    "falcon with ALiBi": (
        "Falcon",
        {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "alibi": True,
         "new_decoder_architecture": False, "multi_query": True},
        "ALiBi",
    ),
    "mamba": (
        "Mamba",
        {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
        "linear_attention",
    ),
    "gpt neo, local attention": (
        "GPTNeo",
        {"vocab_size": 32, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_position_embeddings": 64,
         "attention_types": [[["global", "local"], 1]], "window_size": 4},
        "local",
    ),
    "llama4, attention in chunks": (
        "Llama4",
        {**SMALL, "head_dim": 8, "attention_chunk_size": 4, "intermediate_size_mlp": 24, "num_local_experts": 1},
        "chunked_attention",
    ),
    "flash attention": ("Llama", SMALL, "flash_attention_2"),
}  # fmt: skip


def build(family: str, options: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    names = {"Gemma3": "Gemma3Text", "Llama4": "Llama4Text"}
    config = getattr(transformers, f"{names.get(family, family)}Config")(**options)
    head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    model = getattr(transformers, family + head)(config).double().eval()
    with torch.no_grad():  # far from uniform, so that a wrong mask is seen
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    return model


def batch(max_length: int | None = None, mode: str = "keep_start") -> dict[str, torch.Tensor]:
    """Five pairs: of many lengths, beginning alike, one a prefix of the other, without a prompt."""
    draw = torch.Generator().manual_seed(0)

    def ids(k: int) -> list[int]:
        return torch.randint(2, 32, (k,), generator=draw).tolist()

    prompts, same = [ids(5), ids(2), ids(9), [], ids(3)], ids(3)
    chosen = [ids(3), [*same, 3, *ids(1)], ids(1), ids(4), same]
    rejected = [ids(6), [*same, 4], ids(2), ids(2), same + ids(4)]
    rows = [
        {"prompt_ids": p, "chosen_ids": c, "rejected_ids": r}
        for p, c, r in zip(prompts, chosen, rejected, strict=True)
    ]
    return DataCollatorForPreference(pad_token_id=0, max_length=max_length, truncation_mode=mode)(rows)


def layout(inputs: dict[str, torch.Tensor], pairs: Any = range(5)) -> Any:
    return pack_pairs(pair_spans(inputs), inputs["input_ids"].size(1), list(pairs))


@pytest.fixture(autouse=True)
def exact_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", ExactHead)


@pytest.mark.parametrize("case", PACKS)
def test_packed_values_and_gradients_are_those_of_the_plain_layout(case):
    model, inputs = build(*PACKS[case]), batch()
    assert why_not_packed(model) is None
    sdpa, results = model.config._attn_implementation == "sdpa", []
    for packed in (None, layout(inputs)):
        model.zero_grad()
        sums, outputs = pair_log_probs(model, inputs, 0.3, packed)
        weights = torch.arange(1.0, 6.0, dtype=torch.float64)
        (sums.chosen * weights - sums.rejected_mean * weights.flip(0)).sum().backward()
        fields = [getattr(outputs, name).double() for name in ("log_probs", "entropy", "mean_logits", "is_top1")]
        mask = inputs["completion_mask"][:, 1:].bool()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append(([*sums], [field[mask] for field in fields], gradients))
    for plain, packed in zip(results[0][0] + results[0][1], results[1][0] + results[1][1], strict=True):
        # The softmax of eager attention is in float32.
        torch.testing.assert_close(packed, plain, rtol=1e-10 if sdpa else 1e-6, atol=1e-10 if sdpa else 1e-6)
    # Norms and rotary embeddings compute in float32 whatever the model is in.
    scale = float(results[0][2].abs().max())
    torch.testing.assert_close(results[1][2] / scale, results[0][2] / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("max_length", "mode"), [(7, "keep_start"), (7, "keep_end"), (4, "keep_end")])
def test_truncated_pairs_whose_prompts_differ_are_packed_too(max_length, mode):
    model, inputs = build("Llama", SMALL), batch(max_length, mode)
    plain, packed = (pair_log_probs(model, inputs, None, p)[0] for p in (None, layout(inputs)))
    for a, b in zip(plain, packed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_some_pairs_of_a_batch_are_computed_and_the_others_are_zero():
    model, inputs = build("Llama", SMALL), batch()
    whole = token_outputs(model, inputs).log_probs
    some = token_outputs(model, inputs, layout(inputs, [1, 3])).log_probs
    rows = torch.tensor([1, 3, 6, 8])
    torch.testing.assert_close(some[rows], whole[rows], rtol=1e-10, atol=1e-10)
    others = torch.tensor([0, 2, 4, 5, 7, 9])
    assert float(some[others].abs().max()) == 0


def test_the_head_sees_completion_positions_only():
    model, inputs = build("Llama", SMALL), batch()
    seen = []
    original = ExactHead.apply
    ExactHead.apply = staticmethod(lambda hidden, *args: seen.append(hidden.size(0)) or original(hidden, *args))
    try:
        token_outputs(model, inputs, layout(inputs))
        token_outputs(model, inputs)
    finally:
        ExactHead.apply = staticmethod(original)
    predicted = int(inputs["completion_mask"][:, 1:].sum())
    assert seen == [predicted, inputs["input_ids"][:, 1:].numel()]
    assert model(input_ids=inputs["input_ids"][:1]).logits.shape == (1, 11, 32)  # elsewhere the model is as before


def test_a_prompt_lies_in_the_row_once_and_words_that_begin_alike_too():
    inputs = batch()
    packed, spans = layout(inputs), pair_spans(inputs)
    assert [span[0] for span in spans] == [5, 5, 9, 0, 6]  # prompt 2 + 3 words alike; prompt 3 + the whole of chosen
    used = int((packed.pair >= 0).sum())
    assert used == int(inputs["attention_mask"].sum()) - sum(span[0] for span in spans)
    tokens = inputs["input_ids"].flatten()[packed.source]
    for pair, (shared, chosen, _, rejected, _) in enumerate(spans):
        mine = packed.pair == pair
        for line, length, branches in ((pair, chosen, (0, 1)), (pair + 5, rejected, (0, 2))):
            own = mine & ((packed.branch == branches[0]) | (packed.branch == branches[1]))
            assert tokens[own].tolist() == inputs["input_ids"][line, :length].tolist()
            assert packed.positions[own].tolist() == list(range(length))
        assert int((mine & (packed.branch == 0)).sum()) == shared


def test_what_a_token_may_see():
    inputs = batch()
    packed = layout(inputs)
    allowed = may_attend(packed)[:, 0]
    for row in range(packed.pair.size(0)):
        for query in range(packed.pair.size(1)):
            pair, branch = int(packed.pair[row, query]), int(packed.branch[row, query])
            for key in range(packed.pair.size(1)):
                same = int(packed.pair[row, key]) == pair and key <= query
                sees = same and int(packed.branch[row, key]) in (0, branch)
                assert bool(allowed[row, query, key]) is sees
    window = may_attend(packed, 3)[:, 0]
    distance = packed.positions[:, :, None] - packed.positions[:, None, :]
    assert torch.equal(window, allowed & (distance < 3))


@pytest.mark.parametrize("window", [None, 3])
def test_the_block_mask_of_flex_attention_is_the_dense_mask(window):
    packed = layout(batch())
    block = _block_mask(packed, window)
    rows, size = packed.pair.shape
    index = [torch.arange(n) for n in (rows, 1, size, size)]
    grid = torch.meshgrid(*index, indexing="ij")
    assert torch.equal(block.mask_mod(*grid), may_attend(packed, window))


def test_flex_attention_gives_the_same_log_probabilities():
    model, inputs = build("Llama", {**SMALL, "num_key_value_heads": 2}), batch()
    plain = pair_log_probs(model, inputs)[0]
    model.config._attn_implementation = "flex_attention"
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        from torch.nn.attention.flex_attention import flex_attention

        # As it is, not compiled: this machine may have no compiler.
        patch.setattr(
            "transformers.integrations.flex_attention.compile_friendly_flex_attention",
            lambda q, k, v, training=False, **kwargs: flex_attention(q, k, v, **kwargs),
        )
        packed = pair_log_probs(model, inputs, None, layout(inputs))[0]
    torch.testing.assert_close(packed.chosen, plain.chosen.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", PLAIN)
def test_models_that_are_not_plain_causal_attention_say_so(case):
    family, options, reason = PLAIN[case]
    model = build(family, options)
    if case == "flash attention":  # not installed here
        model.config._attn_implementation = "flash_attention_2"
    assert reason in why_not_packed(model)


def test_an_adapter_of_virtual_tokens_says_so_and_lora_does_not():
    prefix = PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    assert "virtual tokens" in why_not_packed(get_peft_model(build("Llama", SMALL), prefix))
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    model, inputs = get_peft_model(build("Llama", SMALL), lora).double(), batch()
    assert why_not_packed(model) is None
    plain, packed = (pair_log_probs(model, inputs, None, p)[0] for p in (None, layout(inputs)))
    torch.testing.assert_close(plain.chosen, packed.chosen, rtol=1e-10, atol=1e-10)


def test_layouts_that_disagree_are_told_from_rounding():
    mask = torch.ones(4, 9, dtype=torch.long)
    plain = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    assert disagreement(plain, plain + 1e-5, mask, half=False) is None
    assert "0.005" in disagreement(plain, plain + 5e-3, mask, half=False)
    assert disagreement(plain, plain + 2e-2, mask, half=True) is None
    assert disagreement(plain, plain + 0.2, mask, half=True) is not None
    assert disagreement(plain, plain * float("nan"), mask, half=True) is not None


def test_padding_elsewhere_than_at_the_end_has_no_spans():
    inputs = batch()
    flipped = {name: tensor.flip(1) for name, tensor in inputs.items()}
    assert pair_spans(flipped) is None

"""Tests of `fairpo_trl.evaluation`: sampling, guards, win rates and their intervals."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from fairpo_trl.evaluation import (
    Completion,
    Estimate,
    WinRateTable,
    compare_scores,
    mean_token_log_prob,
    paired_bootstrap,
    sample_completions,
    text_guards,
    win_rate,
)
from fairpo_trl.evaluation.common_random import gumbel_noise, row_keys
from fairpo_trl.evaluation.completions import tokenize_prompt
from fairpo_trl.evaluation.guards import has_repeated_ngram
from fairpo_trl.evaluation.win_rates import format_number


WORDS = [
    "<s>",
    "</s>",
    "<unk>",
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "i",
    "j",
    "k",
    "l",
    "m",
    "n",
    "o",
    "p",
    "user",
    "assistant",
    ":",
]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' ' }}"
    "{% if not (loop.last and m['role'] == 'assistant') %}{{ '</s> ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)
PROMPTS = ["a b c", "d", "a b e f", "a b", "g h i j k", [{"role": "user", "content": "a b"}]]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    fast.chat_template = TEMPLATE
    return fast


def tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """Random, in float64 so that batch composition cannot flip a draw by rounding."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).to(torch.float64).eval()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def sample(model, tokenizer, prompts=PROMPTS, **settings):
    return sample_completions(
        model, tokenizer, prompts, **{"max_new_tokens": 12, "temperature": 1.0, "progress": False} | settings
    )


class TestCommonRandomNumbers:
    def test_noise_is_standard_gumbel(self):
        keys = row_keys(3, np.arange(200), np.zeros(200, dtype=int))
        noise = gumbel_noise(keys, 5, np.tile(np.arange(500), (200, 1)))
        assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.02)
        assert noise.var() == pytest.approx(np.pi**2 / 6, abs=0.03)

    def test_noise_has_no_correlation_between_neighbours(self):
        noise = gumbel_noise(row_keys(0, np.arange(300), np.zeros(300, int)), 0, np.tile(np.arange(300), (300, 1)))
        assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.01
        assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.01

    def test_noise_belongs_to_the_token_not_to_its_rank(self):
        keys = row_keys(0, np.array([4]), np.array([1]))
        forward = gumbel_noise(keys, 2, np.array([[7, 9, 11]]))
        assert (gumbel_noise(keys, 2, np.array([[11, 9, 7]]))[:, ::-1] == forward).all()

    def test_every_part_of_the_key_matters(self):
        def noise(seed=0, prompt=1, sample=2, position=3):
            return gumbel_noise(
                row_keys(seed, np.array([prompt]), np.array([sample])), position, np.array([[5]])
            ).item()

        values = {noise(), noise(seed=1), noise(seed=-1), noise(prompt=2), noise(sample=1), noise(position=4)}
        assert len(values | {noise(prompt=2, sample=1)}) == 7


class TestSampleCompletions:
    def test_shape_limits_and_text(self, model, tokenizer):
        texts = sample(model, tokenizer, samples_per_prompt=3)
        assert [len(row) for row in texts] == [3] * len(PROMPTS)
        for completion in (completion for row in texts for completion in row):
            assert len(completion.token_ids) + completion.ended <= 12
            assert completion.ended or len(completion.token_ids) == 12
            assert tokenizer.eos_token_id not in completion.token_ids
            assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)

    def test_some_rows_end_early(self, model, tokenizer):
        ended = [c.ended for row in sample(model, tokenizer, samples_per_prompt=4) for c in row]
        assert any(ended) and not all(ended), "the test model must exercise the dropping of finished rows"

    @pytest.mark.parametrize("batch_size", [1, 2, 5])
    def test_independent_of_batch_composition(self, model, tokenizer, batch_size):
        expected = sample(model, tokenizer, samples_per_prompt=3)
        assert sample(model, tokenizer, samples_per_prompt=3, batch_size=batch_size) == expected

    def test_independent_of_the_number_of_samples_and_of_later_prompts(self, model, tokenizer):
        full = sample(model, tokenizer, samples_per_prompt=3)
        assert sample(model, tokenizer, PROMPTS[:3], samples_per_prompt=2) == [row[:2] for row in full[:3]]

    def test_independent_of_global_random_state_which_stays_untouched(self, model, tokenizer):
        torch.manual_seed(1)
        state = torch.get_rng_state()
        first = sample(model, tokenizer)
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(2)
        assert sample(model, tokenizer) == first

    def test_seeds_and_samples_differ(self, model, tokenizer):
        texts = sample(model, tokenizer, samples_per_prompt=4)
        assert sample(model, tokenizer, samples_per_prompt=4, seed=1) != texts
        assert len(set(texts[0])) > 1

    def test_similar_models_share_most_draws(self, tokenizer):
        model, other = tiny_model(), tiny_model()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1e-4 * torch.randn_like(parameter))
        pairs = zip(sample(model, tokenizer), sample(other, tokenizer), strict=True)
        assert sum(a == b for a, b in pairs) >= len(PROMPTS) - 1
        assert sample(other, tokenizer, seed=1) != sample(model, tokenizer)

    def test_greedy_equals_generate(self, model, tokenizer):
        texts = sample(model, tokenizer, temperature=0.0)
        for prompt, (completion,) in zip(PROMPTS, texts, strict=True):
            ids = torch.tensor([tokenize_prompt(tokenizer, prompt)])
            out = model.generate(ids, do_sample=False, max_new_tokens=12, pad_token_id=1, eos_token_id=1)
            expected = out[0, ids.shape[1] :].tolist()
            assert [*completion.token_ids, *([1] if completion.ended else [])] == expected

    def test_draws_follow_the_models_distribution(self, model, tokenizer):
        drawn = sample(model, tokenizer, ["a b"], samples_per_prompt=4000, max_new_tokens=1, batch_size=4000)[0]
        ids = [c.token_ids[0] if c.token_ids else 1 for c in drawn]
        with torch.no_grad():
            logits = model(torch.tensor([tokenize_prompt(tokenizer, "a b")])).logits[0, -1]
        shares = np.bincount(ids, minlength=len(WORDS)) / len(ids)
        assert np.abs(shares - logits.softmax(-1).numpy()).max() < 0.03

    def test_top_k_and_top_p_restrict_the_candidates(self, model, tokenizer):
        with torch.no_grad():
            logits = model(torch.tensor([tokenize_prompt(tokenizer, "a b")])).logits[0, -1]
        order = logits.argsort(descending=True).tolist()
        many = {"samples_per_prompt": 300, "max_new_tokens": 1, "batch_size": 300, "temperature": 3.0}

        def drawn(**settings):
            texts = sample(model, tokenizer, ["a b"], **many | settings)[0]
            return {c.token_ids[0] if c.token_ids else 1 for c in texts}

        assert drawn(top_k=3) == set(order[:3])
        assert drawn(top_p=1e-6) == {order[0]}
        assert len(drawn(top_k=0)) > 10

    def test_ignores_the_generation_config(self, tokenizer):
        model, other = tiny_model(), tiny_model()
        other.generation_config.update(repetition_penalty=5.0, top_k=1, temperature=0.01, min_new_tokens=12)
        assert sample(other, tokenizer) == sample(model, tokenizer)

    def test_restores_modes_and_padding_side(self, tokenizer):
        model = tiny_model().train()
        model.model.layers[0].eval()
        side = tokenizer.padding_side
        sample(model, tokenizer)
        assert model.training and not model.model.layers[0].training
        assert tokenizer.padding_side == side

    def test_adapter_on_and_off(self, tokenizer):
        peft = pytest.importorskip("peft")
        base = sample(tiny_model(), tokenizer)
        adapted = peft.get_peft_model(
            tiny_model(), peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
        )
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.add_(1.0)
        assert sample(adapted, tokenizer) != base
        with adapted.disable_adapter():
            assert sample(adapted, tokenizer) == base

    def test_prompts_ending_with_the_assistant_are_continued(self, tokenizer):
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}]
        assert tokenizer.decode(tokenize_prompt(tokenizer, messages)) == "user : a </s> assistant : b c"

    def test_no_prompts(self, model, tokenizer):
        assert sample(model, tokenizer, []) == []

    @pytest.mark.parametrize(
        "bad", [{"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"samples_per_prompt": 0}, {"batch_size": 0}]
    )
    def test_settings_out_of_range(self, model, tokenizer, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            sample(model, tokenizer, **bad)

    def test_empty_prompt(self, model, tokenizer):
        with pytest.raises(ValueError, match="no tokens"):
            sample(model, tokenizer, [""])

    def test_diverged_model(self, tokenizer):
        model = tiny_model()
        with torch.no_grad():
            model.lm_head.weight[3].fill_(float("nan"))
        with pytest.raises(FloatingPointError, match="not finite"):
            sample(model, tokenizer)


class TestTextGuards:
    def test_counts(self):
        texts = ["one two three four one two three four", "yes", "yes", "a longer text of words", ""]
        rows = [[Completion(text, (3,), ended=text != "yes")] for text in texts]
        guards = text_guards(rows, np.array([[-1.0], [-2.0], [-2.0], [-3.0], [-4.0]]))
        assert (guards.completions, guards.words, guards.repeating) == (5, 15, 1)
        assert (guards.short, guards.unended, guards.distinct) == (3, 2, 4)
        assert guards.to_dict()["mean_token_log_prob"] == pytest.approx(-12 / 5)
        assert guards.to_dict()["distinct_share"] == pytest.approx(4 / 5)

    def test_absent_log_probability_stays_absent(self):
        assert "mean_token_log_prob" not in text_guards([[Completion("a", (3,), True)]]).to_dict()

    @pytest.mark.parametrize(
        ("text", "expected"),
        [("a b c d", False), ("a a a a a", True), ("a b c d x A B C D", True), ("a b c x a b c", False), ("", False)],
    )
    def test_repeated_ngram(self, text, expected):
        assert has_repeated_ngram(text) is expected

    def test_refuses_nothing_and_mismatch(self):
        with pytest.raises(ValueError, match="no completions"):
            text_guards([])
        with pytest.raises(ValueError, match="2 log-probabilities for 1"):
            text_guards([[Completion("a", (3,), True)]], np.zeros((1, 2)))

    @pytest.mark.parametrize("batch_size", [1, 4, 64])
    def test_log_prob_equals_one_by_one(self, model, tokenizer, batch_size):
        completions = sample(model, tokenizer, samples_per_prompt=2)
        means = mean_token_log_prob(model, tokenizer, PROMPTS, completions, batch_size)
        assert means.shape == (len(PROMPTS), 2)
        for p, prompt in enumerate(PROMPTS):
            for s, completion in enumerate(completions[p]):
                prompt_ids = tokenize_prompt(tokenizer, prompt)
                ids = [*completion.token_ids, *([1] if completion.ended else [])]
                with torch.no_grad():
                    log_probs = model(torch.tensor([prompt_ids + ids])).logits[0].log_softmax(-1)
                expected = np.mean([log_probs[len(prompt_ids) - 1 + i, t].item() for i, t in enumerate(ids)])
                assert means[p, s] == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("samples", [1, 2])
    def test_padding_takes_no_position_beyond_those_of_the_model(self, tokenizer, samples):
        # A long prompt with a short completion beside a short prompt with a long one, both as long as the model takes.
        lengths = [len(tokenize_prompt(tokenizer, prompt)) for prompt in PROMPTS[:2]]
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=len(tokenizer), n_positions=max(lengths) + 6, n_embd=16, n_layer=2, n_head=2)
        model = GPT2LMHeadModel(config).eval()
        ids = [[3 + i % 5 for i in range(config.n_positions - length)] for length in lengths]
        completions = [[Completion("", tuple(row), False), Completion("", tuple(row[:2]), False)] for row in ids]
        means = mean_token_log_prob(model, tokenizer, PROMPTS[:2], [row[:samples] for row in completions])
        for p, s in np.ndindex(means.shape):
            alone = mean_token_log_prob(model, tokenizer, [PROMPTS[p]], [[completions[p][s]]])
            assert means[p, s] == pytest.approx(float(alone[0, 0]), abs=1e-5)

    def test_log_prob_refuses_nothing_to_judge(self, model, tokenizer):
        with pytest.raises(ValueError, match="no tokens"):
            mean_token_log_prob(model, tokenizer, ["a"], [[Completion("", (), False)]])
        with pytest.raises(ValueError, match="one row per prompt"):
            mean_token_log_prob(model, tokenizer, ["a"], [])


class TestWinRate:
    def test_by_hand_with_ties(self):
        a, b = [[1.0, 2.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 5.0]]
        assert win_rate(a, b).tolist() == [0.875, 0.25]

    def test_against_loops(self):
        rng = np.random.default_rng(0)
        a, b = rng.integers(0, 4, (7, 3)), rng.integers(0, 4, (7, 5))
        expected = [np.mean([(x > y) + 0.5 * (x == y) for x in a[p] for y in b[p]]) for p in range(7)]
        assert win_rate(a, b) == pytest.approx(np.array(expected))
        assert win_rate(b, a) == pytest.approx(1 - win_rate(a, b))

    def test_itself_is_one_half(self):
        scores = np.random.default_rng(0).normal(size=(9, 4))
        assert win_rate(scores, scores) == pytest.approx(np.full(9, 0.5))

    def test_infinities_tie(self):
        assert win_rate([[-np.inf], [np.inf]], [[-np.inf], [0.0]]).tolist() == [0.5, 1.0]

    def test_one_score_per_prompt_and_one_prompt(self):
        assert win_rate([1.0, 0.0], [0.0, 0.0]).tolist() == [1.0, 0.5]
        assert win_rate([[1.0]], [[0.0]]).tolist() == [1.0]

    def test_nan_names_the_prompt(self):
        scores = np.zeros((4, 2))
        scores[2, 1] = np.nan
        with pytest.raises(ValueError, match="b is NaN at prompt 2"):
            win_rate(np.zeros((4, 2)), scores)

    @pytest.mark.parametrize("b", [np.zeros((3, 2)), np.zeros((0, 2)), np.zeros((4, 2, 1))])
    def test_shapes(self, b):
        with pytest.raises(ValueError, match="prompts"):
            win_rate(np.zeros((4, 2)), b)


class TestPairedBootstrap:
    def test_deterministic_and_the_mean_is_exact(self):
        values = np.random.default_rng(1).uniform(size=50)
        first = paired_bootstrap(values)
        assert first == paired_bootstrap(values)
        assert first != paired_bootstrap(values, seed=1)
        assert first.mean == values.mean() and first.n == 50
        assert first.low < first.mean < first.high

    def test_matches_the_normal_interval(self):
        values = np.random.default_rng(2).uniform(size=400)
        estimate = paired_bootstrap(values)
        half = 1.96 * values.std() / np.sqrt(400)
        assert estimate.high - estimate.mean == pytest.approx(half, rel=0.06)
        assert estimate.mean - estimate.low == pytest.approx(half, rel=0.06)

    def test_chunks_do_not_change_the_number_of_resamples(self):
        values = np.random.default_rng(3).uniform(size=3000)  # several chunks
        assert paired_bootstrap(values, n=1500).low == pytest.approx(
            values.mean() - 1.96 * 0.29 / 3000**0.5, abs=0.003
        )

    def test_coverage(self):
        rng = np.random.default_rng(4)
        truth, covered, differences = 0.62, 0, 0
        for _ in range(300):
            noise = rng.normal(size=60)  # shared by both arms, as prompts are
            values = (rng.uniform(size=60) < truth).astype(float)
            estimate = paired_bootstrap(values, n=500, seed=int(rng.integers(1000)))
            covered += estimate.low <= truth <= estimate.high
            arm = 0.1 + noise + 0.2 * rng.normal(size=60)
            estimate = paired_bootstrap(arm, noise + 0.2 * rng.normal(size=60), n=500, seed=int(rng.integers(1000)))
            differences += estimate.low <= 0.1 <= estimate.high
        assert 0.90 <= covered / 300 <= 0.98
        assert 0.90 <= differences / 300 <= 0.98

    def test_pairing_removes_what_prompts_share(self):
        rng = np.random.default_rng(5)
        prompts = rng.normal(size=200)
        values, baseline = prompts + 0.01 * rng.normal(size=200), prompts + 0.01 * rng.normal(size=200)
        estimate = paired_bootstrap(values, baseline)
        assert estimate.high - estimate.low < 0.01
        assert estimate.low < 0 < estimate.high

    def test_a_model_against_itself_lies_around_one_half(self):
        rng = np.random.default_rng(6)
        first, again, third = rng.normal(size=(3, 200, 2))
        estimate = paired_bootstrap(win_rate(first, again))
        assert estimate.low < 0.5 < estimate.high
        difference = paired_bootstrap(win_rate(first, again), win_rate(third, again))
        assert difference.low < 0 < difference.high

    def test_one_prompt_has_no_interval(self):
        estimate = paired_bootstrap([0.75])
        assert estimate == Estimate(0.75, None, None, 1)
        assert str(estimate) == ".75"
        assert estimate.to_dict() == {"mean": 0.75, "n": 1}

    @pytest.mark.parametrize(
        ("values", "settings", "message"),
        [
            ([], {}, "at least one"),
            ([[0.5]], {}, "one value per prompt"),
            ([0.5, 0.5], {"baseline": [0.5]}, "must be the same"),
            ([0.5, float("nan")], {}, "prompt 1"),
            ([0.5, 0.5], {"level": 1.0}, "level"),
            ([0.5, 0.5], {"n": 0}, "n must"),
        ],
    )
    def test_refusals(self, values, settings, message):
        with pytest.raises(ValueError, match=message):
            paired_bootstrap(values, **settings)

    def test_text(self):
        assert str(Estimate(0.731, 0.68, 0.779, 9)) == ".73 [.68, .78]"
        assert str(Estimate(-0.05, -0.1, 0.0, 9)) == "-.05 [-.10, .00]"
        assert [format_number(x) for x in (1.0, -0.001, -1.25, 10.5)] == ["1.00", ".00", "-1.25", "10.50"]


class TestWinRateTable:
    def rows(self):
        rng = np.random.default_rng(7)
        scores = {name: rng.normal(size=(30, 2)) for name in ("trained", "reference", "reference_again")}
        scores["trained"] += 1
        absent = {name: scores[name] for name in ("trained", "reference")}
        return [
            compare_scores("brevity", "non_privileged", "scorer", **absent),
            compare_scores("warmth", "privileged", "scorer", **scores),
            compare_scores("warmth", "privileged", "second_judge", **absent),
        ]

    def test_privileged_first_and_absent_stays_absent(self):
        table = WinRateTable(self.rows())
        frame = table.to_frame()
        assert frame.index.get_level_values("attribute").tolist() == ["warmth", "warmth", "brevity"]
        assert frame.loc[("brevity", "non_privileged", "scorer"), "difference"] is None
        assert table.to_text().loc[("brevity", "non_privileged", "scorer"), "difference"] == "–"
        records = table.to_records()
        assert set(records["warmth"]["scorer"]) == {"reference_vs_itself", "trained", "difference"}
        assert set(records["warmth"]["second_judge"]) == {"trained"}

    def test_difference_is_of_the_two_means(self):
        row = self.rows()[1]
        assert row.difference.mean == pytest.approx(row.trained.mean - row.reference_vs_itself.mean)
        assert row.difference.low > 0

    def test_refuses_doubles(self):
        rows = self.rows()
        with pytest.raises(ValueError, match="same attribute and judge"):
            WinRateTable([*rows, rows[0]])
        other = compare_scores("warmth", "non_privileged", "third", trained=[[1.0], [0.0]], reference=[[0.0], [0.0]])
        with pytest.raises(ValueError, match="two roles"):
            WinRateTable([*rows, other])

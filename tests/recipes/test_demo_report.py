"""What the demo and its comparison say: numbers worked out by hand, reports of a tiny model, points and tables."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import generation_fairpo as recipe
import numpy as np
import pytest
import torch
import yaml
from conftest import WORDS, make_model, make_rows, make_tokenizer
from datasets import Dataset
from demo import evaluation, report, scorers, selection
from demo.evaluation import Writing
from helpers_trainer import fairpo, lora
from huggingface_hub import ModelCard
from peft import PeftModel, get_peft_model
from trl import ModelConfig

from experiments.generation import compare, measure, variants
from experiments.generation.compare import PUBLISHED, ROWS, Row
from experiments.generation.early_stopping import above_curve
from experiments.generation.measure import At, Measurer
from experiments.generation.tables import write_tables
from experiments.points import Points
from fairpo_trl import FairPOConfig, Partition
from fairpo_trl.commands.generation import make_parser
from fairpo_trl.evaluation import Completion, mean_token_log_prob
from fairpo_trl.generation.methods import apply_method
from fairpo_trl.generation.run import GenerationArguments, train
from fairpo_trl.reporting import Results
from fairpo_trl.reporting.selection_results import SelectionResults


ROOT = Path(__file__).resolve().parents[2]
NAMES = list(scorers.SCORERS)
HELD = [name for name in NAMES if name != "concise"]
PROMPTS = [[{"role": "user", "content": text}] for text in ("tell me about tea", "the moon", "why is the sea blue")]


def count_words(prompts: list[str], texts: list[str]) -> np.ndarray:
    return np.array([len(text.split()) for text in texts], dtype=float)


def fewer_words(prompts: list[str], texts: list[str]) -> np.ndarray:
    return -count_words(prompts, texts)


def nothing(prompts: list[str], texts: list[str]) -> np.ndarray:
    return np.zeros(len(texts))


@pytest.fixture
def fake_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judges that need no package: `concise` likes few words, `plain` many, and the second judge says the contrary."""
    judges = {
        "scorer": {**dict.fromkeys(NAMES, nothing), "concise": fewer_words, "plain": count_words},
        "second_judge": {**dict.fromkeys(NAMES, nothing), "concise": count_words, "plain": fewer_words},
    }
    monkeypatch.setattr(evaluation, "JUDGES", judges)


@pytest.fixture
def model() -> PeftModel:
    """The tiny model with an adapter that is not the identity."""
    torch.manual_seed(0)
    return get_peft_model(make_model(dtype=torch.float32), lora())


def completion(text: str, ended: bool = True) -> Completion:
    return Completion(text, tuple(make_tokenizer()(text)["input_ids"]), ended)


def same_text(words: int, prompts: int, samples: int = 2) -> list[list[Completion]]:
    return [[completion(" ".join(WORDS[i : i + words])) for i in range(samples)] for _ in range(prompts)]


# ---- demo/evaluation.py ----


def test_judges_get_each_completion_with_the_words_of_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def see(prompts: list[str], texts: list[str]) -> list[int]:
        return [100 * len(prompt.split()) + len(text.split()) for prompt, text in zip(prompts, texts, strict=True)]

    monkeypatch.setattr(evaluation, "JUDGES", {"scorer": {"concise": see}})
    prompts = [[{"role": "system", "content": "one two three"}, *prompt] for prompt in PROMPTS[:2]]
    texts = [["a", "a b"], ["a b c", ""]]
    writing = evaluation.judge(prompts, [[completion(text) for text in row] for row in texts])
    assert writing.scores["scorer"]["concise"].tolist() == [[401, 402], [203, 200]]
    assert [[c.text for c in row] for row in writing.completions] == texts
    with pytest.raises(ValueError, match="zip"):
        evaluation.judge(prompts, writing.completions[:1])


def test_scorers_and_second_judges_know_the_same_attributes() -> None:
    assert list(evaluation.JUDGES) == ["scorer", "second_judge"]
    assert list(evaluation.JUDGES["second_judge"]) == list(evaluation.JUDGES["scorer"]) == NAMES
    data = {row["attribute"] for row in map(json.loads, evaluation.PAIRS_FILE.read_text("utf-8").splitlines())}
    assert data == set(NAMES)


def test_win_rates_have_privileged_attributes_first_and_one_row_per_judge() -> None:
    def writing(scorer: Any, second: Any) -> Writing:
        return Writing([], {"scorer": dict.fromkeys(NAMES, scorer), "second_judge": dict.fromkeys(NAMES, second)})

    low, high, mixed = np.zeros((4, 2)), np.ones((4, 2)), np.array([[-1.0, 1.0]] * 4)
    reference = writing(low, low)
    rows = evaluation.win_rates(
        Partition.by_name(NAMES, ["vivid"]), writing(high, mixed), reference, writing(low, -high)
    )
    order = ["vivid", *(name for name in NAMES if name != "vivid")]
    judges = ("scorer", "second_judge")
    assert [(row.attribute, row.judge) for row in rows] == [(name, judge) for name in order for judge in judges]
    assert [row.role for row in rows] == ["privileged"] * 2 + ["non_privileged"] * 8
    # Always above / always equal; as often above as below / always below.
    for row in rows:
        assert (row.trained.mean, row.reference_vs_itself.mean, row.difference.mean) == (
            (1.0, 0.5, 0.5) if row.judge == "scorer" else (0.5, 0.0, 0.5)
        )


def test_first_of_each_keeps_order_and_count() -> None:
    rows = [{"attribute": name, "id": i} for i, name in enumerate("abacabcaab")]
    assert [row["id"] for row in evaluation.first_of_each(iter(rows), 2)] == [0, 1, 2, 3, 5, 6]
    assert evaluation.first_of_each(rows, 0) == []
    assert len(evaluation.first_of_each(rows, 99)) == len(rows)


def sum_log_prob(model: Any, tokenizer: Any, prompt: list[dict], text: str) -> float:
    """Log-probability of a text and the end token after a prompt: one row, no padding, no help."""
    before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    after = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0].double()
    log_probs = logits.log_softmax(-1)
    return sum(float(log_probs[len(before) + i - 1, token]) for i, token in enumerate(after))


def test_pair_metrics_are_what_the_log_probs_say(model: PeftModel) -> None:
    tokenizer = make_tokenizer()
    beta, epsilon = 0.7, 0.02
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"].strip()}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
            "attribute": "polite" if i % 3 else "concise",
        }
        for i, row in enumerate(make_rows(24))
    ]
    margins: dict[str, list[float]] = {"concise": [], "polite": []}
    for row in rows:
        ratio = {}
        for side in ("chosen", "rejected"):
            text = row[side][0]["content"]
            ratio[side] = sum_log_prob(model, tokenizer, row["prompt"], text)
            with model.disable_adapter():
                ratio[side] -= sum_log_prob(model, tokenizer, row["prompt"], text)
        margins[row["attribute"]].append(beta * (ratio["chosen"] - ratio["rejected"]))

    found = evaluation.pair_metrics(model, tokenizer, rows, beta, epsilon)
    assert list(found) == ["concise", "polite"]
    for name, expected in margins.items():
        losses = [math.log(1 + math.exp(-margin)) for margin in expected]
        assert found[name]["pairs"] == len(expected) == {"concise": 8, "polite": 16}[name]
        assert found[name]["margin"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
        assert found[name]["accuracy"] == sum(margin > 0 for margin in expected) / len(expected)
        inside = sum(loss <= math.log(2) + epsilon for loss in losses) / len(losses)
        assert found[name]["inside_hinge"] == inside
    # Numbers that tell right from wrong: not all pairs on one side, and a hinge that is not the sign.
    assert 0 < found["polite"]["accuracy"] < found["polite"]["inside_hinge"] < 1


def test_pairs_of_an_adapter_that_does_nothing_lie_at_the_reference() -> None:
    identity = get_peft_model(make_model(dtype=torch.float32), lora())
    for name, parameter in identity.named_parameters():
        if "lora_B" in name:
            torch.nn.init.zeros_(parameter)
    rows = [
        {"prompt": PROMPTS[0], "chosen": [{"content": "tea"}], "rejected": [{"content": "a cat"}], "attribute": "x"}
    ]
    metrics = evaluation.pair_metrics(identity, make_tokenizer(), rows, beta=0.1, epsilon=0.0)
    assert metrics == {"x": {"pairs": 1, "accuracy": 0.0, "margin": 0.0, "inside_hinge": 1.0}}


def test_guards_take_log_probs_of_the_reference_and_of_first_completions(
    model: PeftModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make_tokenizer()
    rows = [
        [completion("tea is good and tea is good and"), completion("a")],
        [completion("the sea is", ended=False), completion("a")],
        [completion("run"), completion("run")],
    ]
    monkeypatch.setattr(evaluation, "GUARDED", 2)
    first = [row[:1] for row in rows[:2]]
    trained = mean_token_log_prob(model, tokenizer, PROMPTS[:2], first).mean()
    base = mean_token_log_prob(make_model(dtype=torch.float32), tokenizer, PROMPTS[:2], first).mean()
    numbers = evaluation.guards(model, tokenizer, PROMPTS, Writing(rows, {}))
    assert numbers == {
        "completions": 6,
        "mean_words": (8 + 1 + 3 + 1 + 1 + 1) / 6,
        "repeating_share": 1 / 6,
        "short_share": 5 / 6,
        "unended_share": 1 / 6,
        "distinct_share": 4 / 6,
        "mean_token_log_prob": pytest.approx(base, abs=1e-5),
    }
    assert abs(trained - base) > 1e-2
    again = mean_token_log_prob(model, tokenizer, PROMPTS[:2], first).mean()
    assert again == trained  # the adapter is on again


def test_writing_depends_on_the_seed_alone(model: PeftModel, fake_judges: None) -> None:
    tokenizer = make_tokenizer()

    def texts(seed: int) -> list:
        writing = evaluation.write(model, tokenizer, PROMPTS, seed=seed, samples=2, desc="test")
        assert writing.scores["scorer"]["concise"].shape == (3, 2)
        return writing.to_dict()["completions"]

    torch.manual_seed(1)
    one = texts(1)
    torch.manual_seed(2)
    assert texts(1) == one
    assert texts(2) != one
    with model.disable_adapter():
        assert texts(1) != one


# ---- demo/report.py ----


def test_history_has_a_line_per_logged_step_with_such_values() -> None:
    log = [
        {"step": 1, "weight/a": 0.5, "weight/b": 0.5, "loss": 1.0},
        {"step": 1, "eval_loss": 1.0, "eval_margin/attribute/a": 3.0},
        {"step": 2, "weight/a": 0.6, "margin/attribute/a": 0.1},
        {"step": 2, "train_runtime": 9.0},
    ]
    assert report.history_of(log, "weight/") == [{"step": 1, "a": 0.5, "b": 0.5}, {"step": 2, "a": 0.6}]
    assert report.history_of(log, "margin/attribute/") == [{"step": 2, "a": 0.1}]


@pytest.mark.parametrize("method", ["fairpo", "dpo_privileged_only"])
def test_the_report_of_a_short_run(
    method: str, tmp_path: Path, fake_judges: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "PROMPTS", 6)
    monkeypatch.setattr(report, "PAIRS", 2)
    pairs = Dataset.from_list(make_rows(20, tuple(NAMES)))
    options: dict[str, Any] = {"max_steps": 2, "grouping": "attribute"}
    if method != "fairpo":  # as the recipe does it
        args = FairPOConfig(output_dir=str(tmp_path), privileged_attributes=["concise"], use_cpu=True, bf16=False)
        pairs, _ = apply_method(method, args, pairs)
        options = {"max_steps": 2, "balancer": args.balancer, "non_privileged_attributes": []}
    trainer = fairpo(tmp_path, pairs, make_model(dtype=torch.float32), peft_config=lora(), **options)
    trainer.train()
    results = report.report_demo(trainer, ["concise"], method, "the tiny model from /somewhere/private/tiny", 0.0)

    kept = Results.read(tmp_path / "results.json").to_dict()
    assert kept["partition"] == {name: "privileged" if name == "concise" else "non_privileged" for name in NAMES}
    assert [entry["attribute"] for entry in kept["attributes"]] == ["concise", *HELD]
    assert {entry["pairs"] for entry in kept["attributes"]} == {2}
    assert kept["command"].endswith("generation_fairpo.py" if method == "fairpo" else "--method dpo_privileged_only")
    assert [entry["step"] for entry in kept["weights_history"]] == [1, 2]
    assert len(kept["samples"]) == 3 and len({sample["prompt"] for sample in kept["samples"]}) == 3
    for entry in kept["attributes"]:
        name, judged = entry["attribute"], entry["win_rate"]
        assert {judge: rate["trained"]["n"] for judge, rate in judged.items()} == {"scorer": 6, "second_judge": 6}
        if method == "fairpo":
            assert entry["final_weight"] == pytest.approx(trainer.group_weights.as_dict()[name])
        else:
            assert ("final_weight" in entry) == (name == "concise")
    # `plain` likes what `concise` does not, and the second judge says the contrary of the first.
    rates = {entry["attribute"]: entry["win_rate"] for entry in kept["attributes"]}
    concise = rates["concise"]["scorer"]["trained"]["mean"]
    assert rates["plain"]["scorer"]["trained"]["mean"] == pytest.approx(1 - concise)
    assert rates["concise"]["second_judge"]["trained"]["mean"] == pytest.approx(1 - concise)
    assert rates["vivid"]["scorer"]["trained"]["mean"] == 0.5
    assert kept["guards"]["trained"] != kept["guards"]["reference"]

    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "/somewhere/private" not in text and "concise privileged" in results.title and "# SmolLM2" in text
    for name in ("win_rates_scorer.png", "win_rates_second_judge.png", "weights.png", "margins.png"):
        assert name in text and (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "report.md" in capsys.readouterr().out
    trainer.create_model_card(win_rates={"concise": concise})
    assert "win rate" in ModelCard.load(tmp_path / "README.md").text.lower()


# ---- the comparison's points ----


@pytest.fixture
def measurer(tmp_path: Path, tiny_model_path: str, fake_judges: None, monkeypatch: pytest.MonkeyPatch) -> Measurer:
    monkeypatch.setattr(measure, "demo_model_path", lambda: (tiny_model_path, "tiny"))
    made = Measurer(tmp_path, "test", 2)
    made.prompts = made.prompts[:4]
    return made


def pairs_file(folder: Path) -> str:
    path = folder / "tiny.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in make_rows(40, tuple(NAMES))), encoding="utf-8")
    return str(path)


def test_a_row_is_trained_measured_and_found_again(measurer: Measurer, monkeypatch: pytest.MonkeyPatch) -> None:
    measurer.write_references()
    texts = [measurer.reference(seed).to_dict()["completions"] for seed in (1, 2)]
    assert texts[0] != texts[1] and [len(row) for row in texts[0]] == [2] * 4
    options = {"max_steps": 3, "learning_rate": 0.05, "dataset_name": pairs_file(measurer.folder)}
    row = Row("tiny", "Tiny", "fairpo", options, stops=(2,), scales=(0.0, 1.0))
    places = [At(2), At(3, 0.0), At(3)]
    assert measurer.measured(row) == places and not measurer.complete(row, 0)
    began = time.monotonic()
    measurer.run(row, 0)
    seconds = time.monotonic() - began
    assert measurer.complete(row, 0) and not measurer.complete(row, 1)
    assert measurer.read(row, 1, At(3)) is None
    points = [measurer.read(row, 0, at) for at in places]
    for at, point in zip(places, points, strict=True):
        assert point is not None
        assert (point["row"], point["seed"], point["step"], point["scale"]) == ("tiny", 0, at.step, at.scale)
        assert point["settings"] == json.loads(json.dumps(measurer._settings(row)))
        assert point["guards"]["completions"] == 8 and math.isfinite(point["guards"]["mean_token_log_prob"])
        assert 0 < point["training_seconds"] < seconds
        judged = measurer.judged(point)
        assert judged.to_dict()["completions"] == point["completions"]
        assert judged.scores["scorer"]["concise"].shape == (4, 2)
        assert any(key.startswith("weight/") for key in point["history"][0])
    assert points[1]["completions"] == texts[1]  # an adapter times 0 is the reference, and draws are shared
    assert points[0]["completions"] != texts[1] != points[2]["completions"]  # it was the trained model that wrote
    assert not list(measurer.folder.glob("**/*.tmp"))

    # A run that was cut short is taken up: what is there is neither trained nor measured again.
    monkeypatch.setattr(measure, "train", lambda *_, **__: pytest.fail("it is trained"))
    measurer.points.write(measurer.path(row, 0, At(2)), {"there": "already"})
    measurer.path(row, 0, At(3)).unlink()
    assert not measurer.complete(row, 0)
    measurer.run(row, 0)
    assert measurer.read(row, 0, At(2)) == {"there": "already"}
    assert measurer.read(row, 0, At(3))["completions"] == points[2]["completions"]
    monkeypatch.setattr(
        measure.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("they are there")
    )
    measurer.write_references()
    monkeypatch.setattr(measure, "demo_model_path", lambda: ("elsewhere", "another model"))
    with pytest.raises(ValueError, match=r"other inputs.*'model'.*--output_dir"):
        measurer.write_references()


def test_keeping_adapters_on_the_way_does_not_change_the_run(measurer: Measurer) -> None:
    options = {"max_steps": 3, "learning_rate": 0.05, "dataset_name": pairs_file(measurer.folder)}
    rows = [Row("often", "", "fairpo", options, stops=(1, 2)), Row("once", "", "fairpo", options)]
    for row in rows:
        measurer.run(row, 0)
    often, once = (measurer.read(row, 0, At(3)) for row in rows)
    assert often["completions"] == once["completions"] and often["history"] == once["history"]
    assert often["completions"] != measurer.read(rows[0], 0, At(1))["completions"]


def test_a_point_on_the_way_is_that_of_a_run_that_ends_there(measurer: Measurer) -> None:
    options = {"learning_rate": 0.05, "dataset_name": pairs_file(measurer.folder)}
    longer, shorter = (Row("tiny", "", "fairpo", {**options, "max_steps": steps}, stops=(2,)) for steps in (3, 2))
    assert measurer.path(longer, 0, At(2)) == measurer.path(shorter, 0, At(2))
    measurer.run(shorter, 0)
    found = measurer.read(shorter, 0, At(2))["completions"]
    for folder in measurer.folder.glob("adapters/*"):
        shutil.rmtree(folder)
    measurer.path(shorter, 0, At(2)).unlink()
    measurer.run(longer, 0)
    assert measurer.read(longer, 0, At(2))["completions"] == found


@pytest.mark.parametrize("control", variants.CONTROLS)
def test_a_control_is_measured_without_training(
    control: str, measurer: Measurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "train", lambda *_, **__: pytest.fail("nothing is trained"))
    row = Row("control", "Control", control=control)
    measurer.write_references()
    measurer.run(row, 0)
    assert measurer.complete(row, 0)
    completions = measurer.read(row, 0, At(0))["completions"]
    assert [len(texts) for texts in completions] == [2] * 4
    assert completions != measurer.reference(evaluation.REFERENCE_SEED).to_dict()["completions"]


def test_the_variants_of_the_pairs_by_hand(tmp_path: Path, fake_judges: None) -> None:
    rows = [json.loads(line) for line in evaluation.PAIRS_FILE.read_text(encoding="utf-8").splitlines()]
    train = [row for row in rows if row["split"] == "train"]
    concise = variants.privileged_only(train, ["concise"])
    assert len(concise) == 270 and {row["attribute"] for row in concise} == {"concise"}
    flipped = variants.random_side(train, ["concise"])
    same = [new == old for new, old in zip(flipped, concise, strict=True)]
    assert 90 < sum(same) < 180  # a fair coin
    for new, old in zip(flipped, concise, strict=True):
        assert new == old or (new["chosen"], new["rejected"]) == (old["rejected"], old["chosen"])
        assert (new["score_chosen"] > new["score_rejected"]) == (new == old)
    none, one, all_of_them = (variants.consistent(train, ["concise"], conflicts) for conflicts in (0, 1, 4))
    assert len(none) <= len(one) <= len(all_of_them) == 270
    variants.write_pairs("random_side", evaluation.PAIRS_FILE, ["concise"], tmp_path / "pairs.jsonl")
    written = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written[:270] == flipped and len(written) == len(rows) - len(train) + 270


def test_every_setting_that_matters_has_its_own_file(measurer: Measurer, tmp_path: Path) -> None:
    row = Row("tiny", "Tiny", "fairpo", {"max_steps": 3})
    path = measurer.path(row, 0, At(3))
    others = [
        measurer.path(row, 1, At(3)),
        measurer.path(row, 0, At(2)),
        measurer.path(row, 0, At(3, 1.5)),
        measurer.path(dataclasses.replace(row, name="other"), 0, At(3)),
        measurer.path(dataclasses.replace(row, options={"max_steps": 3, "beta": 0.2}), 0, At(3)),
        measurer.path(dataclasses.replace(row, method="sft_on_chosen"), 0, At(3)),
        measurer.path(dataclasses.replace(row, pairs="consistent"), 0, At(3)),
        measurer.path(dataclasses.replace(row, control="prompted"), 0, At(3)),
        Measurer(tmp_path, "validation", 2).path(row, 0, At(3)),
        Measurer(tmp_path, "test", 4).path(row, 0, At(3)),
    ]
    measurer.demo["learning_rate"] = 1.0
    others.append(measurer.path(row, 0, At(3)))
    measurer.demo["lr_scheduler_type"] = "linear"  # now the end matters to what comes before it
    others.append(measurer.path(row, 0, At(3)))
    others.append(measurer.path(dataclasses.replace(row, options={"max_steps": 4}), 0, At(3)))
    assert len({path, *others}) == 1 + len(others)
    measurer = Measurer(tmp_path, "test", 2)
    assert measurer.path(dataclasses.replace(row, label="Another label", main=True, stops=(1,)), 0, At(3)) == path
    measurer.data_hash = "other data"
    assert measurer.path(row, 0, At(3)) != path


def test_tuning_the_demo_moves_the_tuned_rows_alone(measurer: Measurer) -> None:
    tuned, other = Row("demo", "Demo", "fairpo", tuned=True), Row("other", "Other", "fairpo", {"eta_alpha": 0.1})
    before = [measurer.path(row, 0, At(3)) for row in (tuned, other)]
    measurer.demo |= {"epsilon": 0.3, "balancer": "mirror_ascent", "floor": 0.1, "privileged_loss": "simpo"}
    assert measurer.path(tuned, 0, At(3)) != before[0] and measurer.path(other, 0, At(3)) == before[1]
    for option, value in (("balanced_sampling", "none"), ("beta", 0.2)):  # shared by all rows
        measurer.demo[option] = value
        after = measurer.path(other, 0, At(3))
        assert after != before[1]
        before[1] = after


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    Points.write(path, {"a": 1})
    for bad in (math.nan, object()):
        with pytest.raises((ValueError, TypeError)):
            Points.write(path, {"a": bad})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}


# ---- the comparison's rows ----


TRAINED = [row for row in ROWS if row.control is None]


@pytest.mark.parametrize("row", TRAINED, ids=[row.name for row in TRAINED])
def test_every_row_reaches_the_trainer_with_its_options(
    row: Row, measurer: Measurer, tiny_model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(measure, "train", lambda *args, callbacks: seen.append((*args, callbacks)))
    measurer.train(row, 7)
    ((script_args, training_args, model_args, callbacks),) = seen
    defaults = {option.name: option.default for option in dataclasses.fields(FairPOConfig)}
    untuned = {} if row.tuned else {name: defaults[name] for name in measure.FAIRPO_OPTIONS}
    given = {**measurer.demo, **untuned, **row.options}
    options = ("privileged_attributes", "balancer", "grouping", "beta", "epsilon", "max_steps", "learning_rate")
    for name in {*row.options, *untuned, *options, "per_device_train_batch_size"} & given.keys():
        assert getattr(training_args, name) == given[name], name
    assert script_args.method == row.method and training_args.seed == 7
    data = Path(script_args.dataset_name)
    assert data.parent == measurer.folder if row.pairs else data.samefile(evaluation.PAIRS_FILE)
    assert model_args.model_name_or_path == tiny_model_path
    assert Path(training_args.output_dir).parent == measurer.folder / "runs"
    assert len(callbacks) == 1 and set(callbacks[0].folders) == {at.step for at in measurer.measured(row)}


def test_rows_have_names_of_their_own_and_the_baselines_differ_from_fairpo() -> None:
    assert len({row.name for row in ROWS}) == len({row.label for row in ROWS}) == len(ROWS)
    by_name = {row.name: row for row in ROWS}
    assert by_name["fairpo_published"].options == {**PUBLISHED, **compare.TWENTY}
    assert by_name["fairpo_demo"].options == {}
    assert [row.name for row in ROWS if row.tuned] == ["fairpo_demo", "swapped", "on_topic"]
    told = {json.dumps([row.method, row.options, row.pairs, row.control, row.tuned], sort_keys=True) for row in ROWS}
    assert len(told) == len(ROWS)


def test_every_shipped_point_is_one_of_the_rows_as_they_are_defined() -> None:
    shipped = Measurer(ROOT / "experiments" / "generation" / "results", "test", 2)
    expected = {shipped.path(row, seed, at) for row in ROWS for seed in range(3) for at in shipped.measured(row)} | {
        shipped._reference_path(seed) for seed in (evaluation.REFERENCE_SEED, evaluation.FRESH_SEED)
    }
    assert set(shipped.folder.glob("test-*.json")) <= expected
    for row in ROWS:
        if row.main:
            assert all(shipped.complete(row, seed) for seed in range(3)), row.name


# ---- the comparison's tables ----


def write_point(measurer: Measurer, row: Row, seed: int, step: int, words: int) -> None:
    """A point whose completions all have so many words."""
    point = {
        "row": row.name,
        "seed": seed,
        "step": step,
        "scale": 1.0,
        "guards": {"mean_words": float(words), "mean_token_log_prob": -2.0},
        "training_seconds": 60.0 + seed,
        **Writing(same_text(words, 4), {}).to_dict(),
    }
    measurer.points.write(measurer.path(row, seed, At(step)), point)


@pytest.fixture
def with_references(measurer: Measurer) -> Measurer:
    for seed in (evaluation.REFERENCE_SEED, evaluation.FRESH_SEED):
        measurer.points.write(measurer._reference_path(seed), Writing(same_text(6, 4), {}).to_dict())
    return measurer


def tables(measurer: Measurer, rows: Sequence[Row]) -> dict[tuple[str, int], dict[str, Any]]:
    write_tables(measurer, rows)
    lines = json.loads((measurer.folder / "comparison.json").read_text(encoding="utf-8"))
    return {(line["row"], line["step"]): line for line in lines}


def test_tables_of_points_made_by_hand(with_references: Measurer, capsys: pytest.CaptureFixture[str]) -> None:
    measurer = with_references
    early = Row("dpo_privileged_only", "Early", "dpo_privileged_only", {"max_steps": 4}, main=True, stops=(2,))
    late = Row("fairpo_demo", "Late")
    missing = Row("missing", "Missing")
    end = measurer.demo["max_steps"]
    write_point(measurer, early, 0, 2, words=6)  # like the reference
    write_point(measurer, early, 0, 4, words=3)  # always shorter
    write_point(measurer, late, 0, end, words=3)
    write_point(measurer, late, 1, end, words=6)
    lines = tables(measurer, [early, late, missing])
    assert list(lines) == [("dpo_privileged_only", 2), ("dpo_privileged_only", 4), ("fairpo_demo", end)]

    # The reference against itself ties (.5). Shorter wins always for `concise`, never for `plain`.
    shorter = lines["dpo_privileged_only", 4]
    assert shorter["privileged"]["mean"] == 0.5 and shorter["privileged"]["n"] == 4
    assert shorter["worst_held"]["name"] == "plain" and shorter["worst_held"]["mean"] == -0.5
    assert shorter["mean_held"]["mean"] == -0.5 / len(HELD)
    assert shorter["difference"]["second_judge"]["concise"]["mean"] == -0.5
    assert shorter["last"] and not lines["dpo_privileged_only", 2]["last"]
    assert lines["dpo_privileged_only", 2]["privileged"]["mean"] == 0.0

    both = lines["fairpo_demo", end]
    assert both["seeds"] == [0, 1] and both["privileged_by_seed"] == [0.5, 0.0]
    assert both["privileged"]["mean"] == 0.25 and both["guards"]["mean_words"] == 4.5
    assert both["training_seconds"] == 60.5
    assert both["partition"] == {name: "privileged" if name == "concise" else "non_privileged" for name in NAMES}

    text = (measurer.folder / "comparison.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("|")]
    about, rows = {row[0]: row[1] for row in rows if len(row) == 2}, [row for row in rows if len(row) != 2]
    assert [row[0] for row in rows] == ["method", "---", "Early, 2 steps", "Early", "Late"]
    assert rows[3][1:4] == ["1", ".50 [.50, .50]", "-.12 [-.12, -.12]"] and rows[3][4].endswith("plain")
    assert {len(row) for row in rows} == {11} and about["prompts"] == "4 of test, 2 completions each"
    assert (measurer.folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "Late" in capsys.readouterr().out


def test_a_method_is_compared_with_the_curve_at_its_own_gain(with_references: Measurer) -> None:
    measurer, end = with_references, with_references.demo["max_steps"]
    curve = Row("dpo_privileged_only", "Early", method="dpo_privileged_only", stops=(2,))
    method, alone = Row("method", "Method"), Row("alone", "Alone")
    swapped = Row("swapped", "Swapped", "fairpo", {"privileged_attributes": ["plain"]})
    for seed, step, words in ((0, 2, 6), (0, end, 3), (1, 2, 6), (1, end, 3)):
        write_point(measurer, curve, seed, step, words)
    write_point(measurer, method, 0, end, words=3)
    write_point(measurer, method, 1, end, words=6)  # half the gain at half the loss: on the curve
    write_point(measurer, alone, 2, end, words=3)  # a seed that the curve lacks
    write_point(measurer, swapped, 0, end, words=3)
    lines = tables(measurer, [curve, method, alone, swapped])
    for judged in lines["method", end]["above_curve"].values():
        assert (judged["mean"], judged["low"], judged["high"], judged["n"]) == (0.0, 0.0, 0.0, 4)
    for name in ("dpo_privileged_only", "alone", "swapped"):
        assert lines[name, end]["above_curve"] is None, name


def test_the_height_above_a_curve_by_hand() -> None:
    def same(*values: float) -> np.ndarray:
        """One row for each value, eight prompts alike."""
        return np.repeat(np.array(values)[:, None], 8, axis=1)

    gains = same(0.2, 0.4)
    held = np.stack([same(-0.1, 0.0), same(-0.3, 0.1)])  # two points, two attributes

    def height(gain: float, *ours: float) -> tuple[float, float] | None:
        found = above_curve(same(gain)[0], same(*ours), gains, held, n=50)
        if found is None:
            return None
        assert all(e.low == pytest.approx(e.mean) and e.high == pytest.approx(e.mean) for e in found.values())
        return found["mean_held"].mean, found["worst_held"].mean

    # At .3 the curve has -.2 and .05, at .1 (half way to the reference) -.05 and 0.
    assert height(0.3, 0.0, -0.05) == pytest.approx((-0.025 + 0.075, -0.05 + 0.2))
    assert height(0.1, 0.0, -0.05) == pytest.approx((-0.025 + 0.025, -0.05 + 0.05))
    assert height(0.45, 0.0, 0.0) is None and height(-0.05, 0.0, 0.0) is None


def test_the_height_above_a_curve_is_paired_by_prompt() -> None:
    rng = np.random.default_rng(1)
    gains, held = rng.normal([[0.3], [0.6]], 0.3, (2, 200)), rng.normal(0, 0.3, (2, 3, 200))
    on, above = (above_curve(gains[0], held[0] + shift, gains, held, n=200) for shift in (0.0, 0.1))
    for found, shift in ((on, 0.0), (above, 0.1)):
        for estimate in found.values():
            assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((shift,) * 3, abs=1e-9)
    other = above_curve(rng.permutation(gains[0]), rng.permutation(held[0], axis=1), gains, held, n=200)
    assert other["mean_held"].high - other["mean_held"].low > 0.05


def test_a_swapped_partition_has_its_own_roles(with_references: Measurer) -> None:
    swapped = Row("swapped", "Swapped", "fairpo", {"privileged_attributes": ["plain"]})
    end = with_references.demo["max_steps"]
    write_point(with_references, swapped, 0, end, words=3)
    line = tables(with_references, [swapped])["swapped", end]
    assert line["partition"]["plain"] == "privileged" and line["partition"]["concise"] == "non_privileged"
    assert line["privileged"]["mean"] == -0.5 and line["worst_held"]["mean"] == 0.0
    # Its axes would mean something else than those of the other rows.
    assert not (with_references.folder / "comparison.png").exists()


def test_a_half_written_point_is_not_used(with_references: Measurer) -> None:
    row, end = Row("tiny", "Tiny"), with_references.demo["max_steps"]
    with_references.path(row, 0, At(end)).with_suffix(".tmp").write_text('{"row": "ti', encoding="utf-8")
    assert not with_references.complete(row, 0) and with_references.read(row, 0, At(end)) is None
    write_point(with_references, row, 1, end, words=3)
    with_references.path(row, 2, At(end)).with_suffix(".tmp").write_text('{"row": "ti', encoding="utf-8")
    assert tables(with_references, [row])["tiny", end]["seeds"] == [1]


def test_without_points_nothing_is_written(with_references: Measurer, capsys: pytest.CaptureFixture[str]) -> None:
    write_tables(with_references, ROWS)
    assert "no points yet" in capsys.readouterr().out
    assert not list(with_references.folder.glob("comparison.*"))


# ---- the demo's files ----


def test_every_key_of_the_demo_is_an_option() -> None:
    given = yaml.safe_load(recipe.DEMO_CONFIG.read_text(encoding="utf-8"))
    parts = (GenerationArguments, FairPOConfig, ModelConfig)
    known = {field.name for part in parts for field in dataclasses.fields(part)}
    assert set(given) <= known
    assert set(given["privileged_attributes"]) < set(NAMES)
    assert (ROOT / given["dataset_name"]).samefile(evaluation.PAIRS_FILE)


@pytest.mark.parametrize("module", [recipe, compare], ids=lambda module: module.__name__)
def test_a_recipe_is_read_in_one_go(module: Any) -> None:
    assert len(Path(module.__file__).read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize(
    ("dataset_name", "split", "message"),
    [("", "train", "--dataset_name"), ("data", "training", r"no split 'training', only \['test', 'train'\]")],
)
def test_the_recipe_says_what_the_data_lacks(dataset_name: str, split: str, message: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "chosen": "b", "rejected": "c", "attribute": "d", "split": name} for name in ("train", "test")
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    name = str(tmp_path / "data.jsonl") if dataset_name else None
    script_args = GenerationArguments(dataset_name=name, dataset_train_split=split)
    args = SimpleNamespace(eval_strategy="no", attribute_column="attribute")
    with pytest.raises(ValueError, match=message):
        train(script_args, args, ModelConfig(model_name_or_path="some/model"))


# ---- the verdict ----


def test_the_demos_verdict_is_that_of_the_command_and_the_report_is_about_other_prompts(
    tmp_path: Path, tiny_model_path: str, fake_judges: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "MAX_NEW_TOKENS", 4)
    monkeypatch.setattr(report, "PAIRS", 2)
    every = [row for row in selection.load_prompts() if row["split"] == "test"][:44]
    monkeypatch.setattr(selection, "load_prompts", lambda: every)
    make_tokenizer().save_pretrained(tiny_model_path)
    pairs = Dataset.from_list(make_rows(20, tuple(NAMES)))
    trainer = fairpo(tmp_path, pairs, tiny_model_path, peft_config=lora(), max_steps=2, learning_rate=0.05)
    trainer.train()
    trainer.save_model(str(tmp_path))
    options = selection.DemoTest(select_prompts=24, report_prompts=20, select_samples=1, scales=[0.5, 1.0], margin=0.9)
    results, written = selection.select_demo(trainer, tiny_model_path, ["concise"], options, "tiny")
    tests = results.selection.candidates
    assert [test.name for test in tests] == ["scale 0.5", "scale 1"] and len(tests[0].held) == 2 * len(HELD)
    assert {held.examples for held in tests[0].held} == {24}
    decided, aside = selection.divide(24, 20)
    assert written.prompts == aside and len(aside) == 20 and not [prompt for prompt in aside if prompt in decided]
    assert SelectionResults.read(tmp_path / "selection" / "selection.json") == results
    assert (tmp_path / "selection" / "chosen").exists() == (results.selection.chosen is not None)
    found = report.report_demo(trainer, ["concise"], "fairpo", "tiny", 0.0, written)
    assert found.attributes[0].win_rate["scorer"].trained.n == 20
    chosen = results.scales.get(results.selection.chosen, 1.0)
    assert written.scale == chosen and (f"adapter x {chosen:g}" in found.title) == (chosen != 1)
    none = selection.DemoTest(select_prompts=24, report_prompts=20, select_samples=1, scales=[0.5], margin=0.001)
    assert selection.select_demo(trainer, tiny_model_path, ["concise"], none, "tiny")[0].selection.chosen is None


def test_the_options_of_the_verdict_are_in_a_file_and_on_the_command_line() -> None:
    parser = make_parser(after=selection.DemoTest)
    on_a_cpu = "--use_cpu true --bf16 false --output_dir out --privileged_attributes concise".split()
    given = [*on_a_cpu, *selection.test_options()]
    assert parser.parse(given)[3].margin == 0.15
    assert parser.parse([*given, "--scales", "1", "--margin", "0.2"])[3].scales == [1.0]
    with pytest.raises(ValueError, match="rise from the safest"):
        parser.parse([*given, "--scales", "1", "0.5"])

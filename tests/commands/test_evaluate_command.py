"""`fairpo evaluate`: fresh completions of several models, judged per attribute, resumed, reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import make_model, make_rows, make_tokenizer
from helpers_trainer import data, fairpo, lora
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from rich.console import Console
from test_http_judge import Endpoint, says, server  # noqa: F401  # a fixture
from transformers import AutoModelForCausalLM

from fairpo_trl.commands import evaluate
from fairpo_trl.commands.evaluate import run
from fairpo_trl.commands.evaluate_inputs import EvaluateArguments
from fairpo_trl.commands.evaluate_judges import JudgeArguments
from fairpo_trl.commands.main import main
from fairpo_trl.evaluation import models, sample_completions, writing
from fairpo_trl.evaluation.judges import KINDS
from fairpo_trl.evaluation.models import find_model, fingerprint
from fairpo_trl.evaluation.writing import Sampling, write_completions
from fairpo_trl.reporting import Results, writers


QUIET = Console(quiet=True)
SAMPLING = Sampling(samples_per_prompt=2, max_new_tokens=6, temperature=1.0)
COUNTS = ["concise=count:words:fewer", "polite=count:characters:more", "factual=count:words:more"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two adapters on it, another full model, and pairs."""
    root = tmp_path_factory.mktemp("evaluate")
    make_model(dtype=torch.float32).save_pretrained(root / "base")
    make_tokenizer().save_pretrained(root / "base")
    make_model(1, torch.float32).save_pretrained(root / "full")
    make_tokenizer().save_pretrained(root / "full")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        base = AutoModelForCausalLM.from_pretrained(root / "base")
        get_peft_model(base, config).save_pretrained(root / name)
    write_rows(root / "pairs.jsonl", make_rows(60))
    return root


@pytest.fixture(autouse=True)
def quick_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots have their own tests and take seconds; only a test that asks for `plots` draws them."""
    if "plots" not in request.fixturenames:
        for name in ("plot_win_rates", "plot_weights", "plot_margins"):
            monkeypatch.setattr(writers, name, lambda results, path, *judge: Path(path))


@pytest.fixture
def plots() -> None:
    """See `quick_plots`."""


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def arguments(place: Path, output: Path, *names: str, **options: Any) -> EvaluateArguments:
    defaults = {
        "models": [str(place / name) for name in names],
        "dataset_name": str(place / "pairs.jsonl"),
        "test_share": 0.5,
        "privileged_attributes": ["concise"],
        "output_dir": str(output),
        "max_prompts": 24,
        "max_new_tokens": 8,
        "temperature": 1.0,
    }
    return EvaluateArguments(**{**defaults, **options})


def evaluated(
    place: Path, output: Path, *names: str, judges: Sequence[str] = COUNTS, judging: Any = None, **options: Any
) -> list[dict[str, Any]]:
    """The documents, as their files hold them."""
    args = arguments(place, output, *names, **options)
    found = run(args, JudgeArguments(judges=list(judges), **(judging or {})), QUIET)
    return [document.to_dict() for document in found]


def entry(results: dict[str, Any], attribute: str) -> dict[str, Any]:
    (found,) = (entry for entry in results["attributes"] if entry["attribute"] == attribute)
    return found


def kept_texts(output: Path, label: str) -> list[str]:
    """First samples of a model's parts, in order."""
    paths = sorted(output.glob(f"completions/{label}-*/*.json"))
    return [row[0][0] for path in paths for row in json.loads(path.read_text(encoding="utf-8"))]


def without_time(results: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in results.items() if key != "seconds"}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders from which causal models are loaded."""
    found: list[str] = []
    original = AutoModelForCausalLM.from_pretrained

    def spy(folder: Any, **options: Any) -> Any:
        assert options["use_safetensors"] is True
        found.append(Path(folder).name)
        return original(folder, **options)

    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", spy)
    return found


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of prompts of each call that samples."""
    found: list[int] = []

    def spy(model: Any, tokenizer: Any, prompts: Sequence[Any], **options: Any) -> Any:
        found.append(len(prompts))
        return sample_completions(model, tokenizer, prompts, **options)

    monkeypatch.setattr(writing, "sample_completions", spy)
    return found


# ---- what it does ----


def test_two_adapters_are_compared_with_their_base_which_is_loaded_once(
    place: Path, tmp_path: Path, loads: list[str], plots: None
) -> None:
    documents = evaluated(place, tmp_path, "first", "second")
    assert loads == ["base"]
    assert [document["name"] for document in documents] == ["first", "second"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for document in documents:
        name = document["name"]
        assert {path.name for path in (tmp_path / name).iterdir()} >= {"results.json", "report.md", "report.html"}
        assert Results.read(tmp_path / name / "results.json").to_dict() == document
        assert document["reference_name"] == "base" and name in page
        assert document["partition"] == {
            "concise": "privileged", "polite": "non_privileged", "factual": "non_privileged"
        }  # fmt: skip
        assert document["attributes"][0]["attribute"] == "concise" and len(document["attributes"]) == 3
        assert document["judges"]["concise"]["kind"] == "words, fewer"
        assert str(place) not in (tmp_path / name / "results.json").read_text(encoding="utf-8")
    assert entry(documents[0], "concise")["win_rate"] != entry(documents[1], "concise")["win_rate"]


def test_the_numbers_are_those_of_the_texts(place: Path, tmp_path: Path) -> None:
    (document,) = evaluated(place, tmp_path, "first")
    reference, again = kept_texts(tmp_path, "reference-seed0"), kept_texts(tmp_path, "reference-seed1")
    trained = kept_texts(tmp_path, "first-seed1")
    assert len(trained) == len(reference) == len(again) == 24
    counts = [np.array([len(text.split()) for text in texts]) for texts in (trained, reference, again)]
    rates = entry(document, "concise")["win_rate"]["first_judge"]

    def win(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a < b) + 0.5 * (a == b)).mean())

    assert rates["trained"]["mean"] == pytest.approx(win(counts[0], counts[1])) and rates["trained"]["n"] == 24
    assert rates["reference_vs_itself"]["mean"] == pytest.approx(win(counts[2], counts[1]))
    assert rates["difference"]["mean"] == pytest.approx(win(counts[0], counts[1]) - win(counts[2], counts[1]))
    scores = entry(document, "concise")["scores"]["first_judge"]
    assert scores["trained"]["mean"] == pytest.approx(-counts[0].mean())
    worst = [found for found in document["regressions"] if found["attribute"] == "concise"]
    changes = sorted((counts[1] - counts[0])[counts[1] < counts[0]])[:5]
    assert [found["change"] for found in worst] == changes and changes[0] < 0
    place_of = {text: i for i, text in enumerate(trained)}
    for found in worst:
        assert found["reference"] == reference[place_of[found["trained"]]]
        assert found["change"] == found["scores"]["concise"]["trained"] - found["scores"]["concise"]["reference"]
    guards = document["guards"]
    assert guards["trained"]["mean_words"] == pytest.approx(counts[0].mean())
    assert guards["reference"]["mean_words"] == pytest.approx(counts[2].mean())
    assert guards["trained"]["mean_token_log_prob"] < guards["reference"]["mean_token_log_prob"] < 0
    assert len(document["samples"]) == 12 and set(document["samples"][0]["scores"]) == {"concise", "polite", "factual"}
    # Words decide `concise` as good as alone, so there is no win rate at equal length; `n` is that of the prompts.
    assert entry(document, "factual").get("length_controlled", {"first_judge": {"n": 24}})["first_judge"]["n"] == 24


def test_a_model_against_itself_is_exactly_as_good(place: Path, tmp_path: Path, loads: list[str]) -> None:
    shutil.copytree(place / "base", tmp_path / "copy")
    (document,) = evaluated(place, tmp_path / "out", models=[str(tmp_path / "copy")], reference=str(place / "base"))
    assert loads == ["copy", "base"]
    for found in document["attributes"]:
        rates = found["win_rate"]["first_judge"]
        assert rates["difference"] == {"mean": 0, "low": 0, "high": 0, "n": 24}
        assert rates["reference_vs_itself"]["low"] < 0.5 < rates["reference_vs_itself"]["high"]
    assert document["guards"]["trained"] == document["guards"]["reference"]


def test_adapters_on_one_base_write_what_each_would_write_alone(place: Path, tmp_path: Path) -> None:
    both = evaluated(place, tmp_path / "both", "first", "second")
    alone = evaluated(place, tmp_path / "alone", "second")
    assert without_time(both[1]) == without_time(alone[0])


def test_a_full_model_has_another_base_and_needs_a_reference(place: Path, tmp_path: Path, loads: list[str]) -> None:
    documents = evaluated(place, tmp_path, "first", "full", "second", reference=str(place / "base"))
    assert [document["name"] for document in documents] == ["first", "full", "second"]
    assert loads == ["full", "base"]


def test_conversations_are_written_through_the_chat_template(place: Path, tmp_path: Path) -> None:
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
            "attribute": row["attribute"],
        }
        for row in make_rows(40)
    ]
    pairs = write_rows(tmp_path / "pairs.jsonl", rows)
    (document,) = evaluated(place, tmp_path / "out", "first", dataset_name=str(pairs), samples_per_prompt=2)
    assert document["samples"][0]["prompt"] in {row["prompt"][0]["content"] for row in rows}
    assert (
        document["guards"]["trained"]["completions"]
        == 2 * entry(document, "concise")["win_rate"]["first_judge"]["trained"]["n"]
    )


def test_ratings_are_evaluated_on_like_any_pairs(place: Path, tmp_path: Path) -> None:
    table = Path(__file__).parents[1] / "data" / "ratings.csv"
    judges = ["all=count:words:fewer"]
    (document,) = evaluated(
        place,
        tmp_path,
        "first",
        judges=judges,
        dataset_name=str(table),
        ratings=["helpful", "concise", "polite"],
    )
    assert document["data"] == "ratings.csv, 6 prompts of test"
    assert list(document["judges"]) == ["helpful, concise, polite"]


# ---- being stopped ----


def test_the_same_call_again_computes_nothing(
    place: Path, tmp_path: Path, loads: list[str], sampled: list[int]
) -> None:
    before = evaluated(place, tmp_path, "first", "second")
    del loads[:], sampled[:]
    again = evaluated(place, tmp_path, "first", "second")
    assert (loads, sampled) == ([], [])
    assert list(map(without_time, again)) == list(map(without_time, before))


def test_after_an_interruption_only_what_is_missing_is_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PART", 5)  # 24 prompts: 5 parts for each of 3 writings
    whole = evaluated(place, tmp_path / "whole", "first")
    calls: list[int] = []

    def interrupted_at(stop: int | None) -> Callable[..., Any]:
        def sample(model: Any, tokenizer: Any, prompts: Sequence[Any], **options: Any) -> Any:
            if len(calls) == stop:
                raise KeyboardInterrupt
            calls.append(len(prompts))
            return sample_completions(model, tokenizer, prompts, **options)

        return sample

    for stop in (3, 8, 14):
        monkeypatch.setattr(writing, "sample_completions", interrupted_at(stop))
        with pytest.raises(KeyboardInterrupt):
            evaluated(place, tmp_path / "out", "first")
    monkeypatch.setattr(writing, "sample_completions", interrupted_at(None))
    resumed = evaluated(place, tmp_path / "out", "first")
    assert len(calls) == 15 and sum(calls) == 3 * 24
    assert without_time(resumed[0]) == without_time(whole[0])
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_parts_are_the_completions_of_one_call_and_belong_to_all_settings(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampled: list[int]
) -> None:
    monkeypatch.setattr(writing, "PART", 4)
    model, tokenizer = make_model(dtype=torch.float64), make_tokenizer()
    prompts = [row["prompt"] for row in make_rows(10)]

    class Opened:
        def __enter__(self) -> Any:
            return model

        def __exit__(self, *error: object) -> None:
            pass

    def written(sampling: Sampling = SAMPLING, identity: str = "m", seed: int = 3, **other: Any) -> Any:
        asked = other.get("prompts", prompts)
        return write_completions(tmp_path, "m", identity, Opened, tokenizer, asked, sampling, seed=seed)

    whole = sample_completions(
        model, tokenizer, prompts, samples_per_prompt=2, max_new_tokens=6, temperature=1.0, seed=3, progress=False
    )
    assert written() == whole and sampled == [4, 4, 2]
    changes = [
        lambda: written(replace(SAMPLING, top_k=9)),
        lambda: written(identity="n"),
        lambda: written(seed=4),
        lambda: written(prompts=[*prompts[:-1], "another"]),
    ]
    for change in changes:
        del sampled[:]
        change()
        assert sampled == [4, 4, 2]
    del sampled[:]
    assert written() == whole and sampled == []


def test_a_damaged_part_is_named(place: Path, tmp_path: Path) -> None:
    evaluated(place, tmp_path, "first")
    path = next(iter(tmp_path.glob("completions/first-*/*.json")))
    text = path.read_text(encoding="utf-8")
    for damaged in (text[:-5], "[]", '[["x"]]' + " " * 9):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"{path.name} is damaged .*delete it"):
            evaluated(place, tmp_path, "first")
    path.unlink()
    evaluated(place, tmp_path, "first")
    assert path.read_text(encoding="utf-8") == text


def test_other_weights_are_another_model_and_other_notes_are_not(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(place / "first", tmp_path / "model")
    before = fingerprint(folder)
    (folder / "README.md").write_text("changed")
    (folder / "results.json").write_text("{}")
    (folder / "trainer_state.json").write_text("{}")
    assert fingerprint(folder) == before
    (folder / "adapter_model.safetensors").write_bytes((place / "second" / "adapter_model.safetensors").read_bytes())
    changed = fingerprint(folder)
    (folder / "adapter_config.json").write_text((folder / "adapter_config.json").read_text() + " ")
    assert len({before, changed, fingerprint(folder)}) == 3


# ---- judges within the command ----


def test_failures_are_left_out_and_counted(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def score(prompts, completions):\n"
        "    return [None if prompt.split()[0] < 'c' else len(text) for prompt, text in zip(prompts, completions)]\n"
    )
    judges = [*COUNTS[:2], f"factual=python:{tmp_path / 'mine.py'}:score", "concise=count:sentences:fewer"]
    (document,) = evaluated(place, tmp_path / "out", "first", judges=judges)
    counted = document["judges"]["factual"]
    judged = entry(document, "factual")["win_rate"]["first_judge"]["trained"]["n"]
    assert 0 < judged < 24 and counted["failures"] > 0 and counted["kind"] == "function score"
    assert entry(document, "polite")["win_rate"]["first_judge"]["trained"]["n"] == 24
    assert list(entry(document, "concise")["win_rate"]) == ["first_judge", "second_judge"]
    assert document["judges"]["concise (second)"] == {
        "kind": "sentences, fewer", "calls": document["judges"]["concise"]["calls"], "cached": 0, "failures": 0
    }  # fmt: skip


def test_an_endpoint_judges_every_attribute_and_is_asked_once(
    place: Path,
    tmp_path: Path,
    server: Endpoint,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret-123")
    judging = {
        "judge_api_key_env": "JUDGE_KEY",
        "descriptions": ["polite=friendly in tone"],
        "judge_attempts": 1,
    }
    server.script = [says("no idea")]
    options = {"judges": [f"all=llm:{server.address}#judge"], "judging": judging, "max_prompts": 8}
    (document,) = evaluated(place, tmp_path, "first", **options)
    assert sum(calls["failures"] for calls in document["judges"].values()) == 1
    ((names, calls),) = document["judges"].items()
    assert set(names.split(", ")) == {"concise", "polite", "factual"} and calls["kind"] == "judge at 127.0.0.1"
    ns = sorted(found["win_rate"]["first_judge"]["trained"]["n"] for found in document["attributes"])
    assert ns == [7, 8, 8] and not any("scores" in found for found in document["attributes"])
    questions = [request["body"]["messages"][0]["content"] for request in server.requests]
    assert any("polite (friendly in tone)" in question for question in questions)
    asked = len(server.requests)
    (again,) = evaluated(place, tmp_path, "first", **options)
    assert len(server.requests) == asked + 1  # the one that failed
    assert sum(calls["failures"] for calls in again["judges"].values()) == 0
    assert all(found["change"] == -0.5 for found in again["regressions"])
    everything = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert not any(b"sk-secret" in content for content in everything)


# ---- the training run ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short FairPO run with an adapter, as `fairpo generation` leaves it."""
    out = tmp_path_factory.mktemp("run") / "out"
    rows = data(24)
    trainer = fairpo(
        out,
        rows,
        make_model(dtype=torch.float32),
        peft_config=lora(),
        max_steps=2,
        save_strategy="steps",
        save_steps=2,
    )
    trainer.train()
    trainer.save_model(str(out))
    return out


def test_who_is_privileged_and_how_weights_moved_comes_from_the_run(
    place: Path, trained: Path, tmp_path: Path
) -> None:
    options = {"base_model": str(place / "base"), "privileged_attributes": None}
    (document,) = evaluated(place, tmp_path, models=[str(trained)], **options)
    assert document["partition"]["concise"] == "privileged" and document["partition"]["polite"] == "non_privileged"
    assert [point["step"] for point in document["weights_history"]] == [1, 2]
    last = document["weights_history"][-1]
    assert entry(document, "concise")["final_weight"] == last["privileged"]
    assert entry(document, "polite")["final_weight"] == last["non_privileged"]
    assert all(found["pairs"] > 0 for found in document["attributes"])
    assert set(document["margins_history"][0]) - {"step"} <= {"concise", "polite", "factual"}
    (checkpoint,) = evaluated(place, tmp_path / "c", models=[str(trained / "checkpoint-2")], **options)
    assert checkpoint["name"] == "out-checkpoint-2" and checkpoint["partition"] == document["partition"]


def test_a_damaged_state_of_the_run_is_named(place: Path, trained: Path, tmp_path: Path) -> None:
    run_folder = shutil.copytree(trained, tmp_path / "run")
    (run_folder / "checkpoint-2" / "fairpo_state.json").write_text("{}")
    with pytest.raises(ValueError, match=r"fairpo_state\.json, is damaged"):
        evaluated(
            place,
            tmp_path / "out",
            models=[str(run_folder)],
            base_model=str(place / "base"),
            privileged_attributes=None,
        )


# ---- bad input ----


@pytest.fixture
def nothing_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise AssertionError("a model was loaded before the input was checked")

    for kind in (transformers.AutoModelForCausalLM, transformers.AutoModelForSequenceClassification):
        monkeypatch.setattr(kind, "from_pretrained", fail)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no models": ({"models": []}, "Name the models"),
    "no judges": ({"judges": []}, "Name the judges: `--judges ATTRIBUTE=KIND:TARGET"),
    "judge of nothing": ({"judges": ["concsie=count:words:fewer"]}, "did you mean 'concise'"),
    "attribute without judge": ({"judges": COUNTS[:2]}, "no judge for 'factual'"),
    "unknown privileged": ({"privileged_attributes": ["concize"]}, "did you mean 'concise'"),
    "nobody privileged": ({"privileged_attributes": None}, "not saved beside 'first'"),
    "no test split": ({"test_share": 0.0}, "no split 'test', only ['train']"),
    "near folder": ({"models": ["{place}/firts"]}, "Did you mean '{place}/first'?"),
    "full model without reference": ({"models": ["{place}/full"]}, "Name the `reference` to compare with"),
    "no model": ({"models": ["{place}"]}, "holds neither config.json nor adapter_config.json"),
    "reference not there": ({"reference": "{place}/bsae"}, "Did you mean '{place}/base'?"),
    "base not there": ({"base_model": "{place}/nowhere"}, "needs its base: There is no folder"),
    "same name twice": ({"models": ["{place}/first", "{place}/first"]}, "Several models would be called 'first'"),
    "names of another number": ({"names": ["a", "b"]}, "`names` has 2 entries for 1 models"),
    "name is no folder": ({"names": ["../x"]}, "'../x' cannot name a folder"),
    "name is taken": ({"names": ["completions"]}, "'completions' cannot name a folder"),
    "no column": ({"attribute_column": "atribute"}, "atribute"),
    "key without endpoint": ({"judging": {"judge_api_key_env": "X"}}, "no judge is an endpoint"),
    "descriptions without model": ({"judging": {"descriptions": ["polite=x"]}}, "no judge is a language model"),
    "endpoint without model": ({"judges": ["all=llm:http://localhost:1/v1"]}, "names no model"),
    "label of a language model": ({"judges": ["all=llm:my/model#3"]}, "has no #3"),
    "count without direction": ({"judges": ["all=count:words"]}, "count:words:fewer or count:words:more"),
    "adapter as judge": ({"judges": ["all=reward:{place}/first"]}, "is an adapter: merge it"),
    "no such function": ({"judges": ["all=python:{place}/no.py:f"]}, "there is no file"),
    "stream": ({"dataset_streaming": True, "test_share": 0.0}, "cannot work on a stream"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_error_before_any_model_is_loaded_and_nothing_is_written(
    place: Path, tmp_path: Path, nothing_loads: None, case: str
) -> None:
    options, message = BAD[case]

    def filled(value: Any) -> Any:
        return [v.replace("{place}", str(place)) for v in value] if isinstance(value, list) else value

    options = {name: filled(value) for name, value in options.items()}
    for name in ("reference", "base_model"):
        if name in options:
            options[name] = options[name].replace("{place}", str(place))
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        evaluated(place, tmp_path / "out", "first", **options)
    assert message.replace("{place}", str(place)) in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [{"max_prompts": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"samples_per_prompt": 0}, {"batch_size": 0}]
)
def test_settings_out_of_range_are_refused(place: Path, tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        arguments(place, tmp_path, "first", **option)


def test_pickled_weights_are_refused(place: Path, tmp_path: Path, nothing_loads: None) -> None:
    folder = shutil.copytree(place / "first", tmp_path / "pickled")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"holds only pickled weights \(\.bin\).*save it again as safetensors"):
        find_model(str(folder))


def test_an_adapter_that_adds_tokens_is_refused(place: Path, tmp_path: Path) -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    base = AutoModelForCausalLM.from_pretrained(place / "base")
    get_peft_model(base, config).save_pretrained(tmp_path / "prompt")
    with pytest.raises(ValueError, match="kind PROMPT_TUNING, which adds tokens to the input"):
        find_model(str(tmp_path / "prompt"))


def test_conversations_without_a_chat_template_are_refused(place: Path, tmp_path: Path, nothing_loads: None) -> None:
    base = shutil.copytree(place / "base", tmp_path / "base")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    (base / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(base)
    rows = [
        {
            "prompt": [{"role": "user", "content": f"the cat {i}"}],
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
            "attribute": "concise",
        }
        for i in range(4)
    ]
    options = {"dataset_name": str(write_rows(tmp_path / "p.jsonl", rows)), "judges": ["all=count:words:fewer"]}
    with pytest.raises(ValueError, match="has no chat template: name one that has with `tokenizer`"):
        evaluated(place, tmp_path / "out", "first", base_model=str(base), **options)


def test_a_diverged_model_is_named(place: Path, tmp_path: Path) -> None:
    model = make_model(dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    make_tokenizer().save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match="broken' cannot be evaluated: .*not finite"):
        evaluated(place, tmp_path / "out", models=[str(tmp_path / "broken")], reference=str(place / "base"))


# ---- the command line ----


def test_the_command_line_prints_the_tables_and_the_report(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = tmp_path / "my.yaml"
    judges = "\n".join(f"  - {judge}" for judge in COUNTS)
    yaml.write_text(f"judges:\n{judges}\nprivileged_attributes: [concise]\nmax_new_tokens: 6\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    pairs = str(place / "pairs.jsonl")
    options = ["--dataset", pairs, "--test_share", "0.5", "--max_prompts", "8", "--output_dir", "out"]
    main(["evaluate", str(place / "first"), "--config", str(yaml), *options])
    shown = capsys.readouterr().out
    assert "8 prompts, 1 model against" in shown and "Win rates against the reference" in shown
    assert "Worst attribute: " in shown and "Report: out/report.html" in shown
    command = Results.read(tmp_path / "out" / "first" / "results.json").command
    assert command.startswith("fairpo evaluate first --config my.yaml --dataset pairs.jsonl")


def test_every_kind_of_judge_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help", "judges"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(form in shown for form in KINDS.values())


def test_a_mistake_on_the_command_line_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(place / "first"), "--judges", "concise=cuont:words:fewer"])
    shown = capsys.readouterr().err
    assert stopped.value.code == 2 and "did you mean 'count'" in shown and "Traceback" not in shown
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="runs in one process"):
        evaluate.run(EvaluateArguments(models=["x"]), JudgeArguments(judges=COUNTS), QUIET)

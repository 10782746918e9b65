"""Forgetting is held: log-probabilities of documents, per document, kept on disk."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_model, make_tokenizer
from test_select_command import place, selected  # noqa: F401  # a fixture

from fairpo_trl.evaluation import held_measures
from fairpo_trl.evaluation.held_measures import TextLogProbs, document_log_probs, read_documents
from fairpo_trl.evaluation.models import LoadedModels, find_model


DOCUMENTS = ["the cat sees a red moon", "why is tea warm", "people run and eat because sleep is good"]


def test_a_document_has_the_mean_log_probability_of_its_tokens():
    model, tokenizer = make_model(dtype=torch.float32), make_tokenizer()
    found = document_log_probs(model, tokenizer, DOCUMENTS)
    for value, text in zip(found, DOCUMENTS, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            expected = -model(input_ids=ids, labels=ids).loss
        assert value == pytest.approx(float(expected), abs=1e-5)


def test_a_document_beyond_the_context_is_read_up_to_it():
    model, tokenizer = make_model(dtype=torch.float32), make_tokenizer()
    long = " ".join(["cat dog sea"] * 100)
    cut = " ".join(long.split()[:128])
    assert document_log_probs(model, tokenizer, [long, cut])[0] == document_log_probs(model, tokenizer, [cut, cut])[0]


def test_documents_are_held_and_read_once_for_each_model(place, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "texts.txt").write_text("\n\n".join(DOCUMENTS * 5), encoding="utf-8")
    options = {"held_texts": str(tmp_path / "texts.txt"), "margin": 0.5, "held_texts_margin": 5.0}
    first = selected(place, tmp_path / "out", **options)
    tests = {held.measure: held for held in first.selection.candidates[0].held}
    models = LoadedModels()
    sources = find_model(str(place / "base")), find_model(str(tmp_path / "out" / "candidates" / "scale-0.5"))
    values = [TextLogProbs(DOCUMENTS * 5, models.open, tmp_path / "own").values(source) for source in sources]
    assert tests["held texts"].mean == pytest.approx(float((values[1] - values[0]).mean()), abs=1e-9)
    assert tests["held texts"].examples == 15
    assert tests["held texts"].margin == 5.0
    monkeypatch.setattr(held_measures, "document_log_probs", lambda *args: pytest.fail("read again"))
    assert selected(place, tmp_path / "out", **options).selection == first.selection


def test_a_model_that_forgets_fails(place, tmp_path):  # noqa: F811
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in DOCUMENTS * 5), encoding="utf-8")
    # A margin of next to nothing: any model that moved has a bound below it.
    results = selected(
        place, tmp_path / "out", held_texts=str(tmp_path / "texts.jsonl"), margin=0.5, held_texts_margin=1e-6
    )
    stopped, measure = results.selection.stopped_by
    assert (stopped.name, measure.measure) == ("scale 0.5", "held texts")


def test_files_of_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\nline\n\n\n two\r\n\r\nthree", encoding="utf-8")
    assert read_documents(tmp_path / "a.txt") == ["one\nline", "two", "three"]
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n\n{"text": "two"}', encoding="utf-8")
    assert read_documents(tmp_path / "b.jsonl") == ["one", "two"]
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\n{"txt": "two"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"Row 1 of c\.jsonl must have a `text`, got .*txt"):
        read_documents(tmp_path / "c.jsonl")
    (tmp_path / "d.jsonl").write_text('{"text": 3}', encoding="utf-8")
    with pytest.raises(ValueError, match="Row 0 .* must have a `text`, got .*3"):
        read_documents(tmp_path / "d.jsonl")
    with pytest.raises(FileNotFoundError, match=r"e\.txt"):
        read_documents(tmp_path / "e.txt")


@pytest.mark.parametrize(
    ("documents", "margin", "words"),
    [
        (["one"], 0.1, "at least two documents"),
        (["one", " "], 0.1, "Document 1 is empty"),
        (["a", "b"], 0, "positive"),
    ],
)
def test_what_cannot_be_held_is_named(documents, margin, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        TextLogProbs(documents, LoadedModels().open, tmp_path, margin=margin)


def test_bets_need_a_range(place, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="`held_texts` cannot be held with `bound betting`"):
        selected(place, tmp_path, held_texts="a.txt", bound="betting")

"""Digests of training prompts in the folder of a run: they are those of the run that lies there, or there are none."""

from __future__ import annotations

from helpers_trainer import NAMES, data, fairpo

from fairpo_trl.generation.trained_prompts import PROMPTS_NAME, keep_prompts, trained_on


def test_a_run_on_a_stream_leaves_none_of_the_run_before(tmp_path):
    keep_prompts(tmp_path, ["a", "b"])
    assert trained_on(tmp_path, ["A ", "c"]) == ["A "]
    stream = data(8).to_iterable_dataset()
    trainer = fairpo(tmp_path, stream, non_privileged_attributes=list(NAMES[1:]), max_steps=1)
    assert (tmp_path / PROMPTS_NAME).exists()  # what does not begin takes nothing away
    trainer.train()
    trainer.save_model(str(tmp_path))
    assert trained_on(tmp_path, ["a"]) == []
    assert not (tmp_path / PROMPTS_NAME).exists()


def test_a_checkpoint_of_an_earlier_run_is_not_asked_about_the_prompts_of_the_last(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    fairpo(tmp_path, data(8), max_steps=2, **options).train()
    fairpo(tmp_path, data(8), max_steps=1, **options).train()
    keep_prompts(tmp_path, ["a"])
    assert trained_on(tmp_path / "checkpoint-1", ["a"]) == ["a"]
    assert trained_on(tmp_path / "checkpoint-2", ["a"]) == []

"""What a push would upload: the client's own code runs, only the requests to the Hub are replaced."""

from __future__ import annotations

import json
from concurrent.futures import Future
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_model, make_rows, make_tokenizer
from datasets import Dataset
from huggingface_hub import HfApi, ModelCard, RepoUrl
from huggingface_hub.utils import filter_repo_objects
from peft import LoraConfig

from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.trainer import FairPOTrainer
from fairpo_trl.training.checkpoints import verify


TOKEN = "hf_" + "notARealToken" * 2


class FakeHub:
    """Keeps what would be uploaded, as bytes at the moment of the call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.created: list[dict[str, Any]] = []
        self.uploads: list[dict[str, Any]] = []
        monkeypatch.setattr(HfApi, "create_repo", lambda api, repo_id, **kwargs: self.create(repo_id, **kwargs))
        monkeypatch.setattr(HfApi, "upload_folder", lambda api, **kwargs: self.upload(**kwargs))

    def create(self, repo_id: str, **kwargs: Any) -> RepoUrl:
        self.created.append({"repo_id": repo_id, **kwargs})
        return RepoUrl(f"https://huggingface.co/{repo_id if '/' in repo_id else f'some-user/{repo_id}'}")

    def upload(self, *, folder_path: str, ignore_patterns: list[str] | None = None, **kwargs: Any) -> Any:
        folder = Path(folder_path)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        kept = filter_repo_objects(names, ignore_patterns=ignore_patterns)  # as the client does
        self.uploads.append({**kwargs, "files": {name: (folder / name).read_bytes() for name in kept}})
        if not kwargs.get("run_as_future"):
            return "commit"
        done: Future = Future()
        done.set_result("commit")
        return done


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub(monkeypatch)


def make_trainer(tmp_path: Path, peft: bool = True, **options: Any) -> FairPOTrainer:
    base = tmp_path / "home-of-alice" / "tiny-base"
    make_model(dtype=torch.float32).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    rows = Dataset.from_list(make_rows(8))
    defaults = {
        "output_dir": str(tmp_path / "home-of-alice" / "tiny-fairpo"),
        "privileged_attributes": ["concise"],
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "save_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "allow_prompt_overlap": True,
    }
    return FairPOTrainer(
        model=str(base),
        args=FairPOConfig(**{**defaults, **options}),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=make_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM") if peft else None,
    )


def assert_nothing_private(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in files.items():
        for private in (str(tmp_path), "home-of-alice", TOKEN):
            assert private.encode() not in content, (name, private)


@pytest.mark.parametrize("peft", [True, False], ids=["adapter", "full"])
def test_push_uploads_the_model_and_nothing_of_the_machine(tmp_path: Path, hub: FakeHub, peft: bool) -> None:
    trainer = make_trainer(tmp_path, peft, hub_token=TOKEN)
    trainer.train()
    trainer.evaluate()
    assert trainer.push_to_hub(dataset_name="some-org/pairs") == "commit"

    (upload,) = hub.uploads
    files = upload["files"]
    weights = {"adapter_model.safetensors", "adapter_config.json"} if peft else {"model.safetensors", "config.json"}
    assert weights | {"README.md", "tokenizer.json"} <= set(files)
    for pattern in (
        "checkpoint-*",
        "optimizer*",
        "scheduler*",
        "rng_state*",
        "trainer_state*",
        "training_args*",
        "*.bin",
    ):
        assert not [name for name in files if fnmatch(name, pattern)], pattern
    assert_nothing_private(files, tmp_path)

    card = ModelCard(files["README.md"].decode())
    assert card.data.library_name == ("peft" if peft else "transformers")
    assert card.data.datasets == ["some-org/pairs"] and card.data.eval_results
    assert '"some-user/tiny-fairpo"' in card.text  # the snippet loads what was pushed
    if peft:
        assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "tiny-base"
    assert upload["repo_id"] == "some-user/tiny-fairpo" and upload["token"] == TOKEN


def test_push_at_the_end_of_a_run_as_the_recipes_do(tmp_path: Path, hub: FakeHub) -> None:
    trainer = make_trainer(tmp_path, push_to_hub=True, hub_token=TOKEN, hub_strategy="end", hub_private_repo=True)
    assert hub.created[0]["private"] is True  # before the first step
    trainer.train()
    assert not hub.uploads
    trainer.save_model()
    trainer.push_to_hub(dataset_name="some-org/pairs")
    assert len(hub.uploads) == 2
    for upload in hub.uploads:
        assert "adapter_model.safetensors" in upload["files"] and "training_args.bin" not in upload["files"]
        assert_nothing_private(upload["files"], tmp_path)


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_every_strategy_sends_what_may_leave_and_nothing_else(tmp_path: Path, hub: FakeHub, strategy: str) -> None:
    trainer = make_trainer(
        tmp_path,
        push_to_hub=True,
        hub_token=TOKEN,
        hub_strategy=strategy,
        hub_always_push=True,
        report_to="tensorboard",
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    folder = Path(trainer.args.output_dir)
    folder.mkdir(exist_ok=True)
    (folder / ".env").write_text("OPENAI_API_KEY=sk-canary")
    (folder / "verdicts").mkdir()
    (folder / "verdicts" / "x.json").write_text("{}")
    (folder / "notes.json").write_text(json.dumps({"kept in": str(tmp_path)}))
    trainer.train()
    model = {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    model |= {"tokenizer_config.json", "chat_template.jinja"}
    state = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "fairpo_state.json"}
    state |= {"fairpo_complete.json"}
    sent = [(upload["path_in_repo"], set(upload["files"])) for upload in hub.uploads]
    places = {"end": [], "every_save": [None, None], "checkpoint": [None, "last-checkpoint"] * 2}
    places["all_checkpoints"] = [None, "checkpoint-1", None, "checkpoint-2"]
    assert [place for place, _ in sent] == places[strategy]
    for place, names in sent:
        assert names == (model if place is None else model - {"README.md"} | state)
    for upload in hub.uploads:
        assert_nothing_private(upload["files"], tmp_path)
    assert not list(folder.glob(".hub-*"))  # what was staged is gone
    if strategy == "checkpoint":  # whole by itself: another machine goes on from it
        again = tmp_path / "downloaded" / "checkpoint-2"
        again.mkdir(parents=True)
        for name, content in hub.uploads[-1]["files"].items():
            (again / name).write_bytes(content)
        verify(again)


def test_a_save_that_would_leak_is_said_and_not_sent_and_training_goes_on(
    tmp_path: Path, hub: FakeHub, capfd: pytest.CaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, push_to_hub=True, hub_token=TOKEN)
    trainer.processing_class.chat_template = "{# made in /home/alice/x #}" + trainer.processing_class.chat_template
    trainer.train()
    assert not hub.uploads and trainer.state.global_step == 2
    assert "Not pushed at step 1: chat_template.jinja, line 1, would publish the path" in capfd.readouterr().out
    with pytest.raises(ValueError, match=r"chat_template\.jinja, line 1, would publish the path '/home/alice'"):
        trainer.push_to_hub()
    assert not hub.uploads


@pytest.mark.parametrize("push", [True, False])
def test_no_token_is_in_pickled_arguments(tmp_path: Path, hub: FakeHub, push: bool) -> None:
    trainer = make_trainer(tmp_path, push_to_hub=push, hub_token=TOKEN)
    trainer.train()
    trainer.save_model()
    pickled = list(Path(trainer.args.output_dir).rglob("training_args.bin"))
    assert len(pickled) == 3 and not [path for path in pickled if TOKEN.encode() in path.read_bytes()]
    assert trainer.args.hub_token == TOKEN  # in use all the same


def test_hub_id_of_the_base_model_stays(tmp_path: Path, hub: FakeHub) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.config._name_or_path = "some-org/tiny"
    trainer.model.peft_config["default"].base_model_name_or_path = "some-org/tiny"
    trainer.push_to_hub()
    files = hub.uploads[0]["files"]
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "some-org/tiny"
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "some-org/tiny" and card.data.to_dict()["base_model_relation"] == "adapter"


@pytest.mark.parametrize("private", [True, False, None])
def test_private_passes_through(tmp_path: Path, hub: FakeHub, private: bool | None) -> None:
    make_trainer(tmp_path, hub_private_repo=private).push_to_hub()
    assert hub.created == [{"repo_id": "tiny-fairpo", "token": None, "private": private, "exist_ok": True}]


def test_private_as_argument_revision_and_message(tmp_path: Path, hub: FakeHub) -> None:
    make_trainer(tmp_path, hub_model_id="some-org/other").push_to_hub("A message", private=True, revision="v1")
    assert hub.created[0]["private"] is True and hub.created[0]["repo_id"] == "some-org/other"
    assert (hub.uploads[0]["commit_message"], hub.uploads[0]["revision"]) == ("A message", "v1")


def test_without_a_push_nothing_is_taken_away(tmp_path: Path, hub: FakeHub) -> None:
    trainer = make_trainer(tmp_path)
    trainer.save_model()
    trainer.create_model_card()
    folder = Path(trainer.args.output_dir)
    assert (folder / "training_args.bin").is_file() and not hub.created and not hub.uploads
    noted = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(noted).is_dir()  # so that the adapter loads by itself on this machine

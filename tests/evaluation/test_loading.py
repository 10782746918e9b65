"""Models of others: no code of theirs runs, nobody is asked, and a damaged one is one line that names it."""

from __future__ import annotations

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import make_model, make_tokenizer
from helpers_trainer import data, fairpo
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from fairpo_trl.classification.features.backbones import load_backbone
from fairpo_trl.evaluation.completions import sample_completions
from fairpo_trl.evaluation.llm_judge import LocalAnswerer
from fairpo_trl.evaluation.models import LoadedModels, find_model, load_tokenizer
from fairpo_trl.evaluation.score_judges import ClassifierJudge
from fairpo_trl.generation.merging import check_mergeable
from fairpo_trl.loading import UnreadableModel, explained, explained_within
from fairpo_trl.training.places import check_model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    make_model(dtype=torch.float32).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def with_code(folder: Path) -> None:
    """A model whose configuration asks for a Python file beside it, which leaves a trace when it runs."""
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": classes}))
    ran = repr(str(folder / "RAN"))
    (folder / "evil.py").write_text(
        f"open({ran}, 'w').write('x')\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "class EvilConfig(LlamaConfig): model_type = 'evil'\n"
        "class EvilModel(LlamaForCausalLM): config_class = EvilConfig\n"
    )


def evaluate(folder: Path) -> None:
    source = find_model(str(folder))
    tokenizer = load_tokenizer(source)
    with LoadedModels().open(source) as model:
        chat = [{"role": "user", "content": "a"}]
        sample_completions(model, tokenizer, [chat], max_new_tokens=1, progress=False)


def train(folder: Path) -> None:
    check_model(str(folder), "model_name_or_path")


def merge(folder: Path) -> None:
    check_mergeable(folder)


@pytest.mark.parametrize("load", [evaluate, train, merge])
def test_an_adapter_imports_no_module_that_it_names(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], None]
) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder), LoraConfig(task_type="CAUSAL_LM"))
    model.save_pretrained(folder := tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"megatron_config": {"a": 1}, "megatron_core": "evil"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has `megatron_config`, for which PEFT imports the module"):
        load(folder)
    assert not (tmp_path / "RAN").exists()


def judge(folder: Path) -> None:
    ClassifierJudge(folder, None, with_prompt=False, name="tiny").score(["a"], ["b"])


def ask(folder: Path) -> None:
    list(LocalAnswerer(folder, name="tiny", fingerprint="", max_new_tokens=1).answer(["a"]))


def encode(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "BitImageProcessor"}))
    load_backbone(f"hf:{folder}")


@pytest.mark.parametrize("load", [evaluate, train, judge, ask, encode])
def test_a_model_with_code_of_its_own_neither_asks_nor_runs_it(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "evil")
    with_code(folder)
    asked: list[str] = []
    monkeypatch.setattr(builtins, "input", lambda *text: asked.append(str(text)) or "y")
    with pytest.raises(ValueError, match="needs code of its own"):
        load(folder)
    assert not (folder / "RAN").exists() and not asked


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "model.safetensors is cut or damaged"),
        (written("model.safetensors", ""), "model.safetensors is cut or damaged"),
        (written("config.json", "{"), "config.json is damaged"),
        (written("config.json", '{"model_type": "llama", "hidden_size": "x"}'), "cannot be loaded"),
        (written("config.json", '{"model_type": "unheard-of"}'), "cannot be loaded"),
        (written("tokenizer.json", "{"), "tokenizer.json is damaged"),
        (written("tokenizer.json", "{}"), "cannot be loaded"),
        (written("tokenizer_config.json", "[" * 100_000), "tokenizer_config.json is damaged"),
        (written("chat_template.jinja", "{% if"), "The chat template of .* cannot be used"),
        (written("chat_template.jinja", "{{ ''.__class__.mro() }}"), "The chat template of .* cannot be used"),
        (written("chat_template.jinja", "{{ messages[9].role }}"), "The chat template of .* cannot be used"),
    ],
)
def test_a_damaged_model_is_one_line_that_names_it(
    model_folder: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "m")
    spoil(folder)
    with pytest.raises(ValueError, match=message) as raised:
        evaluate(folder)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)


def test_a_plain_exception_of_a_library_is_explained() -> None:
    with (
        pytest.raises(
            UnreadableModel,
            match="The judge 'x' cannot be loaded: EOF. Look at the name; if it is right, a file is damaged",
        ),
        explained("x", "judge"),
    ):
        raise Exception("EOF.")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: written("config.json", json.dumps(_config(folder) | {"hidden_size": 32}))(folder),
        lambda folder: written("config.json", json.dumps(_config(folder) | {"hidden_act": "unheard-of"}))(folder),
    ],
    ids=["another width", "an unknown activation"],
)
def test_a_model_that_does_not_fit_its_configuration_is_no_traceback_of_a_library_in_training(
    model_folder: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "m")
    spoil(folder)
    with pytest.raises(
        UnreadableModel, match=f"The model '{folder}' cannot be loaded: .*a file is damaged or missing"
    ):
        fairpo(tmp_path / "out", data(6), str(folder), ref=None)


def test_errors_that_come_from_elsewhere_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="of a collator"), explained_within("m"):
        raise RuntimeError("of a collator")


def _config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())

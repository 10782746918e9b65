"""`fairpo push`: what is sent to a local server that speaks the Hub's interface, what is refused, and the card."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_model, make_rows, make_tokenizer
from datasets import Dataset
from fake_hub import FakeHub
from helpers_classification import LABELS, PRIVILEGED, classifier, rows
from helpers_processes import together
from huggingface_hub import ModelCard, constants
from peft import LoraConfig

from fairpo_trl.commands import push as push_module
from fairpo_trl.commands.main import main as fairpo
from fairpo_trl.commands.push import PushArguments, run
from fairpo_trl.core.partition import Partition
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.trainer import FairPOTrainer
from fairpo_trl.hub.compose import CardFacts, compose_card
from fairpo_trl.hub.push import plan_push, stage


TOKEN = "hf_" + "notARealToken" * 2
RESULTS = {
    "title": "concise against three others",
    "data": "some-org/pairs, test split",
    "partition": {"concise": "privileged", "polite": "non_privileged", "factual": "non_privileged"},
    "attributes": [
        {
            "attribute": "concise",
            "role": "privileged",
            "pairs": 40,
            "win_rate": {
                "counter": {
                    "trained": {"mean": 0.69, "low": 0.64, "high": 0.74, "n": 120},
                    "reference_vs_itself": {"mean": 0.51, "low": 0.47, "high": 0.55, "n": 120},
                    "difference": {"mean": 0.18, "low": 0.14, "high": 0.22, "n": 120},
                }
            },
            "length_controlled": {"counter": {"mean": 0.55, "low": 0.5, "high": 0.6}},
            "pair_accuracy": {"trained": 0.9, "reference": 0.5},
            "final_weight": 0.8,
        },
        {
            "attribute": "polite",
            "role": "non_privileged",
            "win_rate": {
                "counter": {
                    "trained": {"mean": 0.44, "low": 0.4, "high": 0.48},
                    "difference": {"mean": -0.06, "low": -0.1, "high": -0.02},
                }
            },
        },
        {"attribute": "factual", "role": "non_privileged"},
    ],
}


def label_results() -> dict:
    """Results of a classifier of `LABELS`, in the form the recipes write."""
    roles = {name: "privileged" if name in PRIVILEGED else "non_privileged" for name in LABELS}
    metrics = ("map", "sample_f1", "accuracy", "exact_match")

    def evaluation(value: float) -> dict:
        group = {"labels": 3, "labels_counted": 3} | dict.fromkeys(metrics, value)
        return {
            "by_group": {name: dict(group) for name in ("all", "privileged", "non_privileged")},
            "by_label": {name: {"role": role, "ap": value} for name, role in roles.items()},
            "labels_without_positives": [],
            "zero_division": 0,
            "samples": "all",
        }

    change = {"delta": 0.02, "low": 0.01, "high": 0.03, "seed_sd": None}
    return {
        "title": "six things: fairpo_cpo",
        "data": {"test": {"images": 100, "series": 90}},
        "partition": roles,
        "label_counts": dict.fromkeys(LABELS, 20),
        "method": "fairpo_cpo",
        "evaluations": {"reference": evaluation(0.5), "trained": evaluation(0.52)},
        "comparison": {
            "by_group": {name: dict(change) for name in ("all", "privileged", "non_privileged")},
            "by_label": {
                name: {"role": role, "positives": 9, "ap_reference": 0.5, "ap": 0.52, **change}
                for name, role in roles.items()
            },
            "fell": [], "fell_surely": [], "eps": 0.01, "seeds": 1, "series": 90, "resamples": 1000, "level": 0.95,
        },
        "hinge": {"pairs": 0.9, "labels": 0.8, "eps": 0.01},
        "confusion": {"reference": 0.6, "trained": 0.5},
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a run leaves it: adapter, card, tokenizer, checkpoint, logs, and results of an evaluation."""
    home = tmp_path_factory.mktemp("push") / "home-of-alice"
    base, out = home / "tiny-base", home / "tiny-fairpo"
    make_model(dtype=torch.float32).save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    data = Dataset.from_list(make_rows(12))
    trainer = FairPOTrainer(
        model=str(base),
        args=FairPOConfig(
            output_dir=str(out),
            privileged_attributes=["concise"],
            max_steps=2,
            per_device_train_batch_size=4,
            save_steps=1,
            learning_rate=0.05,
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=data,
        eval_dataset=Dataset.from_list(make_rows(6, seed=5)),
        processing_class=make_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    trainer.create_model_card(dataset_name="some-org/pairs")
    (out / "runs").mkdir()
    (out / "runs" / "events.out").write_bytes(b"log")
    (out / "results.json").write_text(json.dumps(RESULTS))
    return out


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil; it names the same base."""
    return Path(shutil.copytree(trained, tmp_path / "home-of-alice" / "tiny-fairpo"))


@pytest.fixture
def full(tmp_path: Path) -> Path:
    folder = tmp_path / "home-of-alice" / "whole"
    make_model(dtype=torch.float32).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    folder = tmp_path / "home-of-alice" / "label-fairpo"
    model = classifier(dtype=torch.float32)
    model.config.partition = Partition.by_name(LABELS, PRIVILEGED).to_dict()
    model.save_pretrained(folder)
    (folder / "results.json").write_text(json.dumps(label_results()))
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with FakeHub() as fake:
        monkeypatch.setattr(constants, "ENDPOINT", fake.endpoint)
        yield fake


def push(folder: Path, **options) -> push_module.PushPlan | None:
    return run(PushArguments(folder=str(folder), **{"repo_id": "me/tiny", **options}))


def snapshot(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def python_block(card: str) -> str:
    (code,) = re.findall(r"## Quick start\n\n```python\n(.*?)\n```", card, flags=re.DOTALL)
    return code


# ---- what is sent ----


def test_an_adapter_arrives_private_with_its_card_and_nothing_of_the_machine(adapter, hub, tmp_path, capsys):
    before = snapshot(adapter)
    push(adapter)
    (created,) = [request.json() for request in hub.requests if request.path == "/api/repos/create"]
    assert created == {"name": "tiny", "organization": "me", "visibility": "private"}
    ((address, header, files),) = hub.commits()
    assert address == "/api/models/me/tiny/commit/main" and header["summary"] == "Upload with fairpo push"
    assert set(files) == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors"),
        *("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
    }
    assert files["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "tiny-base"
    assert '"me/tiny"' in files["README.md"].decode()
    assert snapshot(adapter) == before  # the folder still works here
    for request in hub.requests:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        for private in (TOKEN, "home-of-alice", str(tmp_path), os.path.expanduser("~") + "/"):
            assert private.encode() not in request.body, request.path
    for name, content in files.items():  # in the commit they are base64
        for private in (TOKEN, "home-of-alice", str(tmp_path)):
            assert private.encode() not in content, name
    assert f"Pushed to {hub.endpoint}/me/tiny (private): 6 files" in capsys.readouterr().out


def test_a_classifier_arrives_and_predicts_what_it_did(labels, hub, tmp_path):
    push(labels, private=False, revision="v1", commit_message="First")
    (created,) = [request.json() for request in hub.requests if request.path == "/api/repos/create"]
    assert created["visibility"] == "public"
    assert [request.path for request in hub.requests if "/branch/" in request.path] == [
        "/api/models/me/tiny/branch/v1"
    ]
    ((address, header, files),) = hub.commits()
    assert address == "/api/models/me/tiny/commit/v1" and header["summary"] == "First"
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    for name, content in files.items():
        (downloaded / name).write_bytes(content)
    features = rows(5, seed=3).features
    code = python_block(files["README.md"].decode()).replace('"me/tiny"', repr(str(downloaded)))
    found: dict = {"features": features}
    exec(code, found)  # the snippet of the card
    expected = type(found["model"]).from_pretrained(labels).predict(features)
    assert found["model"].predict(features) == expected


def test_a_private_push_into_a_public_repository_stops_before_the_upload(adapter, hub):
    hub.repos["me/tiny"] = "public"
    with pytest.raises(ValueError, match="me/tiny exists and is public: pass `--private false`"):
        push(adapter)
    assert not hub.commits()
    push(adapter, private=False)
    assert len(hub.commits()) == 1


def test_a_second_push_goes_into_the_same_repository(adapter, hub):
    push(adapter)
    push(adapter)
    assert len(hub.commits()) == 2 and list(hub.repos) == ["me/tiny"]


def test_a_dry_run_shows_everything_and_sends_and_writes_nothing(adapter, hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    before = snapshot(adapter)
    plan = push(adapter, dry_run=True)
    assert not hub.requests and snapshot(adapter) == before
    shown = capsys.readouterr().out
    assert "Would create (or update) the private repository me/tiny with this adapter:" in shown
    for file in plan.files:
        assert re.search(rf"^ +[\d.]+ (kB|bytes)  {re.escape(file.name)}( |$)", shown, flags=re.MULTILINE), file.name
    left = next(line for line in shown.splitlines() if line.startswith("Stays here: "))
    for name in ("checkpoint-1/", "checkpoint-2/", "runs/", "training_args.bin", "results.json"):
        assert name in left
    assert plan.card in shown and "Nothing was sent" in shown


def test_a_checkpoint_of_a_run_is_pushed_without_its_optimizer(adapter, hub):
    push(adapter / "checkpoint-2", results=str(adapter / "results.json"))
    ((_, _, files),) = hub.commits()
    assert "adapter_model.safetensors" in files
    assert not [name for name in files if re.search(r"optimizer|scheduler|rng|state|\.bin|\.pth|complete", name)]


def test_other_processes_of_a_launcher_do_nothing(adapter, hub, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert push(adapter) is None and not hub.requests


def test_two_launched_processes_push_once(adapter, hub, tmp_path):
    said = together(fairpo, (["push", str(adapter), "--repo_id", "me/tiny"],), 2, tmp_path / "log")
    assert len(hub.commits()) == 1 and said.count("Pushed to") == 1


# ---- what the Hub refuses ----


@pytest.mark.parametrize(
    ("where", "status", "told"),
    [
        ("repos/create", 401, r"the Hub does not know the token \(401\): log in again with `hf auth login`"),
        ("repos/create", 403, r"lets this token not write there \(403\): .* organisation 'me'"),
        ("repos/create", 500, r"the Hub failed \(500\): try again later"),
        ("/preupload/", 403, r"\(403\)"),
        ("/commit/", 413, r"finds the upload too large \(413\)"),
    ],
)
def test_a_refusal_is_one_line_with_the_mend(adapter, hub, capsys, where, status, told):
    hub.failing = (where, status)
    with pytest.raises(SystemExit) as stopped:
        fairpo(["push", str(adapter), "--repo_id", "me/tiny"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.splitlines()
    assert re.match(rf"error: Push to me/tiny: .*{told}", error[0]) and "so says the server" in error[0]
    assert len(error) == 2 and "--debug" in error[1] and TOKEN not in error[0]


def test_a_hub_that_is_not_there_is_said(adapter, hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(OSError, match=r"The Hub at http://127.0.0.1:9 cannot be reached \(ConnectError\)"):
        push(adapter)


def test_offline_and_logged_out_are_said_before_anything_is_sent(adapter, hub, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set: unset it to push"):
        push(adapter)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(OSError, match="Nobody is logged in to the Hub: run `hf auth login`, or set HF_TOKEN"):
        push(adapter)
    assert not hub.requests


# ---- what is refused here ----


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def cut_weights(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-16])


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def only_checkpoints(folder):
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def nested(folder):
    (folder.parent / "inner").mkdir()
    shutil.move(folder, folder.parent / "inner" / folder.name)
    shutil.move(folder.parent / "inner", folder)


def spoil_card(folder):
    path = folder / "README.md"
    path.write_text(path.read_text() + "\nTrained in /home/alice/runs/7.\n")


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (None, {"repo_id": None}, ValueError, r"Name the repository on the Hub: `--repo_id YOUR-NAME/tiny-fairpo`"),
        (None, {"repo_id": "tiny"}, ValueError, r"got 'tiny': for example `--repo_id YOUR-NAME/tiny`"),
        (None, {"repo_id": "me/my tiny--one!"}, ValueError, r"for example `--repo_id me/my-tiny-one`"),
        (None, {"folder": "tiny-fairpoo"}, FileNotFoundError, r"There is no folder .* Did you mean '.*tiny-fairpo'\?"),
        (None, {"folder": None}, ValueError, r"Name the folder of the saved model"),
        (without("adapter_config.json"), {}, ValueError, r"adapter_model.safetensors but neither adapter_config"),
        (nested, {}, ValueError, r"is not a saved model: .* There is one in '.*tiny-fairpo/tiny-fairpo'"),
        (only_checkpoints, {}, ValueError, r"checkpoints only, so its training is not over.*push '.*checkpoint-2'"),
        (
            without("adapter_model.safetensors"),
            {},
            FileNotFoundError,
            r"has no adapter_model.safetensors: the save was",
        ),
        (cut_weights, {}, ValueError, r"adapter_model.safetensors is cut or damaged"),
        (write("pytorch_model.bin", "x"), {}, ValueError, r"holds pytorch_model.bin: such files can run code"),
        (write("adapter_config.json", "{"), {}, ValueError, r"adapter_config.json is damaged"),
        (spoil_card, {}, ValueError, r"The card would publish the path '/home/alice': take it"),
        (write("LICENSE", f"x\nkey = {TOKEN}"), {}, ValueError, r"LICENSE, line 2, would publish a Hub token"),
        (write("results.json", "[]"), {}, ValueError, r"results.json is not the results of a run"),
        (write("results.json", "{"), {}, ValueError, r"results.json is not JSON"),
        (write("README.md", "---\ntags: [\n---\n"), {}, ValueError, r"README.md: the metadata between the `---`"),
        (None, {"results": "missing.json"}, FileNotFoundError, r"`--results`: there is no file 'missing.json'"),
        (None, {"license": "Apache 2.0"}, ValueError, r"`--license` is spelt as on the Hub.*`apache-2.0`\?"),
        (None, {"commit_message": " "}, ValueError, r"`--commit_message` is empty"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(adapter, hub, spoil, options, error, message):
    if options.get("folder"):
        options = {**options, "folder": str(adapter.parent / options["folder"])}
    if spoil is not None:
        spoil(adapter)
    with pytest.raises(error, match=message) as raised:
        run(PushArguments(**{"folder": str(adapter), "repo_id": "me/tiny", **options}))
    assert "\n" not in str(raised.value) and TOKEN not in str(raised.value) and not hub.requests


def test_an_unfinished_checkpoint_is_refused(adapter, hub):
    (adapter / "checkpoint-2" / "fairpo_complete.json").unlink()
    with pytest.raises(ValueError, match=r"no fairpo_complete.json.* The last good one is '.*checkpoint-1'"):
        push(adapter / "checkpoint-2")
    assert not hub.requests


def test_a_model_that_needs_its_own_code_or_is_none_of_ours_is_refused(full, hub):
    config = json.loads((full / "config.json").read_text())
    for change, message in (
        ({"auto_map": {"AutoModel": "model.Model"}}, "`auto_map`: this model needs code of its own"),
        ({"architectures": ["BertModel"]}, "holds a BertModel: `fairpo push` publishes language models"),
    ):
        (full / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            push(full)
    (full / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="`--merged` merges an adapter into its base; .* holds a whole model"):
        push(full, merged=True)
    (full / "tokenizer_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no tokenizer"):
        push(full)


LEAVES = "is a link: only files of the folder itself are sent"
OUTSIDE = "is no name of a file in this folder, so it is not sent"


def linked(name):
    def spoil(folder):
        secret = folder.parent / "id_ed25519"
        secret.write_text("a private key")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret)

    return spoil


def indexed(entry):
    def spoil(folder):
        (folder / "model.safetensors").rename(folder.parent / "private.safetensors")
        index = {"metadata": {}, "weight_map": {"a": entry.replace("FOLDER", str(folder.parent))}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def templated(text, name="chat_template.jinja"):
    def spoil(folder):
        content = text if name.endswith("jinja") else json.dumps({"chat_template": text})
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (linked("vocab.txt"), LEAVES),
        (linked("LICENSE"), LEAVES),
        (linked("config.json"), LEAVES),
        (linked("model.safetensors"), LEAVES),
        (indexed("../private.safetensors"), OUTSIDE),
        (indexed("FOLDER/private.safetensors"), OUTSIDE),
        (indexed("a/../../private.safetensors"), OUTSIDE),
        (indexed("..\\private.safetensors"), OUTSIDE),
        (indexed("config.json"), "which is no safetensors file"),
        (templated(f"{{# {TOKEN} #}}"), "chat_template.jinja, line 1, would publish a Hub token"),
        (templated("{# see /home/alice/x #}"), "chat_template.jinja, line 1, would publish the path '/home/alice'"),
        (templated("{# x #}\n{# hf:/home/alice #}", "chat_templates/tool.jinja"), "tool.jinja, line 2, would publish"),
        (templated("{{ ''.__class__ }}"), "a chat template with '__class__', which can run code"),
        (templated("{{ x|attr('y') }}"), "a chat template with"),
        (templated("{{ ''['__cl' ~ 'ass__'] }}"), "a chat template with"),
        (templated("{% include '/etc/passwd' %}"), "a chat template with"),
        (templated("{{ lipsum.__globals__ }}", "chat_templates/tool.jinja"), "a chat template with"),
        (templated("{{ cycler.__init__ }}", "tokenizer_config.json"), "a chat template with"),
        (templated([{"name": "x", "template": "{{ ''.__class__ }}"}], "tokenizer_config.json"), "a chat template"),
    ],
)
def test_neither_other_files_nor_what_a_template_hides_leave(full, hub, spoil, message):
    spoil(full)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        push(full)
    assert TOKEN not in str(raised.value) and not hub.requests


def test_templates_of_models_in_use_are_no_code(full):
    usual = (
        "{%- if messages[0]['role'] == 'system' -%}{{ messages[0]['content'] | trim }}{%- endif -%}"
        "{% set ns = namespace(found=false) %}{% for m in messages[::-1] %}{% set ns.found = true %}{% endfor %}"
        "{%- macro show(x) -%}{{ x['a'] + '\\n' ~ raise_exception('no') }}{%- endmacro -%}{{ strftime_now('%d') }}"
        "{{ tools | tojson(indent=4) }}{{ '<|' ~ m.role ~ '|>' }}{{ m['content'].split('</think>')[-1] }}"
    )
    (full / "chat_template.jinja").write_text(usual)
    assert "chat_template.jinja" in [file.name for file in plan_push(full, "me/tiny", "card").files]


def test_a_lost_shard_is_named(full):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    shutil.move(full / "model.safetensors", full / "model-00001-of-00002.safetensors")
    (full / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match=r"has no model-00002-of-00002.safetensors, which .*index.json lists"):
        plan_push(full, "me/tiny", "card")
    shutil.copy(full / "model-00001-of-00002.safetensors", full / "model-00002-of-00002.safetensors")
    names = {file.name for file in plan_push(full, "me/tiny", "card").files}
    assert {"model.safetensors.index.json", *index["weight_map"].values()} <= names


def test_results_of_another_run_or_half_are_refused(adapter, labels, tmp_path):
    other = copy.deepcopy(RESULTS)
    other["partition"] |= {"concise": "non_privileged", "polite": "privileged"}
    other["attributes"][0]["role"], other["attributes"][1]["role"] = "non_privileged", "privileged"
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"of another run: there \['polite'\] is privileged.*\['concise'\]"):
        push(adapter, results=str(path), dry_run=True)
    with pytest.raises(ValueError, match="holds results of a classifier, and a language model is pushed"):
        push(adapter, results=str(labels / "results.json"), dry_run=True)
    with pytest.raises(ValueError, match="holds results of a language model, and a classifier is pushed"):
        push(labels, results=str(adapter / "results.json"), dry_run=True)
    fewer = label_results()
    for part in (fewer["partition"], fewer["label_counts"], fewer["comparison"]["by_label"]):
        del part["flute"]
    for evaluation in fewer["evaluations"].values():
        del evaluation["by_label"]["flute"]
    path.write_text(json.dumps(fewer))
    with pytest.raises(ValueError, match="their labels are not those of this classifier"):
        push(labels, results=str(path), dry_run=True)


def test_a_misspelt_option_gets_a_near_one(capsys):
    with pytest.raises(SystemExit):
        fairpo(["push", "out", "--repoid", "me/tiny"])
    assert "did you mean '--repo_id'" in capsys.readouterr().err


# ---- the card ----


def test_the_card_has_results_with_intervals_and_the_hub_can_read_them(adapter):
    card = ModelCard(push(adapter, dry_run=True).card)
    for row in (
        "| concise | counter | +.18 [+.14, +.22] | ▲ better | .69 [.64, .74] | .51 [.47, .55] | .55 [.50, .60] |",
        "| polite | counter | -.06 [-.10, -.02] | ▼ worse | .44 [.40, .48] | – | – |",
        "| concise | 40 | .50 | .90 | – | .80 |",
    ):
        assert row in card.text
    assert "- Held, and worse than the reference all the same: polite." in card.text
    index = {(r.metric_type, r.metric_name): r for r in card.data.eval_results}
    win = index["win_rate", "Win rate: concise (counter)"]
    assert win.metric_value == 0.69 and win.metric_args == {"low": 0.64, "high": 0.74}
    assert index["win_rate_difference", "Win rate less control: polite (counter)"].metric_value == -0.06
    assert ("accuracy", "Pair accuracy: concise") in index  # of the trainer's own evaluation
    facts = card.data.to_dict()
    assert (
        facts["library_name"] == "peft" and facts["datasets"] == ["some-org/pairs"] and card.data.model_name == "tiny"
    )
    assert facts["model-index"][0]["name"] == "tiny" and {"fairpo", "lora"} <= set(facts["tags"])
    for heading in ("Quick start", "Evaluation", "Intended use", "Limits", "Licences", "FairPO settings"):
        assert card.text.count(f"\n## {heading}\n") == 1, heading


def test_licences_are_stated_or_said_to_be_unknown(adapter):
    card = ModelCard(push(adapter, dry_run=True).card)
    assert card.data.license is None
    assert "| base model | tiny-base | unknown: look it up |" in card.text
    assert "| training data | some-org/pairs | unknown: look it up |" in card.text
    stated = push(adapter, dry_run=True, license="mit", dataset_license="cc-by-4.0", dataset="other-org/rows").card
    card = ModelCard(stated)
    assert card.data.license == "mit" and card.data.datasets == ["other-org/rows"]
    assert "| these weights |  | mit |" in card.text and "| training data | other-org/rows | cc-by-4.0 |" in card.text
    base = Path(json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"])
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\n")
    try:
        card = ModelCard(push(adapter, dry_run=True).card)
    finally:
        (base / "README.md").unlink()
    assert card.data.license == "apache-2.0" and "| base model | tiny-base | apache-2.0 |" in card.text


def test_what_the_author_wrote_stays(adapter):
    path = adapter / "README.md"
    path.write_text(
        path.read_text()
        + "\n## Limits\n\nOnly short prompts.\n\n## Notes\n\n```bash\n## no heading\nls\n```\n\nEnd.\n"
    )
    card = push(adapter, dry_run=True).card
    assert "## Limits\n\nOnly short prompts.\n\n## Licences" in card
    assert card.endswith("## Notes\n\n```bash\n## no heading\nls\n```\n\nEnd.\n")
    assert "- FairPO-TRL: " in card and "@article{mondal2025fairpo" in card  # the trainer's part


def test_a_bare_adapter_gets_a_card_that_claims_nothing(trained, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(trained / name, bare / name)
    base = json.loads((bare / "adapter_config.json").read_text())["base_model_name_or_path"]
    form = "---\nbase_model: {0}\nlibrary_name: peft\ntags:\n- base_model:adapter:{0}\n- lora\n---\n\n# Model ID\n\n"
    (bare / "README.md").write_text(form.format(base) + "[More Information Needed]\n")
    card = compose_card(bare, "adapter", "me/bare")
    assert "More Information" not in card and "home-of-alice" not in card
    assert "A PEFT adapter (lora) of tiny-base. How it was trained is not recorded" in card
    assert "No comparison with the reference is attached" in card and "fairpo" not in ModelCard(card).data.tags
    assert "tokenizer = AutoTokenizer.from_pretrained(base)" in card  # it brings none of its own


def test_a_checkpoint_tells_who_was_privileged(adapter):
    for name in ("README.md", "results.json"):
        (adapter / name).unlink()
    card = push(adapter, dry_run=True).card
    assert "| privileged | 1 | concise |" in card and "| held | 2 | factual, polite |" in card
    assert "**FairPO**" in card and "where concise should be better" in card


def test_the_card_of_a_classifier_holds_groups_and_labels(labels):
    card = ModelCard(push(labels, dry_run=True, license="mit").card)
    assert re.search(r"\| trained \| 52.0 \| 52.0 \| 52.0 \| 52.0 \| \+2.00 \\?\[\+1.00, \+3.00\\?\] ▲ \|", card.text)
    for label in LABELS:
        role = "privileged" if label in PRIVILEGED else "held"
        assert f"| {label} | {role} | 20 | 9 | 50.0 | 52.0 |" in card.text
    index = {r.metric_name: r for r in card.data.eval_results}
    assert index["mAP (privileged)"].metric_value == 0.52
    assert index["mAP less the reference's (held)"].metric_args == {"low": 0.01, "high": 0.03}
    assert card.data.pipeline_tag == "image-classification" and card.data.license == "mit"


def test_names_in_data_cannot_become_markup(adapter):
    evil = copy.deepcopy(RESULTS)
    evil["data"] = "<script>alert(1)</script> [x](http://evil)"
    (adapter / "results.json").write_text(json.dumps(evil))
    text = ModelCard(push(adapter, dry_run=True).card).text
    assert "<script" not in text and "](http://evil" not in text


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_the_snippet_of_a_language_model_runs(kind, request, tmp_path, capsys):
    folder = request.getfixturevalue(kind)
    plan = push(folder, dry_run=True)
    downloaded = tmp_path / "downloaded"
    downloaded.mkdir()
    stage(plan.files, downloaded)
    code = python_block(plan.card).replace('"me/tiny"', repr(str(downloaded)))
    if kind == "adapter":
        base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        code = code.replace('base = "tiny-base"', f"base = {base!r}")
    capsys.readouterr()
    found: dict = {}
    exec(code.replace("max_new_tokens=128", "max_new_tokens=4"), found)  # the snippet of the card
    assert found["output"].shape[1] > found["inputs"]["input_ids"].shape[1]
    if kind == "adapter":
        assert type(found["model"]).__name__ == "PeftModelForCausalLM"


def test_the_snippet_of_a_local_backbone_names_it(labels):
    config = json.loads((labels / "config.json").read_text())
    config["backbone"] = {"spec": "hf:/data/models/dinov2", "name": "dinov2", "pooling": "cls"}
    (labels / "config.json").write_text(json.dumps(config))
    plan = push(labels, dry_run=True)
    assert 'spec = "hf:dinov2"  # the path of the backbone on your machine' in plan.card
    assert "backbone=backbone)" in plan.card and "/data/models" not in plan.card
    (sent,) = [file.content for file in plan.files if file.name == "config.json"]
    assert json.loads(sent)["backbone"]["spec"] == "hf:dinov2"


def test_label_names_that_look_like_paths_stay(labels):
    config = json.loads((labels / "config.json").read_text())
    config |= {"training": {"data": str(labels)}, "notes": ["/m/01g317"]}
    (labels / "config.json").write_text(json.dumps(config))
    (sent,) = [f.content for f in plan_push(labels, "me/tiny", "card").files if f.name == "config.json"]
    assert json.loads(sent)["notes"] == ["/m/01g317"] and json.loads(sent)["training"] == {"data": "label-fairpo"}


def test_facts_alone_are_checked():
    assert CardFacts(license="llama3.2").license == "llama3.2"
    with pytest.raises(ValueError, match=r"`--dataset_license` .* got 'CC BY 4.0': `cc-by-4.0`\?"):
        CardFacts(dataset_license="CC BY 4.0")

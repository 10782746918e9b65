"""Every code block of the docs is run, page by page, on a tiny model and small data; every link leads somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import make_model, make_rows, make_tokenizer
from transformers import LlamaForSequenceClassification

from fairpo_trl.commands.main import main


pytestmark = pytest.mark.xdist_group("docs")  # its fixtures are costly: once for the file


ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Of this machine, not of the docs: no GPU, no model hub, no time.
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
ON_A_CPU = "--use_cpu true --bf16 false --report_to none --disable_tqdm true --logging_steps 1 --dtype float32".split()
RUNS_ITS_OWN_WAY = {"label-sets.md"}  # a recipe of half an hour; test_label_sets.py runs it on 30 items
TRAINED = {"report.md", "share.md"}  # go on from what train.md has made


def run_page(page: Path, model: str) -> None:
    """Runs the blocks of a page in their order, in the present folder."""
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            code = text.replace(MODEL, model).replace(
                'output_dir="out",', 'output_dir="out", use_cpu=True, bf16=False, report_to="none", max_steps=2,'
            )
            exec(compile(code, f"{page.name}", "exec"), {"__name__": "docs"})
        elif kind == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                run_command(shlex.split(line, comments=True), model)
        else:
            raise AssertionError(f"{page.name}: a block of {kind} is run by nobody")


def run_command(words: list[str], model: str) -> None:
    """Runs one `fairpo` command in this process."""
    if not words:
        return
    assert words[0] == "fairpo", words
    extra = ON_A_CPU if words[1] == "generation" else []
    steps = ["--max_steps", "2"] if words[1] == "generation" and "--max_steps" not in words else []
    main([*(word.replace(MODEL, model) for word in words[1:]), *extra, *steps])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the docs call by name: pairs, ratings, one file per attribute."""
    path = tmp_path_factory.mktemp("docs")
    rows = make_rows(30)
    write(path / "pairs.jsonl", rows)
    for name in ("concise", "polite"):
        own = [{key: value for key, value in row.items() if key != "attribute"} for row in rows]
        write(path / f"{name}.jsonl", own[::2] if name == "concise" else own[1::2])
    (path / "ratings.csv").write_bytes((ROOT / "tests" / "data" / "ratings.csv").read_bytes())
    return path


@pytest.fixture(scope="module")
def trained(folder: Path, tiny_model_path: str) -> Path:
    """The folder after `train.md`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_page(DOCS / "train.md", tiny_model_path)
    return folder


@pytest.fixture(scope="module")
def reward_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random sequence classifier in place of a reward model."""
    path = tmp_path_factory.mktemp("reward") / "tiny-reward"
    config = make_model().config
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return str(path)


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


@pytest.mark.slow
def test_the_page_on_training_leaves_a_model_an_adapter_and_checkpoints(trained: Path) -> None:
    assert (trained / "out" / "model.safetensors").is_file()
    assert (trained / "out-lora" / "adapter_model.safetensors").is_file()
    assert (trained / "out-lora" / "checkpoint-3").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRAINED))
def test_pages_that_go_on_from_a_trained_adapter(
    name: str, trained: Path, tiny_model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    run_page(DOCS / name, tiny_model_path)
    if name == "report.md":
        assert (trained / "report" / "report.html").is_file()


@pytest.mark.slow
def test_the_two_commands_of_the_readme_lead_from_ratings_to_an_html_report(
    folder: Path, tiny_model_path: str, reward_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## From a table of ratings to a report") :]
    language, text = BLOCK.findall(section)[0]
    assert language == "bash" and text.count("fairpo ") == 2
    for line in text.replace("my/reward-model", reward_path).replace("\\\n", " ").splitlines():
        run_command(shlex.split(line), tiny_model_path)
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("helpful", "concise", "polite")) and "http://" not in page


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in TRAINED | RUNS_ITS_OWN_WAY | {"train.md"}],
    ids=lambda page: page.name,
)
def test_every_other_page(page: Path, folder: Path, tiny_model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run_page(page, tiny_model_path)


def test_there_is_a_page_for_each_task() -> None:
    tasks = {"train.md", "own-data.md", "partition.md", "report.md", "share.md", "when-not.md", "guarantees.md"}
    assert tasks <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target

"""Every code block of the docs is run, page by page, on a tiny model and small data; every link leads somewhere."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_rows
from PIL import Image
from test_classifier_model import save_tiny_dinov2

from fairpo_trl.commands.main import main


pytestmark = pytest.mark.xdist_group("docs")  # its fixtures are costly: once for the file


ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Of this machine, not of the docs: no GPU, no model hub, no time.
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
BACKBONE = "timm:vit_base_patch16_224.augreg_in21k"
ON_A_CPU = "--use_cpu true --bf16 false --report_to none --disable_tqdm true --logging_steps 1 --dtype float32".split()
RUNS_ITS_OWN_WAY = {"label-sets.md"}  # a recipe of half an hour; test_label_sets.py runs it on 30 items
TRAINED = {"promise.md", "report.md", "share.md"}  # go on from what train.md has made


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
        elif kind == "console":  # long runs of a clone: what they name has to be there
            for line in text.replace("\\\n", " ").replace("$ ", "").splitlines():
                named = [
                    word for word in shlex.split(line, comments=True) if word.startswith(("recipes/", "accelerate_"))
                ]
                assert named and all((ROOT / word).is_file() for word in named), line
        else:
            raise AssertionError(f"{page.name}: a block of {kind} is run by nobody")


def run_command(words: list[str], model: str) -> None:
    """Runs one `fairpo` command in this process."""
    if not words:
        return
    assert words[0] == "fairpo", words
    extra = {"generation": ON_A_CPU, "classification": ["--use_cpu", "true", "--report_to", "none"]}.get(words[1], [])
    steps = ["--max_steps", "2"] if words[1] == "generation" and "--max_steps" not in words else []
    main([*(word.replace(MODEL, model) for word in words[1:]), *extra, *steps])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the docs call by name: pairs, ratings, one file per attribute."""
    path = tmp_path_factory.mktemp("docs")
    rows = make_rows(30)
    write(path / "pairs.jsonl", rows)
    write(path / "held-out.jsonl", make_rows(44, seed=5))
    for name in ("concise", "polite"):
        own = [{key: value for key, value in row.items() if key != "attribute"} for row in rows]
        write(path / f"{name}.jsonl", own[::2] if name == "concise" else own[1::2])
    for name in ("ratings.csv", "judges.py"):
        shutil.copy(ROOT / "examples" / name, path)
    shutil.copytree(ROOT / "tests" / "data" / "migrate", path, dirs_exist_ok=True)
    pictures = [f"voc/JPEGImages/a{number}.png" for number in range(1, 5)]
    pictures += [f"coco2017/{name}.jpg" for name in ("train2017/000000000009", "train2017/000000000025")]
    pictures += ["coco2017/val2017/000000000042.jpg", "3f2a-kitchen.png", "yard/garden.png", "77aa-hall.png"]
    for picture in pictures:
        (path / picture).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path / picture)
    return path


@pytest.fixture(scope="module")
def photos(folder: Path) -> str:
    """Squares of one colour a label, `photos.csv`, and a tiny random backbone whose name is given."""
    colours = {"toaster": "lime", "dog": "red", "cat": "blue"}
    (folder / "photos").mkdir()
    rows = []
    for number in range(48):
        label = list(colours)[number % 3]
        Image.new("RGB", (40, 40), colours[label]).save(folder / "photos" / f"{number}.png")
        labels = f"{label}|person" if number % 2 else label
        rows.append(f"photos/{number}.png,{labels},{'test' if number >= 33 else 'train'}")
    (folder / "photos.csv").write_text("\n".join(["path,labels,split", *rows]), encoding="utf-8")
    return save_tiny_dinov2(folder / "tiny-random-dinov2")


@pytest.fixture(scope="module")
def trained(folder: Path, tiny_model_path: str) -> Path:
    """The folder after `train.md`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_page(DOCS / "train.md", tiny_model_path)
    return folder


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
    if name == "promise.md":
        assert (trained / "chosen" / "selection.html").is_file()


@pytest.mark.slow
def test_the_two_commands_of_the_readme_lead_from_ratings_to_an_html_report(
    folder: Path, tiny_model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## From a table of ratings to a report") :]
    language, text = BLOCK.findall(section)[0]
    assert language == "bash" and text.count("fairpo ") == 2
    for line in text.replace("\\\n", " ").splitlines():
        run_command(shlex.split(line), tiny_model_path)
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("helpful", "concise", "polite")) and "http://" not in page


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name not in TRAINED | RUNS_ITS_OWN_WAY | {"train.md", "images.md"}],
    ids=lambda page: page.name,
)
def test_every_other_page(page: Path, folder: Path, tiny_model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run_page(page, tiny_model_path)


@pytest.mark.slow
def test_the_page_on_images_leaves_a_report_and_a_classifier(
    folder: Path, photos: str, tiny_model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    text = (DOCS / "images.md").read_text(encoding="utf-8").replace(BACKBONE, photos)
    page = folder / "images.md"
    page.write_text(text, encoding="utf-8")
    run_page(page, tiny_model_path)
    assert (folder / "out-images" / "report.html").is_file()


def test_there_is_a_page_for_each_task() -> None:
    tasks = {
        "train.md",
        "own-data.md",
        "partition.md",
        "report.md",
        "share.md",
        "when-not.md",
        "guarantees.md",
        "images.md",
    }
    assert tasks <= {page.name for page in PAGES}


def test_the_readme_is_short_and_installs_before_it_explains() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert lines.index("## Install") < 40


@pytest.mark.slow
def test_the_site_builds_strictly_and_has_every_public_name(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for page in (DOCS / "api").glob("*.md"):
        html = (tmp_path / "api" / f"{page.stem}.html").read_text(encoding="utf-8")
        for module in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            if module.count(".") > 2:  # a function that has its module's name is named by itself
                continue
            names = importlib.import_module(module).__all__
            missing = [n for n in names if not re.search(rf'id="{re.escape(module)}\.(\w+\.)*{n}"', html)]
            assert not missing, (page.name, missing)
    assert not re.search(r'(?:src|href)="(?:https?:)?//(?:fonts|unpkg|cdn)', (tmp_path / "index.html").read_text())


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

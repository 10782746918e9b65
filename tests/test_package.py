"""The package as users meet it: one version, a light import, lazy names, a wheel, and the layers of the code."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import fairpo_trl


ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fairpo_trl"


def run(*command, cwd=ROOT, **environment):
    """Runs a command and returns what it printed; a failure shows everything the command said."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def imports_of(path):
    """The absolute module names that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("part", ["commands", "label_sets"])
def test_nothing_below_imports_the_uppermost_parts(part):
    allowed = {"commands", "label_sets"} if part == "label_sets" else {"commands"}
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name not in allowed and path.name != "__main__.py":
            assert not [name for name in imports_of(path) if name.startswith(f"fairpo_trl.{part}")], path


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_does_not_know_the_clone_it_may_lie_in(path):
    text = path.read_text(encoding="utf-8")
    up = len(path.relative_to(PACKAGE).parts)  # parents[up] is what the package lies in
    assert not re.search(rf"parents\[[{up}-9]\]|recipes/|experiments/|_fairpo\.py|sys\.path", text)
    assert not [name for name in imports_of(path) if re.match(r"(recipes|experiments|demo|openclipart)\b", name)]


@pytest.mark.parametrize("folder", ["recipes", "experiments"])
def test_what_lies_beside_the_package_is_on_the_path_by_one_rule(folder):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    product, own = [], []  # what users put on the path, and what only tests import from each other
    for entry in project["tool"]["pytest"]["ini_options"]["pythonpath"]:
        (own if entry.startswith("tests") else product).append(entry)
    assert product == [".", "recipes"] and all((ROOT / entry).is_dir() for entry in own)
    assert "PYTHONPATH=.:recipes" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert not [path for path in (ROOT / folder).rglob("*.py") if "sys.path" in path.read_text(encoding="utf-8")]


MODULE_OF = {"pyyaml": "yaml", "pillow": "PIL"}
"""Distribution -> its module, where the names differ."""


def test_every_dependency_is_imported_by_the_package_and_the_others_are_extras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=;\[ ]", entry)[0].lower() for entry in project["dependencies"]}
    imported = {name.partition(".")[0] for path in PACKAGE.rglob("*.py") for name in imports_of(path)}
    assert not {name for name in needed if MODULE_OF.get(name, name) not in imported}
    ours = {MODULE_OF.get(name, name) for name in needed} | {"fairpo_trl"} | sys.stdlib_module_names
    assert imported - ours == {"deepspeed", "evaluate", "lm_eval"}  # where the user has them
    (quantised,) = (entry for entry in project["optional-dependencies"]["qlora"] if entry.startswith("bitsandbytes"))
    assert ">=" in quantised


def test_the_install_page_names_every_lower_bound():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = {}
    for line in (ROOT / "docs" / "install.md").read_text(encoding="utf-8").splitlines():
        if line.count("|") == 4:
            names, versions = (cell.strip() for cell in line.split("|")[1:3])
            lowest = versions.split(";")[0].split(", ")
            told.update(zip(names.removesuffix(" (extras)").lower().split(", "), lowest, strict=False))
    extras = [entry for group in project["optional-dependencies"].values() for entry in group]
    bounds = [re.match(r"([\w-]+)>=([\d.]+)", entry) for entry in (*project["dependencies"], *extras)]
    bounds = {match[1].lower(): match[2] for match in bounds if match}
    needed = {re.split(r"[<>=]", entry)[0] for entry in project["dependencies"]}
    assert {name: told.get(name) for name in needed} == {name: bounds[name] for name in needed}
    assert all(told[name] == version for name, version in bounds.items() if name in told)


def test_recipes_do_not_need_the_experiments():
    for path in (ROOT / "recipes").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(from|import) experiments\b", text, re.MULTILINE), path


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "fairpo_trl/__init__.py"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == fairpo_trl.__version__


def test_the_import_loads_nothing_heavy():
    code = (
        "import json, sys, fairpo_trl; dir(fairpo_trl); first = sorted(sys.modules); "
        "import fairpo_trl.commands.check; print(json.dumps([first, sorted(sys.modules)]))"
    )
    found = json.loads(run(sys.executable, "-c", code))
    package, check = ({name.partition(".")[0] for name in names} for names in found)
    assert not package & {"torch", "transformers", "trl", "numpy", "datasets", "matplotlib", "peft", "accelerate"}
    assert not check & {"torch", "transformers", "matplotlib", "peft", "accelerate"}  # `fairpo check` starts at once


def test_public_names_resolve():
    assert {"FairPOConfig", "FairPOTrainer", "GroupWeights", "Partition"} <= set(fairpo_trl.__all__)
    assert set(fairpo_trl.__all__) <= set(dir(fairpo_trl))
    for name in fairpo_trl.__all__:
        assert getattr(fairpo_trl, name).__name__ == name
        # In TRL this abbreviation is another method (group *relative* policy optimization).
        assert "GRPO" not in name.upper()


@pytest.mark.parametrize("part", ["core", "generation", "classification", "preferences", "evaluation", "reporting"])
def test_public_names_of_a_part_load_on_first_use(part):
    package = importlib.import_module(f"fairpo_trl.{part}")
    assert package.__all__ and all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match=rf"has no attribute '{package.__all__[0]}s'; did you mean "):
        getattr(package, f"{package.__all__[0]}s")


def test_no_public_name_of_evaluation_is_hidden_by_a_module_of_the_same_name():
    import fairpo_trl.evaluation as evaluation

    assert not set(evaluation.__all__) & {path.stem for path in (PACKAGE / "evaluation").glob("*.py")}
    for _ in range(2):  # the second time the module is loaded
        assert all(callable(getattr(evaluation, name)) for name in ("win_rate", "text_guards", "paired_bootstrap"))


def test_a_wrong_name_gets_a_near_one():
    with pytest.raises(AttributeError, match=r"'FairPoTrainer'; did you mean 'FairPOTrainer'\?"):
        _ = fairpo_trl.FairPoTrainer
    with pytest.raises(AttributeError, match=r"has no attribute 'zzz'$"):
        _ = fairpo_trl.zzz


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").glob("*.py")), ids=lambda path: path.name)
def test_the_core_imports_only_torch(path):
    allowed = {*sys.stdlib_module_names, "torch"}
    outside = {name for name in imports_of(path) if not name.startswith(("fairpo_trl.core", "fairpo_trl.lazy"))}
    assert not {name for name in outside if name.partition(".")[0] not in allowed}


@pytest.mark.parametrize(
    ("layer", "forbidden"),
    [
        ("generation", ("fairpo_trl.classification",)),
        ("classification", ("fairpo_trl.generation",)),
        ("training", ("fairpo_trl.generation", "fairpo_trl.classification", "trl")),
        ("preferences", ("fairpo_trl.generation", "fairpo_trl.classification", "torch", "trl", "transformers")),
        ("evaluation", ("fairpo_trl.generation", "fairpo_trl.classification", "fairpo_trl.training", "trl")),
        ("reporting", ("fairpo_trl.generation", "fairpo_trl.classification", "trl", "transformers")),
    ],
)
def test_layers_do_not_know_each_other(layer, forbidden):
    for path in (PACKAGE / layer).rglob("*.py"):
        wrong = {name for name in imports_of(path) if any(f"{name}.".startswith(f"{top}.") for top in forbidden)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_the_citation_names_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    arxiv = {identifier["value"] for paper in citation["references"] for identifier in paper["identifiers"]}
    assert arxiv == {"arXiv:2505.02433", "arXiv:2405.20304"}
    assert [len(paper["authors"]) for paper in citation["references"]] == [4, 7]


@pytest.mark.slow
def test_the_wheel_installs_and_imports_alone(tmp_path):
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "build", "--quiet", "--wheel", "--no-isolation", "--outdir", tmp_path]
    run(*build, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"fairpo_trl-{fairpo_trl.__version__}-py3-none-any.whl"

    names = zipfile.ZipFile(wheel).namelist()
    assert "fairpo_trl/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names} == {"fairpo_trl", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}
    sources = {str(path.relative_to(ROOT).as_posix()) for path in PACKAGE.rglob("*.py")}
    assert sources <= set(names)

    # An environment with neither pip nor any other package: the import must stand on the standard library alone.
    empty = tmp_path / "empty"
    run(sys.executable, "-m", "venv", "--without-pip", empty)
    python = empty / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run(*pip, "--no-index", "--no-deps", wheel)
    code = "import fairpo_trl; print(fairpo_trl.__version__, fairpo_trl.__file__)"
    version, file = run(python, "-I", "-c", code, cwd=tmp_path).split(maxsplit=1)
    assert version == fairpo_trl.__version__
    assert Path(file.strip()).is_relative_to(empty)


def test_no_file_names_a_place_on_someones_machine():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    place = re.compile(rb"(?<![\w.:/-])/(?:work|root|tmp/venv\w*)/")
    found = {}
    for name in run("git", "ls-files", "-z").split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__) and (match := place.search(path.read_bytes())):
            found[name] = match.group()
    assert not found


def test_the_licence_is_the_whole_text():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "The fairpo_trl authors" in text

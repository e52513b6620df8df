"""The wheel works outside the checkout, and imports are fast."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the project's wheel is installed to, with nothing of the checkout on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_wheel_holds_the_harness_and_the_content(installed: Path) -> None:
    package = installed / "moextend"
    for path in (
        "py.typed", "cli/main.py", "bench/run/runner.py", "bench/report/page/assets/page.js",
        "bench/report/page/assets/page.css", "bench/report/paper/setup.tex.jinja",
        "bench/workspace/templates/method.py", "content/tasks/tiny-attributes.yaml",
        "content/tasks/references.bib", "content/registry/references.bib", "bench/methods/references.bib",
        "content/tasks/tiny/lm_eval/tiny_facts.yaml", "content/registry/tiny.yaml", "content/registry/tiny-generic.txt",
        "content/registry/references/coin.yaml",
        "content/registry/models/tiny/lm/model.safetensors",
        "content/registry/models/tiny/vision/open_clip_model.safetensors",
    ):  # fmt: skip
        assert (package / path).is_file(), path
    assert {p.name for p in installed.iterdir() if not p.name.endswith("dist-info")} == {"moextend"}
    assert not list(installed.rglob("test_*"))


@pytest.mark.slow
def test_the_wheel_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    program = (
        "import moextend\nfrom moextend.cli.main import run\nprint(moextend.__file__)\n"
        "print(moextend.load('tiny', vision='tiny').modalities['image'].encoder.tokens)\nrun()"
    )
    done = run(installed, tmp_path, "-c", program, "bench", "list")
    where, tokens, *listed = done.stdout.splitlines()
    assert done.returncode == 0 and where.startswith(str(installed)) and tokens == "9", done.stderr
    assert "tiny-attributes" in "\n".join(listed)


@pytest.mark.long  # installs PyTorch and all other dependencies: 5 minutes
@pytest.mark.timeout(3600)
def test_the_wheel_in_an_environment_of_its_own_runs_a_method_of_a_user_and_writes_the_page(
    tmp_path: Path,
) -> None:
    """What is released: the wheel, built from the sdist, without the checkout, by the commands of the README."""
    dist, venv, there = tmp_path / "dist", tmp_path / "venv", tmp_path / "there"
    there.mkdir()
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def do(*command: str | Path) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=there, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    do(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, ROOT)
    (wheel,) = dist.glob("*.whl")
    do(sys.executable, "-m", "venv", venv)
    pip: list[str | Path] = [venv / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile"]
    do(*pip, "--constraint", ROOT / "constraints.txt", wheel)
    moextend = venv / "bin/moextend"
    do(moextend, "bench", "new", "method", "mine")
    few = ["--steps", "2", "--align-steps", "2", "--limit", "20", "--method", "full-ft", "--method", "mine"]
    assert "mine" in do(moextend, "bench", "run", "tiny", *few)
    do(moextend, "bench", "report", "tiny", "--format", "html", "--out", "page.html")
    assert "mine" in (there / "page.html").read_text(encoding="utf-8")
    assert str(venv) in do(venv / "bin/python", "-c", "import moextend; print(moextend.__file__)")


def test_what_ci_makes_are_targets_for_all_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    jobs: dict[str, Any] = {}
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        jobs |= {
            f"{path.stem} {name}": job
            for name, job in yaml.safe_load(path.read_text("utf-8"))["jobs"].items()
        }
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    made = [run.split()[1] for run in runs if run.startswith("make ")]
    assert {"test", "test-all", "quick", "docs"} == set(made) <= set(targets)
    oldest, *_ = jobs["test quick"]["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={oldest}"


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "pandas", "datasets", "lm_eval", "matplotlib")
    program = f"import sys, moextend, moextend.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pickle_and_no_remote_code() -> None:
    for folder in ("moextend", "bench"):
        for path in (ROOT / folder).glob("**/*.py"):
            code = path.read_text(encoding="utf-8")
            assert "import pickle" not in code and "torch.load(" not in code, path
            assert "trust_remote_code=True" not in code, path


@pytest.mark.long  # mypy from nothing: 28 s
def test_a_user_without_the_plugin_of_pydantic_can_type_check_the_printed_code(
    installed: Path, tmp_path: Path
) -> None:
    """The code of README.md and docs/library.md against the wheel, with mypy's own rules alone."""
    given = (
        "from pathlib import Path\nimport moextend\n"
        "settings = moextend.Settings(steps=100, batch_size=16, learning_rate=1e-3)\n"
        "captions = conversations = [moextend.Conversation((('question', 'answer'),))]\npath = Path('skill')\n"
    )
    for page, before in (("README.md", given), ("docs/library.md", "")):
        text = (ROOT / page).read_text(encoding="utf-8")
        code = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
        (tmp_path / f"{Path(page).stem.lower()}.py").write_text(before + code, encoding="utf-8")
    wrong = 'import moextend\nmoextend.lode("tiny")\nmoextend.Recipe(layers=1.5)\n'
    (tmp_path / "wrong.py").write_text(wrong, encoding="utf-8")
    # Pages define functions without types. Large libraries are not read: that takes a minute.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\ndisallow_untyped_defs = false\ndisallow_untyped_calls = false\n"
        "[mypy-torch.*,transformers.*,numpy.*,pandas.*,huggingface_hub.*]\nfollow_imports = skip\n",
        encoding="utf-8",
    )
    checked = run(installed, tmp_path, "-m", "mypy", "readme.py", "library.py", "wrong.py")
    *errors, last = checked.stdout.splitlines()
    assert [line.split(":")[:2] for line in errors] == [["wrong.py", "2"], ["wrong.py", "3"]], checked.stdout
    assert last == "Found 2 errors in 1 file (checked 3 source files)", checked.stderr

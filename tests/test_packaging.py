"""The wheel works outside the checkout, and imports are fast."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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

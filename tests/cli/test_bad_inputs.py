"""Every bad input gives one clear line and exit code 2, before anything is started, loaded or written."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.executors import local
from moextend.model import loading
from tests.cli.conftest import Cli, Result
from tests.robustness.clear import tree, unclear

from . import bad_files, bad_inputs
from .bad_inputs import Case

ALL = [*bad_inputs.cases(), *bad_files.cases()]
SLOW = [
    Case(typed, tuple(typed.split()), (word,))
    for typed, word in {
        "bench add-task text --data nothing": "nothing",
        "lm-eval --tasks nothing --model_args pretrained=tiny": "nothing",
        "lm-eval --tasks arc_esay --model_args pretrained=tiny": "arc_easy",
    }.items()
]
"""lm-eval makes an index of its 14,683 tasks."""
HINT = re.compile(r"hint: \S|[.?)\]] [A-Z0-9]")
"""What to do stands in a sentence of its own, after what is wrong."""

Refused = Callable[[Case], None]


class Guard:
    """Sees what a command opens for writing, starts and connects to; audit hooks stay, so there is one."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.inside is None:
            return
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system", "socket.connect"):
            self.seen.append(f"{event} {arguments[:2]}")
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self._written(arguments[0])
        elif event in (
            "os.mkdir",
            "os.remove",
            "os.rename",
            "os.truncate",
            "os.symlink",
            "os.link",
            "os.rmdir",
        ):
            self._written(arguments[1] if event in ("os.rename", "os.symlink", "os.link") else arguments[0])

    def _written(self, path: Any) -> None:
        if isinstance(path, int) or self.inside is None:
            return
        place = os.path.realpath(os.fsdecode(path))
        temporary = tempfile.gettempdir()
        own = (f"{temporary}/{name}" for name in ("tmp", "torchinductor", "moextend-packs"))
        allowed = (str(self.inside), "/dev/null", *own)
        if not place.startswith(allowed) and "__pycache__" not in place:
            self.seen.append(f"wrote {place}")


@pytest.fixture(scope="session")
def guard() -> Guard:
    return Guard()


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of the cases, which none of them changes."""
    folder = tmp_path_factory.mktemp("pristine") / "w"
    bad_inputs.fill(folder)
    return folder


@pytest.fixture(scope="session")
def place(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy in which they are typed."""
    folder = tmp_path_factory.mktemp("typed") / "w"
    renew(folder, pristine)
    return folder


def renew(folder: Path, pristine: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(pristine.parent, folder.parent, dirs_exist_ok=True, ignore=shutil.ignore_patterns("fifo"))
    os.mkfifo(folder / "fifo")


@pytest.fixture
def refused(
    cli: Cli, place: Path, pristine: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Refused]:
    """Types a case; a worker that starts, a model that is loaded or a file that is written fails the test."""

    def started(*_: Any, **__: Any) -> None:
        pytest.fail("a worker was started, or a model loaded")

    monkeypatch.setattr(local, "Started", started)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda check_available=False: None)
    monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", list)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(place)

    def check(case: Case) -> None:
        for name, content in case.files.items():
            (place / name).write_bytes(content)
        if not case.loads:
            monkeypatch.setattr(loading, "_reader", started)
        but = (".cache",) if "add-task" in case.arguments else ()  # it reads the data
        before, guard.seen, guard.inside = tree(place), [], place
        try:
            found = cli(*case.arguments)
        finally:
            guard.inside = None
        judge(found, case)
        assert not guard.seen, guard.seen
        assert tree(place, but=but) == before, "the workspace changed"

    yield check
    if tree(place) != tree(pristine):
        renew(place, pristine)


def judge(found: Result, case: Case) -> None:
    """One clear answer, which names what is wrong, and the exit code of a wrong input."""
    answer = found.err.strip()
    assert found.code == 2, answer
    assert found.out == ""
    assert len(answer.splitlines()) == 1
    assert not unclear(answer), unclear(answer)
    for name in case.names:
        assert name in answer
    assert HINT.search(answer), answer
    own = answer.replace(str(Path.cwd()), "")  # the folder of the test has a long name
    assert len(own) <= 400 or (case.long and len(own) < 4000), answer


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_a_bad_input_is_answered_by_one_line(refused: Refused, case: Case) -> None:
    refused(case)


@pytest.mark.long
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.id)
def test_what_needs_the_index_of_lm_eval_is_answered_too(refused: Refused, case: Case) -> None:
    refused(case)


def test_the_workspace_of_the_cases_is_right(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / ".cache").unlink()
    bad_inputs.fill(tmp_path)
    learned = bad_inputs.SEQUENCE.replace("tiny-counting", "own").replace("sequence: mine", "sequence: own")
    (tmp_path / "registry/own.yaml").write_text(learned)
    for name in ("mine", "own"):
        assert cli("bench", "run", name, "--dry-run").code == 0
        found = cli("bench", "run", name)
        assert found.code == 0, found.err

"""Every bad command line gives one clear error and exit code 2, before anything is started or written."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from _pytest.mark import ParameterSet
from PIL import Image

from moextend.bench.run import launch

from . import command_lines, data_inputs, workspace, yaml_inputs
from .clear import tree, unclear
from .test_damages import Cli, caller


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
        allowed = (str(self.inside), "/dev/null", f"{temporary}/tmp", f"{temporary}/torchinductor")
        if not place.startswith(allowed) and "__pycache__" not in place:
            self.seen.append(f"wrote {place}")


@pytest.fixture(scope="session")
def guard() -> Guard:
    return Guard()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, with good and bad files beside."""
    folder = workspace.make(tmp_path_factory.mktemp("lines") / "w")
    for name in ("good", "captions"):
        shutil.copy(
            folder / f"data/{'colour' if name == 'good' else name}/train.jsonl", folder / f"{name}.jsonl"
        )
    lines = [f'{{"question": "a {i}", "answer": "red"}}\n' for i in range(12)]
    (folder / "good.jsonl").write_text("".join(lines))
    (folder / "one.jsonl").write_text('{"question": "a", "answer": "red"}\n')
    (folder / "note.txt").write_text("a note")
    (folder / "garbage.gguf").write_bytes(b"GGUF" + bytes(100))
    (folder / "emptied").mkdir()
    workspace.make_extension(folder / "skill")
    os.mkfifo(folder / "fifo")
    Image.new("RGB", (8, 8), "red").save(folder / "image.png")
    (folder / "cut.png").write_bytes((folder / "image.png").read_bytes()[:-30])
    (folder.parent / "outside.png").write_bytes((folder / "image.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def kept(place: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the workspace without its pipe, and what lies in the workspace before the first test."""
    pristine = place.with_name("pristine")
    shutil.copytree(place, pristine, ignore=shutil.ignore_patterns("fifo"))
    return pristine, tree(place)


@pytest.fixture
def refused(
    place: Path,
    kept: tuple[Path, dict[str, str]],
    guard: Guard,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., None]]:
    """Runs a command line and judges the answer; afterwards the workspace is as it was before the test."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(launch, "WORKER", ("/bin/false",))
    cli: Cli = caller(capfd, monkeypatch)
    pristine, contents = kept
    now = contents

    def check(*arguments: str) -> None:
        nonlocal now
        before, guard.seen = tree(place, but=(".cache",)), []
        guard.inside = place
        try:
            found = cli(*arguments)
        finally:
            guard.inside = None
            now = tree(place, but=(".cache",))
        judge(found)
        assert not guard.seen, guard.seen
        assert now == before, "the workspace was changed"

    yield check
    if now != contents:
        for entry in place.iterdir():
            if entry.name not in (".cache", "fifo"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.copytree(pristine, place, dirs_exist_ok=True)


def judge(found: SimpleNamespace) -> None:
    """One clear answer, and the exit code of a wrong input."""
    output = found.err.strip()
    assert "Traceback" not in found.out + output, output[-1500:]
    assert found.code == 2, f"exit {found.code}: {output[-500:]}{found.out[-300:]}"
    usage = output.startswith(("Usage: ", "╭─ Error"))
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert usage or len(errors) == 1, f"not one error: {output[-1500:]}"
    assert not unclear(output), unclear(output)
    if not usage:
        extra = [line for line in output.splitlines() if not line.startswith(("error: ", "hint: "))]
        assert len(extra) <= 3, f"more than the error: {extra}"


def line_params() -> Iterator[ParameterSet]:
    """All command lines; one of four runs always, the others are long tests."""
    for place, line in enumerate(command_lines.lines()):
        name = command_lines.shown(line)
        yield pytest.param(line, id=name, marks=[pytest.mark.long] if place % 4 else [])


@pytest.mark.parametrize("line", list(line_params()))
def test_a_bad_command_line(line: list[str], refused: Callable[..., None]) -> None:
    refused(*line)


@pytest.mark.parametrize("change", yaml_inputs.SEQUENCES, ids=yaml_inputs.shown)
def test_a_bad_key_of_a_sequence(
    change: yaml_inputs.Change, place: Path, refused: Callable[..., None]
) -> None:
    (place / "registry/small.yaml").write_text(yaml_inputs.changed(workspace.SEQUENCE, change))
    refused("bench", "run", "small", "-m", "lora")


@pytest.mark.parametrize("change", yaml_inputs.TASKS, ids=yaml_inputs.shown)
def test_a_bad_key_of_a_task(change: yaml_inputs.Change, place: Path, refused: Callable[..., None]) -> None:
    (place / "tasks/colour.yaml").write_text(yaml_inputs.changed(yaml_inputs.task(), change))
    refused("bench", "list", "colour", "--example")


@pytest.mark.parametrize("what, content", yaml_inputs.FILES, ids=[what for what, _ in yaml_inputs.FILES])
def test_a_bad_file_of_a_sequence(
    what: str, content: bytes, place: Path, refused: Callable[..., None]
) -> None:
    (place / "registry/small.yaml").write_bytes(content)
    refused("bench", "run", "small", "-m", "lora")
    assert not (place / "executed").exists()


DATA = data_inputs.FILES


@pytest.mark.parametrize(
    "kind, what, name, content", DATA, ids=[f"{k}: {what}, {name}" for k, what, name, _ in DATA]
)
def test_bad_data(
    kind: str, what: str, name: str, content: bytes, place: Path, refused: Callable[..., None]
) -> None:
    if not (place / name).is_dir():
        (place / name).write_bytes(content)
    refused("bench", "add-task", kind, "--data", name, "--name", "mine", "-s", "small")
    assert not (place / "executed").exists()

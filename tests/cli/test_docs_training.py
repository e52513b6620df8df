"""The script and commands of the training page run as printed (on a CPU, for a few steps)."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
COMMANDS = sorted(
    set(re.findall(r"^(?:python|torchrun|accelerate) .*extend\.py.*$", PAGE, flags=re.MULTILINE))
)


def test_the_page_shows_a_script_a_config_and_commands() -> None:
    assert set(FILES) == {"extend.py", "fsdp.yaml"}
    assert {command.split()[0] for command in COMMANDS} == {"python", "torchrun", "accelerate"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def check(folder: Path, output: str, processes: int) -> None:
    """The script has printed its losses and saved its extension."""
    assert re.findall(rf"^loss \d+\.\d+ -> \d+\.\d+, {processes} processes$", output, flags=re.MULTILINE)
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "extension.json",
        "extension.safetensors",
    ]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python")])
def test_a_command_of_one_process_runs(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process, which saves its imports."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [*shlex.split(command)[1:], "--steps", "2"])
    runpy.run_path(sys.argv[0], run_name="__main__")
    check(folder, capfd.readouterr().out, 1)


@pytest.mark.long
@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("python")])
def test_a_command_of_a_launcher_runs(command: str, folder: Path) -> None:
    program, *words = shlex.split(command)
    if program == "accelerate":
        words = [words[0], "--main_process_port", "0", *words[1:]]
    start = {
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone"],
        "accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
    }[program]
    done = subprocess.run(
        [*start, *words, "--steps", "2"], cwd=folder, capture_output=True, text=True, timeout=250,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    check(folder, done.stdout, 2)

"""The script and commands of the training page run as printed (on a CPU, for a few steps)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"<!-- (\S+) -->\n```\w+\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
COMMANDS = sorted(
    set(re.findall(r"^(?:python|torchrun|accelerate) .*extend\.py.*$", PAGE, flags=re.MULTILINE))
)


def test_the_page_shows_a_script_a_config_and_commands() -> None:
    assert set(FILES) == {"extend.py", "fsdp.yaml"}
    assert {command.split()[0] for command in COMMANDS} == {"python", "torchrun", "accelerate"}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command: str, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    program, *words = shlex.split(command)
    if program == "accelerate":
        words = [words[0], "--main_process_port", "0", *words[1:]]
    processes = 1 if program == "python" else 2
    start = {
        "python": [sys.executable],
        "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone"],
        "accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
    }[program]
    done = subprocess.run(
        [*start, *words, "--steps", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=250,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(rf"^loss \d+\.\d+ -> \d+\.\d+, {processes} processes$", done.stdout, flags=re.MULTILINE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "extension.json",
        "extension.safetensors",
    ]

"""The tutorial on a served skill runs as printed, in order, and prints what the page prints, but for numbers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from moextend.util.listening import listen
from tests.cli.conftest import typed
from tests.cli.pages import TUTORIALS, Shell

PAGE = (TUTORIALS / "skill.md").read_text(encoding="utf-8")
SERVING = PAGE.index("\n## 6.")
SHIPPING = PAGE.index("\n## 8.")
pytestmark = pytest.mark.long  # two trainings, two certificates, a server: some 45 seconds of CPU
PORT = "8000"
START = 250
"""Seconds that a server has to start, on a busy machine."""


def masked(text: str) -> str:
    """Text without what differs between machines: digests, ids, numbers, and where a terminal breaks a line."""
    text = re.sub(r"\b(?=\w*\d)[0-9a-f]{12,}\b", "#", text)
    text = re.sub(r"[-+]?\b\d[\d.,]*", "#", text)
    return re.sub(r"\s+", " ", text).strip()


class ServingShell(Shell):
    """Does what the page says with a free port; a server runs in a process of its own."""

    def __init__(self, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        super().__init__(capfd, patch)
        self.code: int | str = 0
        with listen("127.0.0.1", 0) as free:
            self.port = str(free.getsockname()[1])
        self.server: subprocess.Popen[str] | None = None

    def filled(self, text: str) -> str:
        return text.replace(f":{PORT}/", f":{self.port}/")

    def commands(self, lines: Sequence[str]) -> list[tuple[str, str]]:
        """Runs lines; one may fail if the next one prints its exit code."""
        done = []
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            printed = self.command(line)
            done.append((line, printed if printed.endswith("\n") or not printed else printed + "\n"))
            assert self.code == 0 or after.startswith("echo"), f"{line}\n{printed}"
        return done

    def command(self, line: str) -> str:
        line = self.filled(line).strip()
        words = shlex.split(line)
        if line == 'echo "exit code $?"':
            code, self.code = self.code, 0
            return f"exit code {code}\n"
        if line.endswith("&"):
            return self.start(words[1:-1])
        if line == "kill %1":
            return self.stop()
        if words[0] in ("curl", "head"):
            return subprocess.run(
                ["bash", "-c", line], capture_output=True, text=True, check=True, timeout=120
            ).stdout
        found = typed(words, self.capfd, self.patch)
        self.code = found.code
        assert self.code in (0, 1), f"{line}\n{found.err}"
        return found.out

    def start(self, words: Sequence[str]) -> str:
        words = [self.port if word == PORT else word for word in words]
        command = [sys.executable, "-P", "-m", "moextend", *words]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.server.stdout is not None
        too_late = threading.Timer(START, self.server.kill)
        too_late.start()
        try:
            return self.server.stdout.readline()
        finally:
            too_late.cancel()

    def stop(self) -> str:
        assert self.server is not None
        self.server.send_signal(signal.SIGTERM)
        _, err = self.server.communicate(timeout=60)
        assert self.server.returncode == 0, err
        return err.splitlines()[-1]

    def compare(self, shown: str, printed: str) -> None:
        """A line `...` of the page stands for any lines."""
        assert max(map(len, shown.splitlines())) <= 80, shown
        parts = [re.escape(masked(part)) for part in re.split(r"^\.\.\.$", shown, flags=re.MULTILINE)]
        assert re.fullmatch(".*".join(parts), masked(printed)), f"{printed}\nThe page has:\n{shown}"

    def outputs(self, part: str) -> list[str]:
        """Does what a part of the page says; the output of each block of commands."""
        return ["".join(printed for _, printed in block) for block in self.follow(part)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorial")


@pytest.fixture
def shell(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[ServingShell]:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    made = ServingShell(capfd, monkeypatch)
    yield made
    if made.server is not None:
        made.server.kill()
        made.server.communicate(timeout=60)


def test_from_conversations_to_a_certificate(shell: ServingShell) -> None:
    done = shell.outputs(PAGE[:SERVING])
    rows = [[float(word) for word in line.split()] for line in done[-1].splitlines()[1:]]
    assert [row[0] for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    assert rows[0][1] <= 5 and rows[-1][1] >= 90, "the skill is learned"
    assert rows[0][2] > 90, "the base adds up"
    assert "exit code 1" in done[3] and "failed       near inputs" in done[3]
    assert "exit code 0" in done[4]


def test_the_served_skill(shell: ServingShell) -> None:
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    if not Path("catalogue/certificate-own.json").exists():
        pytest.fail("the first part of the page, which this part goes on from, was not done")
    done = shell.outputs(PAGE[SERVING:SHIPPING])
    base, skill = (line.split() for line in done[0].splitlines()[-2:])
    assert skill[1] == "'bottom-center'" != base[1]
    assert skill[2] != base[2], "other weights, another fingerprint"
    assert skill in [line.split() for line in done[1].splitlines()], (
        "the second skill changes nothing in the first"
    )


def test_shipping(shell: ServingShell) -> None:
    if not Path("catalogue/certificate-own.json").exists():
        pytest.fail("the first part of the page, which this part goes on from, was not done")
    shell.follow(PAGE[SHIPPING:])
    assert Path("shipped/config.json").is_file()

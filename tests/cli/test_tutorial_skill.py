"""The tutorial on a skill runs as printed, but for the server, and prints what the page prints, but for numbers."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import typed
from tests.cli.pages import TUTORIALS, Shell

PAGE = (TUTORIALS / "skill.md").read_text(encoding="utf-8")


def masked(text: str) -> str:
    """Text without what differs between machines: digests, ids, numbers, and where a terminal breaks a line."""
    text = re.sub(r"\b(?=\w*\d)[0-9a-f]{12,}\b", "#", text)
    text = re.sub(r"[-+]?\b\d[\d.,]*", "#", text)
    return re.sub(r"\s+", " ", text).strip()


class ComparingShell(Shell):
    """Does what the page says, and compares the output."""

    code: int | str = 0

    def commands(self, lines: Sequence[str]) -> list[tuple[str, str]]:
        """Runs lines; one may fail if the next one prints its exit code."""
        done = []
        for line, after in zip(lines, [*lines[1:], ""], strict=True):
            printed = self.command(line.strip())
            done.append((line, printed if printed.endswith("\n") or not printed else printed + "\n"))
            assert self.code == 0 or after.startswith("echo"), f"{line}\n{printed}"
        return done

    def command(self, line: str) -> str:
        if line == 'echo "exit code $?"':
            code, self.code = self.code, 0
            return f"exit code {code}\n"
        words = shlex.split(line)
        if words[0] == "head":
            return subprocess.run(words, capture_output=True, text=True, check=True).stdout
        found = typed(words, self.capfd, self.patch)
        self.code = found.code
        assert self.code in (0, 1), f"{line}\n{found.err}"
        return found.out

    def compare(self, shown: str, printed: str) -> None:
        """A line `...` of the page stands for any lines."""
        assert max(map(len, shown.splitlines())) <= 80, shown
        parts = [re.escape(masked(part)) for part in re.split(r"^\.\.\.$", shown, flags=re.MULTILINE)]
        assert re.fullmatch(".*".join(parts), masked(printed)), f"{printed}\nThe page has:\n{shown}"


@pytest.mark.long  # two trainings and two certificates
@pytest.mark.timeout(900)
def test_from_conversations_to_a_certificate_and_a_folder_that_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    shell = ComparingShell(capfd, monkeypatch)
    done = ["".join(printed for _, printed in block) for block in shell.follow(PAGE[: PAGE.index("\n## 6.")])]
    rows = [[float(word) for word in line.split()] for line in done[-1].splitlines()[1:]]
    assert [row[0] for row in rows] == [0, 0.25, 0.5, 0.75, 1]
    assert rows[0][1] <= 5 and rows[-1][1] >= 90, "the skill is learned"
    assert rows[0][2] > 90, "the base adds up"
    assert "exit code 1" in done[3] and "failed       near inputs" in done[3]
    assert "exit code 0" in done[4]
    shell.follow(PAGE[PAGE.index("\n## 8.") :])
    assert Path("shipped/config.json").is_file()

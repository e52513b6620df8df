"""Pages of the documentation that are done as printed: files are written, commands run, and outputs compared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import typed

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r'^```(\w+)(?: title="(\S+)")?\n(.*?)^```$', flags=re.DOTALL | re.MULTILINE)


class Shell:
    """Does what a page says, in the current folder."""

    def __init__(self, capfd: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capfd, self.patch = capfd, patch

    def follow(self, page: str) -> list[list[tuple[str, str]]]:
        """Does what the text of a page says; for each block of commands [(line, what it printed)]."""
        done: list[list[tuple[str, str]]] = []
        for language, title, text in BLOCK.findall(page):
            if title:
                Path(title).parent.mkdir(parents=True, exist_ok=True)
                Path(title).write_text(text, encoding="utf-8")
            elif language == "sh":
                done.append(self.commands(lines_of(text)))
            else:
                assert language == "text", "a block is a file with a title, commands (sh), or output (text)"
                self.compare(text, "".join(printed for _, printed in done[-1]) if done else "")
        return done

    def commands(self, lines: Sequence[str]) -> list[tuple[str, str]]:
        """Runs the lines of a block; all must succeed."""
        return [(line, self.command(line)) for line in lines]

    def command(self, line: str) -> str:
        """What a line prints."""
        found = typed(shlex.split(line), self.capfd, self.patch)
        assert found.code == 0, f"{line}\n{found.err}"
        return found.out

    def compare(self, shown: str, printed: str) -> None:
        """Compares an output of the page with that of the commands before it."""


def lines_of(text: str) -> list[str]:
    """The commands of a block: a line may go on after a backslash, and within quotes."""
    text = text.replace("\\\n", "")
    return re.sub(r"'[^']*'", lambda quoted: quoted[0].replace("\n", " "), text).splitlines()

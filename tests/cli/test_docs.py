"""The commands in the docs exist and have the options that are used, and links lead to files of the repository."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from moextend.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shown() -> list[str]:
    commands = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", "")
        blocks = re.compile(r"^```.*?^```$", flags=re.DOTALL | re.MULTILINE)
        lines = [line for block in blocks.findall(text) for line in block.splitlines()]
        lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", blocks.sub("", text))]
        commands |= {line.partition("#")[0].strip() for line in lines if line.strip().startswith("moextend ")}
    return sorted(commands)


def test_the_documents_show_commands() -> None:
    assert len(shown()) > 8


@pytest.mark.parametrize("line", shown())
def test_a_command_of_the_documents_exists(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while words and not words[0].startswith("-") and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if (command.context_settings or {}).get("ignore_unknown_options"):
        return  # hands its options on to another program
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "--version"}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    assert not unknown
    assert not getattr(command, "commands", None) or not words or words[0].startswith("-"), (
        f"no command {words[:1]}"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_of_a_clone(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", text)
    assert not [target for target in targets if not (page.parent / target).exists()]

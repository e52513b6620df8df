"""Fills the tables of a Markdown page from runs: ``python -m tests.bench.report.pages RUNS PAGE``.

A table stands between two marks. The first one names the block and the command that prints it:

    <!-- NAME: moextend bench report tiny/{lora,moextend}-s{0,1,2} --format markdown | columns method, ACC | notes ± -->
    <!-- /NAME -->

The block is what the command prints for the runs in the folder RUNS, but for the note that runs from a pack have no
predictions. Braces stand for several words, as in a shell. `| columns`, `| rows` and `| notes` keep those that begin
with the given words. A table of the terminal is 100 columns wide and stands in a code block.

The README and the overview of results keep their tables. Those of the other pages are filled when the site is built
(docs/hooks.py), from the packs in docs/results/packs.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill

from typer.testing import CliRunner

from moextend.bench.run.pack import unpack
from moextend.cli.main import app

COMMAND = ("moextend", "bench", "report")
PACKS = Path(__file__).parents[3] / "docs" / "results" / "packs"
PARTS = ("columns", "rows", "notes")
BARE = "Packed without predictions, so scores are not checked against answers"
"""Begins the note on runs from published packs, which is left out: a page says in words where its runs are."""
NUMBER = re.compile(r"[-+]?\d[\d.,]*(?: ±[\d.]+)?")
BLOCK = re.compile(
    r"^<!-- (?P<name>[\w-]+): (?P<command>[^>]*?)\s*-->\n(?P<body>.*?)^<!-- /(?P=name) -->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    name: str
    arguments: tuple[str, ...]
    """Of `moextend bench report`."""
    kept: dict[str, tuple[str, ...]]
    """Part of a table -> beginnings of what is kept of it; all of a part that is not named."""
    body: str
    """Lines between its marks."""

    @staticmethod
    def of(match: re.Match[str]) -> Block:
        """A block from its marks; ValueError for another command."""
        command, *parts = " ".join(match["command"].split()).split(" | ")
        split = (part.strip().partition(" ") for part in parts)
        kept = {part: tuple(word.strip() for word in words.split(",")) for part, _, words in split}
        if unknown := kept.keys() - set(PARTS):
            raise ValueError(f"no part {', '.join(unknown)} of a table; there are {', '.join(PARTS)}")
        words = tuple(each for word in shlex.split(command) for each in expanded(word))
        if words[: len(COMMAND)] != COMMAND:
            raise ValueError(f"'{command}' is not a command `{' '.join(COMMAND)} ...`")
        return Block(match["name"], words[len(COMMAND) :], kept, match["body"])


def blocks(page: str) -> list[Block]:
    """Blocks of a page."""
    return [Block.of(match) for match in BLOCK.finditer(page)]


def expanded(word: str) -> Iterator[str]:
    """Words that a word with braces stands for, in the order of a shell."""
    parts = re.split(r"\{([^{}]*,[^{}]*)\}", word)
    choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
    return ("".join(chosen) for chosen in product(*choices))


@cache
def printed(asked: tuple[str, ...], runs: Path) -> str:
    """What `moextend bench report` prints for the runs in a folder, as lines of a page; ValueError if it fails."""
    with TemporaryDirectory() as workspace:
        Path(workspace, "runs").symlink_to(runs.resolve())
        words = ["bench", "report", *asked, "--workspace", workspace]
        found = CliRunner().invoke(app, words, env={"COLUMNS": "100", "NO_COLOR": "1"})
    if found.exit_code or found.exception:
        raise ValueError(f"{shlex.join([*COMMAND, *asked])}: {found.output.strip() or found.exception}")
    kept = [line.rstrip() for line in found.stdout.strip("\n").splitlines() if BARE not in line]
    lines = "".join(f"{line}\n" for line in kept)
    return f"\n{lines}\n" if "markdown" in asked else f"```text\n{lines}```\n"


def shortened(table: str, kept: dict[str, tuple[str, ...]]) -> str:
    """A table in Markdown with these columns, rows and notes."""
    lines, places = [], list[int]()
    for line in table.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            if not places:  # the head
                places = [i for i, cell in enumerate(cells) if cell in kept.get("columns", cells)]
            elif cells[0] != ":---" and "rows" in kept and not cells[0].startswith(kept["rows"]):
                continue
            line = f"| {' | '.join(cells[i] for i in places)} |"
        else:
            places = []
        if line.startswith("- "):
            if not line[2:].startswith(kept.get("notes", ("",))):
                continue
            line = fill(line, 118, subsequent_indent="  ")
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def numbers(table: str) -> list[str]:
    """Its rows with their first cell and all numbers of the others; heads may name tasks that have some."""
    rows = [line.strip("| ").partition(" | ") for line in table.splitlines() if line.startswith("|")]
    found = ((name, NUMBER.findall(rest)) for name, _, rest in rows if name != "method")
    return [f"{name}: {' '.join(numbers)}" for name, numbers in found if numbers]


def published(folder: Path, names: str = "*") -> Path:
    """The runs of docs/results/packs whose packs have these names, unpacked below the folder."""
    for path in sorted(PACKS.glob(f"{names}.tar.zst")):
        unpack(path, folder / "runs", folder)
    return folder / "runs"


def filled(page: str, runs: Path) -> str:
    """The page with its blocks made again."""

    def remade(match: re.Match[str]) -> str:
        block, (start, end) = Block.of(match), match.span("body")
        made = printed(block.arguments, runs)
        made = shortened(made, block.kept) if block.kept else made
        return page[match.start() : start] + made + page[end : match.end()]

    return BLOCK.sub(remade, page)


if __name__ == "__main__":
    path = Path(sys.argv[2])
    path.write_text(filled(path.read_text(encoding="utf-8"), Path(sys.argv[1])), encoding="utf-8")

"""Fills the tables of Markdown pages from runs: ``python -m tests.bench.report.pages RUNS [NAME ...] --write PAGE``.

A table stands between two marks. The first one names the block and the command that prints it:

    <!-- NAME: moextend bench report tiny/{lora,moextend}-s{0,1,2} --format markdown | columns method, ACC | notes ± -->
    <!-- /NAME -->

The block is what the command prints for the runs in the folder RUNS, but for the note that runs from a pack have no
predictions. Braces stand for several words, as in a shell. `| columns`, `| rows` and `| notes` keep those that begin
with the given words. A table of the terminal is 100 columns wide and stands in a code block. With names, only these
blocks are filled; without --write the page is only compared, and the exit code is 1 if it differs.

The README and the overview of results keep their tables. Those of the other pages are filled when the site is built
(docs/hooks.py), from the packs in docs/results/packs.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill

from typer.testing import CliRunner

from moextend.bench.run.pack import unpack
from moextend.cli.main import app

COMMAND = ("moextend", "bench", "report")
WIDTH = "100"
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


def blocks(page: str) -> list[Block]:
    """Blocks of a page; ValueError for a mark with another command, and for one name of two blocks."""
    found = []
    for match in BLOCK.finditer(page):
        command, *parts = " ".join(match["command"].split()).split(" | ")
        kept = {part: tuple(word.strip() for word in words.split(",")) for part, _, words in
                (text.strip().partition(" ") for text in parts)}  # fmt: skip
        if unknown := kept.keys() - set(PARTS):
            raise ValueError(f"no part {', '.join(unknown)} of a table; there are {', '.join(PARTS)}")
        found.append(Block(match["name"], arguments(command), kept, match["body"]))
    names = [block.name for block in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two blocks have one name: {', '.join(names)}")
    return found


def arguments(command: str) -> tuple[str, ...]:
    """Arguments of `moextend bench report`, with all words that braces stand for."""
    words = [each for word in shlex.split(command) for each in expanded(word)]
    if tuple(words[: len(COMMAND)]) != COMMAND:
        raise ValueError(f"'{command}' is not a command `{' '.join(COMMAND)} ...`")
    return tuple(words[len(COMMAND) :])


def expanded(word: str) -> Iterator[str]:
    """Words that a word with braces stands for, in the order of a shell."""
    parts = re.split(r"\{([^{}]*,[^{}]*)\}", word)
    choices = [part.split(",") if place % 2 else [part] for place, part in enumerate(parts)]
    return ("".join(chosen) for chosen in product(*choices))


def printed(asked: Sequence[str], runs: Path) -> str:
    """What `moextend bench report` prints for the runs in a folder, as lines of a page; ValueError if it fails."""
    environment = {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    with TemporaryDirectory() as workspace:
        Path(workspace, "runs").symlink_to(runs.resolve())
        found = CliRunner().invoke(
            app, ["bench", "report", *asked, "--workspace", workspace], env=environment
        )
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
    """Its rows with their first cell and all numbers of the others."""
    rows = [line.strip("| ").partition(" | ") for line in table.splitlines() if line.startswith("|")]
    return [f"{name}: {' '.join(NUMBER.findall(rest))}" for name, _, rest in rows if NUMBER.search(rest)]


def published(folder: Path) -> Path:
    """The runs of docs/results/packs, unpacked below the folder."""
    for path in sorted(PACKS.glob("*.tar.zst")):
        unpack(path, folder / "runs", folder)
    return folder / "runs"


def filled(page: str, runs: Path, names: Sequence[str] = ()) -> str:
    """The page with these blocks made again (none: all); ValueError for a name that no block has."""
    known = {block.name: block for block in blocks(page)}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no block {', '.join(unknown)}; there are {', '.join(known)}")
    made = {
        name: shortened(printed(block.arguments, runs), block.kept)
        if block.kept
        else printed(block.arguments, runs)
        for name, block in known.items()
        if name in (names or known)
    }

    def remade(match: re.Match[str]) -> str:
        whole, name = match[0], match["name"]
        start, end = (place - match.start() for place in match.span("body"))
        return whole[:start] + made.get(name, match["body"]) + whole[end:]

    return BLOCK.sub(remade, page)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.report.pages", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("runs", type=Path, help="Folder of the runs, such as demo/runs.")
    parser.add_argument("names", nargs="*", help="Names of blocks. Default: all of the page.")
    parser.add_argument("--page", type=Path, help="Markdown page that is compared.")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="Markdown page that is written.")
    asked = parser.parse_args()
    path = asked.write or asked.page
    if path is None:
        parser.error("name a page: --page or --write")
    before = path.read_text(encoding="utf-8")
    try:
        after = filled(before, asked.runs, asked.names)
    except ValueError as error:
        parser.error(str(error))
    if asked.write:
        path.write_text(after, encoding="utf-8")
        return 0
    return int(before != after)


if __name__ == "__main__":
    sys.exit(main())

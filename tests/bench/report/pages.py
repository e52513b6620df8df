"""Fills the tables of a Markdown page from runs: ``python -m tests.bench.report.pages RUNS PAGE``.

A table stands between two marks. The first one names the block and the command that prints it:

    <!-- NAME: moextend bench report tiny/{lora,moextend}-s{0,1,2} --format markdown | columns method, ACC | notes ± -->
    <!-- /NAME -->

The block is what the command prints for the runs in the folder RUNS, but for the note that runs from a pack have no
predictions. Braces stand for several words, as in a shell. `| columns` keeps those with the given titles, `| rows` and
`| notes` those that begin with the given words.

The README and the overview of results keep their tables. Those of the other pages are filled when the site is built
(docs/hooks.py), from the packs in docs/results/packs.
"""

from __future__ import annotations

import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from textwrap import fill

from moextend.bench.report import VIEWS, How, render, tables
from moextend.bench.report.collect import collect, some
from moextend.bench.report.formats import escaped
from moextend.bench.report.table import Table
from moextend.bench.run.pack import unpack
from moextend.bench.run.rundir import find_runs

COMMAND = ("moextend", "bench", "report")
PACKS = Path(__file__).parents[3] / "docs" / "results" / "packs"
PARTS = ("columns", "rows", "notes")
BARE = "Packed without predictions, so scores are not checked against answers"
"""Begins the note on runs from published packs, which is left out: a page says in words where its runs are."""
ARGUMENTS = ArgumentParser(exit_on_error=False)
ARGUMENTS.add_argument("words", nargs="*")
ARGUMENTS.add_argument("--format", choices=["markdown"], required=True)
ARGUMENTS.add_argument("--baseline")
ARGUMENTS.add_argument("--margin", type=float, default=1.0)
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
def measured(asked: tuple[str, ...], runs: Path) -> list[Table]:
    """The tables that `moextend bench report` prints for the runs in a folder."""
    options = ARGUMENTS.parse_intermixed_args(asked)
    usual = "comparison" if options.baseline else "forgetting"
    view = next((word for word in options.words if word in VIEWS), usual)
    names = [word for word in options.words if word not in VIEWS]
    return tables(some(collect(find_runs(runs, names))), view, How(options.baseline, options.margin))


def shown(block: Block, runs: Path) -> list[Table]:
    """The tables of a block, with the columns, rows and notes that it keeps."""
    return [_chosen(table.narrow(), block.kept) for table in measured(block.arguments, runs)]


def _chosen(table: Table, kept: dict[str, tuple[str, ...]]) -> Table:
    titles = kept.get("columns", [column.title for column in table.columns])
    rows, notes = kept.get("rows", ("",)), kept.get("notes", ("",))
    table = table.of_columns(place for place, column in enumerate(table.columns) if column.title in titles)
    sections = [[row for row in section if row[0].text.startswith(rows)] for section in table.sections]
    chosen = [note for note in table.notes if note.startswith(notes) and not note.startswith(BARE)]
    return replace(table, sections=sections, notes=chosen)


def numbers(table: Table) -> list[str]:
    """Its rows with their first cell and all numbers of the others."""
    found = [(row[0], NUMBER.findall(" ".join(value.text for value in row[1:]))) for row in table.rows]
    return [f"{escaped(name.text)}: {' '.join(numbers)}" for name, numbers in found if numbers]


def published(folder: Path, names: str = "*") -> Path:
    """The runs of docs/results/packs whose packs have these names, unpacked below the folder."""
    for path in sorted(PACKS.glob(f"{names}.tar.zst")):
        unpack(path, folder / "runs", folder)
    return folder / "runs"


def filled(page: str, runs: Path) -> str:
    """The page with its blocks made again."""

    def remade(match: re.Match[str]) -> str:
        block, (start, end) = Block.of(match), match.span("body")
        lines = render(shown(block, runs), "markdown").strip("\n").splitlines()
        if block.kept:
            lines = [fill(one, 118, subsequent_indent="  ") if one[:2] == "- " else one for one in lines]
        made = "".join(f"{line.rstrip()}\n" for line in lines)
        return f"{page[match.start() : start]}\n{made}\n{page[end : match.end()]}"

    return BLOCK.sub(remade, page)


if __name__ == "__main__":
    path = Path(sys.argv[2])
    path.write_text(filled(path.read_text(encoding="utf-8"), Path(sys.argv[1])), encoding="utf-8")

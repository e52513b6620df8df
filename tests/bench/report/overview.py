"""Fills docs/results/overview.md from the tables of the other pages: ``python -m tests.bench.report.overview RUNS``.

A mark names a column of the table of methods, such as ACC:

    <!-- overview: ACC -->
    <!-- /overview -->
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from moextend.bench.report.collect import TITLES
from moextend.bench.report.formats import cell
from moextend.bench.report.table import Value
from tests.bench.report import pages

RESULTS = Path(__file__).parents[3] / "docs" / "results"
PAGE = RESULTS / "overview.md"
SEQUENCES = {
    "tiny": "tiny.md",
    **{f"tiny-worlds-{kind}": "worlds.md" for kind in ("alike", "conflict", "drift")},
    **{f"tiny-{kind}": f"tiny-{kind}.md" for kind in ("repeat", "long", "modal")},
    "real-stories": "real-small.md",
}
"""Sequence -> the page that has its table."""
METHODS = (
    "joint, full-ft",
    "moextend:scope=own",
    "moextend:scope=auto",
    "lora-per-task:task=inferred",
    "moextend:scope=all,layers=0,experts=4",
    "moextend:scope=all,retention=latent",
    "moextend:scope=all",
    "moextend:routing=slot,scope=all",
    "moextend:routing=paper,scope=all",
    "replay:mb=2,text=true",
    "replay",
    "lora",
    "full-ft",
    "zero-shot",
    "majority answer",
)
VARIES = re.compile(r"[:,](rank|memory_tokens)=\d+|(?<=^joint, full-ft):learning_rate=[\d.]+")
"""Settings that differ between sequences: they follow the size of the base and of its inputs; and a bound's rate."""
BLOCK = re.compile(
    r"^<!-- overview: (?P<column>[^\n]+?) -->\n.*?^<!-- /overview -->$", re.MULTILINE | re.DOTALL
)


def filled(page: str, runs: Path) -> str:
    """The page with its tables made again."""
    found = {name: _rows(name, runs) for name in SEQUENCES}
    return BLOCK.sub(
        lambda mark: (
            f"<!-- overview: {mark['column']} -->\n\n{table(mark['column'], found)}\n<!-- /overview -->"
        ),
        page,
    )


def table(column: str, found: dict[str, list[dict[str, Value]]]) -> str:
    """One row per method, one column per sequence."""
    (key,) = (key for key, title in TITLES.items() if title == column)
    values = {
        name: {VARIES.sub("", row["method"].text): cell(row[key]) for row in rows}
        for name, rows in found.items()
    }
    heads = [f"[{name}]({page})" for name, page in SEQUENCES.items()]
    lines = [["method", *heads], [":---", *["---:"] * len(heads)]]
    lines += [[method, *(each.get(method, "") for each in values.values())] for method in METHODS]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines if sum(map(bool, line[1:])) > 1)


def _rows(sequence: str, runs: Path) -> list[dict[str, Value]]:
    """The rows of the first table of a sequence, by column."""
    for block in pages.blocks((RESULTS / SEQUENCES[sequence]).read_text(encoding="utf-8")):
        if any(name == sequence or name.startswith(f"{sequence}/") for name in block.arguments):
            return pages.measured(block.arguments, runs)[0].records
    raise ValueError(f"{SEQUENCES[sequence]} has no table of {sequence}")


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), Path(sys.argv[1])), encoding="utf-8")

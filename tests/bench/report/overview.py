"""Fills docs/results/overview.md from the tables of the other pages: ``python -m tests.bench.report.overview``.

A mark names a column of the table of methods, such as ACC:

    <!-- overview: ACC -->
    <!-- /overview -->
"""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).parents[3] / "docs" / "results"
PAGE = RESULTS / "overview.md"
SEQUENCES = {
    **{
        name: f"{name}.md"
        for name in (
            "tiny",
            "tiny-alike",
            "tiny-conflict",
            "tiny-drift",
            "tiny-repeat",
            "tiny-long",
            "tiny-modal",
        )
    },
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
    "replay",
    "lora",
    "full-ft",
    "zero-shot",
    "majority answer",
)
VARIES = re.compile(r"[:,](rank|memory\\_tokens)=\d+")
"""Settings that differ between sequences: they follow the size of the base and of its inputs."""
BLOCK = re.compile(
    r"^<!-- overview: (?P<column>[^\n]+?) -->\n.*?^<!-- /overview -->$", re.MULTILINE | re.DOTALL
)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def filled(page: str) -> str:
    """The page with its tables made again."""
    return BLOCK.sub(
        lambda mark: f"<!-- overview: {mark['column']} -->\n\n{table(mark['column'])}\n<!-- /overview -->",
        page,
    )


def table(column: str) -> str:
    """One row per method, one column per sequence."""
    found = {name: _column(name, column) for name in SEQUENCES}
    heads = [f"[{name}]({page})" for name, page in SEQUENCES.items()]
    lines = [["method", *heads], [":---", *["---:"] * len(heads)]]
    lines += [[method, *(values.get(method, "") for values in found.values())] for method in METHODS]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines if sum(map(bool, line[1:])) > 1)


def _column(sequence: str, column: str) -> dict[str, str]:
    """Method, without what varies -> value, of the first table of a sequence."""
    page = (RESULTS / SEQUENCES[sequence]).read_text(encoding="utf-8")
    title = re.search(rf"^### {sequence}: \d+ tasks, .*\n\n((?:\|.*\n)+)", page, re.MULTILINE)
    if title is None:
        raise ValueError(f"{SEQUENCES[sequence]} has no table of {sequence}")
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in title[1].splitlines()]
    return {VARIES.sub("", row[0]): row[head.index(column)] for row in rows}


if __name__ == "__main__":
    main()

r"""Tables in LaTeX, for any engine: \usepackage{booktabs,graphicx,siunitx}, siunitx 3 (TeX Live 2021) or later.

Numbers stand in S columns: their decimal points are below each other, and a spread or a mark follows in small print.
A dagger marks methods that are given the task of every input.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from moextend.bench.report.table import SPREAD, Column, Table, Value

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "\n": " ",
    "±": r"$\pm$", "→": r"$\to$", "≠": r"$\neq$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$",
    "×": r"$\times$", "−": "$-$", "·": r"$\cdot$", "Δ": r"$\Delta$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "–": "--", "—": "---", "…": r"\ldots{}", "’": "'", "‘": "`", "“": "``", "”": "''", "\u00a0": "~",
    "\u200b": "{}", "`": r"\textasciigrave{}",
}  # fmt: skip
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""A table that is wider than its column shrinks to it; others stay as they are."""
NEEDS = r"% needs \usepackage{booktabs,graphicx,siunitx}, siunitx 3"
SETUP = (
    r"\sisetup{retain-explicit-plus,group-separator={,},group-minimum-digits=4,table-align-text-after=false,"
    "reset-text-series=false,text-series-to-math=true}%"
)
SKIPS = r"\setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{6pt}"
LIGATURE = re.compile(r"[-'](?=[-'])|[?!](?=`)")
"""Characters that LaTeX would make one with the next."""
SIGN = re.compile(r"(?<![^\s(])[-+](?=[\d.])")
NUMBER = re.compile(rf"(<?)([-+]?)(\d[\d,]*)(\.\d+)?(?: {SPREAD}(\d+(?:\.\d+)?))?([^\d.,]*)")
"""Comparator, sign, whole part, decimals, spread, and marks."""
GIVEN = "†"
GIVEN_NOTE = f"{GIVEN}: the method is given the task of every input."
MARKS = {GIVEN: "‡"}
"""The tables' own mark that is another one here, since the dagger is taken."""

LONG = 1000
"""Characters of notes from which on they are set smaller."""
DAMAGE = re.compile(r" \(damaged: .*?\)(?=; \S+ \(|\.?$)")
"""What is wrong with a run that is left out: paths of a machine, which no paper needs."""
ROWS = 45
"""Largest number of one page."""
FLOATS = 12
"""Tables without a page break between: LaTeX holds only so many."""


def render(tables: Sequence[Table]) -> str:
    """One table environment a table."""
    labels = Labels()
    shown = [environment(part, labels.of(part)) for table in tables for part in pages(table)]
    parts = ["\n".join(shown[start : start + FLOATS]) for start in range(0, len(shown), FLOATS)]
    return "\\clearpage\n".join(parts)


def environment(table: Table, label: str, *, wide: bool = False, place: str = "t") -> str:
    """The table as a float with a label, over both columns of a page if it is `wide`."""
    table = table.narrow()
    name = "table*" if wide else "table"
    notes = " ".join(escape(note) for note in _notes(table))
    size = "\\footnotesize" if len(notes) <= LONG else "\\scriptsize"
    lines = [
        NEEDS,
        f"\\begin{{{name}}}[{place}]",
        "\\centering",
        SKIPS,
        f"\\caption{{\\raggedright {escape(table.title)}}}",
        f"\\label{{{label}}}",
        SETUP,
        FIT,
        *_tabular(table),
        *([f"\\par\\smallskip{size}\\raggedright {notes}"] if notes else []),
        f"\\end{{{name}}}",
        "",
    ]
    return "\n".join(lines)


def pages(table: Table) -> list[Table]:
    """The table in parts that each fit a page: a float has no page break. Its notes stand below the last one."""
    parts: list[list[list[list[Value]]]] = [[]]
    for section in table.sections:
        for start in range(0, len(section), ROWS):
            rows = section[start : start + ROWS]
            if sum(map(len, parts[-1])) + len(rows) > ROWS:
                parts.append([])
            parts[-1].append(rows)
    if len(parts) == 1:
        return [table]
    found = [
        replace(table, title=f"{table.title} ({number} of {len(parts)})", sections=sections, notes=[])
        for number, sections in enumerate(parts, 1)
    ]
    return [*found[:-1], replace(found[-1], notes=table.notes)]


class Labels:
    """The labels of the tables of one document: each is given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, table: Table, usual: str = "") -> str:
        """The table's own label, else the `usual` one, else one made of its key; with a number where it is taken."""
        label = table.label or usual or f"tab:{re.sub(r'[^A-Za-z0-9.:-]+', '-', table.key)}"
        found = next(
            name for n in count(1) if (name := label if n == 1 else f"{label}-{n}") not in self._taken
        )
        self._taken.add(found)
        return found


def _notes(table: Table) -> list[str]:
    given = any(value.given for section in table.sections for row in section for value in row)
    own = [MARKS.get(note[:1], note[:1]) + DAMAGE.sub(" (damaged)", note[1:]) for note in table.notes]
    return [*([GIVEN_NOTE] if given else []), *own]


def _tabular(table: Table) -> list[str]:
    rows = [row for section in table.sections for row in section]
    layouts = [_layout(column, [row[i] for row in rows]) for i, column in enumerate(table.columns)]
    heads = [
        f"{{{escape(column.title)}}}" if layout.numbers else escape(column.title)
        for column, layout in zip(table.columns, layouts, strict=True)
    ]
    body = "\n\\midrule\n".join("\n".join(_row(row, layouts) for row in part) for part in table.sections)
    return [
        f"\\begin{{tabular}}{{{''.join(layout.column for layout in layouts)}}}",
        "\\toprule",
        " & ".join(heads) + r" \\",
        "\\midrule",
        body,
        "\\bottomrule",
        "\\end{tabular}}",
    ]


@dataclass(frozen=True)
class _Layout:
    """How a column is set."""

    column: str
    """What stands in the head of the tabular."""
    numbers: bool
    """Whether it is an S column, in which words need braces."""


def _layout(column: Column, values: Sequence[Value]) -> _Layout:
    found = [(match, value) for value in values if (match := NUMBER.fullmatch(value.text))]
    if not column.numeric or not found:
        return _Layout("r" if column.numeric else "l", numbers=False)
    parts = [match.groups(default="") for match, _ in found]
    compared, sign = any(part[0] for part in parts), any(part[1] for part in parts)
    whole = max(len(part[2].replace(",", "")) for part in parts)
    whole += any(value.style == "bold" for _, value in found)  # bold digits are wider
    decimals = max(len(part[3][1:]) for part in parts)
    options = f"table-format={'<' * compared}{'+' * sign}{whole}.{decimals}"
    after = max((_after(match) for match, _ in found), key=len)
    options += f",table-space-text-post={{{after}}}" if after else ""
    return _Layout(f"S[{options}]", numbers=True)


def _row(row: Sequence[Value], layouts: Sequence[_Layout]) -> str:
    cells = [
        _number(value) if layout.numbers else _words(value)
        for value, layout in zip(row, layouts, strict=True)
    ]
    return " & ".join(cells) + r" \\"


def _words(value: Value) -> str:
    shown = SIGN.sub(lambda sign: f"${sign[0]}$", escape(value.text)) + (escape(GIVEN) if value.given else "")
    return f"\\textbf{{{shown}}}" if value.style == "bold" and shown else shown


def _number(value: Value) -> str:
    match = NUMBER.fullmatch(value.text)
    if match is None:
        return f"{{{_words(value)}}}" if value.text else ""
    compared, sign, whole, decimals, *_ = match.groups(default="")
    shown = f"{compared}{sign}{whole.replace(',', '')}{decimals}"
    after = _after(match)
    if value.style == "bold":
        return f"\\bfseries {shown}" + (f"{{\\mdseries{after}}}" if after else "")
    return f"{shown}{{{after}}}" if after else shown


def _after(match: re.Match[str]) -> str:
    """What follows a number in its cell: the spread and marks."""
    spread, marks = match[5] or "", "".join(MARKS.get(mark, mark) for mark in match[6])
    if not spread:
        return escape(marks)
    return f"\\scriptsize$\\,\\pm\\,${spread}{escape(marks)}"


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, in ASCII; a letter that has no ASCII base shows as its code point."""
    return "".join(
        ESCAPES.get(character) or _ascii(character) for character in LIGATURE.sub("\\g<0>\u200b", text)
    )


def _ascii(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if part.isascii())
    return "".join(ESCAPES.get(part, part) for part in plain) or f"[U+{ord(character):04X}]"

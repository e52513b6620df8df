r"""Tables in LaTeX, for any engine: \usepackage{booktabs,siunitx,tabularx}, siunitx 3 (TeX Live 2021) or later.

Numbers stand in S columns: their decimal points are below each other, and a spread or a mark follows in small print.
A table is as wide as a column, or as a page of two columns where it must be; it has at most NOTES lines of notes, and
the others are paragraphs of the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from moextend.bench.report.table import RANKED, SPREAD, Column, Row, Table, Value, folded_between, parts

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "\n": " ",
    "±": r"$\pm$", "→": r"$\to$", "≠": r"$\neq$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$",
    "×": r"$\times$", "−": "$-$", "·": r"$\cdot$", "Δ": r"$\Delta$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "§": r"\S{}", "¶": r"\P{}", "[": "{[}",
    "–": "--", "—": "---", "…": r"\ldots{}", "’": "'", "‘": "`", "“": "``", "”": "''", "\u00a0": "~",
    "\u200b": "{}", "`": r"\textasciigrave{}",
}  # fmt: skip
NEEDS = r"% needs \usepackage{booktabs,siunitx,tabularx}, siunitx 3"
SETUP = (
    r"\sisetup{retain-explicit-plus,group-separator={,},group-minimum-digits=4,table-align-text-after=false,"
    "reset-text-series=false,text-series-to-math=true}%"
)
SKIPS = r"\setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{6pt}"
LIGATURE = re.compile(r"[-'](?=[-'])|[?!](?=`)")
"""Characters that LaTeX would make one with the next."""
BREAKS = ":,/=+_"
"""Characters that a name may break after, as after a hyphen."""
SIGN = re.compile(r"(?<![^\s(])[-+](?=[\d.])")
"""The sign of a number among words."""
TASK_ID = {"given": "†", "inferred": "‡"}
"""What a method knows of the task -> its mark."""
MARKS = str.maketrans({"†": "§", "‡": "¶"})
"""Marks of the tables that are others here, since the daggers are taken."""
LEGEND = {
    "†": "given the task id", "‡": "infers it", "§": "by construction", "≠": "not matched", "*": "not finished",
    "¶": "tuned on test items",
}  # fmt: skip
"""Marks as they are printed -> what they say, below a table."""
BOLD = "Bold: significantly best, with or without the task id."
NAMES = r">{\raggedright\arraybackslash\hangindent=1em}X"
"""The first column."""
NOTES = 5
"""Lines of notes below a table."""
COLUMN, PAGE = 46.0, 96.0
"""Digits of \\footnotesize that stand in a line, of one column and of a page of two."""
SIZES = {"\\footnotesize": 1.0, "\\scriptsize": 1.14}
"""Sizes of tables, the one that is tried first -> digits in a line."""
SMALL, GAP = 0.7, 1.5
"""Widths of a character in small print and of the room between columns, in digits."""
NAME = 12
"""Digits that a column of names has at least."""
MACHINE = re.compile(r" \(damaged: .*?\)(?=; \S+ \(|\.?$)| \((?:moextend |docs/|--)[^()]*\)")
"""Parts of notes that no paper needs: what is wrong with a run that is left out, options and commands."""
ROWS = 45
"""Largest number of lines of one page."""
FLOATS = 12
"""Tables without a page break between: LaTeX holds only so many."""


def render(tables: Sequence[Table]) -> str:
    """The tables, and below them their notes."""
    shown, notes = apart(tables)
    return f"{shown}\n{notes}" if notes else shown


def apart(tables: Sequence[Table]) -> tuple[str, str]:
    """The environments of the tables, and the paragraphs of notes that they have no room for."""
    document = Document()
    shown = [part for table in tables for part in document.add(table)]
    parts = ["\n".join(shown[start : start + FLOATS]) for start in range(0, len(shown), FLOATS)]
    return "\\clearpage\n".join(parts), document.notes


class Document:
    """The tables of one document, in which every label and every note is given once."""

    def __init__(self) -> None:
        self._labels, self._given = set[str](), set[str]()
        self.notes = ""
        """Paragraphs of notes; "" where the tables have room for all."""

    def add(self, table: Table, label: str = "", *, place: str = "t") -> list[str]:
        """The environments of a table, one a page; what they have no room for joins the notes.

        Args:
            label: the first one's label; "": one is made of the table's name.
            place: where LaTeX may put them.
        """
        parts = [(part, self._label(part, label)) for part in pages(table)]
        last, of = _shown(parts[-1][0]), parts[-1][1]
        notes = [note for note in last.notes if note not in self._given]
        if notes and _below(last) != " ".join(last.notes):
            self._given.update(notes)
            self.notes += f"\\paragraph{{Notes to Table~\\ref{{{of}}}.}}\n{breakable(' '.join(notes))}\n\n"
        return [environment(*part, place=place) for part in parts]

    def _label(self, table: Table, label: str) -> str:
        """The label, with a number where it is taken."""
        label = label or f"tab:{re.sub(r'[^A-Za-z0-9.:-]+', '-', table.key)}"
        tried = (label if n == 1 else f"{label}-{n}" for n in count(1))
        found = next(name for name in tried if name not in self._labels)
        self._labels.add(found)
        return found


def environment(table: Table, label: str, *, place: str = "t") -> str:
    """The table as a float with a label, over both columns of a page if it is too wide for one."""
    table = _shown(table)
    name, size, shown = _fitted(table)
    below = _below(table)
    width = "\\columnwidth" if name == "table" else "\\textwidth"
    return "\n".join(
        [
            NEEDS,
            f"\\begin{{{name}}}[{place.replace('h', '') if name == 'table*' else place}]",
            "\\centering",
            SKIPS,
            f"\\caption{{\\raggedright {escape(table.title)}}}",
            f"\\label{{{label}}}",
            SETUP,
            f"{size}\\setlength{{\\tabcolsep}}{{3pt}}",
            "\n\\par\\smallskip\n".join(_tabular(part, width) for part in shown),
            *([f"\\par\\smallskip\\footnotesize\\raggedright {breakable(below)}"] if below else []),
            f"\\end{{{name}}}",
            "",
        ]
    )


def _shown(table: Table) -> Table:
    """The columns and notes of a table that a paper has, with the marks of LaTeX."""
    table = table.of_columns(i for i, column in enumerate(table.columns) if column.paper and not column.wide)
    sections = [
        [[_marked(value) for value in row] for row in section if any(value.text for value in row[1:])]
        for section in table.sections
    ]
    notes = [MACHINE.sub(_shortened, note).translate(MARKS) for note in table.notes]
    return replace(table, sections=[section for section in sections if section], notes=notes)


def _shortened(found: re.Match[str]) -> str:
    return " (damaged)" if found[0].startswith(" (damaged") else ""


def _marked(value: Value) -> Value:
    return replace(value, after=value.after.translate(MARKS) + TASK_ID.get(value.task_id, ""))


def _below(table: Table) -> str:
    """What stands below a table: all notes where they fit, else the meaning of its marks."""
    name, _, _ = _fitted(table)
    whole, values = " ".join(table.notes), [value for row in table.rows for value in row]
    room = 0.95 * NOTES * (COLUMN if name == "table" else PAGE)
    if len(whole) <= room and not any(value.task_id in TASK_ID for value in values):
        return whole
    marks = [
        f"{mark}: {words}." for mark, words in LEGEND.items() if any(mark in value.text for value in values)
    ]
    bold = [BOLD] if table.kind in RANKED and any(value.style == "bold" for value in values) else []
    kept = [note for note in table.notes if note.startswith(f"{SPREAD}:")]
    return " ".join([*marks, *bold, *kept])


def blocks(table: Table) -> list[Table]:
    """A table as it is shown, in blocks of columns where it is too wide for a page."""
    return _fitted(_shown(table))[2]


def _fitted(table: Table) -> tuple[str, str, list[Table]]:
    """Environment, size of print, and the blocks of columns that a table needs."""
    longest = max((len(escape(part)) for row in table.rows for part in parts(row[0].text)), default=0)
    widths, first = _widths(table), max(NAME, longest + 1)
    for name, room in (("table", COLUMN), ("table*", PAGE)):
        for size, more in SIZES.items():
            if first + sum(widths) <= room * more:
                return name, size, [table]
    made: list[list[int]] = [[]]
    for place, width in enumerate(widths, 1):
        if first + sum(widths[i - 1] for i in made[-1]) + width > room * more and made[-1]:
            made.append([])
        made[-1].append(place)
    return name, size, [table.of_columns([0, *block]) for block in made]


def _widths(table: Table) -> list[float]:
    """The widths of all columns but the first, in digits."""

    def width(value: Value) -> float:
        small = SMALL * (len(value.error) + len(value.after) + 2) if value.error else 0
        return len(value.text) if not value.error else len(value.before + value.printed) + small

    return [
        GAP + max(max(map(len, _head(column)), default=0), *(width(row[i]) for row in table.rows))
        for i, column in enumerate(table.columns)
        if i
    ]


def _head(column: Column) -> list[str]:
    """The lines of a column's heading."""
    return folded_between(column.title, 10)


def pages(table: Table) -> list[Table]:
    """The table in parts that each fit a page: a float has no page break. Its notes are those of the last one."""
    parts: list[list[list[list[Value]]]] = [[]]
    left = most = ROWS // len(blocks(table))
    for section in table.sections:
        rows: list[list[Value]] = []
        for row in section:
            lines = 1 + len(row[0].text) // 30
            if lines > left:
                parts[-1] += [rows] if rows else []
                parts.append([])
                rows, left = [], most
            rows.append(row)
            left -= lines
        parts[-1] += [rows] if rows else []
    if len(parts) == 1:
        return [table]
    found = [
        replace(table, title=f"{table.title} ({number} of {len(parts)})", sections=sections, notes=[])
        for number, sections in enumerate(parts, 1)
    ]
    return [*found[:-1], replace(found[-1], notes=table.notes)]


def _tabular(table: Table, width: str) -> str:
    rows = table.rows
    layouts = [
        NAMES,
        *(_layout(column, [row[i] for row in rows]) for i, column in enumerate(table.columns) if i),
    ]
    heads = [
        f"{{{_stacked(column)}}}" if layout.startswith("S") else _stacked(column)
        for column, layout in zip(table.columns, layouts, strict=True)
    ]
    body = "\n\\midrule\n".join("\n".join(_row(row, layouts) for row in part) for part in table.sections)
    return "\n".join(
        [
            f"\\begin{{tabularx}}{{{width}}}{{@{{}}{''.join(layouts)}@{{}}}}",
            "\\toprule",
            " & ".join(heads) + r" \\",
            "\\midrule",
            body,
            "\\bottomrule",
            "\\end{tabularx}",
        ]
    )


def _stacked(column: Column) -> str:
    lines = [escape(line) for line in _head(column)]
    if len(lines) == 1:
        return lines[0]
    stacked = " \\\\ ".join(lines)
    return f"\\shortstack[{'r' if column.numeric else 'l'}]{{{stacked}}}"


def _is_number(value: Value) -> bool:
    """Whether an S column can hold a cell as a number."""
    return (
        value.number is not None
        and value.before in ("", "<")
        and not value.between
        and "e" not in value.printed
    )


def _layout(column: Column, values: Sequence[Value]) -> str:
    """What stands for a column in the head of the tabular: S, in which words need braces, or the side of its text."""
    found = [value for value in values if _is_number(value)]
    if not column.numeric or not found:
        return "r" if column.numeric else "l"
    parts = [value.printed.replace(",", "").lstrip("+-").partition(".") for value in found]
    whole = max(len(part[0]) for part in parts) + any(
        value.style == "bold" for value in found
    )  # bold is wider
    compared, sign = any(value.before for value in found), any(value.printed[0] in "+-" for value in found)
    options = f"table-format={'<' * compared}{'+' * sign}{whole}.{max(len(part[2]) for part in parts)}"
    after = max(map(_after, found), key=len)
    return f"S[{options}{f',table-space-text-post={{{after}}}' if after else ''}]"


def _row(row: Row, layouts: Sequence[str]) -> str:
    cells = [
        _number(value) if layout.startswith("S") else _words(value)
        for value, layout in zip(row[1:], layouts[1:], strict=True)
    ]
    return " & ".join([breakable(row[0].text), *cells]) + r" \\"


def _words(value: Value) -> str:
    shown = SIGN.sub(lambda sign: f"${sign[0]}$", escape(value.text))
    return f"\\textbf{{{shown}}}" if value.style == "bold" and shown else shown


def _number(value: Value) -> str:
    if not _is_number(value):
        return f"{{{_words(value)}}}" if value.text else ""
    shown, after = f"{value.before}{value.printed.replace(',', '')}", _after(value)
    if value.style == "bold":
        return f"\\bfseries {shown}" + (f"{{\\mdseries{after}}}" if after else "")
    return f"{shown}{{{after}}}" if after else shown


def _after(value: Value) -> str:
    """What follows a number in its cell: the spread and marks."""
    marks = escape(value.after)
    return f"\\tiny$\\,\\pm\\,${value.error}{marks}" if value.error else marks


def breakable(text: str, after: str = BREAKS) -> str:
    """The same text, which may break between the words of a name."""
    return "\\allowbreak{}".join(map(escape, re.split(rf"(?<=[{after}])(?=[^\W\d])", text)))


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

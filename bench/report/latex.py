r"""Tables in LaTeX, for any engine: \usepackage{booktabs,graphicx}."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from moextend.bench.report.table import Table, Value

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "\n": " ",
    "±": r"$\pm$", "→": r"$\to$", "≠": r"$\neq$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$",
    "×": r"$\times$", "−": "$-$", "·": r"$\cdot$", "Δ": r"$\Delta$", "†": r"$\dagger$",
    "–": "--", "—": "---", "…": r"\ldots{}", "’": "'", "‘": "`", "“": "``", "”": "''", "\u00a0": "~",
}  # fmt: skip
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""A table that is wider than its column shrinks to it; others stay as they are."""
SIGN = re.compile(r"(?<![^\s(])[-+](?=[\d.])")


FLOATS = 12
"""Tables without a page break between: LaTeX holds only so many."""


def render(tables: Sequence[Table]) -> str:
    """One table environment a table."""
    shown = [_table(table.narrow()) for table in tables]
    parts = ["\n".join(shown[start : start + FLOATS]) for start in range(0, len(shown), FLOATS)]
    return "\\clearpage\n".join(parts)


def _table(table: Table) -> str:
    columns = "".join("r" if column.numeric else "l" for column in table.columns)
    body = "\n\\midrule\n".join("\n".join(_row(row) for row in section) for section in table.sections)
    notes = " ".join(escape(note) for note in table.notes)
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{escape(table.title)}}}",
        FIT,
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(escape(column.title) for column in table.columns) + " \\\\",
        "\\midrule",
        body,
        "\\bottomrule",
        "\\end{tabular}}",
        *([f"\\par\\smallskip\\footnotesize\\raggedright {notes}"] if notes else []),
        "\\end{table}",
        "",
    ]
    return "\n".join(lines)


def _row(row: Sequence[Value]) -> str:
    return " & ".join(_value(value) for value in row) + " \\\\"


def _value(value: Value) -> str:
    shown = SIGN.sub(lambda sign: f"${sign[0]}$", escape(value.text))
    return f"\\textbf{{{shown}}}" if value.style == "bold" and shown else shown


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, in ASCII; a letter that has no ASCII base shows as its code point."""
    return "".join(ESCAPES.get(character) or _ascii(character) for character in text)


def _ascii(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if part.isascii())
    return "".join(ESCAPES.get(part, part) for part in plain) or f"[U+{ord(character):04X}]"

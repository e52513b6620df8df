r"""Tables in LaTeX, with booktabs: \usepackage{booktabs}."""

from __future__ import annotations

from collections.abc import Sequence

from moextend.bench.report.table import Table, Value

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "→": r"$\to$", "\n": " ",
}  # fmt: skip


def render(tables: Sequence[Table]) -> str:
    """One table environment a table."""
    return "\n".join(_table(table.narrow()) for table in tables)


def _table(table: Table) -> str:
    columns = "".join("r" if column.numeric else "l" for column in table.columns)
    body = "\n\\midrule\n".join("\n".join(_row(row) for row in section) for section in table.sections)
    notes = " ".join(escape(note) for note in table.notes)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}[t]",
        "\\centering",
        f"\\caption{{{escape(table.title)}}}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(escape(column.title) for column in table.columns) + " \\\\",
        "\\midrule",
        body,
        "\\bottomrule",
        "\\end{tabular}",
        *([f"\\par\\smallskip\\footnotesize\\raggedright {notes}"] if notes else []),
        "\\end{table}",
        "",
    ]
    return "\n".join(lines)


def _row(row: Sequence[Value]) -> str:
    return " & ".join(_value(value) for value in row) + " \\\\"


def _value(value: Value) -> str:
    if value.number is None:
        return escape(value.text)
    shown = value.text.replace("-", "$-$").replace("+", "$+$").replace("±", "$\\pm$")
    return f"\\textbf{{{shown}}}" if value.style == "bold" else shown


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(ESCAPES.get(character, character) for character in text)

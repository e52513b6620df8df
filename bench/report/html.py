"""Tables as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from moextend.bench.report.table import Table, Value
from moextend.errors import visible

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>moextend report</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .7rem; text-align: right; white-space: nowrap; }}
th {{ border-bottom: 2px solid; }} tbody + tbody {{ border-top: 1px solid #999; }}
.word {{ text-align: left; }} .dim {{ color: #999; }} .bold {{ font-weight: 600; }}
.wrap {{ overflow-x: auto; }} ul {{ color: #666; font-size: .85rem; padding-left: 1.2rem; }}
</style></head><body>
{body}
</body></html>
"""


def render(tables: Sequence[Table]) -> str:
    """A page with all tables, all columns, and the footnotes."""
    return PAGE.format(body="\n".join(_table(table) for table in tables))


def _table(table: Table) -> str:
    words = [not column.numeric for column in table.columns]
    head = "".join(_tag("th", c.title, "word" * w) for c, w in zip(table.columns, words, strict=True))
    bodies = "\n".join(
        "<tbody>" + "\n".join(_row(row, words) for row in section) + "</tbody>" for section in table.sections
    )
    notes = "".join(_tag("li", note, "") for note in table.notes)
    return (
        f"<h2>{escape(visible(table.title))}</h2>\n<div class='wrap'><table><thead><tr>{head}</tr></thead>\n"
        f"{bodies}</table></div>\n<ul>{notes}</ul>"
    )


def _row(row: Sequence[Value], words: Sequence[bool]) -> str:
    cells = (
        _tag("td", value.text, f"{'word' * word} {value.style}".strip())
        for value, word in zip(row, words, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _tag(name: str, text: str, style: str) -> str:
    return f"<{name}{f' class={style!r}' if style else ''}>{escape(visible(text))}</{name}>"

"""A table before it has a format: words and numbers, which stay numbers until a format prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from moextend.bench import metrics
from moextend.bench.task import Mode

NARROW = 80
"""Columns of a terminal that a table fits if it can."""
SPREAD = "±"
"""Stands before a standard deviation or error."""
ON_TEST = "‡"
"""Stands behind a method whose settings were chosen on test items."""
RANKED = ("forgetting", "tasks", "text")
"""Kinds of tables whose best values are bold."""
DECIMALS = 1
"""Of scores, where nothing else is asked for."""
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))

Style = Literal["", "dim", "bold"]


@dataclass(frozen=True)
class Value:
    """One cell: words, or a number with its spread or interval; `text` is what people read."""

    words: str = ""
    """What stands there without a number; marks of a name are not in them, but in `after`."""
    number: float | None = None
    """Unrounded, for machines."""
    spread: float | None = None
    """Standard deviation or error of `number`."""
    style: Style = ""
    of: str = ""
    """The method or task that the cell names, as the runs call it; `words` hold it too."""
    task_id: str = ""
    """What the method that it names knows of the task at inference: "given", "inferred", "none"; "" if no matter."""
    mode: Mode = "sequence"
    """How the method that it names was trained: in sequence, or as a bound."""
    form: str = ""
    """How the number is printed, as `format` takes it; "": as a score, with `decimals`."""
    decimals: int = DECIMALS
    """Of a score."""
    signed: bool = False
    """Whether a score above 0 has a sign."""
    shown: float | None = None
    """Printed instead of `number`: in a larger unit, or as a bound."""
    before: str = ""
    """Printed before the number: "<", "≤ "."""
    after: str = ""
    """Printed behind number and spread, or behind the words: unit and marks."""
    between: tuple[float, float] | None = None
    """An interval: behind the number in brackets, or alone."""

    def digits(self, value: float) -> str:
        """A number as this cell prints it."""
        if self.form:
            return format(value, self.form)
        rounded = round(value, self.decimals) + 0.0  # no "-0.0"
        return f"{rounded:{'+' if self.signed and rounded else ''}.{self.decimals}f}"

    @property
    def printed(self) -> str:
        """The number alone; "" without one."""
        value = self.number if self.shown is None else self.shown
        return "" if value is None else self.digits(value)

    @property
    def error(self) -> str:
        """The spread as people see it; "" where they see none."""
        return "" if self.spread is None else f"{self.spread:.{self.decimals}f}"

    @property
    def text(self) -> str:
        """The cell as people read it: "61.2 ±0.8†", "<0.001", "1.2 (0.3 to 2.1)"."""
        shown = f"{self.before}{self.printed}" if self.number is not None else self.words
        if self.error:
            shown += f" {SPREAD}{self.error}"
        if self.between:
            low, high = (f"{end:+.{self.decimals}f}" for end in self.between)
            shown = f"{shown} ({low} to {high})" if shown else f"{low} to {high}"
        return shown + self.after

    def renamed(self, names: Mapping[str, str]) -> Value:
        """The same cell with the name that is shown for what it names, if there is one."""
        return (
            replace(self, words=self.words.replace(self.of, names[self.of], 1)) if self.of in names else self
        )

    def marked(self, mark: str) -> Value:
        """The same cell with a mark behind it."""
        return replace(self, after=self.after + mark)


Row = list[Value]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    """Its name for machines."""
    title: str
    numeric: bool = True
    wide: bool = False
    """Shown only where there is room: in CSV and on the page, or when asked for."""
    paper: bool = True
    """Whether LaTeX shows it, whose columns are narrow, without being asked for it."""
    machines: bool = True
    """Whether CSV has it; not where other columns hold the same as numbers."""
    spread: str = "sd"
    """What `Value.spread` of its cells is: "sd" (over runs), "se" (over items), or "" where they have none."""
    of: str = ""
    """The task that the title names, as the runs call it."""


@dataclass(frozen=True)
class Table:
    """Columns, sections of rows (set apart by a rule), and footnotes."""

    key: str
    """Its name for machines."""
    title: str
    columns: list[Column]
    sections: list[list[Row]]
    notes: list[str] = field(default_factory=list)
    kind: str = "forgetting"
    """What it is of: a view, or one of the tables below a view (views.KINDS)."""

    @property
    def rows(self) -> list[Row]:
        """Those of all sections."""
        return [row for section in self.sections for row in section]

    @property
    def records(self) -> list[dict[str, Value]]:
        """The rows by the keys of the columns."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def of_columns(self, places: Iterable[int]) -> Table:
        """The table with these columns, in this order."""
        places = list(places)
        sections = [[[row[i] for i in places] for row in section] for section in self.sections]
        return replace(self, columns=[self.columns[i] for i in places], sections=sections)

    def narrow(self) -> Table:
        """The table without its wide columns."""
        return self.of_columns(i for i, column in enumerate(self.columns) if not column.wide)

    def noted(self, *notes: str) -> Table:
        """The table with more notes."""
        return replace(self, notes=[*self.notes, *notes])


def words_column(key: str, title: str | None = None, *, wide: bool = False) -> Column:
    """A column of words, called like its key unless a title is given."""
    return Column(key, key if title is None else title, numeric=False, wide=wide)


def plain(key: str, title: str | None = None, *, wide: bool = False) -> Column:
    """A column of numbers without a spread, likewise."""
    return Column(key, key if title is None else title, spread="", wide=wide)


def cells_of(columns: Iterable[Column], cells: Mapping[str, Value], missing: Value | None = None) -> Row:
    """A row from its cells by column; `missing` (an empty cell) where there is none."""
    return [cells.get(column.key) or missing or Value() for column in columns]


def text(value: str, style: Style = "") -> Value:
    """A cell of words."""
    return Value(value, style=style)


def number(value: float | None, spread: float | None = None, *, signed: bool = False) -> Value:
    """A cell of a score: "61.2", "61.2 ±0.8", "+3.1", or "-" for an unknown one."""
    return Value("-") if value is None else Value("", value, spread, signed=signed)


def fixed(value: float | None, form: str, after: str = "") -> Value:
    """A cell of a number that is no score, in one form; "-" for an unknown one."""
    return Value("-") if value is None else Value("", value, form=form, after=after)


def count(n: float | None) -> Value:
    """A cell of a whole number."""
    return fixed(n, ",.0f")


def p_value(p: float | None) -> Value:
    """A cell of a p-value."""
    return (
        Value("", p, form=".3f", shown=0.001, before="<") if p is not None and p < 0.001 else fixed(p, ".3f")
    )


def short(value: float, before: str = "") -> Value:
    """A cell of a number of at least 0 with up to three digits: 757k, 1.25M, 4.20, 0.59."""
    rounded = float(f"{value:.3g}")
    unit, letter = next((pair for pair in UNITS if rounded >= pair[0]), (1.0, ""))
    shown = rounded / unit
    form = "#.2g" if 0 < shown < 1 else f".{0 if shown >= 100 or not shown else 1 if shown >= 10 else 2}f"
    return Value("", value, form=form, shown=shown, before=before, after=letter)


def named(
    name: str, *, before: str = "", after: str = "", task_id: str = "", mode: Mode = "sequence"
) -> Value:
    """A cell that names a method or task, with words around the name."""
    return Value(f"{before}{name}{after}", of=name, task_id=task_id, mode=mode)


def over_runs(values: Iterable[float | None], *, signed: bool = False) -> Value:
    """A cell of a mean over runs, with the standard deviation where there are several."""
    return number(*metrics.mean_and_sd(values), signed=signed)


ENDS = ":,/ _-"
"""Characters after which a name may be wrapped."""


def parts(text: str, ends: str = ENDS) -> list[str]:
    """Parts of the text that stay together: "moextend:", "scope=all,", "routing=slot"."""
    found = [""]
    for place, char in enumerate(text):
        found[-1] += char
        if _breaks(text, place, ends):
            found.append("")
    return found


def _breaks(text: str, place: int, ends: str) -> bool:
    """Whether the text may be wrapped after this character. The sign of a number stays with it."""
    char, after = text[place], text[place + 1 : place + 2]
    if char == " " and " " not in ends:  # then a space goes with what is before it
        char = text[:place].rstrip()[-1:]
    if not char or char not in ends or not after or after in f"{ends} ":
        return False
    return char != "-" or (text[place - 1].isalnum() and not after.isdigit() and place > 0)


def folded(text: str, width: int, ends: str = ENDS) -> list[str]:
    """Lines of a text, wrapped between its parts; a part longer than `width` is split at `width`."""
    lines = [""]
    for part in parts(text, ends):
        if len(lines[-1] + part.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def folded_between(text: str, width: int, ends: str = ENDS) -> list[str]:
    """Like `folded`, but no part is split: lines may be longer than `width`."""
    return folded(text, max([width, *(len(part.rstrip()) for part in parts(text, ends))]), ends)

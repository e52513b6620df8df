"""A table before it has a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from moextend.bench import metrics

WIDTH = 100
"""Columns of a terminal that a table should fit."""
NARROW = 80
"""Columns that a table fits if it can."""
SPREAD = "±"
"""Stands before a standard deviation or error."""
DECIMALS = 1
"""Of scores, where nothing else is asked for."""

Style = Literal["", "dim", "bold"]
Kind = Literal[
    "forgetting", "tasks", "text", "transfer", "ablations", "matrix", "costs", "comparison", "orders", "routing",
    "readings", "kinds", "published", "gate", "rewind", "subsets", "power", "audit", "budgets",
]  # fmt: skip
"""What a table is of; `report.yaml` names tables so."""


@dataclass(frozen=True)
class Value:
    """One cell of a table."""

    text: str = ""
    number: float | None = None
    """Unrounded, for machines."""
    spread: float | None = None
    """Standard deviation or error of `number`, for machines; `text` holds it too if people should see it."""
    style: Style = ""
    of: str = ""
    """The method or task that the cell names, as the runs call it; `text` holds it too."""
    task_id: str = ""
    """What the method that it names knows of the task at inference: "given", "inferred", "none"; "" if no matter."""
    form: Callable[[int], str] | None = field(default=None, compare=False, repr=False)
    """Decimals -> `text` with so many; None where the text depends on none."""

    def rounded(self, decimals: int) -> Value:
        """The same cell with so many decimals."""
        return replace(self, text=self.form(decimals)) if self.form else self

    def marked(self, mark: str) -> Value:
        """The same cell with a mark behind its text."""
        form = self.form
        return replace(self, text=self.text + mark, form=(lambda n: form(n) + mark) if form else None)


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    """Its name for machines."""
    title: str
    numeric: bool = True
    wide: bool = False
    """Shown only where there is room: CSV and HTML, or when asked for."""
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
    sections: list[list[list[Value]]]
    notes: list[str] = field(default_factory=list)
    kind: Kind = "forgetting"
    label: str = ""
    """What LaTeX refers to it by; "": one is made of the key."""

    def narrow(self) -> Table:
        """The table without its wide columns."""
        kept = [i for i, column in enumerate(self.columns) if not column.wide]
        sections = [[[row[i] for i in kept] for row in section] for section in self.sections]
        return replace(self, columns=[self.columns[i] for i in kept], sections=sections)


def text(value: str, style: Style = "") -> Value:
    """A cell of words."""
    return Value(value, style=style)


def number(value: float | None, spread: float | None = None, *, signed: bool = False) -> Value:
    """A cell of a number: "61.2", "61.2 ±0.8", "+3.1", or "-" for an unknown one."""
    if value is None:
        return Value("-")
    form = partial(_shown, value, spread, signed)
    return Value(form(DECIMALS), value, spread, form=form)


def _shown(value: float, spread: float | None, signed: bool, decimals: int) -> str:
    rounded = round(value, decimals) + 0.0  # no "-0.0"
    shown = f"{rounded:+.{decimals}f}" if signed and rounded else f"{rounded:.{decimals}f}"
    return shown if spread is None else f"{shown} {SPREAD}{spread:.{decimals}f}"


def named(name: str, *, before: str = "", after: str = "", task_id: str = "") -> Value:
    """A cell that names a method or task, with words around the name."""
    return Value(f"{before}{name}{after}", of=name, task_id=task_id)


def over_runs(values: Iterable[float | None], *, signed: bool = False) -> Value:
    """A cell of a mean over runs, with the standard deviation where there are several."""
    return number(*metrics.mean_and_sd(values), signed=signed)


def interval(low: float, high: float) -> Value:
    """A cell of a range: "-5.2 to +39.6"."""

    def form(decimals: int) -> str:
        return f"{low:+.{decimals}f} to {high:+.{decimals}f}"

    return Value(form(DECIMALS), form=form)


def p_value(p: float | None) -> Value:
    """A cell of a p-value."""
    return Value("-") if p is None else Value("<0.001" if p < 0.001 else f"{p:.3f}", p)


def count(n: int | None) -> Value:
    """A cell of a whole number."""
    return Value("-") if n is None else Value(f"{n:,}", n)

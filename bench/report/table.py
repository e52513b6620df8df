"""A table before it has a format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from moextend.bench import metrics

WIDTH = 100
"""Columns of a terminal that a table should fit."""
NARROW = 80
"""Columns that a table fits if it can."""
SPREAD = "±"
"""Stands before a standard deviation or error."""


@dataclass(frozen=True)
class Value:
    """One cell of a table."""

    text: str = ""
    number: float | None = None
    """Unrounded, for machines."""
    spread: float | None = None
    """Standard deviation or error of `number`, for machines; `text` holds it too if people should see it."""
    style: Literal["", "dim", "bold"] = ""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    """Its name for machines."""
    title: str
    numeric: bool = True
    wide: bool = False
    """Shown only where there is room: CSV and HTML, or when asked for."""
    machines: bool = True
    """Whether CSV has it; not where other columns hold the same as numbers."""
    spread: str = "sd"
    """What `Value.spread` of its cells is: "sd" (over runs), "se" (over items), or "" where they have none."""


@dataclass(frozen=True)
class Table:
    """Columns, sections of rows (set apart by a rule), and footnotes."""

    key: str
    """Its name for machines."""
    title: str
    columns: list[Column]
    sections: list[list[list[Value]]]
    notes: list[str] = field(default_factory=list)

    def narrow(self) -> Table:
        """The table without its wide columns."""
        kept = [i for i, column in enumerate(self.columns) if not column.wide]
        sections = [[[row[i] for i in kept] for row in section] for section in self.sections]
        return Table(self.key, self.title, [self.columns[i] for i in kept], sections, self.notes)


def text(value: str, style: Literal["", "dim", "bold"] = "") -> Value:
    """A cell of words."""
    return Value(value, style=style)


def number(value: float | None, spread: float | None = None, *, signed: bool = False) -> Value:
    """A cell of a number: "61.2", "61.2 ±0.8", "+3.1", or "-" for an unknown one."""
    if value is None:
        return Value("-")
    rounded = round(value, 1) + 0.0  # no "-0.0"
    shown = f"{rounded:+.1f}" if signed and rounded else f"{rounded:.1f}"
    return Value(shown if spread is None else f"{shown} {SPREAD}{spread:.1f}", value, spread)


def over_runs(values: Iterable[float | None], *, signed: bool = False) -> Value:
    """A cell of a mean over runs, with the standard deviation where there are several."""
    return number(*metrics.mean_and_sd(values), signed=signed)


def p_value(p: float | None) -> Value:
    """A cell of a p-value."""
    return Value("-") if p is None else Value("<0.001" if p < 0.001 else f"{p:.3f}", p)


def count(n: int | None) -> Value:
    """A cell of a whole number."""
    return Value("-") if n is None else Value(f"{n:,}", n)

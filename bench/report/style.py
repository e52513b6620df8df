"""How tables look: columns, precision, names and order of methods, captions (`report.yaml`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from moextend.bench import methods
from moextend.bench.methods import TITLES
from moextend.bench.report.collect import Experiment
from moextend.bench.report.looks import explained, paper_names, renamed
from moextend.bench.report.table import Column, Table
from moextend.bench.report.views import KINDS
from moextend.bench.report.views.forgetting import MAJORITY
from moextend.errors import InputError, UnknownName, listed
from moextend.util import content, files, spec
from moextend.util.spec import Spec

FILE = "report.yaml"
"""Its name in a workspace."""
TITLE = "{title}"
"""Stands in a caption for the usual title."""

Decimals = Annotated[int, Field(ge=0, le=6)]


class TableStyle(Spec):
    """How one kind of table looks."""

    columns: tuple[str, ...] | None = None
    """Columns by their names in CSV, in order, instead of the usual ones; those of tasks are called like the task."""
    precision: Decimals | None = None
    """Decimals of its scores; null: those of all tables."""
    caption: str | None = Field(default=None, min_length=1)
    """Its title; `{title}` stands for the usual one."""

    @field_validator("columns")
    @classmethod
    def _each_once(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if columns is not None and (not columns or len(set(columns)) < len(columns)):
            raise ValueError("names no column, or names one twice")
        return columns


class ReportStyle(Spec):
    """`report.yaml`: how the tables of a workspace look, in every format."""

    methods: dict[str, str | None] = Field(default_factory=dict)
    """Method with its settings -> the name that tables show; null: its own. Rows stand in this order."""
    others: bool = True
    """Whether methods that are not named above have rows, too, below the others."""
    tasks: dict[str, str | None] = Field(default_factory=dict)
    """Task -> the name that tables show; null: its own. The order is that of the sequence."""
    precision: Decimals | None = None
    """Decimals of scores; null: one. CSV holds unrounded numbers."""
    tables: dict[str, TableStyle] = Field(default_factory=dict)
    """View -> what differs in its tables; also orders (spread over seeds and orders, below the summary and the
    comparison), kinds (scores by kind of question, below the readings) and published (`--references`)."""

    @field_validator("tables")
    @classmethod
    def _known(cls, tables: dict[str, TableStyle]) -> dict[str, TableStyle]:
        for name in tables:
            if name not in KINDS:
                raise ValueError(f"there is no table '{name}', only {listed(KINDS)}")
        return tables

    @property
    def names(self) -> dict[str, str]:
        """Method or task -> the name that is shown, where it is another."""
        return {key: name for key, name in {**self.tasks, **self.methods}.items() if name}


def _refuse_shared_names(names: Mapping[str, str | None]) -> None:
    """Raises ValueError where two methods, or two tasks, would be shown by the same name."""
    shown: dict[str, str] = {}
    for own, name in names.items():
        first = shown.setdefault(" ".join((name or own).split()), own)
        if first != own:
            raise ValueError(f"'{first}' and '{own}' would both be shown as '{name or own}'")
    for own, name in names.items():
        if name and name != own and name in names:
            raise ValueError(f"'{own}' would be shown as '{name}', which is another's name")


@dataclass(frozen=True)
class Styling:
    """A style with the file that holds it, for tables and messages."""

    style: ReportStyle = field(default_factory=ReportStyle)
    where: str = FILE
    workspace: Path = Path()
    short: Mapping[str, str] | None = None
    """In papers: names of methods that the style gives none, explained in a note of each table."""

    @property
    def names(self) -> dict[str, str]:
        """Method or task -> the name that is shown, where it is another."""
        return {**(self.short or {}), **self.style.names}

    def for_papers(self, experiments: Sequence[Experiment]) -> Styling:
        """The same with a short name for every method that the style gives none."""
        results = [result for each in experiments for result in each.results]
        ran = dict.fromkeys([methods.named("base"), *(result.config.method for result in results)])
        taken = {*self.style.names.values(), *self.style.methods}
        names = {**TITLES, **paper_names(ran)}
        return replace(self, short={own: name for own, name in names.items() if not {own, name} & taken})

    def arranged(self, experiments: Sequence[Experiment]) -> list[Experiment]:
        """The experiments with their runs in the style's order, and without those that it leaves out.

        Raises:
            UnknownName: the style names a task or method that does not exist.
            InputError: no run is left.
        """
        self._check_names(experiments)
        shown = [self._arranged(experiment) for experiment in experiments]
        if experiments and not any(experiment.results for experiment in shown):
            raise InputError(
                "none of its methods has run.", where=f"{self.where}: methods", hint="Write others: true."
            )
        return [experiment for experiment in shown if experiment.results]

    def _arranged(self, experiment: Experiment) -> Experiment:
        place = {method: number for number, method in enumerate(self.style.methods)}
        results = sorted(experiment.results, key=lambda result: place.get(result.config.method, len(place)))
        hidden = [
            result
            for result in results
            if not self.style.others
            and result.config.mode == "sequence"
            and result.config.method not in place
        ]
        names = ", ".join(dict.fromkeys(result.config.method for result in hidden))
        named = names and self.short is None  # what an author leaves out is no matter of a paper
        left_out = [*experiment.left_out, *([f"{names} (not in {Path(self.where).name})"] if named else [])]
        kept = [result for result in results if result not in hidden]
        return replace(experiment, results=kept, left_out=left_out)

    def _check_names(self, experiments: Sequence[Experiment]) -> None:
        configs = [result.config for experiment in experiments for result in experiment.results]
        ran, known = (
            {config.method for config in configs},
            {task for config in configs for task in config.tasks},
        )
        own = {method.partition(":")[0] for method in (*methods.KNOWN.names(self.workspace), *methods.BOUNDS)}
        for method, given in self.style.methods.items():
            name = " ".join((given or "").split())
            others = {one.casefold() for one in own - {method.partition(":")[0]}} | {MAJORITY}
            if name != method and name.partition(":")[0].casefold() in others:
                raise InputError(
                    f"'{name}' is the name of another method than '{method}'.",
                    where=f"{self.where}: methods",
                    hint="Choose a name that is no method's.",
                )
        try:
            _refuse_shared_names({**dict.fromkeys(ran), **self.style.methods})
            _refuse_shared_names({**dict.fromkeys(known), **self.style.tasks})
        except ValueError as error:
            raise InputError(f"{error}.", where=self.where, hint="Give each its own name.") from error
        for method in self.style.methods if configs else ():  # one that has not run yet must be one that can
            if method not in ran:
                methods.parse(method, workspace=self.workspace, where=f"{self.where}: methods")
        for task in self.style.tasks if configs else ():
            if task not in known:
                content.find("tasks", task, self.workspace, where=f"{self.where}: tasks")

    def shown(self, text: str) -> str:
        """A text with the names that the style gives to methods and tasks."""
        return renamed(text, self.names)

    def styled(self, tables: Sequence[Table], *, whole: bool = False) -> list[Table]:
        """The tables as the style has them; UnknownName if it names a column that a table does not have.

        Args:
            whole: whether columns that the style leaves out are kept as wide ones, behind the others.
        """
        return [_styled(table, self, whole=whole) for table in tables]


def find_style(path: Path | None, workspace: Path) -> Styling:
    """The style in a file, or in the workspace's `report.yaml` where there is one.

    Raises:
        InputError: no such file.  SpecError: a key or value is wrong; says which.
    """
    found = path or workspace / FILE
    default = path is None and not files.exists(found)
    return Styling(ReportStyle() if default else spec.read(ReportStyle, found), str(found), workspace)


def _styled(table: Table, styling: Styling, *, whole: bool) -> Table:
    style, names = styling.style, styling.names
    own = style.tables.get(table.kind, TableStyle())
    decimals = style.precision if own.precision is None else own.precision
    if own.columns is not None:
        table = _chosen(table, own.columns, f"{styling.where}: tables.{table.kind}.columns", whole=whole)
    columns = [_column(column, names) for column in table.columns]
    sections = [[[value.renamed(names) for value in row] for row in section] for section in table.sections]
    if decimals is not None:
        sections = [[[value.rounded(decimals) for value in row] for row in section] for section in sections]
    short = {row[0].of: name for row in table.rows if (name := (styling.short or {}).get(row[0].of))}
    title = renamed(table.title, names)
    return replace(
        table,
        title=title if own.caption is None else own.caption.replace(TITLE, title),
        columns=columns,
        sections=sections,
        notes=[*(renamed(note, names) for note in table.notes), *explained(short)],
    )


def _column(column: Column, names: Mapping[str, str]) -> Column:
    name = names.get(column.of)
    return replace(column, title=column.title.replace(column.of, name, 1)) if name else column


def _chosen(table: Table, keys: Sequence[str], where: str, *, whole: bool) -> Table:
    """The table with these columns alone (`whole`: first), in this order; the one that names the rows stays."""
    place = {column.key: number for number, column in enumerate(table.columns)}
    for key in keys:
        if key not in place:
            raise UnknownName("column", key, place, where=where)
    wanted = [place[key] for key in dict.fromkeys([table.columns[0].key, *keys])]
    others = [i for i in range(len(table.columns)) if i not in wanted]
    if whole:
        columns = [replace(column, wide=i in others) for i, column in enumerate(table.columns)]
        return replace(table, columns=columns).of_columns([*wanted, *others])
    found = table.of_columns(wanted)
    kept = [[row for row in section if any(value.text for value in row[1:])] for section in found.sections]
    hidden = [table.columns[i].title for i in others]
    return replace(
        found,
        columns=[replace(column, wide=False, paper=True) for column in found.columns],
        sections=[section for section in kept if section],
        notes=[note for note in (_without(note, hidden) for note in table.notes) if note],
    )


_DEFINITION = re.compile(r"(?:^|(?<=[.;] ))(?=[\w Δ]{1,12}: )")
"""Where a note begins to say what a column is."""


def _without(note: str, titles: Sequence[str]) -> str:
    """The note without what it says of the columns of these titles."""
    parts = [
        part
        for part in _DEFINITION.split(note)
        if not any(f"{title} ".startswith(f"{part.partition(':')[0]} ") for title in titles if ": " in part)
    ]
    shown = "".join(parts).strip()
    return f"{shown[:-1]}." if shown.endswith(";") else shown

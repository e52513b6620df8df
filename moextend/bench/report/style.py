"""How tables look: columns, precision, names and order of methods, captions (`report.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from moextend.bench import methods
from moextend.bench.methods import TITLES
from moextend.bench.report.collect import Experiment, Result
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
    tasks: dict[str, str | None] = Field(default_factory=dict)
    """Task -> the name that tables show; null: its own. The order is that of the sequence."""
    precision: Decimals | None = None
    """Decimals of scores; null: one. CSV holds unrounded numbers."""
    tables: dict[str, TableStyle] = Field(default_factory=dict)
    """View -> what differs in its tables; also orders (spread over seeds and orders, below the summary and the
    comparison), sequences (what holds over several, below the comparison), kinds (scores by kind of question, below
    the readings) and published (`--references`)."""

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

    def with_all_columns(self) -> Styling:
        """The same for the page, which has all columns of a table."""
        tables = {kind: one.model_copy(update={"columns": None}) for kind, one in self.style.tables.items()}
        return replace(self, style=self.style.model_copy(update={"tables": tables}))

    def arranged(self, experiments: Sequence[Experiment]) -> list[Experiment]:
        """The experiments with their runs in the style's order.

        Raises:
            UnknownName: the style names a task or method that does not exist.
            InputError: it gives a name that is another's.
        """
        self._check_names(experiments)
        place = {method: number for number, method in enumerate(self.style.methods)}

        def of(result: Result) -> int:
            return place.get(result.config.method, len(place))

        return [replace(each, results=sorted(each.results, key=of)) for each in experiments]

    def _check_names(self, experiments: Sequence[Experiment]) -> None:
        configs = [result.config for experiment in experiments for result in experiment.results]
        ran = dict.fromkeys(config.method for config in configs)
        tasks = dict.fromkeys(task for config in configs for task in config.tasks)
        for method in self.style.methods if configs else ():  # one that has not run yet must be one that can
            if method not in ran:
                methods.parse(method, workspace=self.workspace, where=f"{self.where}: methods")
        for task in self.style.tasks if configs else ():
            if task not in tasks:
                content.find("tasks", task, self.workspace, where=f"{self.where}: tasks")
        own = {
            name.casefold(): name
            for name in (*methods.KNOWN.names(self.workspace), *methods.BOUNDS, MAJORITY)
        }
        for names, others in (({**ran, **self.style.methods}, own), ({**tasks, **self.style.tasks}, {})):
            taken: dict[str, str] = {}
            for key, name in names.items():
                shown = " ".join((name or key).split())
                first = taken.setdefault(shown, key)
                other = others.get(shown.partition(":")[0].casefold(), key)
                if first != key or other not in (key, key.partition(":")[0]):
                    raise InputError(
                        f"'{key}' would be shown as '{shown}', the name of '{first if first != key else other}'.",
                        where=self.where,
                        hint="Give each its own name.",
                    )

    def shown(self, text: str) -> str:
        """A text with the names that the style gives to methods and tasks."""
        return renamed(text, self.names)

    def styled(self, tables: Sequence[Table]) -> list[Table]:
        """The tables as the style has them; UnknownName if it names a column that a table does not have."""
        return [_styled(table, self) for table in tables]


def find_style(path: Path | None, workspace: Path) -> Styling:
    """The style in a file, or in the workspace's `report.yaml` where there is one.

    Raises:
        InputError: no such file.  SpecError: a key or value is wrong; says which.
    """
    found = path or workspace / FILE
    default = path is None and not files.exists(found)
    return Styling(ReportStyle() if default else spec.read(ReportStyle, found), str(found), workspace)


def _styled(table: Table, styling: Styling) -> Table:
    style, names = styling.style, styling.names
    own = style.tables.get(table.kind, TableStyle())
    if own.columns is not None:
        table = _chosen(table, own.columns, f"{styling.where}: tables.{table.kind}.columns")
    sections = [[[value.renamed(names) for value in row] for row in section] for section in table.sections]
    if style.precision is not None:
        decimals = style.precision
        sections = [
            [[replace(value, decimals=decimals) for value in row] for row in part] for part in sections
        ]
    short = {row[0].of: name for row in table.rows if (name := (styling.short or {}).get(row[0].of))}
    title = renamed(table.title, names)
    return replace(
        table,
        title=title if own.caption is None else own.caption.replace(TITLE, title),
        columns=[_column(column, names) for column in table.columns],
        sections=sections,
        notes=[*(renamed(note, names) for note in table.notes), *explained(short)],
    )


def _column(column: Column, names: Mapping[str, str]) -> Column:
    name = names.get(column.of)
    return replace(column, title=column.title.replace(column.of, name, 1)) if name else column


def _chosen(table: Table, keys: Sequence[str], where: str) -> Table:
    """The table with these columns alone, in this order; the one that names the rows stays."""
    place = {column.key: number for number, column in enumerate(table.columns)}
    for key in keys:
        if key not in place:
            raise UnknownName("column", key, place, where=where)
    found = table.of_columns(place[key] for key in dict.fromkeys([table.columns[0].key, *keys]))
    kept = [[row for row in section if any(value.text for value in row[1:])] for section in found.sections]
    columns = [replace(column, wide=False, paper=True) for column in found.columns]
    return replace(found, columns=columns, sections=[section for section in kept if section])

"""Marks where the settings of each method come from: a method tuned on test items is not comparable with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from moextend.bench import methods
from moextend.bench.report.collect import Experiment, Result
from moextend.bench.report.table import Column, Table, Value, text
from moextend.bench.tuned import NO_SETTINGS, TEST, VALIDATION

ON_TEST = "‡"
"""Stands behind a method whose settings were chosen on test items."""
NOT_STATED = "not stated"
_RANK = [TEST, NOT_STATED, "nothing", "default", "published", VALIDATION, NO_SETTINGS]
"""Sources, the least favourable first."""


def source(result: Result) -> str:
    """Source of the settings of a run."""
    if methods.role_of(result.config.method) == "base":
        return NO_SETTINGS
    return result.config.tuned_on or NOT_STATED


def sources(experiments: Sequence[Experiment]) -> dict[str, str]:
    """Method -> source of its settings, of its runs the least favourable; empty if no run states one."""
    found: dict[str, str] = {}
    for result in (result for experiment in experiments for result in experiment.results):
        own, method = source(result), result.config.method
        found[method] = min(own, found.get(method, own), key=_rank)
    stated = {*found.values()} - {NOT_STATED, NO_SETTINGS}
    return found if stated else {}


def with_sources(experiments: Sequence[Experiment], table: Table) -> Table:
    """The table with marked methods, the source of their settings as a wide column, and a note."""
    known = sources(experiments)
    if not _named(table, known):
        return noted(experiments, table)
    column = Column("settings_source", "settings from", numeric=False, wide=True)
    sections = [
        [[_marked(row[0], known), *row[1:], text(known.get(row[0].of, ""))] for row in section]
        for section in table.sections
    ]
    return replace(noted(experiments, table), columns=[*table.columns, column], sections=sections)


def noted(experiments: Sequence[Experiment], table: Table) -> Table:
    """The table with a note on the source of the settings of its methods; of all methods if its rows name none."""
    known = sources(experiments)
    named = _named(table, known)
    note = source_note({method: own for method, own in known.items() if method in named or not named})
    return replace(table, notes=[*table.notes, note]) if note else table


def _named(table: Table, known: Mapping[str, str]) -> set[str]:
    """Methods that rows of the table are of."""
    return {row[0].of for section in table.sections for row in section if row and row[0].of in known}


def source_note(known: Mapping[str, str]) -> str:
    """ "Settings: ‡ tuned on test items: full-ft; default: lora."; "" if no method has settings."""
    parts = [f"{words}: {', '.join(methods)}" for words, methods in by_source(known).items()]
    return f"Settings: {'; '.join(parts)}." if parts else ""


def by_source(known: Mapping[str, str]) -> dict[str, list[str]]:
    """Source in words -> the methods whose settings it is of, the least favourable first."""
    stated = sorted({*known.values()} - {NO_SETTINGS}, key=lambda source: (_rank(source), source))
    return {_worded(source): [method for method, own in known.items() if own == source] for source in stated}


def _worded(source: str) -> str:
    """A source as a note names it."""
    if source == TEST:
        return f"{ON_TEST} tuned on {source}"
    if source == "nothing":
        return "not tuned"
    return f"tuned on {source}" if source.startswith(VALIDATION) else source


def _rank(source: str) -> tuple[int, bool]:
    """Its place; what was tuned on another sequence stands before what was tuned on this one."""
    return _RANK.index(VALIDATION if source.startswith(VALIDATION) else source), source == VALIDATION


def _marked(value: Value, known: Mapping[str, str]) -> Value:
    return value.marked(ON_TEST) if known.get(value.of) == TEST else value

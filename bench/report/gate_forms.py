"""The verdicts of the gate as a table, as JSON, and as JUnit XML for CI systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from moextend.bench.report.gate import Check, Gate
from moextend.bench.report.table import Column, Table, Value, count, number, over_runs, p_value, text
from moextend.errors import counted

COLUMNS = [
    Column("method", "method", numeric=False),
    Column("stage", "stage", spread=""),
    Column("learned", "learned", numeric=False, wide=True),
    Column("task", "task", numeric=False),
    Column("before", "reference", spread=""),
    Column("after", "score", spread=""),
    Column("difference", "diff."),
    Column("low", "at least", spread=""),
    Column("verdict", "verdict", numeric=False),
    Column("needs", "needs", numeric=False),
    Column("p_kept", "p of kept", spread="", wide=True),
    Column("p_lost", "p of lost", spread="", wide=True),
    Column("items", "items", spread="", wide=True),
    Column("items_needed", "items needed", spread="", wide=True),
    Column("seeds", "seeds", spread="", wide=True),
]


def gate_table(found: Gate) -> Table:
    """The verdicts as a table, a section a method."""
    sections: dict[str, list[list[Value]]] = {}
    for check in found.checks:
        sections.setdefault(check.method, []).append(_row(check))
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found.counts.items() if count)
    counts += f"; {counted(len(found.left_out), 'run')} not tested" if found.left_out else ""
    title = f"{found.label}: {found.verdict} ({counts})"
    return Table(f"{found.label}-gate", title, COLUMNS, list(sections.values()), found.notes, kind="gate")


def _row(check: Check) -> list[Value]:
    cells = {
        "method": text(check.method),
        "stage": count(check.stage),
        "learned": text(check.stage_name),
        "task": text(check.task),
        "before": number(check.before),
        "after": number(check.after),
        "difference": over_runs(check.values, signed=True),
        "low": number(check.low, signed=True),
        "verdict": text(check.verdict, "" if check.verdict == "kept" else "bold"),
        "needs": text(check.needs),
        "p_kept": p_value(check.p_kept),
        "p_lost": p_value(check.p_lost),
        "items": count(check.items),
        "items_needed": count(check.items_needed),
        "seeds": count(check.seeds),
    }
    return [cells[column.key] for column in COLUMNS]


def as_json(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    """The verdicts for machines: one record per experiment, one per cell in it."""
    return [
        {
            "sequence": found.experiment,
            "variant": found.variant,
            "baseline": found.baseline,
            "margin": found.margin,
            "verdict": found.verdict,
            "counts": found.counts,
            "left_out": found.left_out,
            "cells": [_record(check) for check in found.checks],
        }
        for found in gates
    ]


def _record(check: Check) -> dict[str, Any]:
    names = (
        "method",
        "stage",
        "task",
        "before",
        "after",
        "verdict",
        "low",
        "p_kept",
        "p_lost",
        "items",
        "items_needed",
    )
    return {
        **{name: getattr(check, name) for name in names},
        "difference": check.difference,
        "seeds": check.seeds,
        "unchanged": check.unchanged,
        "lacks": check.lacks,
    }


def junit(gates: Sequence[Gate]) -> str:
    """The verdicts as JUnit XML, which CI systems read: a suite a method, a failure where something is lost.

    An undecided cell is an error, and so is a run that is not tested, so that no system counts it as passed.
    """
    root = ElementTree.Element("testsuites")
    for found in gates:
        for method in dict.fromkeys(check.method for check in found.checks):
            checks = [check for check in found.checks if check.method == method]
            suite = ElementTree.SubElement(
                root, "testsuite", name=_xml_text(f"{found.label} {method}"), tests=str(len(checks)),
                failures=str(sum(check.verdict == "lost" for check in checks)),
                errors=str(sum(check.verdict == "cannot tell" for check in checks)),
            )  # fmt: skip
            for check in checks:
                _add_case(suite, found, check)
        if found.left_out:
            many = str(len(found.left_out))
            suite = ElementTree.SubElement(
                root, "testsuite", name=_xml_text(f"{found.label} left out"), tests=many, failures="0", errors=many
            )  # fmt: skip
            for name in found.left_out:
                case = ElementTree.SubElement(
                    suite, "testcase", classname=_xml_text(found.label), name=_xml_text(name)
                )
                ElementTree.SubElement(case, "error", message="not tested", type="cannot tell")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_case(suite: ElementTree.Element, found: Gate, check: Check) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_xml_text(f"{found.label}.{check.method}"),
        name=_xml_text(f"stage {check.stage} {check.stage_name}: {check.task}"),
    )
    if check.verdict != "kept":
        low = "" if check.low is None else f", at least {check.low:+.1f}"
        change = (
            f"{check.before:.1f} -> {check.after:.1f} ({check.difference:+.1f}{low}) " if check.values else ""
        )
        message = f"{check.verdict}: {change}{'needs ' * bool(check.lacks)}{check.needs}"
        kind = "failure" if check.verdict == "lost" else "error"
        ElementTree.SubElement(case, kind, message=message.strip(), type=check.verdict)


def _xml_text(value: str) -> str:
    """The text without characters that XML 1.0 cannot hold."""
    return "".join(
        c for c in value if c in "\t\n\r" or (c >= " " and not 0xD800 <= ord(c) <= 0xDFFF and ord(c) < 0xFFFE)
    )

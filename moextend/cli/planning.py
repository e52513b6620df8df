"""Commands that look ahead, before runs are made: power and audit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer import Argument, Option

from moextend.bench.audit.base import base_row
from moextend.bench.audit.tasks import audit as audited
from moextend.bench.report.formats.terminal import print_tables
from moextend.bench.report.table import NARROW
from moextend.bench.report.views import audit as forms
from moextend.bench.report.views import power as planning
from moextend.bench.run.plan import Request
from moextend.bench.sequence import scored_tasks, stage_tasks
from moextend.cli import options
from moextend.cli.output import output
from moextend.cli.reports import chosen_experiments
from moextend.errors import InputError

MOST_ITEMS = 10**9
MOST_SEEDS = 1000


def power(
    names: Annotated[
        list[str], Argument(metavar="RUN...", help="The pilot: sequences or runs, names or folders.")
    ],
    methods: Annotated[
        list[str] | None,
        Option("--method", "-m", metavar="METHOD", help="Method to compare; repeatable. Default: all."),
    ] = None,
    baseline: Annotated[
        str | None,
        Option(metavar="METHOD", help="What methods are compared with. Default: moextend, else zero-shot."),
    ] = None,
    margin: Annotated[
        float | None, Option(metavar="POINTS", help="Plan the gate instead: each method against this loss.")
    ] = None,
    effect: Annotated[
        float | None,
        Option(metavar="POINTS", help="True difference to find. Default: 2, or 0 (no change) with --margin."),
    ] = None,
    wanted: Annotated[float, Option("--power", help="Probability with which it should be found.")] = 0.8,
    seeds: Annotated[
        list[str] | None,
        Option("--seeds", metavar="N,N", help="Numbers of seeds. Default: the pilot's, 2, 3, 5, 10 and 20."),
    ] = None,
    items: Annotated[
        int | None, Option(min=2, max=MOST_ITEMS, help="Items per task. Default: the pilot's.")
    ] = None,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Plan the seeds and items that a difference needs to be found, from the variances of pilot runs.

    The tests are those of the report at a level of 5%, of ACC and BWT, in one order and in as many as the pilot has.
    """
    _check(effect, wanted, margin, baseline)
    if effect is None:
        effect = 2.0 if margin is None else 0.0
    asked = planning.Wanted(effect, wanted, seeds=_sizes(seeds), items=items)
    chosen = options.methods(methods or [])
    experiments = chosen_experiments(names, workspace)
    found = [
        planning.plan(each, asked, methods=chosen, baseline=baseline)
        if margin is None
        else planning.plan_gate(each, asked, margin, methods=chosen)
        for each in experiments
    ]
    if as_json:
        typer.echo(json.dumps(planning.as_json(found), indent=2))
    else:
        print_tables([table for each in found for table in planning.power_tables(each)], *output())


def audit(
    name: options.Name = None,
    base: Annotated[
        bool | None,
        Option(
            "--base/--no-base", help="Let the base answer what no run has. Default: only the package's tiny."
        ),
    ] = None,
    effect: Annotated[
        float, Option(metavar="POINTS", help="Difference that each task should be able to show.")
    ] = 5.0,
    strict: Annotated[
        bool, Option("--strict", help="Exit code 1 if a task exceeds a limit or is not audited.")
    ] = False,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
) -> None:
    """Check before training what the tasks can measure: headroom, duplicates, answers without media, too few items."""
    _check_points(effect)
    sequence, *_ = Request(workspace, name).read
    tasks = [*stage_tasks(sequence, workspace), *scored_tasks(sequence, workspace)]
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    row = base_row(sequence, workspace, workspace / "runs", answer=base, console=progress)
    found = audited(
        sequence.sequence, tasks, workspace, row, effect=effect, scored=sequence.scoring.limit,
        on_task=lambda task: progress.print(f"auditing {task}", markup=False),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(forms.as_json(found), indent=2))
    else:
        console, width = output()
        print_tables([forms.audit_table(found)], console, width or NARROW)
    if strict and not (found.sound and found.complete):
        raise typer.Exit(1)


def _check(effect: float | None, power: float, margin: float | None, baseline: str | None) -> None:
    """Raises InputError for a number outside its range, or an option that the test has no use for."""
    if not 0.05 < power < 1:
        what = f"{power:g} is not above 0.05, the level of the tests, and below 1."
        raise InputError(what, where="--power", hint="Example: --power 0.8.")
    if margin is not None:
        options.refuse_with("--margin", ["--baseline"] if baseline else [])
        if effect is not None and not (math.isfinite(effect) and -margin < effect <= 100):
            what = f"{effect:g} is a loss of at least the margin, which the gate never reports as kept."
            raise InputError(what, where="--effect", hint=f"Give a change above -{margin:g}.")
    elif effect is not None:
        _check_points(effect)


def _check_points(effect: float) -> None:
    if not (0 < effect <= 100):
        what = f"{effect:g} is not a difference in points."
        raise InputError(what, where="--effect", hint="Give points, above 0 and at most 100.")


def _sizes(values: list[str] | None) -> Sequence[int]:
    found = options.numbers(values or [], "--seeds")
    for number in found:
        if not 2 <= number <= MOST_SEEDS:
            raise InputError(f"{number} is out of range.", where="--seeds", hint=f"From 2 to {MOST_SEEDS}.")
    return sorted(found)

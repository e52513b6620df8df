"""Commands that look ahead, before runs are made: power and audit."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from moextend.cli import options
from moextend.cli.output import output
from moextend.cli.reports import chosen_experiments
from moextend.errors import InputError

MOST_ITEMS = 10**9
MOST_RUNS = 1000
"""Seeds, orders or tests that can be planned."""


def power(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="The pilot: sequences or runs, names or folders.")
    ],
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", metavar="METHOD", help="Method to compare; repeatable. Default: all."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="METHOD",
            help="What methods are compared with. Default: moextend with its default settings."
            " Else its first variant, else zero-shot.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="POINTS",
            help="Plan the gate instead: each method against this loss, task by task.",
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="METRIC", help="la, acc, bwt, fm or fwt; repeatable. Default: acc and bwt."
        ),
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(
            "--effect",
            metavar="POINTS",
            help="True difference to find. Default: 2, or 0 (no change) with --margin.",
        ),
    ] = None,
    wanted: Annotated[
        float, typer.Option("--power", help="Probability with which it should be found.")
    ] = 0.8,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Significance level of all tests together; the report's is 0.05.")
    ] = 0.05,
    tests: Annotated[
        int | None,
        typer.Option(
            "--tests", min=1, max=MOST_RUNS, help="Tests in the family. Default: those of the pilot."
        ),
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(
            "--seeds", metavar="N,N", help="Numbers of seeds. Default: the pilot's, 2, 3, 5, 10 and 20."
        ),
    ] = None,
    orders: Annotated[
        list[str] | None,
        typer.Option("--orders", metavar="N,N", help="Numbers of orders. Default: 1 and the pilot's."),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option("--items", min=2, max=MOST_ITEMS, help="Items per task. Default: those of the pilot."),
    ] = None,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Plan the seeds, orders and items that a difference needs to be found, from the variances of pilot runs."""
    from moextend.bench.report.formats.terminal import print_tables
    from moextend.bench.report.views import power as planning

    _check(effect, wanted, alpha, margin, baseline, metric)
    asked = planning.Wanted(
        effect if effect is not None else 2.0 if margin is None else 0.0,
        wanted,
        alpha,
        tests,
        _sizes(seeds, "--seeds", 2),
        _sizes(orders, "--orders", 1),
        items,
    )
    chosen = options.methods(methods or [])
    metrics = _metrics(metric)
    experiments = chosen_experiments(names, runs, workspace)
    found = [
        planning.plan(each, asked, methods=chosen, baseline=baseline, names=metrics)
        if margin is None
        else planning.plan_gate(each, asked, margin, methods=chosen)
        for each in experiments
    ]
    if as_json:
        typer.echo(json.dumps(planning.as_json(found), indent=2))
    else:
        print_tables([table for each in found for table in planning.power_tables(each)], *output())


def audit(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="SEQUENCE", help="Name of the sequence. Default: the workspace's own, else tiny."
        ),
    ] = None,
    base: Annotated[
        bool | None,
        typer.Option(
            "--base/--no-base",
            help="Let the base answer if no stored run has its answers. Default: only for the package's tiny base.",
        ),
    ] = None,
    effect: Annotated[
        float,
        typer.Option("--effect", metavar="POINTS", help="Difference that each task should be able to show."),
    ] = 5.0,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", min=2, max=MOST_ITEMS, metavar="N", help="Maximum number of items read per split."
        ),
    ] = 50_000,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 if a task exceeds a limit or is not audited.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the audit only.")] = False,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Check before training what the tasks can measure: headroom, duplicates, answers without media, too few items."""
    from rich.console import Console

    from moextend.bench.audit.base import base_row
    from moextend.bench.audit.tasks import audit as audited
    from moextend.bench.report.formats.terminal import print_tables
    from moextend.bench.report.table import NARROW
    from moextend.bench.report.views import audit as forms
    from moextend.bench.run.plan import Request, chosen_sequence
    from moextend.bench.sequence import scored_tasks, stage_tasks

    if not (0 < effect <= 100):
        raise InputError(
            f"{effect:g} is not a difference in points.",
            where="--effect",
            hint="Give points, above 0 and at most 100.",
        )
    sequence = chosen_sequence(Request(workspace, name))
    tasks = [*stage_tasks(sequence, workspace), *scored_tasks(sequence, workspace)]
    progress = Console(stderr=True, quiet=quiet or as_json, highlight=False, soft_wrap=True)
    row = base_row(sequence, workspace, options.runs_folder(runs, workspace), answer=base, console=progress)
    found = audited(
        sequence.sequence, tasks, workspace, row, effect=effect, limit=limit, scored=sequence.scoring.limit,
        on_task=lambda task: progress.print(f"auditing {task}", markup=False),
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(forms.as_json(found), indent=2))
    else:
        console, width = output()
        print_tables([forms.audit_table(found)], console, width or NARROW)
    if strict and not (found.sound and found.complete):
        raise typer.Exit(1)


def _check(
    effect: float | None,
    power: float,
    alpha: float,
    margin: float | None,
    baseline: str | None,
    metric: list[str] | None,
) -> None:
    """Raises InputError for a number outside its range, or an option that the test has no use for."""
    for name, value, example in (("--power", power, "0.8"), ("--alpha", alpha, "0.05")):
        if not 0 < value < 1:
            raise InputError(
                f"{value:g} is not between 0 and 1.", where=name, hint=f"Example: {name} {example}."
            )
    if power <= alpha:
        raise InputError("must be above --alpha.", where="--power", hint="Example: --power 0.8 --alpha 0.05.")
    if margin is None:
        if effect is not None and not (0 < effect <= 100):
            raise InputError(
                f"{effect:g} is not a difference in points.",
                where="--effect",
                hint="Give points, above 0 and at most 100.",
            )
        return
    options.refuse_with(
        "--margin", [name for name, given in (("--baseline", baseline), ("--metric", metric)) if given]
    )
    if effect is not None and not (math.isfinite(effect) and -margin < effect <= 100):
        raise InputError(
            f"{effect:g} is a loss of at least the margin, which the gate never reports as kept.",
            where="--effect",
            hint=f"Give the true change in points, above -{margin:g}.",
        )


def _metrics(names: list[str] | None) -> list[str]:
    from moextend.bench.report.views.comparison import METRICS
    from moextend.util import lookup

    found = options.words(names or ["acc", "bwt"], "--metric")
    return [lookup.choose("metric", name.lower(), METRICS, where="--metric") for name in found]


def _sizes(values: list[str] | None, option: str, least: int) -> Sequence[int]:
    found = options.numbers(values or [], option)
    for number in found:
        if not least <= number <= MOST_RUNS:
            raise InputError(f"{number} is out of range.", where=option, hint=f"From {least} to {MOST_RUNS}.")
    return sorted(found)

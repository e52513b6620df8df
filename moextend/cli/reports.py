"""Commands about what runs have found: report, explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moextend.cli import options, report_output
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend.bench.report import View
    from moextend.bench.report.collect import Experiment

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="RUN...", help="Runs or sequences: names or folders. Default: all."),
]
Style = Annotated[
    Path | None,
    typer.Option(
        "--style",
        metavar="FILE",
        help="YAML with columns, precision, names and captions. Default: report.yaml of the workspace.",
    ),
]
Unfinished = Annotated[bool, typer.Option("--unfinished", help="Include unfinished runs, and mark them.")]


def chosen_experiments(
    names: list[str] | None, runs: Path | None, workspace: Path, *, unfinished: bool = False
) -> list[Experiment]:
    """What the named runs found; InputError if there is none of that name, or none with a result."""
    from moextend.bench.report.collect import collect, some
    from moextend.bench.run.rundir import find_runs

    found = find_runs(options.runs_folder(runs, workspace), names or [])
    return some(collect(found, unfinished=unfinished))


def report(
    names: Names = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="Final score on each task.")] = False,
    text: Annotated[
        bool, typer.Option("--text", help="Final score on each text task, below that of the base.")
    ] = False,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer", help="Final score on each task that is never learned, below that of the base."
        ),
    ] = False,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Methods that ran with several settings, side by side.")
    ] = False,
    matrix: Annotated[bool, typer.Option("--matrix", help="The accuracy matrix of every run.")] = False,
    costs: Annotated[
        bool, typer.Option("--costs", help="Costs of each method, and which of them are not matched.")
    ] = False,
    routing: Annotated[
        bool, typer.Option("--routing", help="Which new experts each task reaches, and how routing drifts.")
    ] = False,
    readings: Annotated[
        bool,
        typer.Option(
            "--readings",
            help="Scores of strict and normalised answers, and of older scorers; scores by kind of question.",
        ),
    ] = False,
    rewind: Annotated[
        bool,
        typer.Option(
            "--rewind", help="Gain against forgetting, with the learned change scaled (bench run --rewind)."
        ),
    ] = False,
    subsets: Annotated[
        bool,
        typer.Option(
            "--subsets", help="Which stages help or hurt which tasks: stages left out (bench run --subsets)."
        ),
    ] = False,
    budgets: Annotated[
        bool,
        typer.Option(
            "--budgets",
            help="Cost of each method to reach the same accuracy, from runs with several --steps.",
        ),
    ] = False,
    accuracy: Annotated[
        float | None,
        typer.Option(
            "--accuracy",
            metavar="PERCENT",
            help="With --budgets: the accuracy to reach. Default: the highest that every method reaches.",
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="METHOD",
            help="Compare every method with this one, with tests; zero-shot is the base.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="POINTS",
            help="With --baseline: differences within this margin count as equivalent. Default: 1.",
        ),
    ] = None,
    references: Annotated[
        list[str] | None,
        typer.Option(
            "--references",
            metavar="NAME",
            help="Published numbers of the same protocol, shown below the table; repeatable.",
        ),
    ] = None,
    items: Annotated[
        bool,
        typer.Option(
            "--items", help="The results of single items, one row per answer: csv, parquet or json."
        ),
    ] = False,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="table, markdown, latex, csv or html (a page with the results of every item; plain "
            "tables with --matrix, --costs, --routing, --readings, --rewind and --subsets); with --items "
            "csv, parquet or json.",
        ),
    ] = "table",
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="A file, or a folder for one file per table.")
    ] = None,
    style: Style = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="DIR", help="Write the page as a folder, for many items and images."
        ),
    ] = None,
    unfinished: Unfinished = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Print what each method learned and forgot: one row per method."""
    from moextend.bench.report.collect import collect, some
    from moextend.bench.report.comparison import with_baseline
    from moextend.bench.report.published import read_references
    from moextend.bench.report.style import find_style
    from moextend.bench.run.rundir import find_runs
    from moextend.util import files

    compared = baseline is not None and not budgets
    more: dict[View, bool] = {
        "tasks": tasks, "text": text, "transfer": transfer, "ablations": ablations, "routing": routing,
        "readings": readings, "rewind": rewind, "subsets": subsets, "budgets": budgets,
    }  # fmt: skip
    views = [f"--{name}" for name, given in {**more, "matrix": matrix, "costs": costs}.items() if given]
    if items:
        others = {"--baseline": baseline, "--margin": margin, "--references": references, "--bundle": bundle}
        others |= {"--style": style}
        options.refuse_with("--items", [*views, *(name for name, given in others.items() if given)])
        found = find_runs(options.runs_folder(runs, workspace), names or [])
        report_output.write_items(found, form, to, unfinished=unfinished)
        return
    _check_form(form, bundle, views, to)
    view = options.view(matrix=matrix, costs=costs, **more, comparison=compared)
    styling, points = find_style(style, workspace), _margin(margin, baseline if compared else None)
    wanted = _accuracy(accuracy, budgets=budgets)
    if to is not None:
        files.check_writable(to.parent if to.suffix else to, where="--out")
    published = read_references(options.words(references or [], "--references"), workspace)
    found = find_runs(options.runs_folder(runs, workspace), names or [])
    # Published numbers can be looked at before anything has run.
    experiments = some(collect(found, unfinished=unfinished)) if found or not published else []
    arranged = styling.arranged(experiments)
    if compared and baseline is not None and arranged:
        arranged = with_baseline(arranged, baseline)
    how = report_output.How(styling, baseline, points, published, wanted)
    is_page = bundle is not None or (form == "html" and not views and (to is None or bool(to.suffix)))
    if experiments and is_page:
        report_output.write_page(experiments, to, bundle, how, workspace)
        return
    if to is None:
        report_output.print_tables(experiments, how, form, view)
    else:
        asked: list[View] = [name for name, given in more.items() if given]
        asked += ["comparison"] if compared else []
        report_output.write_tables(experiments, to, form, view, asked, how)
    if form == "csv":  # after the tables, which find what is damaged
        report_output.name_left_out(arranged)


def _margin(points: float | None, baseline: str | None) -> float:
    """What counts as no difference, in points; InputError if it is outside its range, or counts for nothing."""
    if points is None:
        return 1.0
    from moextend.bench.report.comparison import check_margin

    check_margin(points)
    if baseline is None:
        raise InputError("requires --baseline.", where="--margin", hint="Add --baseline METHOD.")
    return points


def _accuracy(percent: float | None, *, budgets: bool) -> float | None:
    """The accuracy of --budgets; InputError if it is no percentage, or counts for nothing."""
    if percent is None:
        return None
    if not 0 <= percent <= 100:
        raise InputError(
            f"{percent} is not a percentage.", where="--accuracy", hint="Give a number from 0 to 100."
        )
    options.refuse_except_with("--budgets", {} if budgets else {"--accuracy": True})
    return percent


def _check_form(form: str, bundle: Path | None, views: list[str], to: Path | None) -> None:
    """Checks the format of tables or of the page before results are read."""
    from moextend.bench.report import FORMATS
    from moextend.util import files, lookup

    if form in ("json", "parquet"):
        raise InputError(
            f"no table is written as {form}.",
            where="--format",
            hint="Add --items for the results themselves.",
        )
    lookup.choose("format", form, FORMATS, where="--format")
    if bundle is not None:
        others = {"--out": to, "--format": form not in ("table", "html")}
        options.refuse_with("--bundle", [*views, *(name for name, given in others.items() if given)])
        files.check_writable(bundle, where="--bundle")


def explain(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run: name or folder.")],
    stage: Annotated[int, typer.Argument(metavar="STAGE", help="Number of the stage; 0 is the base.")],
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task that was scored.")],
    items: Annotated[
        int, typer.Option("--items", min=0, metavar="N", help="Number of answers to show, wrong ones first.")
    ] = 5,
    as_json: options.Json = False,
    workspace: options.Workspace = Path(),
    runs: options.Runs = None,
) -> None:
    """Show how one number of a table was computed, and check its files.

    Exit code 1: a check failed.
    """
    from moextend.bench.report import explain as explaining
    from moextend.bench.run.rundir import find_run

    found = find_run(options.runs_folder(runs, workspace), run, where="RUN")
    explanation = explaining.explain(found, stage, task)
    if as_json:
        typer.echo(json.dumps(explanation.record(), indent=2))
    else:
        options.echo(explaining.text(explanation, items))
    if not explanation.sound:
        raise typer.Exit(1)

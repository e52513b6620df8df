"""The command `gate`: whether accuracy was lost, in the stages of runs, or with an extension in a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from moextend.bench.report import render
from moextend.bench.report.formats.terminal import print_tables
from moextend.bench.report.views import gate as forms
from moextend.bench.report.views.comparison import check_margin
from moextend.bench.run.preflight import check_scored
from moextend.bench.task import ALLOW_CODE, find_task
from moextend.cli import options
from moextend.cli.command import grouped
from moextend.cli.opening import ExtendedBase, Loaded, check_extensions, folders_of
from moextend.cli.options import Names
from moextend.cli.output import bar, output
from moextend.cli.reports import chosen_experiments, name_left_out
from moextend.errors import InputError

if TYPE_CHECKING:
    from moextend.bench.report.views.gate import Gate

LOST, UNDECIDED = 1, 3
"""Exit codes of the gate."""


@grouped
def gate(
    names: Names = None,
    baseline: Annotated[
        str,
        Option(
            metavar="METHOD_OR_RUN",
            help="What a cell is compared with: before (a learned task right after its own stage, every other task "
            "in the base), zero-shot (the base), or a method or run.",
        ),
    ] = "before",
    margin: Annotated[float, Option(metavar="POINTS", help="Smallest loss that counts, in points.")] = 1.0,
    extension: Loaded = None,
    base: Annotated[str | None, Option(help="With --extension: its base, which is the reference.")] = None,
    task: Annotated[
        list[str] | None, Option(help="With --extension: a task to score before and after; repeatable.")
    ] = None,
    limit: options.Limit = None,
    allow_code: options.AllowCode = False,
    device: options.Device = "auto",
    form: Annotated[
        Literal["table", "markdown", "csv", "json", "junit"], Option("--format", "-f", help="Format.")
    ] = "table",
    workspace: options.Workspace = Path(),
) -> None:
    """Test whether accuracy was lost: for every stage and task of runs, or with an extension in a folder.

    Exit code 0: everything is kept (a loss of --margin or more is excluded).
    1: something is lost. 3: the items or seeds are too few to tell, or a run
    is not tested.
    """
    check_margin(margin)
    if extension:
        alone = {"RUN": names, "--baseline": baseline != "before"}
        options.refuse_except_with("the gate of runs, without --extension", alone)
        if base is None or not task:
            hint = "An extension is tested on its --base, with one --task or more."
            raise InputError("is missing.", where="--task" if base else "--base", hint=hint)
        if allow_code:
            os.environ[ALLOW_CODE] = "1"
        asked = ExtendedBase(base=base, device=device)
        found = [_of_extension(asked, extension, task, margin, limit, workspace)]
    else:
        own = {"--base": base, "--task": task, "--limit": limit, "--allow-code": allow_code}
        options.refuse_except_with("an extension (--extension)", own)
        experiments = chosen_experiments(names, workspace)
        found = forms.gates(experiments, baseline, margin)
        if form in ("csv", "json", "junit"):  # which do not name them
            name_left_out(experiments)
            known = {name for experiment in experiments for name in experiment.left_out}
            for name in {name: 0 for each in found for name in each.left_out if name not in known}:
                options.echo(f"not tested: {name}", err=True)
    shown = [forms.gate_table(each) for each in found]
    if form == "json":
        typer.echo(json.dumps(forms.as_json(found), indent=2))
    elif form == "junit":
        typer.echo(forms.as_junit(found), nl=False)
    elif form != "table":
        typer.echo(render(shown, form), nl=False)
    else:
        print_tables(shown, *output())
    verdicts = {each.verdict for each in found}
    if verdicts != {"kept"}:
        raise typer.Exit(LOST if "lost" in verdicts else UNDECIDED)


def _of_extension(
    asked: ExtendedBase,
    extension: list[Path],
    names: list[str],
    margin: float,
    limit: int | None,
    workspace: Path,
) -> Gate:
    """The gate of the last of these extensions, on the base with the others."""
    from moextend.bench.report.gate_extension import gate_extension

    folders = folders_of(extension)
    brought = check_extensions(folders)
    base = asked.as_trained(folders[-1])
    encoders = base.check() | brought
    tasks = [find_task(name, workspace, where="--task") for name in dict.fromkeys(names)]
    for each in tasks:
        check_scored(each, encoders, workspace)
    return gate_extension(
        base.open_for(folders), folders, tasks, base=base.base, margin=margin, workspace=workspace, limit=limit,
        follow=bar,
    )  # fmt: skip

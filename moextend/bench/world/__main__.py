"""Commands of the generated world, which ``python -m moextend.bench.world --help`` lists."""

from __future__ import annotations

from typing import Annotated

import typer

import moextend
from moextend.util.entry import run_app

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback(help=__doc__)
def commands() -> None:
    """Makes the only command one with a name."""


@app.command()
def apart(
    data: Annotated[list[str], typer.Argument(help="Data sets of the generated world, one per stage.")],
    count: Annotated[int, typer.Option(help="Inputs of each stage.")] = 500,
) -> None:
    """Measure which stage scope auto assigns the inputs of each stage to.

    Example: apart rule-1-coloring@0 rule-2-coloring@0."""
    from moextend.bench.world.data import prompts
    from moextend.extension.task_inference import INPUTS, TaskInference, collect

    model, stages = moextend.load("tiny", vision="tiny"), list(dict.fromkeys(data))
    choose = TaskInference(model, {name: collect(model, prompts(name, "train", INPUTS)) for name in stages})
    typer.echo(f"| inputs of | none | {' | '.join(stages)} |")
    typer.echo(f"| :--- |{' ---: |' * (1 + len(stages))}")
    for name in stages:
        own = choose.shares(prompts(name, "test", count))
        typer.echo(f"| {name} | {' | '.join(f'{100 * own[key]:.1f}' for key in ('', *stages))} |")


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.world")

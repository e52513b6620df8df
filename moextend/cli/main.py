"""The `moextend` command."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from moextend.cli import bench, certifying, exporting, extending, library, pushing, serve_model
from moextend.cli.command import Command
from moextend.util.entry import run_app

FLAGS = {"help": False, "install_completion": False, "show_completion": False}
"""Values of flags that are not given: typer converts None by pydantic, whose import is a fifth of a help's time."""
app = typer.Typer(
    name="moextend",
    help="Measure what a Mixture-of-Experts language model gains and forgets when it is extended.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "default_map": {**FLAGS, "bench": FLAGS}},
)
app.add_typer(bench.app, name="bench")
for _function, _example in (
    (exporting.export, "moextend export facts --base tiny --as stock --out facts-moe"),
    (certifying.certify, "moextend certify facts --base tiny --data facts.json"),
    (pushing.push, "moextend push facts me/facts --dry-run"),
    (pushing.pull, "moextend pull me/facts --out facts"),
    (serve_model.serve, "moextend serve tiny -e facts"),
    (library.upcycle, "moextend upcycle smollm2 --experts 4 --top-k 2 --out models/smollm2-moe"),
    (library.align, "moextend align tiny --vision tiny --data captions.json --out projector"),
    (extending.extend, "moextend extend tiny --data facts.json --name facts --out facts"),
    (library.generate, 'moextend generate tiny --extension facts --prompt "anna lives in"'),
):
    app.command(_function.__name__, cls=Command, epilog=f"Example: {_example}")(_function)


@app.command(
    name="lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def lm_eval(context: typer.Context) -> None:
    """lm-eval's own command line, by default with `--model moextend`: any of its tasks on a trained extension."""
    from moextend.bench.bridges.lm_eval import main

    main(context.args)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(version("moextend"))
        except PackageNotFoundError:
            typer.echo("unknown (not installed)")
        raise typer.Exit


@app.callback(epilog="Example: moextend bench run")
def main(
    version: Annotated[
        bool, Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Measure what a Mixture-of-Experts language model gains and forgets when it is extended."""


def run() -> None:
    """Runs the command line; every error is one line and sets the exit code."""
    run_app(app, "moextend")

"""The `moextend` command: the library's commands, and those of `moextend bench` in the order of their use."""

from __future__ import annotations

from typing import Annotated, ClassVar

import typer
from typer import Option

from moextend.cli.command import Commands, Group
from moextend.util.entry import run_app

FLAGS = {"help": False, "install_completion": False, "show_completion": False}
"""Values of flags that are not given: typer converts None by pydantic, whose import is a fifth of a help's time."""
HELP = {"help_option_names": ["-h", "--help"]}
LIBRARY: Commands = {
    "export": ("exporting:export", "facts --base tiny --as stock --out facts-moe"),
    "certify": ("certifying:certify", "facts --base tiny --data facts.json"),
    "push": ("pushing:push", "facts me/facts --dry-run"),
    "pull": ("pushing:pull", "me/facts --out facts"),
    "serve": ("serve_model:serve", "tiny -e facts"),
    "upcycle": ("library:upcycle", "smollm2 --experts 4 --top-k 2 --out models/smollm2-moe"),
    "align": ("library:align", "tiny --vision tiny --data captions.json --out projector"),
    "extend": ("extending:extend", "tiny --data facts.json --name facts --out facts"),
    "generate": ("library:generate", 'tiny --extension facts --prompt "anna lives in"'),
}
"""Name of a command -> its function in a module of this package, and the arguments of its example."""
BENCH: dict[str, Commands] = {
    "Sequences and tasks": {
        "list": ("contents:list_all", "tiny-counting --example"),
        "new": ("contents:new", "method my-method"),
        "add-task": ("contents:add_task", "vqa --data my-data.jsonl --name my-task"),
        "audit": ("planning:audit", "tiny --strict"),
    },
    "Runs": {
        "run": ("runs:run", "--method lora --method moextend --seed 0,1,2"),
        "score": ("scoring:score", "tiny --name my-method --stage base --stage stage-1"),
        "tune": ("tuning:tune", "tiny --method lora --method moextend --budget 8"),
        "status": ("status:status", "tiny/lora-s0"),
        "cancel": ("status:cancel", "tiny/lora-s0"),
        "verify": ("sharing:verify", "tiny/lora-s0"),
    },
    "Results": {
        "report": ("reports:report", "--format latex --out tables/"),
        "explain": ("reports:explain", "tiny/lora-s0 3 tiny-attributes"),
        "gate": ("gating:gate", "tiny --margin 1"),
        "power": ("planning:power", "tiny --method lora --effect 3"),
        "figures": ("figures:figures", "tiny --out figures/"),
        "paper": ("figures:paper", "tiny --out paper/"),
        "serve": ("figures:serve", "--port 8899"),
    },
    "Exchange": {
        "pack": ("sharing:pack", "tiny --out tiny.tar.zst"),
        "unpack": ("sharing:unpack", "tiny.tar.zst"),
        "leaderboard": ("sharing:leaderboard", "packs/ --out site/"),
    },
}
"""Panel of the help -> its commands."""


class _Library(Group):
    prefix = "moextend"
    panels: ClassVar = {"Commands": LIBRARY}


class _Bench(Group):
    prefix = "moextend bench"
    panels: ClassVar = BENCH


app = typer.Typer(
    name="moextend",
    cls=_Library,
    help="Measure what a Mixture-of-Experts language model gains and forgets when it is extended.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={**HELP, "default_map": {**FLAGS, "bench": FLAGS}},
)
bench = typer.Typer(
    cls=_Bench,
    help="Train a sequence of extensions and measure forgetting.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)
app.add_typer(bench, name="bench")


@app.command(
    name="lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def lm_eval(context: typer.Context) -> None:
    """lm-eval's own command line, by default with `--model moextend`: any of its tasks on a trained extension."""
    from moextend.bench.bridge import main

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

"""`moextend bench`: the commands of the benchmark, in the order of their use."""

from __future__ import annotations

from collections.abc import Callable

import typer

from moextend.cli import contents, figures, gating, planning, reports, runs, sharing, status, tuning
from moextend.cli.command import Command

app = typer.Typer(
    help="Train a sequence of extensions and measure forgetting.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, dict[str, tuple[Callable[..., None], str]]] = {
    "Sequences and tasks": {
        "list": (contents.list_all, "moextend bench list"),
        "new": (contents.new, "moextend bench new method my-method"),
        "add-task": (contents.add_task, "moextend bench add-task vqa --data my-data.jsonl --name my-task"),
        "audit": (planning.audit, "moextend bench audit tiny --strict"),
    },
    "Runs": {
        "run": (runs.run, "moextend bench run --method lora --method moextend --seed 0,1,2"),
        "tune": (tuning.tune, "moextend bench tune tiny --method lora --method moextend --budget 8"),
        "status": (status.status, "moextend bench status tiny/lora-s0"),
        "cancel": (status.cancel, "moextend bench cancel tiny/lora-s0"),
        "verify": (sharing.verify, "moextend bench verify tiny/lora-s0"),
        "gc": (sharing.gc, "moextend bench gc --dry-run"),
    },
    "Results": {
        "report": (reports.report, "moextend bench report --format latex --out tables/"),
        "explain": (reports.explain, "moextend bench explain tiny/lora-s0 3 tiny-attributes"),
        "gate": (gating.gate, gating.EXAMPLE),
        "power": (planning.power, "moextend bench power tiny --method lora --effect 3"),
        "figures": (figures.figures, "moextend bench figures tiny --out figures/"),
        "paper": (figures.paper, "moextend bench paper tiny --out paper/"),
        "serve": (figures.serve, "moextend bench serve --port 8899"),
    },
    "Exchange": {
        "pack": (sharing.pack, "moextend bench pack tiny --out tiny.tar.zst"),
        "unpack": (sharing.unpack, "moextend bench unpack tiny.tar.zst"),
        "export": (sharing.export, "moextend bench export tiny --out results/"),
    },
}
"""Panel of the help -> name of a command -> function and example."""

for _panel, _commands in COMMANDS.items():
    for _name, (_function, _example) in _commands.items():
        app.command(_name, cls=Command, epilog=f"Example: {_example}", rich_help_panel=_panel)(_function)

"""Executes the runs of a command: on this machine, or through the executor that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer import Option

from moextend.bench.executors import submitting
from moextend.bench.executors.executor import Executor, Options, Resources, find, waits
from moextend.bench.run.launch import Outcome, cores
from moextend.bench.run.live import view
from moextend.bench.run.progress import CANCELLED, cancelled
from moextend.bench.run.rundir import RunConfig, RunDir, run_name
from moextend.bench.run.together import launched
from moextend.bench.score.served.client import Client, check_reachable
from moextend.bench.scoring import OPENAI, TRANSFORMERS, VLLM, Backend, Scoring
from moextend.cli import options
from moextend.errors import InputError, counted
from moextend.util import lookup

GO_ON = "interrupted; the same command continues where it stopped."
RESOURCES = ("cpus", "gpus", "memory_gb")


@dataclass(frozen=True)
class Execution:
    """Options for where runs are executed."""

    device: options.Device = "auto"
    jobs: Annotated[
        int | None,
        Option(
            min=1, max=1024, help="Number of parallel runs. Default: one per core for tiny, up to 4; else 1."
        ),
    ] = None
    executor: Annotated[
        str, Option("--executor", "-x", metavar="NAME", help="local, slurm, ray, or a plug-in.")
    ] = "local"
    executor_option: Annotated[
        list[str] | None,
        Option(
            "--executor-option", "-o", metavar="KEY=VALUE",
            help="cpus, gpus, memory_gb, setup, address, or the executor's own, e.g. partition=gpu; repeatable.",
        ),
    ] = None  # fmt: skip

    def chosen(self, configs: Sequence[RunConfig], runs: Path, workspace: Path) -> Chosen:
        """The executor of runs; InputError if it is unknown, or an option is wrong.

        Runs with `--device cuda` need a GPU, unless the options say otherwise.
        """
        executor = find(self.executor, workspace, where="--executor")
        option, example = "--executor-option", "partition=gpu; exclusive for a flag"
        passed = options.pairs(self.executor_option or (), option, example, several="setup")
        numbers: dict[str, Any] = {key: _number(key, passed.pop(key)) for key in RESOURCES if key in passed}
        if self.executor != "local" and self.device.startswith("cuda"):
            numbers.setdefault("gpus", 1)
        address, setup = passed.pop("address", ""), tuple(passed.pop("setup", "").splitlines())
        jobs = self.jobs or self._default_jobs(configs)
        return Chosen(
            self.executor, executor, Options(jobs, Resources(**numbers), address, setup, passed, runs)
        )

    def _default_jobs(self, configs: Sequence[RunConfig]) -> int | None:
        """Several runs at a time only for models that are certainly small enough; None: the executor's default."""
        if self.executor != "local":
            return None
        small = all(config.sequence.get("base", {}).get("model") == "tiny" for config in configs)
        return min(len(configs), cores(), 4) if small else 1


@dataclass(frozen=True)
class Chosen:
    """An executor with its options."""

    name: str
    executor: Executor
    options: Options

    @property
    def local(self) -> bool:
        """Whether this machine executes the runs in worker processes."""
        return self.name == "local"

    @property
    def waits(self) -> bool:
        """Whether the runs end with this command, which therefore waits for them."""
        return waits(self.executor)


def _number(key: str, text: str) -> float:
    try:
        value = float(text) if key == "memory_gb" else int(text)
    except ValueError:
        value = -1
    if not (1 if key == "cpus" else 0) <= value < 1e9:
        where = f"--executor-option {key}"
        raise InputError(f"'{text}' is not a valid number.", where=where, hint=f"Example: {key}=4.")
    return value


def backend(name: str | None, given: Sequence[str]) -> dict[str, Any]:
    """Settings of the backend that a command names; {} for those of the sequence.

    A command that names a backend takes none of the sequence's settings of another one.
    """
    where = "--backend-option"
    found = options.pairs(given, where)
    plain = {key: field.default for key, field in Backend.model_fields.items() if key != "backend"}
    for key in found:
        lookup.choose("setting", key, plain, where=where)
    if name is None and not found:
        return {}
    name = name or OPENAI
    lookup.choose("backend", name, dict.fromkeys((TRANSFORMERS, OPENAI, VLLM)), where="--backend")
    if name in (TRANSFORMERS, VLLM):
        return {**plain, **found, "backend": name}
    if {"server", "serve"} & found.keys():  # one of them replaces both of the sequence
        return {"server": None, "serve": None, **found, "backend": name}
    return {**found, "backend": name}


def check_server(how: Chosen, scoring: Scoring | None) -> None:
    """InputError if the runs start now, on this machine, and the server that is to score them does not answer."""
    if scoring is not None and scoring.server is not None and how.local:
        check_reachable(Client(scoring.server, timeout=30.0, retries=2))


def scripts(how: Chosen, runs: Sequence[Path]) -> str | None:
    """What the executor would submit, as text; None if it has no such text."""
    describe = getattr(how.executor, "describe", None)
    return None if describe is None else str(describe([run.resolve() for run in runs], how.options))


def check(how: Chosen) -> None:
    """Raises InputError if the executor refuses its options, or this process may start no workers."""
    if launched():
        raise InputError(
            "starts its own processes, and no launcher can start it (WORLD_SIZE is set).", where="moextend bench run",
            hint="Create the folders with --prepare, and launch moextend-worker FOLDER (docs/training.md).",
        )  # fmt: skip
    asked = getattr(how.executor, "check", None)
    if asked is not None:
        asked(how.options)


def execute(
    how: Chosen, opened: Sequence[RunDir], waiting: Sequence[RunDir], busy: Mapping[Path, str]
) -> list[Outcome] | None:
    """Executes the waiting runs and returns how they ended; None if runs were submitted and go on.

    Raises:
        typer.Exit: with code 130 after Ctrl-C.
    """
    # On stderr, so that `moextend bench run > report.txt` still shows how far it is.
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    done = len(opened) - len(waiting) - len(busy)
    if done:
        were = "was" if done == 1 else "were"
        console.print(f"{done} of {counted(len(opened), 'run')} {were} done before.")
    for run, state in busy.items():
        console.print(f"{run_name(run)} is {state}, and is not submitted again.", markup=False)
    if not waiting:
        return None if busy else []
    try:
        return _execute(how, [run.folder for run in waiting], console)
    except KeyboardInterrupt:
        go_on = "The runs continue. Their progress: moextend bench status."
        typer.echo(GO_ON if how.waits else go_on, err=True)
        raise typer.Exit(130) from None


def _execute(how: Chosen, runs: Sequence[Path], console: Console) -> list[Outcome] | None:
    # Before the runs begin: it shows what changes from now on, also what ends at once.
    shown = view(runs, how.options.jobs or len(runs), console) if how.waits else None
    submitted = submitting.submit(how.executor, runs, how.options)
    if not how.local:
        for job in submitted:
            console.print(f"{run_name(job.run)}: {job.executor} {job.id}", markup=False)
    if shown is None:
        console.print(f"Submitted {counted(len(submitted), 'run')}. Their progress: moextend bench status.")
        return None
    with shown:
        return list(submitting.follow(how.executor, submitted, shown).values())


def end(outcomes: Sequence[Outcome]) -> None:
    """Prints the runs that are not done, and exits with code 1 if there is one; with 2 if only inputs are wrong."""
    failed = [outcome for outcome in outcomes if outcome.state != "done"]
    for outcome in failed:
        why = f": {outcome.error}" if outcome.error else ""
        state = CANCELLED if outcome.state == "interrupted" and cancelled(outcome.run) else outcome.state
        options.echo(f"{outcome.run.name} {state}{why}", err=True)
        if (log := RunDir(outcome.run).log).exists():
            typer.echo(f"  log: {log}", err=True)
    if failed:
        wrong = all(outcome.wrong_input for outcome in failed)
        again = "Fix this, and repeat the command" if wrong else "The same command computes the rest"
        typer.echo(f"{again}: finished results are kept.", err=True)
        raise typer.Exit(2 if wrong else 1)

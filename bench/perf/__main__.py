"""The command `python -m moextend.bench.perf`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from moextend.util.entry import run_app

app = typer.Typer(add_completion=False)


@app.command()
def main(
    size: Annotated[list[str] | None, typer.Option(help="tiny, mid or smollm2; may be repeated.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Interleaved repeats; default: by size.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own number.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Type of the base: float32 or bfloat16.")] = "float32",
    clock: Annotated[Literal["wall", "cpu"], typer.Option(help="cpu: if others use the machine.")] = "wall",
    method: Annotated[list[str] | None, typer.Option(help="Another method, as in bench run; repeatable.")] = None,
    runs: Annotated[Path | None, typer.Option(exists=True, help="Runs: adds the accuracy of equal settings.")] = None,
    read: Annotated[Path | None, typer.Option(exists=True, help="Show what --out wrote; measure nothing.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
    write: Annotated[Path | None, typer.Option(help="Markdown page with the marks for the tables.")] = None,
) -> None:  # fmt: skip
    """Measure the speed of training and answering. Example: python -m moextend.bench.perf --size mid."""
    if read:
        from moextend.bench.perf import quality

        measured = [one for one in quality.read(read) if not size or one.size in size]
    else:
        measured = _measure(size or ["mid"], repeats, threads, device, dtype, clock, method or [])
    _show(measured, runs)
    if out:
        from moextend.util import files

        files.write_json(out, [one.record() for one in measured])
    if write and measured:
        from moextend.bench.perf import tables

        tables.write_into(write, measured, _command(), runs)


def _show(measured: list[Any], runs: Path | None) -> None:
    from moextend.bench.perf import tables
    from moextend.bench.report import terminal

    for found in measured:
        typer.echo(terminal.render(tables.tables(found, runs)))


def _measure(
    sizes: list[str], repeats: int | None, threads: int | None, device: str, dtype: str, clock: Any, more: list[str]
) -> list[Any]:  # fmt: skip
    """Measures all available sizes."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints messages
    import torch

    from moextend.bench.perf import sizes as known
    from moextend.bench.perf.specs import refuse_without_step
    from moextend.bench.perf.speed import speed
    from moextend.util import lookup
    from moextend.util.quiet import quiet_process

    lookup.choose("device", device, {"cpu": 0, "cuda": 0}, where="--device")
    lookup.choose("dtype", dtype, {"float32": 0, "bfloat16": 0}, where="--dtype")
    for name in sizes:
        lookup.choose("size", name, known.SIZES, where="--size")
    refuse_without_step(more)
    quiet_process()
    if threads:
        torch.set_num_threads(threads)
    measured = []
    for name in sizes:
        if (why := known.missing(name)) is not None:
            typer.echo(f"{name}: SKIPPED, {why}", err=True)
            continue
        found = speed(
            name,
            device=device,
            dtype=dtype,
            repeats=repeats or known.SIZES[name].repeats,
            clock=clock,
            more=more,
            say=lambda text, name=name: typer.echo(f"{name}: {text}", err=True),  # type: ignore[misc]
        )
        measured.append(found)
    return measured


def _command() -> str:
    """The command line, without the path of the JSON file, which does not affect the results."""
    words = sys.argv[1:]
    kept = [
        word
        for place, word in enumerate(words)
        if not word.startswith("--out") and words[place - 1 : place] != ["--out"]
    ]
    return f"python -m moextend.bench.perf {shlex.join(kept)}".strip()


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.perf")

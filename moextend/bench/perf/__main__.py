"""Prints the tables of docs/performance.md and docs/gpu.md: ``python -m moextend.bench.perf --size mid``."""

from __future__ import annotations

import os
import time
from typing import Annotated, Literal

import typer

from moextend.bench.perf import gpu
from moextend.bench.perf.measure import CACHED, SIZES, TRANSFORMERS, Row, measure
from moextend.errors import InputError
from moextend.util import lookup
from moextend.util.entry import run_app
from moextend.util.quiet import quiet_process

EXACT = "moextend:scope=own,layers=last,width=0.25"
METHODS = (
    TRANSFORMERS, "full-ft", "lora:rank=8,experts=false", "lora:rank=8", EXACT, f"{EXACT}{CACHED}",
    "moextend:scope=own,layers=last,width=1", "moextend:scope=own,routing=paper,layers=last",
    "moextend:scope=own,routing=slot,layers=last",
)  # fmt: skip
COLUMNS = (
    "method", "params", "step ms", "of transformers", "GFLOP", "MB", "of transformers", "prefill ms", "decode ms",
)  # fmt: skip
app = typer.Typer(add_completion=False)


@app.command()
def main(
    size: Annotated[list[str] | None, typer.Option(help="tiny, mid, or wide for a GPU; repeatable.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own number.")] = None,
    clock: Annotated[Literal["wall", "cpu"], typer.Option(help="cpu: if others use the machine.")] = "wall",
    method: Annotated[list[str] | None, typer.Option(help="Another method, as in bench run; repeatable.")] = None,
    gpu_check: Annotated[bool, typer.Option("--gpu-check", help="Measure a GPU, compared with the CPU.")] = False,
) -> None:  # fmt: skip
    """Print Markdown tables of steps of training and of answers."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints messages
    import torch

    chosen = {name: lookup.choose("size", name, SIZES, where="--size") for name in size or ["mid"]}
    quiet_process()
    if threads:
        torch.set_num_threads(threads)
    if gpu_check:
        if not torch.cuda.is_available():
            raise InputError(
                "torch finds no CUDA device.", where="--gpu-check", hint="Install torch for CUDA."
            )
        for line in gpu.check("cuda", size or ["mid", "wide"]):
            typer.echo(line)
        return
    now = time.perf_counter if clock == "wall" else time.process_time
    for name, one in chosen.items():
        typer.echo(f"\n### {name}: training and answering\n")
        typer.echo(f"| {' | '.join(COLUMNS)} |\n| :--- |{' ---: |' * 8}")
        first: Row | None = None
        for each in dict.fromkeys([*METHODS, *(method or [])]):
            row = measure(one, each, now)
            first = first or row
            numbers = [
                f"{row.trained:,}", f"{1e3 * row.seconds:,.1f}", f"{row.seconds / first.seconds:.2f}x",
                f"{row.operations / 1e9:,.1f}", f"{row.peak_mb:,.1f}", f"{row.peak_mb / first.peak_mb:.2f}x",
                f"{1e3 * row.prefill:,.1f}", f"{1e3 * row.decode:,.1f}",
            ]  # fmt: skip
            typer.echo(f"| {' | '.join([each, *numbers])} |")


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.perf")

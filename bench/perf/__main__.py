"""The command `python -m moextend.bench.perf`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from moextend.bench.perf.steps import METHODS, SIZES, Clock, Row, Size, measure, missing
from moextend.bench.report.formats import markdown, terminal
from moextend.bench.report.table import Column, Table, Value, fixed, short, text
from moextend.errors import InputError
from moextend.util import files, lookup
from moextend.util.entry import run_app

app = typer.Typer(add_completion=False)
OPEN, CLOSE = "<!-- perf -->", "<!-- /perf -->"
COLUMNS = [
    Column("method", "method", numeric=False),
    Column("trained", "params"),
    Column("seconds", "step ms"),
    Column("of_step", "of transformers"),
    Column("operations", "GFLOP"),
    Column("peak_mb", "MB"),
    Column("of_peak", "of transformers"),
    Column("prefill", "prefill ms"),
    Column("decode", "decode ms"),
]


@app.command()
def main(
    size: Annotated[list[str] | None, typer.Option(help="tiny, mid or smollm2; may be repeated.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Measured steps; default: by size.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own number.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Type of the base: float32 or bfloat16.")] = "float32",
    clock: Annotated[Clock, typer.Option(help="cpu: if others use the machine.")] = "wall",
    method: Annotated[list[str] | None, typer.Option(help="Another method, as in bench run; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for all numbers.")] = None,
    write: Annotated[Path | None, typer.Option(help="Markdown page with the marks for the tables.")] = None,
) -> None:  # fmt: skip
    """Measure steps of training and answers. Example: python -m moextend.bench.perf --size mid."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler prints messages
    import torch

    from moextend.util.quiet import quiet_process

    lookup.choose("device", device, {"cpu": 0, "cuda": 0}, where="--device")
    lookup.choose("dtype", dtype, {"float32": 0, "bfloat16": 0}, where="--dtype")
    chosen = {name: lookup.choose("size", name, SIZES, where="--size") for name in size or ["mid"]}
    quiet_process()
    if threads:
        torch.set_num_threads(threads)
    tables, record = [], {}
    for name, one in chosen.items():
        if (why := missing(name)) is not None:
            typer.echo(f"{name}: SKIPPED, {why}", err=True)
            continue
        rows = []
        for each in dict.fromkeys([*METHODS, *(method or [])]):
            typer.echo(f"{name}: {each}", err=True)
            rows.append(
                measure(one, each, device=device, dtype=dtype, repeats=repeats or one.repeats, clock=clock)
            )
        record[name] = [asdict(row) for row in rows]
        where = torch.cuda.get_device_name() if device != "cpu" else f"cpu, {torch.get_num_threads()} threads"
        tables.append(_table(name, one, rows, f"{dtype} on {where}; {clock} time"))
        typer.echo(terminal.render(tables[-1:]))
    if out:
        files.write_json(out, record)
    if write and tables:
        _write(write, tables)


def _table(name: str, size: Size, rows: Sequence[Row], how: str) -> Table:
    first = rows[0]
    cells = [[text(row.name), short(row.trained), *_numbers(row, first)] for row in rows]
    notes = [
        f"{size.about}. A step: {size.rows} rows of {size.length} tokens; {how}, medians.",
        "transformers: a step of full fine-tuning without moextend. GFLOP: counted in a step. MB: peak memory of the "
        "training without the base's weights. prefill: until the first token of all rows; decode: the next one.",
    ]
    return Table(f"{name}-steps", f"{name}: training and answering", COLUMNS, [cells], notes)


def _numbers(row: Row, first: Row) -> list[Value]:
    ratios = (row.seconds / first.seconds, row.peak_mb / first.peak_mb)
    step, flop, peak, prefill, decode = (
        fixed(number, f",.{0 if number >= 100 else 1}f")
        for number in (
            1e3 * row.seconds, row.operations / 1e9, row.peak_mb, 1e3 * row.prefill, 1e3 * row.decode,
        )
    )  # fmt: skip
    of_step, of_peak = (fixed(ratio, ".2f", "x") for ratio in ratios)
    return [step, of_step, flop, peak, of_peak, prefill, decode]


def _write(page: Path, tables: Sequence[Table]) -> None:
    """Writes the tables, with their command, between the marks of a Markdown page."""
    from moextend.util.environment import environment

    before, opened, rest = page.read_text(encoding="utf-8").partition(OPEN)
    _, closed, after = rest.partition(CLOSE)
    if not opened or not closed:
        raise InputError(
            f"has no {OPEN} with a {CLOSE} behind it.",
            where=str(page),
            hint="Put both where the tables belong.",
        )
    machine = environment()
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "transformers", "peft"))
    made = f"`python -m moextend.bench.perf {shlex.join(sys.argv[1:])}`, with {packages}, Python {machine['python']}:"
    files.write_text(page, f"{before}{OPEN}\n\n{made}\n\n{markdown(tables)}\n{CLOSE}{after}")


if __name__ == "__main__":
    run_app(app, "python -m moextend.bench.perf")

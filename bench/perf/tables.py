"""Formats measurements as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moextend.bench.perf.quality import quality_tables
from moextend.bench.perf.speed import Speed
from moextend.bench.report import markdown
from moextend.bench.report.matched import short
from moextend.bench.report.table import Column, Table, Value, text
from moextend.errors import InputError
from moextend.util import files

OPEN, CLOSE = "<!-- perf -->", "<!-- /perf -->"

TRAINING = [
    Column("variant", "method", numeric=False),
    Column("params", "params"),
    Column("seconds", "step ms"),
    Column("tokens_a_second", "tokens/s"),
    Column("of_full", "of full-ft"),
    Column("lower_bound", "of lower bound"),
    Column("operations", "GFLOPs"),
    Column("peak_mb", "extra MB"),
    Column("peak_of_full", "of full-ft"),
    Column("new_share", "new"),
]
ANSWERING = [
    Column("variant", "method", numeric=False),
    Column("prefill", "prefill µs"),
    Column("prefill_of_base", "of base"),
    Column("lower_bound_of_base", "FLOPs of base"),
    Column("decode", "decode µs"),
    Column("decode_of_base", "of base"),
    Column("new_share", "new"),
]


def tables(measured: Speed, runs: Path | None = None) -> list[Table]:
    """Tables of training, its time by operators (on a CPU), and answering; with `runs` also of the quality."""
    spent = [_spent(measured)] if measured.training[0].shares else []
    quality = quality_tables(measured, runs) if runs else []
    return [_training(measured), *quality, *spent, _answering(measured)]


def _training(m: Speed) -> Table:
    rows = [
        [
            text(row.name),
            Value(short(row.trained_parameters), row.trained_parameters),
            _value(1e3 * row.seconds, "{:,.0f}" if row.seconds > 0.1 else "{:.1f}"),
            _value(row.tokens_a_second, "{:,.0f}"),
            _value(row.of_full, "{:.2f}x"),
            _value(row.seconds / row.lower_bound_seconds, "{:.2f}x"),
            _value(row.operations / 1e9, "{:,.0f}" if row.operations > 1e11 else "{:.1f}"),
            _value(row.peak_mb, "{:,.0f}" if row.peak_mb > 100 else "{:.1f}"),
            _value(row.peak_of_full, "{:.2f}x"),
            _value(row.new_share, "{:.0%}"),
        ]
        for row in m.training
    ]
    notes = [
        f"{m.about}. A step: {m.rows} rows of {m.length} tokens; {m.dtype} on {m.device}, {m.threads} threads; "
        f"median {m.clock} time of {m.repeats} interleaved repeats.",
        "of lower bound: step time divided by the time of the necessary products at "
        f"{m.operations_a_second / 1e9:.0f} GFLOP/s, the rate of plain matrix products of an expert's shape in the "
        "same repeats.",
        "method: as `moextend bench run --method` takes it; cached prefix: the step of a later epoch (cache_prefix); "
        "1/4 labelled: labels on the last quarter of each row only. params: trained. GFLOPs: counted in a step. extra "
        "MB: peak memory without the base's weights. new: share of the tokens that use a new expert, over the extended "
        "layers.",
    ]
    return Table(f"{m.size}-training", f"{m.size}: training", TRAINING, [rows], notes)


def _spent(m: Speed) -> Table:
    kinds = list(m.training[0].shares)
    columns = [TRAINING[0], *(Column(kind.replace(" ", "_"), kind) for kind in kinds)]
    rows = [[text(row.name), *(_value(row.shares[kind], "{:.1%}") for kind in kinds)] for row in m.training]
    notes = [
        "Shares of the time in operators of a step, under the profiler. products: matrix products. gather/scatter: "
        "gathering tokens, adding outputs of experts, copies, zeros. rest: elementwise operations, norms, softmaxes."
    ]
    return Table(f"{m.size}-spent", f"{m.size}: where the time of a step goes", columns, [rows], notes)


def _answering(m: Speed) -> Table:
    rows = [
        [
            text(row.name),
            _value(1e6 * row.prefill, "{:.1f}"),
            _value(row.prefill_of_base, "{:.2f}x"),
            _value(row.lower_bound_of_base, "{:.2f}x"),
            _value(1e6 * row.decode, "{:,.0f}"),
            _value(row.decode_of_base, "{:.2f}x"),
            _value(row.new_share, "{:.0%}"),
        ]
        for row in m.answering
    ]
    notes = [
        f"Per token of the prompts ({m.rows} rows of {m.length}), and per new token if the {m.rows} rows are decoded "
        "together. FLOPs of base: lower bound of the operations of reading, relative to the base.",
    ]
    return Table(f"{m.size}-answering", f"{m.size}: answering", ANSWERING, [rows], notes)


def _value(number: float, form: str) -> Value:
    return Value(form.format(number), number)


def write_into(page: Path, measured: Sequence[Speed], command: str, runs: Path | None = None) -> None:
    """Writes the tables, with their command, between the marks of a Markdown page; `runs`: see `tables`.

    Raises:
        InputError: the page lacks a mark.
    """
    before, opened, rest = page.read_text(encoding="utf-8").partition(OPEN)
    _, closed, after = rest.partition(CLOSE)
    if not opened or not closed:
        raise InputError(
            f"has no {OPEN} with a {CLOSE} behind it.",
            where=str(page),
            hint="Put both where the tables belong.",
        )
    machine = measured[0].environment
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "transformers", "peft"))
    made = f"`{command}`, with {packages}, Python {machine['python']}:"
    shown = "\n".join(markdown.render(tables(one, runs)) for one in measured)
    files.write_text(page, f"{before}{OPEN}\n\n{made}\n\n{shown}\n{CLOSE}{after}")

"""The folder that a server of a run loads: the base, or a stage as `moextend export` writes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moextend.bench.run.context import RunContext
from moextend.bench.score.served.client import ServerFailed
from moextend.errors import InputError, last_line
from moextend.model import sources

EXPORTS = "served"
"""Folder in that of the run, while a server reads from it."""


@contextmanager
def folder_of(context: RunContext, index: int, task: str, weights: str) -> Iterator[str]:
    """Context with the folder (of a base from the hub: the id) of the model after stage `index` for inputs of `task`.

    Raises:
        InputError: a base that no other program can load.
        ServerFailed: the model cannot be exported in this form.
    """
    if index == 0 or weights in context.base_weights:
        yield _base(context)
        return
    out = context.run.folder / EXPORTS
    shutil.rmtree(out, ignore_errors=True)
    try:
        _export(context, index, task, out)
        yield str(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _base(context: RunContext) -> str:
    base = context.sequence.base
    if base.upcycle is not None:
        raise InputError(
            "the run makes its own base (upcycle), so no server can load it.",
            where="base.upcycle",
            hint="Save it with moextend upcycle, and name the folder as base.model.",
        )
    return str(sources.find(base.found(context.workspace), where="base.model"))


def _export(context: RunContext, index: int, task: str, out: Path) -> None:
    """In a process of its own: an export changes the model that it writes."""
    wanted = context.backend
    command = [
        sys.executable, "-P", "-m", "moextend", "export", f"{context.run.folder}:{index}",
        "--as", wanted.export, "--out", str(out), "--workspace", str(context.workspace),
    ]  # fmt: skip
    if wanted.export == "stock":
        command += ["--task", task]
    if wanted.export_dtype:
        command += ["--dtype", wanted.export_dtype]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        last = last_line(done.stderr, 400) or "no message"
        raise ServerFailed(
            f"stage {index} cannot be exported for the server: {last.removeprefix('error: ')}",
            where=f"scoring.export: {wanted.export}",
            hint="See docs/serving.md.",
        )

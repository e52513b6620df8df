"""The script of a Slurm array: plain shell text, with one task for each run."""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moextend.bench.executors.executor import Options
from moextend.errors import InputError

SAVING = 120
"""Seconds before the time limit at which the worker saves its state."""
RESTARTS = 50
"""Most times that a job is queued again at its time limit."""
OWN = ("wrap", "python")
"""Options that are not passed to sbatch."""
REFUSED = ("array", "clusters", "parsable", "no-requeue", "wait", "test-only", "help", "usage", "version")
"""Options that moextend sets, or that submit nothing."""
SAME = {
    "cpus": ("cpus-per-task", "cpus-per-gpu"),
    "gpus": ("gres", "gpus", "gpus-per-task", "gpus-per-node", "gpus-per-socket"),
    "memory_gb": ("mem", "mem-per-cpu", "mem-per-gpu"),
}
"""Resource -> options of sbatch that set it too."""


@dataclass(frozen=True)
class Settings:
    """Options of an array, checked."""

    sbatch: Mapping[str, str]
    """Option of sbatch without its dashes -> value; "" for a flag."""
    step: Mapping[str, str]
    """The same for srun, which starts the worker in a container; empty: no srun."""
    wrap: str = ""
    """Shell words before the worker, such as `apptainer exec image.sif`."""
    python: str = ""
    """Shell words that start Python."""
    setup: tuple[str, ...] = ()
    jobs: int | None = None

    @classmethod
    def of(cls, options: Options) -> Settings:
        """Settings of options; InputError if one is wrong."""
        passed = dict(options.passed)
        if options.address:
            raise _wrong("address", "is not an option of Slurm.", "Run the command on the cluster.")
        for key, value in passed.items():
            _check(key, value)
        own = {key: passed.pop(key) for key in OWN if key in passed}
        step = {key: passed.pop(key) for key in list(passed) if key.startswith("container")}
        return cls(
            {**_defaults(options, passed), **passed}, step, own.get("wrap", ""),
            own.get("python") or shlex.quote(sys.executable), options.setup, options.jobs,
        )  # fmt: skip


def render(settings: Settings, *, script: Path, listed: Path, runs: int, name: str) -> str:
    """The script of an array of `runs` tasks.

    Args:
        settings: Options of the array.
        script: Where the script will be.
        listed: File with the folder of a run in each line.
        runs: Number of lines.
        name: Default name of the job.
    """
    throttle = f"%{settings.jobs}" if settings.jobs else ""
    output = str(script.parent).replace("%", "%%") + "/%A_%a.out"
    head = {"job-name": name, "array": f"1-{runs}{throttle}", "output": output, "open-mode": "append"}
    options = {**head, **settings.sbatch}
    step = "".join(f" --{key}={shlex.quote(value)}" for key, value in settings.step.items())
    words = [f"srun{step}" if step else "", settings.wrap, settings.python, "-P -m"]
    setup = ["", "# Set-up", *settings.setup, ""] if settings.setup else [""]
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH --{key}{f'={_quoted(value)}' if value else ''}" for key, value in options.items()),
            "# Written by moextend bench run. Each task executes the run in one line of the list.",
            f"list={shlex.quote(str(listed))}",
            HEAD.strip(),
            *setup,
            BODY.strip().replace("PYTHON", " ".join(filter(None, words))).replace("RESTARTS", str(RESTARTS)),
            "",
        ]
    )


HEAD = r"""
run="$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$list")"
export MOEXTEND_EXECUTOR=slurm
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}}"
"""
BODY = r"""
# The worker saves its state at a signal, and ends with code 75.
limit=''
PYTHON moextend.bench.run.worker "$run" >>"$run/worker.log" 2>&1 &
worker=$!
trap 'limit=1; kill -USR1 "$worker" 2>/dev/null' USR1
trap 'kill -USR1 "$worker" 2>/dev/null' TERM
while
    wait "$worker"
    code=$?
    [ "$code" -gt 128 ] && kill -0 "$worker" 2>/dev/null # a signal ends `wait` too
do :; done

# At its time limit a job is queued again; after a preemption and the loss of a node Slurm does so itself.
[ "$code" -eq 75 ] && [ -n "$limit" ] && [ ! -e "$run/cancel.json" ] &&
    [ "${SLURM_RESTART_COUNT:-0}" -lt RESTARTS ] &&
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
exit "$code"
"""


def _defaults(options: Options, passed: Mapping[str, str]) -> dict[str, str]:
    """Options of sbatch for the resources, where `passed` sets none of the same kind, and for a clean stop."""
    wanted = options.resources
    sizes = {
        "cpus": ("cpus-per-task", wanted.cpus and str(wanted.cpus)),
        "gpus": ("gres", wanted.gpus and f"gpu:{wanted.gpus}"),
        "memory_gb": ("mem", wanted.memory_gb and f"{math.ceil(wanted.memory_gb * 1e9 / 2**20)}M"),
    }
    found = {
        key: str(size)
        for name, (key, size) in sizes.items()
        if size and not any(other in passed for other in SAME[name])
    }
    return {**found, "requeue": "", "signal": f"B:USR1@{SAVING}"}


def _check(key: str, value: str) -> None:
    """Raises InputError for an option that sbatch cannot have here."""
    if key in REFUSED:
        raise _wrong(key, "cannot be set.", "Use --jobs N for a throttle; --dry-run prints the script.")
    if not re.fullmatch(r"[a-z][a-z0-9]+(-[a-z0-9]+)*", key):
        hint = "Write long options without dashes: partition=gpu, exclusive."
        raise _wrong(key, "is not an option of sbatch.", hint)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise _wrong(key, "contains a line break or another control character.", "Remove it.")
    if key == "signal" and not value.startswith("B:"):
        raise _wrong(
            key, f"'{value}' does not signal the script.", "Example: B:USR1@600 (seconds before the end)."
        )
    if key in OWN and not value:
        raise _wrong(key, "has no value.", f"Example: {key}=VALUE.")


def _quoted(value: str) -> str:
    """A value in a line of #SBATCH, where a backslash escapes."""
    if re.fullmatch(r"[\w.,:/@%+=-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _wrong(key: str, what: str, hint: str) -> InputError:
    return InputError(what, where=f"--executor-option {key}", hint=hint)

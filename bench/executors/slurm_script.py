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

SAVING = 300
"""Seconds before the time limit at which the worker saves its state."""
OWN = ("wrap", "python", "array-size")
"""Options that are not passed to sbatch."""
REFUSED = {
    "array": "Its tasks are the runs; --jobs N sets the throttle (%N).",
    "parsable": "It is set.",
    "wait": "The command returns once the runs are queued.",
    "test-only": "Use --dry-run.",
    "help": "See sbatch --help.",
    "usage": "See sbatch --help.",
    "version": "See sbatch --version.",
}
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
    array_size: int | None = None

    @classmethod
    def of(cls, options: Options) -> Settings:
        """Settings of options; InputError if one is wrong."""
        passed = dict(options.passed)
        if options.address:
            raise _wrong("address", "is not an option of Slurm.", "Name the cluster: clusters=NAME.")
        for key, value in passed.items():
            _check(key, value)
        own = {key: passed.pop(key) for key in OWN if key in passed}
        step = {key: passed.pop(key) for key in list(passed) if key.startswith("container")}
        size = own.get("array-size")
        if size is not None and not (size.isdecimal() and int(size)):
            raise _wrong(
                "array-size", f"'{size}' is not a number of tasks.", "Give an integer of at least 1."
            )
        return cls(
            {**_resources(options, passed), **_defaults(passed), **passed}, step, own.get("wrap", ""),
            own.get("python") or shlex.quote(sys.executable), options.setup, options.jobs,
            int(size) if size else None,
        )  # fmt: skip


def render(settings: Settings, *, script: Path, listed: Path, runs: int, name: str) -> str:
    """The script of an array of `runs` tasks.

    Args:
        settings: Options of the array.
        script: Where the script will be: a successor is submitted from there.
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
            f"script={shlex.quote(str(script))}",
            HEAD.strip(),
            *setup,
            BODY.strip("\n").replace("PYTHON", " ".join(filter(None, words))),
            "",
        ]
    )


HEAD = r"""
run="$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$list")"
job="${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
export MOEXTEND_EXECUTOR=slurm
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}}"

# The worker saves its state at a signal, and ends with code 75.
stopped='' worker=''
stop() { stopped=1; [ -z "$worker" ] || kill -USR1 "$worker" 2>/dev/null; }
trap stop USR1 TERM
"""
BODY = r"""
code=75
if [ -z "$stopped" ]; then
    PYTHON moextend.bench.run.worker "$run" >>"$run/worker.log" 2>&1 &
    worker=$!
    [ -z "$stopped" ] || stop
    code=''
    while :; do # a signal ends `wait` too
        stopped=''
        wait "$worker"
        now=$?
        [ "$now" -eq 127 ] && [ -n "$code" ] || code=$now # 127: its end was seen before
        [ -n "$stopped" ] || break
    done
fi
# Done, failed, or interrupted by hand.
[ "$code" -eq 75 ] || { [ "$code" -gt 128 ] && [ "$code" -ne 130 ]; } || exit "$code"

# Stopped or killed: it continues unless the job was cancelled, or made no progress since its last start.
case "$(scontrol show job -o "$SLURM_JOB_ID")" in
*JobState=RUNNING* | *Reason=TimeLimit* | *PreemptTime=[0-9]*) ;;
*) exit "$code" ;;
esac
PYTHON moextend.bench.executors.again "$run" slurm "$job" || exit "$code"
scontrol requeue "$job" && exit "$code"
# A cluster without requeue: a successor, which waits until this job ended.
next="$(sbatch --parsable --dependency="afternotok:$job" --array="$SLURM_ARRAY_TASK_ID" "$script")" &&
    PYTHON moextend.bench.executors.again "$run" slurm "${next%%;*}_$SLURM_ARRAY_TASK_ID" --successor
exit "$code"
"""


def _resources(options: Options, passed: Mapping[str, str]) -> dict[str, str]:
    """Options of sbatch for the resources, where `passed` sets none of the same kind."""
    wanted = options.resources
    found = {}
    if wanted.cpus and not any(key in passed for key in SAME["cpus"]):
        found["cpus-per-task"] = str(wanted.cpus)
    if wanted.gpus and not any(key in passed for key in SAME["gpus"]):
        found["gres"] = f"gpu:{wanted.gpus}"
    if wanted.memory_gb and not any(key in passed for key in SAME["memory_gb"]):
        found["mem"] = f"{math.ceil(wanted.memory_gb * 1e9 / 2**20)}M"
    return found


def _defaults(passed: Mapping[str, str]) -> dict[str, str]:
    found = {} if "no-requeue" in passed else {"requeue": ""}
    limit = _seconds(passed.get("time", ""))
    # Not more than a quarter of a short limit: the signal would come at the start.
    return {**found, "signal": f"B:USR1@{min(SAVING, max(1, limit // 4)) if limit else SAVING}"}


def _seconds(limit: str) -> int | None:
    """Seconds of a time limit of sbatch: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; None for another text."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if not found:
        return None
    days, *parts = (None if part is None else int(part) for part in found.groups())
    given = [part for part in parts if part is not None]
    if days is not None:
        units = [3600, 60, 1]
    else:
        units = {1: [60], 2: [60, 1], 3: [3600, 60, 1]}[len(given)]
    return (days or 0) * 86400 + sum(part * unit for part, unit in zip(given, units, strict=False))


def _check(key: str, value: str) -> None:
    """Raises InputError for an option that sbatch cannot have here."""
    if key in REFUSED:
        raise _wrong(key, "cannot be set.", REFUSED[key])
    if not re.fullmatch(r"[a-z][a-z0-9]+(-[a-z0-9]+)*", key):
        raise _wrong(
            key, "is not an option of sbatch.", "Write long options without dashes: partition=gpu, exclusive."
        )
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise _wrong(key, "contains a line break or another control character.", "Remove it.")
    if key == "signal" and not value.startswith("B:"):
        raise _wrong(
            key,
            f"'{value}' does not signal the script.",
            "Example: signal=B:USR1@600 (seconds before the end).",
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

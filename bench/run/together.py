"""A run on several processes: `torchrun` or `accelerate launch` starts one worker for each device.

All processes execute the run in the same order. The first one owns its folder; the others write their share of the
answers and files of checkpoints, and nothing else. The launcher ends the others if a process is killed. One that fails
or is stopped says so in the folder of the run, so that the others end in bounded time, with its error.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.run.progress import STOPPED
from moextend.errors import MoextendError, RunFailed
from moextend.util import files, foreign, processes

if TYPE_CHECKING:
    from moextend.bench.methods.method import Stage

NOTE = ".ended.json"
"""What the first process that failed or was stopped says, during the run."""
LOOK_EVERY = 1.0
NOTICED = 5.0
"""Seconds in which a process is expected to say why it ended, after an exchange with it failed."""
GRACE = 20.0
"""Seconds that a process gets to end by itself after another one ended; an exchange may wait for ever."""
_LAUNCHER = {
    "ACCELERATE_MIXED_PRECISION": "mixed_precision",
    "FSDP_VERSION": "fsdp_version",
    "FSDP_RESHARD_AFTER_FORWARD": "fsdp_reshard_after_forward",
    "ACCELERATE_DYNAMO_BACKEND": "dynamo_backend",
}
"""Variables of the launcher that are recorded."""
BROKEN = ("gloo", "nccl", "connection", "process group", "timed out", "store", "socket", "broken pipe")
"""Words in the errors of exchanges between processes."""


def launched() -> bool:
    """Whether a launcher started several processes."""
    return processes.launched() > 1


def launcher() -> dict[str, Any] | None:
    """The launcher's config for the record of the environment; None for a single process.

    `mixed_precision` is the launcher's; the run's own `bf16` decides.
    """
    if processes.count() == 1:
        return None
    import torch
    from accelerate.utils import parse_flag_from_env

    sharded = parse_flag_from_env("ACCELERATE_USE_FSDP")
    known = {
        name: os.environ[variable]
        for variable, name in _LAUNCHER.items()
        if variable in os.environ and (sharded or not name.startswith("fsdp_"))
    }
    return {
        "distributed_type": "FSDP" if sharded else "DDP",
        "num_processes": processes.count(),
        "num_machines": processes.count() // int(os.environ.get("LOCAL_WORLD_SIZE") or processes.count()),
        "backend": torch.distributed.get_backend(),
        "accelerate": "ACCELERATE_MIXED_PRECISION" in os.environ,
        **known,
    }


@contextmanager
def joined(run: Path, *, on_cpu: Callable[[], bool], fail: Callable[[MoextendError], None]) -> Iterator[None]:
    """Context of one process of a launched run; that of a single process does nothing.

    Args:
        on_cpu: whether the run computes on the CPU.
        fail: records in the run that it failed, where the first process cannot do so itself.
    """
    if not launched():
        yield
        return
    import torch
    from accelerate import PartialState

    cpu = on_cpu()
    if cpu:  # as the training does: NCCL with GPUs, gloo without
        os.environ["ACCELERATE_USE_CPU"] = "true"
    PartialState(cpu=cpu)
    processes.first_says(lambda: files.remove(run / NOTE))  # of an earlier attempt
    ended = threading.Event()
    threading.Thread(target=_watch, args=(run, fail, ended), daemon=True).start()
    try:
        with explained(run):
            yield
    finally:
        ended.set()
    processes.wait()
    torch.distributed.destroy_process_group()


@contextmanager
def explained(run: Path) -> Iterator[None]:
    """Context that raises the error of another process instead of what it led to in this one."""
    try:
        yield
    except KeyboardInterrupt as error:
        cause = _cause(run) if launched() else None
        _say(run, None)
        if isinstance(cause, RunFailed):  # the launcher stops the others after a failure
            raise cause from error
        raise
    except Exception as error:
        cause = _awaited(run) if launched() and _is_broken(error) else None
        if cause is None:
            _say(run, foreign.explained(error))
            raise
        raise cause from error


def _say(run: Path, error: MoextendError | None) -> None:
    """Notes how this process ended, unless another one did before; error None: it was stopped."""
    if launched() and not (run / NOTE).exists():
        ending = {"what": error.what, "where": error.where, "hint": error.hint} if error else None
        with suppress(OSError, MoextendError):  # a full disk is the error of whoever writes results
            files.write_json(run / NOTE, {"rank": processes.rank(), "error": ending})


def _cause(run: Path) -> MoextendError | KeyboardInterrupt | None:
    """Why this process must stop: what another one failed of, or that it was stopped; None: nothing."""
    try:
        found = files.read_json(run / NOTE)
        rank, error = found["rank"], found["error"]
        if rank == processes.rank():
            return None
        if error is None:
            return KeyboardInterrupt()
        return RunFailed(f"process {rank} failed: {error['what']}", where=error["where"], hint=error["hint"])
    except (OSError, MoextendError, KeyError, TypeError):
        return None


def _awaited(run: Path) -> MoextendError | KeyboardInterrupt:
    """The cause of a broken exchange."""
    began = time.monotonic()
    while time.monotonic() - began < NOTICED:
        if (cause := _cause(run)) is not None:
            return cause
        time.sleep(0.1)
    return RunFailed(
        "another process of the run ended unexpectedly.",
        hint="It was killed, its machine failed, or the connection broke. Run the same command again: the run "
        "continues.",
    )


def _watch(run: Path, fail: Callable[[MoextendError], None], ended: threading.Event) -> None:
    """Ends this process if its main thread hangs in an exchange after another process ended."""
    while not ended.wait(LOOK_EVERY):
        if (cause := _cause(run)) is None:
            continue
        if ended.wait(GRACE):
            return
        if isinstance(cause, KeyboardInterrupt):
            os._exit(STOPPED)
        if processes.rank() == 0:
            with suppress(Exception):
                fail(cause)
        print(f"error: {cause}", file=sys.stderr, flush=True)
        os._exit(1)  # files survive the end at any moment


def _is_broken(error: Exception) -> bool:
    """Whether an exchange between processes failed."""
    import torch

    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(word in text for word in BROKEN)
    )


@contextmanager
def own_folder(stage: Stage) -> Iterator[Stage]:
    """Context with the stage that a method writes: in the first process to its folder, in others to a temporary one.

    A method, also that of a plug-in, need not know of other processes. All of them find what an interrupted call left.
    """
    if processes.is_first():
        processes.wait()
        yield stage
        processes.wait()
        return
    with tempfile.TemporaryDirectory(prefix="moextend-") as name:
        for path in stage.folder.glob("*.json"):
            shutil.copyfile(path, Path(name) / path.name)
        processes.wait()
        yield replace(stage, folder=Path(name))
        processes.wait()

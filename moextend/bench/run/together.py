"""A run on several processes: `torchrun` or `accelerate launch` starts one worker for each device.

All processes execute the run in the same order. The first one owns its folder; the others write their share of the
answers and files of checkpoints, and nothing else. Where one ends early, the exchange of the others with it breaks, and
the launcher ends those that hang.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moextend.bench.run.progress import cancelled
from moextend.errors import RunFailed
from moextend.util import processes

if TYPE_CHECKING:
    from moextend.bench.methods.method import Stage

BROKEN = ("gloo", "nccl", "connection", "process group", "timed out", "store", "socket", "broken pipe")
"""Words in the errors of exchanges between processes."""


def launched() -> bool:
    """Whether a launcher started several processes."""
    return processes.launched() > 1


def launcher() -> dict[str, Any] | None:
    """The launcher for the record of the environment; None for a single process."""
    if processes.count() == 1:
        return None
    import torch
    from accelerate.utils import parse_flag_from_env

    return {
        "distributed_type": "FSDP" if parse_flag_from_env("ACCELERATE_USE_FSDP") else "DDP",
        "num_processes": processes.count(),
        "backend": torch.distributed.get_backend(),
    }


@contextmanager
def joined(*, on_cpu: Callable[[], bool]) -> Iterator[None]:
    """Context of one process of a launched run; that of a single process does nothing.

    Args:
        on_cpu: whether the run computes on the CPU.
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
    yield
    processes.wait()
    torch.distributed.destroy_process_group()


@contextmanager
def explained(run: Path) -> Iterator[None]:
    """Context in which the end of another process is no error of this one; KeyboardInterrupt after `bench cancel`."""
    try:
        yield
    except Exception as error:
        if not launched() or not _is_broken(error):
            raise
        if cancelled(run):
            raise KeyboardInterrupt from error
        raise RunFailed(
            f"another process of the run ended (process {processes.rank()} lost the connection).",
            hint="Its error is in the output of the launcher. Run the same command again: the run continues.",
        ) from error


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

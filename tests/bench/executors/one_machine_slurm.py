"""A Slurm of one machine for a test: munged, slurmctld and slurmd with their own folder, ports and key."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MpiDefault=none
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
JobRequeue={requeue}
MaxArraySize=3
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def lacking() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"needs Slurm and munge (Debian: slurm-wlm, munge): no {missing[0]}"
    return "needs root, to start Slurm" if os.geteuid() else None


class Slurm:
    """The daemons; `environment` makes its commands reach them."""

    def __init__(self, folder: Path, *, cpus: int = 2) -> None:
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir()
        (folder / "slurm.conf").write_text(
            CONFIG.format(folder=folder, host=self.host, ports=free_ports(2), cpus=cpus, requeue=1)
        )

    def start(self) -> None:
        """Starts all daemons, and waits until the node is idle."""
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        user = pwd.getpwnam("munge")
        for path in (munge, munge / "key"):
            os.chown(path, user.pw_uid, user.pw_gid)
        files = [
            f"--{name}={munge / name.split('-')[0]}"
            for name in ("socket", "key-file", "pid-file", "log-file", "seed-file")
        ]
        self._daemon("munged", "--foreground", *files, user=user.pw_uid, group=user.pw_gid)
        until(lambda: (munge / "socket").exists(), "munged")
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D")
        until(
            lambda: self("sinfo", "--noheader", "--format=%t").strip() in ("idle", "mix", "alloc"),
            "slurmd",
            60,
        )

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            words,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout

    def states(self) -> dict[str, str]:
        """Job -> state, of those in the queue."""
        lines = self("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def stop(self) -> None:
        """Ends all jobs and daemons."""
        self("scancel", "--full", "--signal=KILL", f"--user={pwd.getpwuid(os.geteuid()).pw_name}")
        self("scancel", f"--user={pwd.getpwuid(os.geteuid()).pw_name}")
        with suppress(AssertionError):
            until(lambda: not self.states(), "the queue", 20)
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()

    def _daemon(self, name: str, *words: str, user: int | None = None, group: int | None = None) -> None:
        program = shutil.which(name, path=PATH)
        assert program
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [program, *words], env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, user=user, group=group,
            )  # fmt: skip


@contextmanager
def slurm_of_one_machine() -> Iterator[Slurm]:
    """Context with a running Slurm."""
    # Below /tmp, where the user munge may go, and short: a socket's path has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        slurm = Slurm(Path(name))
        try:
            slurm.start()
            yield slurm
        finally:
            slurm.stop()


def free_ports(number: int) -> list[int]:
    """Ports that nobody uses now."""
    found = [socket.socket() for _ in range(number)]
    try:
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]
    finally:
        for each in found:
            each.close()


def until(true: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Waits until something is true; AssertionError if it takes too long."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not after {seconds:.0f} s"
        time.sleep(0.1)

"""Executes a command that ends with its parent process: `python tether.py PARENT COMMAND...`.

A worker process of a cluster may be killed at any time. What it had started would then go on, and hold the run that
another process is to continue. Linux sends SIGTERM to the command as soon as the parent is gone, at which a worker
saves its state. Other systems have no such signal: there the command goes on until its end.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
STOPPED = 75
"""Exit code where the parent is gone already: that of a worker that was stopped in order."""


def main(parent: int, command: list[str]) -> None:
    """Becomes the command; its signals are not blocked, even if the parent's are."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(STOPPED)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

"""A command ends with its parent process, in order."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moextend.util import tether

COMMAND = """
import signal, sys, time
def stop(number, frame):
    open(sys.argv[1], "w").write(f"{number}")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
for _ in range(1200):
    time.sleep(0.05)  # a signal just before a sleep is handled after it
"""
PARENT = """
import os, signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
tether, *command = sys.argv[1:]
subprocess.run([sys.executable, "-I", tether, str(os.getpid()), *command])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_the_command_is_terminated_when_its_parent_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "signal"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tether.__file__, sys.executable, "-c", COMMAND, str(file)],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout and parent.stdout.readline() == b"ready\n"
    parent.kill()
    assert parent.stdout.read() == b""  # the command has ended too
    assert file.read_text() == str(int(signal.SIGTERM))


def test_a_command_whose_parent_is_gone_already_does_not_begin(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-I",
        tether.__file__,
        "1",
        sys.executable,
        "-c",
        f"open({str(tmp_path / 'x')!r}, 'w')",
    ]
    assert subprocess.run(command, check=False).returncode == tether.STOPPED
    assert not (tmp_path / "x").exists()

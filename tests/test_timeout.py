"""A test that takes too long ends, even if it waits again while it ends."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import subprocess, sys
import pytest

@pytest.mark.timeout(1)
def test_waits_twice():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(40)"]) as process:
        process.wait(35)

def test_after():
    pass
"""


def test_an_alarm_is_repeated(tmp_path: Path) -> None:
    settings = (Path(__file__).parent / "conftest.py").read_text()
    assert settings.count("REPEAT = 60\n") == 1
    (tmp_path / "conftest.py").write_text(settings.replace("REPEAT = 60\n", "REPEAT = 0.5\n"))
    (tmp_path / "test_x.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().splitlines()[-1].startswith("1 failed, 1 passed")

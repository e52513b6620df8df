"""The command `serve`: one clear line for whatever keeps it from starting, and an end by Ctrl-C."""

import http.client
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import ledger

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")


def test_it_serves_until_ctrl_c(tmp_path: Path) -> None:
    ledger.write_runs(tmp_path / "runs", ledger.Shape(items=6), {"lora": ledger.Kind()}, [0])
    # A shell may have it ignored, and a child inherits that.
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from moextend.cli import main; "
    command = [
        sys.executable,
        "-c",
        start + "main.run()",
        *["bench", "serve", "--port", "0", "-w"],
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(
                r"1 run of .*runs: http://127\.0\.0\.1:([0-9]+)/   \(Ctrl-C stops it\)\n", line
            )
            assert found, line
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
            connection.request("GET", "/live.json")
            assert b'"state":"done"' in connection.getresponse().read()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)  # with a connection that is still open
            assert (process.returncode, out, err) == (0, "", "stopped.\n")
            connection.close()
        finally:
            process.kill()

"""The entry of all commands: signals."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest


def test_sigterm_removes_temporary_folders(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(
        "import tempfile, time\n"
        "import typer\n"
        "from moextend.util.entry import run_app\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def work(folder: str) -> None:\n"
        "    with tempfile.TemporaryDirectory(dir=folder):\n"
        "        print('working', flush=True)\n"
        "        time.sleep(60)\n"
        "run_app(app, 'work')\n"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    with subprocess.Popen([sys.executable, script, folder], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "working\n"
            assert len(list(folder.iterdir())) == 1
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
        finally:
            process.kill()
    assert list(folder.iterdir()) == []


DROPPED = """
import signal, sys, time
import typer
from pydantic_core import SchemaValidator, core_schema
from moextend.util.entry import run_app

number = signal.Signals[sys.argv.pop()]
app = typer.Typer()

class Late:
    def __del__(self):
        signal.raise_signal(number)

class Named:
    def __set_name__(self, *_):
        signal.raise_signal(number)

class Literal:
    def __repr__(self):
        signal.raise_signal(number)

@app.command()
def work(how: str) -> None:
    if how == "finaliser":
        Late()
    elif how == "compiled":
        SchemaValidator(core_schema.literal_schema([Literal()]))
    else:
        type("Owner", (), {"named": Named()})
    time.sleep(50)

signal.signal(signal.SIGINT, signal.default_int_handler)
run_app(app, "work")
"""


@pytest.mark.parametrize("how", ["finaliser", "class", "compiled"])
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_at_a_moment_that_drops_exceptions_ends_it(
    how: str, number: str, code: int, tmp_path: Path
) -> None:
    script = tmp_path / "app.py"
    script.write_text(DROPPED)
    done = subprocess.run([sys.executable, script, how, number], capture_output=True, text=True, timeout=40)
    assert done.returncode == code, done.stderr
    assert done.stderr.strip() in ("", "error: interrupted.")

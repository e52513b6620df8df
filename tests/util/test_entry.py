"""The entry of all commands: signals."""

import signal
import subprocess
import sys
from pathlib import Path


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

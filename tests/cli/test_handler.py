"""No command prints a traceback, whatever happens, unless MOEXTEND_DEBUG=1."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moextend.bench.perf import __main__ as perf
from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from tests.cli.conftest import Cli, typed


def fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `bench status` fail."""
    from moextend.cli import status

    def raises(*_: object) -> None:
        raise error

    monkeypatch.setattr(status, "find_runs", raises)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError(), "AssertionError: no message, at `raise error`"),
        (KeyError("x"), "KeyError: 'x' (moextend/cli/status.py:"),
        (MemoryError(), "out of memory."),
        (OSError(errno.EROFS, "x", "/ro/f"), "/ro/f: cannot be written: the file system is read-only."),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth"),
    ],
)
def test_any_error_is_one_line_with_the_command_and_exit_code_1(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, words: str
) -> None:
    fails(monkeypatch, error)
    found = cli("bench", "status")
    assert (found.code, found.out) == (1, "")
    assert found.err.startswith("error: moextend bench status: ") and words in found.err
    assert len(found.err.splitlines()) == 1
    monkeypatch.setenv("MOEXTEND_DEBUG", "1")
    assert cli("bench", "status").err.startswith("Traceback (most recent call last):")


def test_no_arguments_print_the_help(cli: Cli) -> None:
    found = cli("bench")
    assert found.code == 2 and "Usage: moextend bench" in found.out and "error" not in found.err


def test_an_error_in_a_thread_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from moextend.cli import status

    def starts(*_: object) -> list[RunDir]:
        thread = threading.Thread(target=lambda: [][0])
        thread.start()
        thread.join()
        return []

    monkeypatch.setattr(status, "find_runs", starts)
    found = cli("bench", "status")
    assert found.err.startswith("error: moextend: IndexError: list index out of range")
    assert len(found.err.splitlines()) == 1


def shell(command: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.replace('python', sys.executable, 1)}"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    done = shell("python -m moextend bench list > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: moextend bench list: no disk space left.")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_closes_the_pipe_ends_the_report_quietly(cli: Cli, tmp_path: Path) -> None:
    assert cli("bench", "run", "-m", "lora").code == 0
    done = shell("python -m moextend bench report matrix | true", tmp_path)
    assert done.stderr == ""
    done = shell("PYTHONIOENCODING=ascii python -m moextend bench report matrix", tmp_path)
    assert done.returncode == 0 and "\\xb1" in done.stdout, "what the encoding lacks is no error"


def test_the_other_commands_print_no_traceback(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = typed(["python", perf.__file__, "--size", "mit"], capfd, monkeypatch)
    assert done.code == 2 and len(done.err.splitlines()) == 1


def test_a_worker_keeps_the_traceback_and_says_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "assert")
    found = cli("bench", "run", "-m", "lora")
    run = tmp_path / "runs/tiny/lora-s0"
    assert found.code == 1 and "Traceback" not in found.err
    error = read_status(run).error
    assert error and error.what and error.where == "stage 2, tiny-counting, train"
    assert error.what.startswith("AssertionError: no message, at `raise AssertionError` (fake_worker.py:")
    (line,) = [line for line in found.err.splitlines() if line.startswith("lora-s0 failed: ")]
    assert line == f"lora-s0 failed: {error.where}: {error.what} {error.hint}"
    assert f"  log: {run / 'worker.log'}" in found.err
    assert "Traceback" in (run / "worker.log").read_text()


def test_a_run_fails_without_showing_a_password(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "password")
    found = cli("bench", "run", "-m", "lora")
    status = (tmp_path / "runs/tiny/lora-s0/status.json").read_text()
    assert found.code == 1 and "https://***@host" in status and "https://***@host" in found.err
    assert "secret" not in status + found.err


DAMAGE = {
    "config-type": ("config.json", '{"identity": {"sequence": [], "tasks": 5, "method": 1}}'),
    "facts": ("facts.json", '{"majority": {"tiny-counting": "x"}}'),
    "cost": ("stages/1-tiny-attributes/cost.json", '{"seconds": "long", "flops": []}'),
    "scores-folder": ("scores.jsonl", None),
}
VIEWS = {"cost": "costs", "facts": "costs"}
"""Damage -> a view that reads what is damaged."""


def test_one_damaged_run_blocks_no_command_for_the_others(cli: Cli, tmp_path: Path) -> None:
    assert cli("bench", "run", "-m", "lora,ewc,replay").code == 0
    for damage, (name, text) in DAMAGE.items():
        path = tmp_path / "runs/tiny/ewc-s0" / name
        before = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        if text is None:
            path.mkdir()
        else:
            path.write_text(text)
        view = VIEWS.get(damage, "matrix")
        for command in (["status", "--json"], ["report", view]):
            found = cli("bench", *command)
            assert found.code == 0 and "lora" in found.out, (damage, command, found.err)
        found = cli("bench", "run", "-m", "lora,replay")
        assert found.code == 0 and "2 of 2 runs were done before." in found.err, damage
        path.rmdir() if text is None else path.unlink()
        if before is not None:
            path.write_bytes(before)


def test_foreign_files_among_the_runs_are_passed_over(cli: Cli, tmp_path: Path) -> None:
    assert cli("bench", "run", "-m", "lora").code == 0
    runs = tmp_path / "runs"
    (runs / "notes.txt").write_text("mine")
    (runs / "tiny/notes.txt").write_text("mine")
    for name in ("tiny/other", "others/model"):
        (runs / name).mkdir(parents=True)
        (runs / name / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (runs / "tiny/loop").symlink_to(runs / "tiny/loop")
    found = cli("bench", "status")
    assert found.code == 0 and " done " in found.out and "other is damaged: " in found.out
    assert "lora" in cli("bench", "report").out
    assert cli("bench", "run", "-m", "ewc").code == 0


def test_a_full_disk_ends_with_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = cli("bench", "run", "-m", "lora")
    assert found.code == 1
    assert "no disk space left. Free some space and run the same command again." in found.err

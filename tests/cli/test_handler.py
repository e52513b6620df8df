"""No command prints a traceback, whatever happens, unless MOEXTEND_DEBUG=1."""

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir
from moextend.util.spec import VERSION
from tests.cli.conftest import Cli


def fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `bench status` fail."""
    from moextend.bench.run import rundir

    def raises(*_: object) -> None:
        raise error

    monkeypatch.setattr(rundir, "find_runs", raises)


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


def test_the_traceback_is_shown_if_asked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, KeyError("x"))
    assert "Set MOEXTEND_DEBUG=1 for the traceback." in cli("bench", "status").err
    monkeypatch.setenv("MOEXTEND_DEBUG", "1")
    lines = cli("bench", "status").err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1].startswith("error: moextend bench")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "run", "-w", "no-such-" + "long-" * 20 + "folder"], f"'no-such-{'long-' * 20}folder' does not"),
        (["bench", "run", "--sede", "1"], "error: moextend bench run: No such option: --sede"),
        (["bench", "serve", "--port", "99999"], "equal to 65535. Options: moextend bench serve"),
        (["bench", "status", "--workspace"], "error: moextend bench status: Option '--workspace' requires an arg"),
        (["bnch"], "error: moextend: No such command 'bnch'. Did you mean 'bench'? "),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_without_a_box(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = cli(*arguments)
    assert found.code == 2 and words in found.err
    assert len(found.err.splitlines()) == 1 and "Options: moextend" in found.err


def test_no_arguments_print_the_help(cli: Cli) -> None:
    found = cli("bench")
    assert found.code == 2 and "Usage: moextend bench" in found.out and "error" not in found.err


def test_an_error_in_a_thread_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from moextend.bench.run import rundir

    def starts(*_: object) -> list[RunDir]:
        thread = threading.Thread(target=lambda: [][0])
        thread.start()
        thread.join()
        return []

    monkeypatch.setattr(rundir, "find_runs", starts)
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


def test_text_that_the_encoding_lacks_is_no_error(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "lora")
    done = shell("PYTHONIOENCODING=ascii python -m moextend bench report matrix", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\\xb1" in done.stdout


def test_the_other_commands_print_no_traceback(tmp_path: Path) -> None:
    done = shell("python -m moextend.bench.perf --size mit", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


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
    "scores-folder": ("scores.jsonl", None),
    "facts": ("facts.json", '{"majority": {"tiny-counting": "x"}}'),
    "status": ("status.json", '{"state": "running", "phase": [1], "left": NaN}'),
    "cost": ("stages/1-tiny-attributes/cost.json", '{"seconds": "long", "flops": []}'),
    "routing": ("stages/1-tiny-attributes/routing.json", '{"tasks": 5}'),
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


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes every write below a folder fail as a file system does that is mounted read-only."""

    def lock(folder: Path) -> None:
        def refuses(real: Callable[..., Any], writes: Callable[..., object]) -> Callable[..., Any]:
            def call(path: Any, *rest: Any, **named: Any) -> Any:
                inside = isinstance(path, str | os.PathLike) and Path(path).absolute().is_relative_to(folder)
                if inside and writes(*rest, **named):
                    raise OSError(errno.EROFS, "Read-only file system", os.fspath(path))
                return real(path, *rest, **named)

            return call

        def by_mode(mode: str = "r", *_: object, **__: object) -> set[str]:
            return set(mode) & set("wax+")

        monkeypatch.setattr(io, "open", refuses(io.open, by_mode))
        monkeypatch.setattr("builtins.open", refuses(open, by_mode))
        by_flags = refuses(os.open, lambda flags, *_, **__: flags & (os.O_WRONLY | os.O_RDWR))
        monkeypatch.setattr(os, "open", by_flags)
        for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "utime", "chmod", "truncate"):
            monkeypatch.setattr(os, name, refuses(getattr(os, name), lambda *_, **__: True))

    return lock


def test_runs_of_a_read_only_file_system_are_shown_and_reported(
    cli: Cli, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    assert cli("bench", "run", "-m", "lora,ewc").code == 0
    read_only(tmp_path / "runs")
    for command in (
        ["status"], ["status", "lora-s0"], ["report"], ["report", "matrix"], ["report", "costs"],
        ["report", "--baseline", "lora"],
    ):  # fmt: skip
        found = cli("bench", *command)
        assert found.code == 0 and "lora" in found.out, found.err
    assert cli("bench", "run", "-m", "lora").err == "1 of 1 run was done before.\n"
    found = cli("bench", "run", "-m", "replay")
    assert (
        found.code == 2 and "--workspace runs: cannot write to 'runs' (Read-only file system)." in found.err
    )
    assert len(found.err.splitlines()) == 1


def test_a_torn_or_broken_scores_line(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "lora")
    path = tmp_path / "runs/tiny/lora-s0/scores.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"stage": 3, "ta')
    assert cli("bench", "report").code == 0
    path.write_text("nonsense\n" + whole)
    found = cli("bench", "report")
    assert found.code == 2
    assert "scores.jsonl:1: not valid JSON" in found.err


def test_a_run_with_a_changed_score_is_shown_as_damaged(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "lora,ewc")
    path = tmp_path / "runs/tiny/lora-s0/scores.jsonl"
    path.write_text(path.read_text().replace('"value": 10.0', '"value": 11.0', 1))
    found = cli("bench", "status")
    states = [line.split()[2] for line in found.out.splitlines() if " 0 " in line]
    assert states == ["done", "damaged"]
    assert "lora-s0 is damaged: runs/tiny/lora-s0/scores.jsonl:1: " in found.out


def test_a_full_disk_ends_with_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = cli("bench", "run", "-m", "lora")
    assert found.code == 1
    assert "no disk space left. Free some space and run the same command again." in found.err


def test_a_config_of_a_later_version_is_named_in_every_view(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "lora")
    path = tmp_path / "runs/tiny/lora-s0/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": VERSION + 1}))
    for command in ("status", "report"):
        found = cli("bench", command)
        message = " ".join((found.out + found.err).split())
        assert f"has schema_version {VERSION + 1}" in message and "Update moextend" in message
        assert "Traceback" not in message

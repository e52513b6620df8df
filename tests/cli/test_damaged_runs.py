"""Damaged and read-only runs, full disks and closed pipes on the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moextend.util.spec import VERSION
from tests.cli.conftest import Cli


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


def test_a_damaged_run_does_not_hide_the_others(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "lora,ewc,replay")
    folder = tmp_path / "runs/tiny"
    (folder / "ewc-s0/config.json").write_text("{")
    (folder / "replay-s0/scores.jsonl").write_text("nonsense\n")
    found = cli("bench", "status")
    assert found.code == 0, found.err
    assert " done " in found.out and "ewc-s0 is damaged: " in found.out
    assert "replay-s0 is damaged: " in found.out and found.out.count("  damaged ") == 1
    states = {run["run"]: run["state"] for run in cli("bench", "status", "--json").json()}
    assert states == {"ewc-s0": "damaged", "lora-s0": "done", "replay-s0": "damaged"}
    for options in ((), ("--baseline", "zero-shot"), ("matrix",), ("costs",)):
        found = cli("bench", "report", *options)
        assert found.code == 0, found.err
        words = " ".join(found.out.split())
        assert "lora" in words
        if options in ((), ("--baseline", "zero-shot")):
            assert "ewc-s0 (damaged: " in words and "replay-s0 (damaged: " in words
    one = cli("bench", "status", "replay-s0")
    assert one.code == 0 and "scores.jsonl:1: not valid JSON" in " ".join(one.out.split())


def test_a_run_with_a_changed_score_is_shown_as_damaged(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "lora,ewc")
    path = tmp_path / "runs/tiny/lora-s0/scores.jsonl"
    path.write_text(path.read_text().replace('"value": 10.0', '"value": 11.0', 1))
    found = cli("bench", "status")
    states = [line.split()[2] for line in found.out.splitlines() if " 0 " in line]
    assert states == ["done", "damaged"]
    assert "lora-s0 is damaged: runs/tiny/lora-s0/scores.jsonl:1: " in found.out


def test_runs_that_may_only_be_read_are_reported(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "lora")
    folder = tmp_path / "runs"
    made = [path for path in [folder, *folder.rglob("*")] if path.is_dir()]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in made:
        path.chmod(0o555)
    try:
        for command in ("status", "report"):
            assert cli("bench", command).code == 0
        assert cli("bench", "run", "-m", "lora").err == "1 of 1 run was done before.\n"
    finally:
        for path in made:
            path.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_full_disk_ends_with_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = cli("bench", "run", "-m", "lora")
    assert found.code == 1
    assert "no disk space left. Free some space and run the same command again." in found.err


def test_output_into_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m moextend bench list -w {tmp_path} --json | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_a_config_of_a_later_version_is_named_in_every_view(cli: Cli, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "lora")
    path = tmp_path / "runs/tiny/lora-s0/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": VERSION + 1}))
    for command in ("status", "report"):
        found = cli("bench", command)
        message = " ".join((found.out + found.err).split())
        assert f"has schema_version {VERSION + 1}" in message and "Update moextend" in message
        assert "Traceback" not in message

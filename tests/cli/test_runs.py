"""run, status and report from the command line, with a worker that computes nothing."""

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from moextend.bench.run.progress import read_status
from moextend.bench.run.rundir import RunDir, find_runs
from tests.cli.conftest import Cli


def test_run_learns_all_methods_and_prints_the_report(cli: Cli, tmp_path: Path) -> None:
    found = cli("bench", "run", "-m", "lora", "-m", "moextend:scope=own", "--seed", "0,1")
    assert found.code == 0, found.err
    lines = [" ".join(line.split()) for line in found.out.splitlines()]
    place = next(i for i, line in enumerate(lines) if line.startswith("lora none 80.5 "))
    assert "Seeds: 0, 1." in lines and "±0.7" in lines[place], found.out
    assert any(line.startswith("moextend:scope=own given ") for line in lines)
    assert "lora-s1: done in" in found.err
    names = [run.folder.name for run in find_runs(tmp_path / "runs")]
    assert names == ["lora-s0", "lora-s1", "moextend+scope-own-s0", "moextend+scope-own-s1"]


def test_the_closing_table_has_the_style_of_the_workspace(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "report.yaml").write_text(
        "methods: {lora: LoRA}\nprecision: 2\ntables: {forgetting: {columns: [acc]}}\n"
    )
    found = cli("bench", "run", "-m", "ewc", "-m", "lora")
    lines = [line.split() for line in found.out.splitlines()]
    rows = [line for line in lines if line and line[0] in ("LoRA", "ewc")]
    assert [row[0] for row in rows] == ["LoRA", "ewc"]
    assert all(len(row) == 2 and re.fullmatch(r"\d+\.\d\d", row[1]) for row in rows), found.out
    (tmp_path / "report.yaml").write_text("precison: 2\n")
    wrong = cli("bench", "run", "-m", "replay")
    assert wrong.code == 2 and "report.yaml: precison: no such key." in wrong.err
    assert not (tmp_path / "runs/tiny/replay-s0").exists(), "it is refused before a run"


def test_prepare_makes_folders_for_workers_of_a_scheduler(cli: Cli, tmp_path: Path) -> None:
    found = cli("bench", "run", "-m", "lora,ewc", "--prepare")
    folders = [Path(line) for line in found.out.splitlines()]
    assert [folder.name for folder in folders] == ["lora-s0", "ewc-s0"] and found.code == 0
    assert all(read_status(folder).state == "waiting" for folder in folders), "nothing starts"
    assert json.loads(cli("bench", "run", "-m", "lora,ewc", "--prepare", "--json").out) == [
        *map(str, folders)
    ]
    assert cli("bench", "run", "-m", "lora").code == 0
    assert cli("bench", "run", "-m", "lora,ewc", "--prepare").out.split() == [str(folders[1])]


def test_a_second_run_computes_nothing_again(cli: Cli, tmp_path: Path) -> None:
    first = cli("bench", "run", "-m", "lora")
    scores = tmp_path / "runs/tiny/lora-s0/scores.jsonl"
    before = scores.stat().st_mtime_ns
    second = cli("bench", "run", "-m", "lora")
    assert second.out == first.out
    assert second.err == "1 of 1 run was done before.\n"
    assert scores.stat().st_mtime_ns == before
    command = ("bench", "run", "-m", "lora,ewc", "--dry-run")
    done, other = cli(*command).out.splitlines()[1:3]
    assert re.search(r"lora-s0: .*; done: all \d+ cells are scored$", done), done
    assert re.search(r"ewc-s0: .*; \d+ cells to score$", other), other
    scores.write_text("".join(scores.read_text().splitlines(keepends=True)[:-2]))
    total = cli(*command, "--json").json()["runs"][0]["cells"]
    assert f"; 2 of {total} cells to score" in cli(*command).out


def test_a_done_run_that_lacks_something_is_repaired(cli: Cli, tmp_path: Path) -> None:
    first = cli("bench", "run", "-m", "lora")
    scores = tmp_path / "runs/tiny/lora-s0/scores.jsonl"
    whole = scores.read_text().splitlines()
    scores.write_text("\n".join(whole[:8]) + "\n")
    assert "lora-s0 lacks the score of" in " ".join(cli("bench", "report").out.split())
    second = cli("bench", "run", "-m", "lora")
    assert second.code == 0, second.err
    assert "lora-s0 was done, but lacks the score of " in second.err and "It is computed again." in second.err
    assert second.out == first.out and len(scores.read_text().splitlines()) == len(whole)
    assert cli("bench", "run", "-m", "lora").err == "1 of 1 run was done before.\n"


def test_a_failed_run_is_named_and_the_others_are_reported(cli: Cli, tmp_path: Path) -> None:
    found = cli("bench", "run", "-m", "full-ft,lora")
    assert found.code == 1
    assert "full-ft-s0 failed: stage 2: the loss is not finite. Lower the learning rate." in found.err
    assert "finished results are kept" in found.err
    lora = [line for line in found.out.splitlines() if line.strip().startswith("lora")]
    assert len(lora) == 1
    assert "full-ft-s0 (failed: the loss is not finite.)" in " ".join(found.out.split())
    assert len(RunDir(tmp_path / "runs/tiny/full-ft-s0").cells()) == 2 * 8
    alone = cli("bench", "run", "-m", "full-ft")
    assert (alone.code, alone.out) == (1, ""), "no table"


def test_a_run_that_another_process_works_on_is_no_wrong_input(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "busy")
    found = cli("bench", "run", "-m", "lora")
    assert found.code == 1 and "lora-s0 failed: runs/tiny/lora-s0: it is busy. Repair it.\n" in found.err
    assert "The same command computes the rest" in found.err
    monkeypatch.setenv("FAKE", "wrong")
    found = cli("bench", "run", "-m", "ewc")
    assert found.code == 2 and "Fix this, and repeat the command" in found.err, (
        "what a worker finds is wrong input"
    )


def test_a_killed_worker_loses_nothing(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE", "killed")
    found = cli("bench", "run", "-m", "lora")
    assert found.code == 1
    run = RunDir(tmp_path / "runs/tiny/lora-s0")
    assert f"{run.log}: the worker was killed by SIGKILL" in found.err
    assert len(run.cells()) == 2 * 8
    monkeypatch.delenv("FAKE")
    assert cli("bench", "run", "-m", "lora").code == 0
    assert len((run.folder / "scores.jsonl").read_text().splitlines()) == 4 * 8


def test_another_config_in_the_same_folder_is_refused_before_anything_starts(
    cli: Cli, tmp_path: Path
) -> None:
    assert cli("bench", "run", "-m", "lora").code == 0
    found = cli("bench", "run", "-m", "lora", "--steps", "7")
    assert found.code == 2
    assert "lora-s0: holds a run of another config (sequence." in found.err
    assert "7 now" in found.err
    assert "Traceback" not in found.err
    shutil.move(tmp_path / "runs", tmp_path / "other")
    assert cli("bench", "run", "-m", "lora", "--steps", "7").code == 0
    assert cli("bench", "report", "other", "runs").code == 0


def test_a_run_held_by_another_process_is_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "killed")
    cli("bench", "run", "-m", "lora")
    with RunDir(tmp_path / "runs/tiny/lora-s0").lock():
        found = cli("bench", "run", "-m", "lora")
    assert found.code == 2
    assert f"another process is working on this run (process {os.getpid()} on" in found.err


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE", "slow")
    status = tmp_path / "runs/tiny/lora-s0/status.json"

    def interrupt() -> None:
        while not status.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    found = cli("bench", "run", "-m", "lora")
    assert found.code == 130
    assert found.err.endswith("interrupted; the same command continues where it stopped.\n")
    assert read_status(tmp_path / "runs/tiny/lora-s0").state == "interrupted"


def test_joint_and_independent_runs_are_bounds(cli: Cli) -> None:
    found = cli("bench", "run", "-m", "lora", "-m", "joint:lora", "-m", "individual:lora")
    assert found.code == 0, found.err
    assert "joint, lora" in found.out
    assert "each alone, lora" in found.out


def test_status_lists_runs_and_shows_one(cli: Cli, tmp_path: Path) -> None:
    assert "No runs in runs. Start one" in cli("bench", "status").out
    cli("bench", "run", "-m", "full-ft,lora")
    found = cli("bench", "status")
    assert found.code == 0
    assert "the loss is not finite." in found.out
    states = {run["run"]: run["state"] for run in cli("bench", "status", "--json").json()}
    assert states == {"full-ft-s0": "failed", "lora-s0": "done"}
    one = cli("bench", "status", "full-ft-s0")
    assert "error: stage 2: the loss is not finite. Lower the learning rate." in one.out
    assert "1 tiny-attributes" in one.out
    assert cli("bench", "status", "nothing").code == 2


def test_report_formats_and_files(cli: Cli, tmp_path: Path) -> None:
    empty = cli("bench", "report")
    assert empty.code == 2
    assert "no run is done. Run first: moextend bench run, or" in empty.err
    cli("bench", "run", "-m", "full-ft,lora")
    assert "| lora | none |" in cli("bench", "report", "-f", "markdown").out
    assert cli("bench", "report", "-f", "latex").out.startswith("% needs")
    assert cli("bench", "report", "matrix", "-f", "csv").out.startswith("sequence,run,method")
    assert "full-ft*" in cli("bench", "report", "--unfinished").out
    assert "0 base" in cli("bench", "report", "matrix", "lora-s0").out
    found = cli("bench", "report", "-f", "markdown", "--out", "pages")
    assert found.out.split()[1::2] == [f"pages/{view}.md" for view in ("forgetting", "matrix", "costs")]
    assert "tiny: costs" in cli("bench", "report", "costs").out
    refused = cli("bench", "report", "routing")
    assert refused.code == 2 and "report routing: no run has records of its routing." in refused.err
    assert "items not kept" in cli("bench", "report", "--baseline", "zero-shot", "--margin", "2").out
    cli("bench", "report", "-f", "csv", "--out", "t.csv")
    assert (tmp_path / "t.csv").read_text().startswith("table,method")


def test_references_stand_below_the_report_and_only_below_their_own_protocol(
    cli: Cli, tmp_path: Path
) -> None:
    alone = cli("bench", "report", "--references", "moextend-text,moextend-vision", "-f", "markdown")
    assert alone.code == 0 and "| MoExtend | published | 93.12 |" in alone.out, alone.err
    cli("bench", "run", "-m", "lora")
    refused = cli("bench", "report", "--references", "coin")
    assert refused.code == 2 and len(refused.err.splitlines()) == 1
    assert "sequence 'tiny' follows no published protocol, the published numbers follow 'coin'" in refused.err
    mixed = cli("bench", "report", "--references", "coin", "--references", "coin-hide")
    assert mixed.code == 2 and "references of several protocols: coin, coin-hide." in mixed.err


def test_methods_are_matched_and_reported(cli: Cli) -> None:
    found = cli("bench", "run", "-m", "lora,full-ft", "--match", "params=moextend:layers=all", "--dry-run")
    assert found.code == 0 and "lora+rank-12-s0" in found.out, found.err
    assert "full-ft: left as it is, it has no rank; " in found.err and "NOT matched within 10%" in found.err

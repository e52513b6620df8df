"""`bench run --executor`, `bench status` and `bench cancel`, with commands of Slurm that are written down."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from moextend.bench.executors.executor import read_job
from moextend.bench.run.progress import cancelled, read_status
from moextend.util import content
from tests.bench.executors.conftest import calls, slurm
from tests.cli.conftest import Cli

__all__ = ["slurm"]

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "schedulers.md"
SLURM = ("bench", "run", "-x", "slurm", "-o", "partition=gpu")


def run_folder(tmp_path: Path, name: str = "lora-s0") -> Path:
    return tmp_path / "runs" / "tiny" / name


def test_a_dry_run_prints_the_script_and_submits_nothing(cli: Cli, slurm: Path, tmp_path: Path) -> None:
    found = cli(
        *SLURM, "-m", "lora,ewc", "--seed", "0,1", "--jobs", "2", "-o", "setup=module load x", "--dry-run"
    )
    assert found.code == 0 and "#SBATCH --array=1-4%2\n#SBATCH --output=" in found.out
    assert "\nmodule load x\n" in found.out and "#SBATCH --partition=gpu\n" in found.out
    assert f"#   {run_folder(tmp_path)}\n" in found.out
    assert not (tmp_path / "runs").exists() and not any("sbatch" in call for call in calls(slurm))
    assert json.loads(cli(*SLURM, "--dry-run", "--json").out)["sequence"] == "tiny"


def test_runs_for_cuda_ask_for_a_gpu(cli: Cli, slurm: Path) -> None:
    dry = (*SLURM, "-m", "lora", "--device", "cuda", "--dry-run")
    assert "#SBATCH --gres=gpu:1\n" in cli(*dry).out
    assert "#SBATCH --gres=gpu:2\n" in cli(*dry, "-o", "gpus=2").out
    assert "--gres" not in cli(*dry, "-o", "gpus=0").out
    assert "#SBATCH --gres=gpu:a100:1\n" in cli(*dry, "-o", "gres=gpu:a100:1").out


def test_runs_are_submitted_once(cli: Cli, slurm: Path, tmp_path: Path) -> None:
    found = cli(*SLURM, "-m", "lora,ewc")
    assert (found.code, found.out) == (0, "")
    assert found.err.splitlines() == [
        "tiny/lora-s0: slurm 101_1",
        "tiny/ewc-s0: slurm 101_2",
        "Submitted 2 runs. Their progress: moextend bench status.",
    ]  # fmt: skip
    (slurm / "queue").write_text("101_1|RUNNING\n101_2|PENDING\n")
    calls(slurm)
    again = cli(*SLURM, "-m", "lora,ewc")
    assert again.code == 0 and again.out == "" and not any("sbatch" in call for call in calls(slurm))
    assert again.err.splitlines() == [
        "tiny/lora-s0 is running (slurm 101_1), and is not submitted again.",
        "tiny/ewc-s0 is queued (slurm 101_2), and is not submitted again.",
    ]
    more = cli("bench", "run", "-m", "lora,ewc,replay")
    assert more.code == 0 and read_status(run_folder(tmp_path, "replay-s0")).state == "done", more.err
    assert "tiny/ewc-s0 is queued (slurm 101_2)" in more.err, "this machine leaves them alone too"
    (slurm / "queue").write_text("101_1|RUNNING\n")
    status = [line.split()[:3] for line in cli("bench", "status").out.splitlines()]
    assert ["ewc", "0", "lost"] in status and ["lora", "0", "running"] in status
    calls(slurm)
    assert "tiny/ewc-s0: slurm 102_1\n" in cli(*SLURM, "-m", "ewc").err, "a lost one is submitted again"


def test_a_state_of_the_queue_is_shown(cli: Cli, slurm: Path, tmp_path: Path) -> None:
    cli(*SLURM, "-m", "lora")
    (slurm / "queue").write_text("101_1|PENDING\n")
    assert "queued" in cli("bench", "status").out
    assert "job: slurm 101_1, queued\n" in cli("bench", "status", "lora-s0").out
    (record,) = json.loads(cli("bench", "status", "--json").out)
    assert (
        record["state"] == "waiting" and record["job"]["state"] == "queued" and record["job"]["id"] == "101_1"
    )


def test_a_machine_without_sbatch_is_one_error(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = cli(*SLURM, "-m", "lora")
    assert found.code == 2 and "sbatch is not on the PATH" in found.err
    assert not (tmp_path / "runs").exists()
    assert cli(*SLURM, "-m", "lora", "--dry-run").code == 0
    monkeypatch.setenv("WORLD_SIZE", "2")  # each process of a launcher would execute all runs
    found = cli("bench", "run", "-m", "lora")
    assert found.code == 2 and "--prepare, and launch moextend-worker FOLDER" in found.err
    assert cli("bench", "run", "-m", "lora", "--prepare").out == f"{run_folder(tmp_path)}\n"


def test_a_refused_script_is_one_error(cli: Cli, slurm: Path, tmp_path: Path) -> None:
    (slurm / "refuse").write_text("sbatch: error: invalid partition specified: gpu\n")
    found = cli(*SLURM, "-m", "lora")
    assert found.code == 2 and "sbatch refuses the job: invalid partition specified: gpu." in found.err
    assert read_job(run_folder(tmp_path)) is None
    for wrong in ("address=x", "array=3"):
        assert cli(*SLURM, "-m", "ewc", "-o", wrong).code == 2 and not run_folder(tmp_path, "ewc-s0").exists()


def test_status_shows_the_last_lines_of_the_worker_and_of_the_script(
    cli: Cli, slurm: Path, tmp_path: Path
) -> None:
    cli(*SLURM, "-m", "lora")
    assert "log: " not in cli("bench", "status", "lora-s0").out
    folder = run_folder(tmp_path)
    long = b"".join(b"line %d\n" % i for i in range(50_000))
    (folder / "worker.log").write_bytes(long + b"10%\r20%\rtwo \x1b[2J\nthree \xff\n")
    job = read_job(folder)
    assert job
    Path(job.log).write_text("module: not found")
    found = cli("bench", "status", str(folder)).out.splitlines()
    (start,) = [place for place, line in enumerate(found) if line.startswith("log: ")][:1]
    assert found[start + 1] == "  line 49982"
    assert found[start + 19 : start + 23] == [
        "  two \\x1b[2J", "  three \ufffd", f"log: {job.log}", "  module: not found",
    ]  # fmt: skip


def test_a_sequence_is_cancelled(cli: Cli, slurm: Path, tmp_path: Path) -> None:
    cli("bench", "run", "-m", "ewc")
    cli(*SLURM, "-m", "lora,ewc,replay")
    (slurm / "queue").write_text("101_1|PENDING\n101_2|RUNNING\n")
    calls(slurm)
    found = cli("bench", "cancel", "tiny")
    assert found.code == 0 and found.out.splitlines() == [
        "tiny/ewc-s0: not cancelled: done", "tiny/lora-s0: cancelled", "tiny/replay-s0: stops",
    ]  # fmt: skip
    assert "scancel --state=PENDING 101_1 101_2" in calls(slurm)
    (slurm / "queue").write_text("")
    assert re.search(r"lora +0 +cancelled", cli("bench", "status").out)
    assert cancelled(run_folder(tmp_path))
    assert cli("bench", "run", "-m", "lora").code == 0, "it is run again when asked for"
    assert not cancelled(run_folder(tmp_path)) and read_status(run_folder(tmp_path)).state == "done"
    assert cli("bench", "cancel", "nothing").code == 2


def test_the_commands_of_the_page_work(cli: Cli, slurm: Path, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    tiny = (content.package_folder("registry") / "tiny.yaml").read_text()
    (tmp_path / "registry" / "mine.yaml").write_text(tiny.replace("sequence: tiny", "sequence: mine"))
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in lines:
        words = shlex.split(line.partition(">")[0], comments=True)
        if words[0] == "moextend" and "ray" not in words:  # which needs a cluster
            done = cli(*words[1:])
            assert done.code == 0, f"{line}\n{done.err}"
    assert len(lines) >= 7 and (tmp_path / "runs" / "mine" / "lora-s0" / "job.json").exists()
